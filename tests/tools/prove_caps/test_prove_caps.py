"""Each verdict, reached by processes that really hold memory of simulated GPUs."""

import contextlib
import json
import os
import pwd
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result

from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.core import caps
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.simulated import SimulatedSource, create_devices
from jupyterhub_gpuworkshop.tools.doctor.catalogue import CHECKS
from jupyterhub_gpuworkshop.tools.doctor.check import Check, Status
from jupyterhub_gpuworkshop.tools.prove_caps import (
    _ON_GPUS,
    _SIMULATED,
    ProofOptions,
    environment,
    prove_caps,
)
from jupyterhub_gpuworkshop.tools.prove_caps.reading import read_devices
from jupyterhub_gpuworkshop.workshop import Workshop
from tests.simulated_kernel import ROOT, SimulatedKernel

from .fakes import write_fakes

Prove = Callable[..., list[Check]]
ME = pwd.getpwuid(os.geteuid()).pw_name
SETTINGS_CAP = ("torch", "tensorflow", "jax", "cupy")


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    create_devices(tmp_path / "gpus", 1, 16 * GIB)
    return tmp_path / "gpus"


@pytest.fixture
def prove(tmp_path: Path, state_dir: Path, python: str) -> Prove:
    """Return what proves frameworks, as the user who runs the tests."""
    path = f"{write_fakes(tmp_path / 'site')}:{ROOT}"

    def prove(
        *frameworks: str,
        fault: str = "",
        gpus: Mapping[str, object] | None = None,
        limit_seconds: float = 120,
        **options: object,
    ) -> list[Check]:
        workshop = simulated(state_dir, **(gpus or {}))
        variables = {
            "PYTHONPATH": path,
            "PYTHONDONTWRITEBYTECODE": "1",
            "FAKE_FAULT": fault,
            "FAKE_PIDS": str(tmp_path / "pids"),
        }
        given = ProofOptions(
            python=python,
            as_user=ME,
            environment=variables,
            frameworks=frameworks or None,
            limit_seconds=limit_seconds,
            **options,  # type: ignore[arg-type]
        )
        checks = list(prove_caps(workshop, given))
        assert SimulatedSource(state_dir).sample()[0].processes == ()
        return checks

    return prove


def simulated(state_dir: Path, **gpus: object) -> Workshop:
    where = {"source": "simulated", "simulated_dir": str(state_dir)}
    return Workshop.load({"gpus": {**where, **gpus}})


def only(checks: list[Check]) -> Check:
    (check,) = checks
    return check


# -- the verdicts


def test_simulated_gpus_prove_simcuda(prove: Prove) -> None:
    check = only(prove())
    assert (check.check, check.status) == ("caps.simcuda", Status.OK)
    assert check.finding == (
        "soft: holds until unset: simcuda computed right, and with a cap of 3.1 GiB "
        "(share 1/5, GPU 0) got 3.1 GiB and no more; the device counted 3.1 GiB for "
        "the process. Without the settings it got 3.4 GiB, where the trial ended. Two "
        "attendees at once got 3.1 GiB and 3.1 GiB."
    )


@pytest.mark.parametrize("framework", SETTINGS_CAP)
def test_a_framework_that_keeps_to_its_settings_holds_until_they_are_unset(
    prove: Prove, framework: str
) -> None:
    check = only(prove(framework))
    assert check.status is Status.OK, check
    assert check.finding.startswith(f"soft: holds until unset: {framework} ")
    assert "got 3.1 GiB and no more" in check.finding
    assert "Without the settings it got 3.4 GiB" in check.finding
    assert "Two attendees at once got 3.1 GiB and 3.1 GiB." in check.finding


def test_a_framework_that_knows_no_cap_does_not_hold(prove: Prove) -> None:
    check = only(prove("cudf"))
    assert check.status is Status.WARN
    assert check.finding.startswith("does not hold: cudf 99.12.0 computed right")
    assert "got 3.4 GiB and could have had more" in check.finding
    assert "No setting is known that caps cudf" in check.remedy


def test_what_refuses_without_any_setting_holds(prove: Prove) -> None:
    check = only(prove("cudf", fault="is hard"))
    assert (check.status, check.finding[:12]) == (Status.OK, "holds: cudf ")
    assert "Without the settings it got 2.7 GiB and no more." in check.finding


