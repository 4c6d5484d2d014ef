"""`gpuworkshop doctor` as a whole, on this machine, with and without GPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.core.errors import WorkshopFileError
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.examination import ABSENT, Examination
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from jupyterhub_gpuworkshop.tools.doctor import DoctorOptions, examine_all, patient
from jupyterhub_gpuworkshop.tools.doctor.catalogue import CHECKS
from jupyterhub_gpuworkshop.tools.doctor.check import Check, Status
from jupyterhub_gpuworkshop.tools.doctor.reading import driver as reading_driver
from jupyterhub_gpuworkshop.workshop import Workshop
from tests.hub.running_hub import RunningHub, wait_for
from tests.machine.conftest import nvml_library as nvml_library
from tests.machine.nvml_double import Scenario
from tests.machine.nvml_double.words import MISMATCH, gpu


@pytest.fixture(autouse=True)
def _nothing_of_this_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in a folder without a hub, and ask no engine."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-docker.sock")
    monkeypatch.delenv("JUPYTERHUB_API_TOKEN", raising=False)


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {each.check: each for each in checks}


@pytest.fixture
def simulated(tmp_path: Path) -> Path:
    create_devices(tmp_path / "gpus", 2, 16 * GIB)
    file = tmp_path / "workshop.yaml"
    file.write_text(
        "attendees: 4\n"
        "gpus: {source: simulated, simulated_dir: gpus}\n"
        "service: {port: 9}\n"
    )
    return file


def test_every_check_of_the_catalogue_is_made_once_and_no_other(
    simulated: Path,
) -> None:
    checks = examine_all(DoctorOptions(workshop_file=simulated))
    names = [each.check for each in checks]
    assert len(set(names)) == len(names)
    promised = [name for name in CHECKS if not name.startswith("caps.")]
    assert names == promised
    assert [each for each in checks if "itself broke" in each.finding] == []


def test_with_simulated_gpus_nothing_fails_and_no_driver_is_asked(
    simulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        reading_driver, "run_module", lambda *_, **__: pytest.fail("it was asked")
    )
    result = CliRunner().invoke(main, ["doctor", "--json", str(simulated)])
    checks = {each["check"]: each for each in json.loads(result.stdout)}
    failing = {k: v for k, v in checks.items() if v["status"] == "fail"}
    assert failing == {}
    assert result.exit_code == 0
    assert checks["gpus.driver"]["status"] == "skip"
    assert "simulated" in checks["gpus.driver"]["finding"]
    assert "4 places for 4 attendees" in checks["workshop.places"]["finding"]


def test_a_mistake_in_the_workshop_file_fails_one_check_and_ends_no_other(
    tmp_path: Path,
) -> None:
    file = tmp_path / "workshop.yaml"
    file.write_text("atendees: 4\n")
    result = CliRunner().invoke(main, ["doctor", str(file)])
    assert result.exit_code == 1
    assert "FAIL workshop.file" in result.stdout
    assert "atendees: there is no such key" in " ".join(result.stdout.split())
    assert "JupyterHub" in result.stdout
    assert "Traceback" not in result.output


def test_a_workshop_file_that_only_root_may_read_is_no_reason_to_miss_a_driver(
    simulated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(source: Any) -> Workshop:
        if source == {}:
            return Workshop()
        raise WorkshopFileError(f"{source}: this user may not read it.")

    monkeypatch.setattr(Workshop, "load", denied)
    monkeypatch.setattr(
        patient, "examine", lambda: Examination(problem="None.", trouble=ABSENT)
    )
    checks = by_name(examine_all(DoctorOptions(workshop_file=simulated)))
    for name in ("workshop.file", "gpus.driver"):
        assert checks[name].status is Status.SKIP
        assert checks[name].remedy == "$ sudo gpuworkshop doctor"


def test_every_failure_and_warning_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "workshop.yaml"
    file.write_text("gpus: {source: simulated, simulated_dir: nowhere}\nattendees: 90")
    for check in examine_all(DoctorOptions(workshop_file=file)):
        if check.status in (Status.FAIL, Status.WARN):
            assert check.remedy, check


@pytest.fixture
def double(nvml_library: Path, tmp_path: Path) -> Scenario:
    return Scenario(tmp_path, nvml_library)


def doctor(scenario: Scenario, *arguments: str) -> dict[str, Any]:
    """Run the command in a process whose children meet the double as their driver."""
    done = subprocess.run(  # noqa: S603 - our own command
        [
            sys.executable,
            "-m",
            "jupyterhub_gpuworkshop",
            "doctor",
            "--json",
            *arguments,
        ],
        env={**os.environ, **scenario.environment},
        capture_output=True,
        timeout=200,
    )
    checks = json.loads(done.stdout)
    fails = any(each["status"] == "fail" for each in checks)
    assert done.returncode == int(fails), done.stderr
    return {each["check"]: each for each in checks}


@pytest.mark.gcc
def test_a_gpu_in_exclusive_mode_fails_with_the_command_that_mends_it(
    double: Scenario,
) -> None:
    double.say(
        gpu("GPU-a"),
        gpu("GPU-b", minor=1),
        "set GPU-a persistence 1",
        "set GPU-b compute-mode 3",
        f"process GPU-a {os.getpid()} {3 * GIB} compute",
    )
    checks = doctor(double)
    assert checks["gpus.driver"]["status"] == "ok"
    assert "580.95.05" in checks["gpus.driver"]["finding"]
    assert checks["gpus.compute-mode"]["status"] == "fail"
    assert checks["gpus.compute-mode"]["remedy"] == "$ sudo nvidia-smi -i 1 -c DEFAULT"
    assert checks["gpus.persistence"]["status"] == "warn"
    assert "GPU 1 is" in checks["gpus.persistence"]["finding"]
    assert checks["gpus.foreign"]["status"] == "warn"
    assert f"process {os.getpid()}" in checks["gpus.foreign"]["finding"]
    assert checks["workshop.places"]["status"] == "ok"


@pytest.mark.gcc
def test_a_driver_that_was_upgraded_underneath_is_one_failure(
    double: Scenario,
) -> None:
    double.say(f"fail nvmlInitWithFlags * {MISMATCH}")
    checks = doctor(double)
    assert checks["gpus.driver"]["status"] == "fail"
    assert "reboot" in checks["gpus.driver"]["remedy"]
    others = {k: v["status"] for k, v in checks.items() if k.startswith("gpus.")}
    assert [k for k, v in others.items() if v == "fail"] == ["gpus.driver"]


@pytest.mark.gcc
def test_a_driver_that_hangs_does_not_hang_the_doctor(
    double: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    double.say(gpu("GPU-a"), "hang nvmlInitWithFlags")
    for name, value in double.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(reading_driver, "_EXAMINE_SECONDS", 8.0)
    seen = reading_driver.examine()
    assert seen.trouble == reading_driver.HANGS


@pytest.mark.hub
@pytest.mark.parametrize("own", [False, True], ids=["managed", "on-its-own"])
def test_a_hub_that_runs_is_asked_with_its_service(tmp_path: Path, own: bool) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    hub = RunningHub(folder, service=not own, workshop={"attendees": 8})
    try:
        hub.start()
        hub.add_users("ada")
        hub.spawn("ada")
        options = DoctorOptions(
            hub_config=folder / "jupyterhub_config.py",
            url=f"http://127.0.0.1:{hub.port}",
        )
        if own:
            checks = by_name(examine_all(options))
            assert checks["service.reachable"].status is Status.FAIL
            assert "systemctl restart gpuworkshop" in checks["service.reachable"].remedy
            assert checks["service.scopes"].status is Status.OK
            assert "token" in checks["service.scopes"].finding
        else:
            checks = wait_for(
                lambda: _once_looked(by_name(examine_all(options))), seconds=120
            )
            for name in CHECKS:
                if name.startswith("service."):
                    assert checks[name].status is Status.OK, checks[name]
            assert checks["service.servers"].finding == "It reaches all 1 servers."
        assert checks["hub.config"].status is Status.OK
        assert checks["hub.spawner"].status is Status.OK
        assert checks["address.reachable"].status is Status.OK
        assert checks["workshop.places"].status is Status.OK
    finally:
        hub.close()


def _once_looked(checks: dict[str, Check]) -> dict[str, Check] | None:
    """Return the checks once the service has asked the server that was started."""
    return checks if checks["service.servers"].status is not Status.SKIP else None