@pytest.mark.parametrize("framework", ["jax", "cupy"])
def test_without_the_variables_these_do_not_hold(
    prove: Prove, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grow = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    monkeypatch.setattr(caps, "framework_variables", lambda lease: grow)
    check = only(prove(framework))
    assert (check.status, check.finding[:13]) == (Status.FAIL, "does not hold")


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_without_the_hook_these_do_not_hold(
    prove: Prove, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "with_memory_hook", lambda env, folder: env)
    check = only(prove(framework))
    assert (check.status, check.finding[:13]) == (Status.FAIL, "does not hold")
    assert "The import hook did not run" in check.remedy


def test_a_share_of_a_whole_gpu_has_nothing_to_reach(prove: Prove) -> None:
    check = only(prove("torch", gpus={"attendees_per_gpu": 1}))
    assert (check.status, check.finding[:6]) == (Status.OK, "holds:")
    assert "one share leaves no room for a second" in check.finding


# -- what goes wrong


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        ("blind", Status.WARN, "torch 2.99.0 sees no GPU"),
        ("sees more", Status.FAIL, "sees 2 GPUs, and the lease names 1"),
        ("miscalculates", Status.FAIL, "computes wrong on GPU 0: a small product came"),
        ("is broken", Status.FAIL, "`block` failed: ValueError: no kernel image is"),
        ("dies", Status.FAIL, "with signal 9. Its last words: the driver is gone"),
        ("refuses early", Status.FAIL, "got 1 GiB and no more"),
        ("refuses its second", Status.FAIL, "Two attendees at once got"),
        ("prints", Status.OK, "soft: holds until unset"),
    ],
)
def test_what_a_framework_gets_wrong_is_said(
    prove: Prove, fault: str, status: Status, said: str
) -> None:
    check = only(prove("torch", fault=fault))
    assert check.status is status, check
    assert said in check.finding
    assert bool(check.remedy) is (status is not Status.OK)


def test_a_framework_that_hangs_is_killed_with_its_children(
    prove: Prove, tmp_path: Path
) -> None:
    check = only(prove("torch", fault="hangs", limit_seconds=30))
    assert check.status is Status.FAIL
    assert "`start` had not answered after 30 s" in check.finding
    pids = [int(x) for x in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            # A child's zombie is its new parent's to bury.
            assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_what_is_not_installed_is_skipped(prove: Prove, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "site" / "torch")
    check = only(prove("torch"))
    assert check.status is Status.SKIP, check
    assert "torch is not installed in " in check.finding


def test_one_framework_that_fails_does_not_keep_the_next_from_its_turn(
    prove: Prove,
) -> None:
    checks = prove("torch", "simcuda", fault="dies")
    assert [x.status for x in checks] == [Status.FAIL, Status.OK]


# -- whom it disturbs


def test_a_gpu_in_use_is_left_alone(prove: Prove, state_dir: Path, python: str) -> None:
    with SimulatedKernel(python, state_dir) as attendee:
        attendee.run("weights = simcuda.allocate('1GiB')")
        options = ProofOptions(python=python, as_user=ME)
        check = only(list(prove_caps(simulated(state_dir), options)))
        assert (check.check, check.status) == ("caps.gpu", Status.SKIP)
        assert f"GPU 0 is in use by process {attendee.pid}" in check.finding
        assert attendee.run("simcuda.held_bytes()") == GIB


def test_with_force_it_goes_on_within_the_memory_that_is_free(
    state_dir: Path, python: str
) -> None:
    workshop = simulated(state_dir)
    path = {"PYTHONPATH": str(ROOT)}
    options = ProofOptions(python=python, as_user=ME, force=True, environment=path)
    with SimulatedKernel(python, state_dir) as attendee:
        attendee.run("weights = simcuda.allocate('1GiB')")
        assert only(list(prove_caps(workshop, options))).status is Status.OK
        attendee.run("more = simcuda.allocate('12GiB')")
        check = only(list(prove_caps(workshop, options)))
        assert check.status is Status.SKIP
        assert "has 3 GiB free, and the proof needs 6.2 GiB" in check.finding
        assert attendee.run("simcuda.held_bytes()") == 13 * GIB


def test_another_gpu_is_taken_where_one_is_in_use(tmp_path: Path, python: str) -> None:
    create_devices(tmp_path / "two", 2, 16 * GIB)
    workshop = simulated(tmp_path / "two")
    options = ProofOptions(
        python=python, as_user=ME, environment={"PYTHONPATH": str(ROOT)}
    )
    with SimulatedKernel(python, tmp_path / "two") as attendee:
        attendee.run("weights = simcuda.allocate('1GiB')")
        check = only(list(prove_caps(workshop, options)))
        assert check.status is Status.OK
        assert "GPU 1" in check.finding


# -- which Python, and as whom


def test_without_a_python_it_is_that_of_the_kernel(
    state_dir: Path, tmp_path: Path
) -> None:
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text(
        '{"argv": ["/nowhere/python", "-m", "x"], "display_name": "x", '
        '"env": {"A": "${USER}"}}'
    )
    workshop = simulated(state_dir)
    options = ProofOptions(
        as_user=ME, environment={"JUPYTER_PATH": str(tmp_path / "jupyter")}
    )
    check = only(list(prove_caps(workshop, options)))
    assert check.status is Status.FAIL
    assert "cannot run /nowhere/python: No such file or directory" in check.finding


def test_a_python_may_be_named_from_the_current_folder(
    state_dir: Path, python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(python)
    monkeypatch.chdir(tmp_path)
    options = ProofOptions(
        python="bin/python", as_user=ME, environment={"PYTHONPATH": str(ROOT)}
    )
    check = only(list(prove_caps(simulated(state_dir), options)))
    assert check.status is Status.OK, check


def test_a_python_that_is_not_there_is_told_with_what_to_do(state_dir: Path) -> None:
    workshop = simulated(state_dir)
    options = ProofOptions(python=str(state_dir / "python"), as_user=ME)
    check = only(list(prove_caps(workshop, options)))
    assert check.status is Status.FAIL
    assert "No such file or directory" in check.finding


def test_a_user_who_is_not_there_is_told_with_what_to_do(state_dir: Path) -> None:
    options = ProofOptions(as_user="nobody-at-all")
    check = only(list(prove_caps(simulated(state_dir), options)))
    assert (check.check, check.status) == ("caps.python", Status.FAIL)
    assert "There is no Unix user 'nobody-at-all'" in check.remedy


# -- on the command line


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *arguments])


def test_the_doctor_proves_caps_after_all_else(
    tmp_path: Path, state_dir: Path, python: str
) -> None:
    file = tmp_path / "workshop.yaml"
    file.write_text(f"gpus: {{source: simulated, simulated_dir: {state_dir}}}")
    result = doctor(
        str(file), "--json", "--prove-caps", "--python", python, "--as-user", ME
    )
    checks = json.loads(result.stdout)
    assert len(checks) > 1
    (proven,) = [each for each in checks if each["check"].startswith("caps.")]
    assert proven == checks[-1]
    assert proven["check"] == "caps.simcuda"
    assert proven["status"] == "ok"
    assert proven["finding"].startswith("soft: holds until unset: simcuda computed")


def test_a_proof_that_breaks_takes_no_other_check_with_it(
    monkeypatch: pytest.MonkeyPatch, state_dir: Path, tmp_path: Path
) -> None:
    def breaks(*_: object) -> Iterator[Check]:
        yield Check("caps.torch", Status.OK, "soft")
        raise RuntimeError("a bug")

    monkeypatch.setattr("jupyterhub_gpuworkshop.tools.prove_caps.prove_caps", breaks)
    file = tmp_path / "workshop.yaml"
    file.write_text(f"gpus: {{source: simulated, simulated_dir: {state_dir}}}")
    result = doctor(str(file), "--json", "--prove-caps", "--python", "x")
    assert result.exit_code == 1
    *others, proven, broken = json.loads(result.stdout)
    assert "workshop.file" in {each["check"] for each in others}
    assert (proven["check"], broken["check"]) == ("caps.torch", "caps.python")
    assert "RuntimeError: a bug" in broken["finding"]


def test_modules_in_the_current_folder_are_not_run(
    monkeypatch: pytest.MonkeyPatch, state_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('theirs')")
    package = tmp_path / "jupyterhub_gpuworkshop"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('theirs')")
    monkeypatch.chdir(tmp_path)
    assert len(read_devices(simulated(state_dir)).samples) == 1


@pytest.mark.parametrize("option", [["--python", "x"], ["--as-user", "x"], ["--force"]])
def test_options_of_the_proof_need_the_proof(option: list[str]) -> None:
    result = doctor(*option)
    assert result.exit_code == 2
    assert "belong to --prove-caps" in result.stderr


def test_every_check_of_a_proof_is_in_the_catalogue() -> None:
    names = {f"caps.{x}" for x in ("gpu", "python", *_ON_GPUS, *_SIMULATED)}
    assert names == {x for x in CHECKS if x.startswith("caps.")}
