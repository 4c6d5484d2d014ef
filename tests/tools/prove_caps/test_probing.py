"""A probe: one process, its answers, its limits and its end."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from jupyterhub_gpuworkshop.core.errors import ProofError
from jupyterhub_gpuworkshop.tools.prove_caps import probing
from jupyterhub_gpuworkshop.tools.prove_caps.account import (
    account_of,
    plain_environment,
)
from jupyterhub_gpuworkshop.tools.prove_caps.probing import Probe, ProbeFailed
from jupyterhub_gpuworkshop.tools.prove_caps.proving import Kernel, Started
from tests.conftest import require_engine
from tests.notebook.hooked_python import VERSIONS, python_or_skip

ME = pwd.getpwuid(os.geteuid()).pw_name


@dataclass(frozen=True)
class Anything:
    value: int


def start(
    python: str, folder: Path, limit_seconds: float = 60.0, **variables: str
) -> Probe:
    account = account_of(ME)
    environment = plain_environment(account, python, str(folder))
    return Probe(
        python, {**environment, **variables}, account, str(folder), limit_seconds
    )


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have probes run another program: the test's own."""
    program = tmp_path / "program.py"
    monkeypatch.setattr(probing, "_PROGRAM", program)
    return program


@pytest.mark.parametrize("version", VERSIONS)
def test_the_program_runs_in_every_python_of_attendees(
    version: str, tmp_path: Path
) -> None:
    with start(python_or_skip(version), tmp_path) as probe:
        kernel = probe.ask(Kernel, "kernel")
        assert Path(kernel.python).exists()
        started = probe.ask(Started, "start", framework="cupy")
        assert not started.installed


def test_it_starts_with_a_clean_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUPY_GPU_MEMORY_LIMIT", "1")
    with start(sys.executable, tmp_path) as probe:
        probe.ask(Kernel, "kernel")
        environment = psutil.Process(probe.pid).environ()
    assert "CUPY_GPU_MEMORY_LIMIT" not in environment
    assert environment["USER"] == ME


def test_it_asks_for_nothing_of_ours(tmp_path: Path) -> None:
    blocked = tmp_path / "jupyterhub_gpuworkshop"
    blocked.mkdir()
    (blocked / "__init__.py").write_text("raise RuntimeError('imported')")
    with start(sys.executable, tmp_path, PYTHONPATH=str(tmp_path)) as probe:
        assert probe.ask(Kernel, "kernel").python


def test_the_kernels_python_is_the_one_of_its_specification(tmp_path: Path) -> None:
    folder = tmp_path / "jupyter" / "kernels" / "python3"
    folder.mkdir(parents=True)
    specification = folder / "kernel.json"
    jupyter = {"JUPYTER_PATH": str(tmp_path / "jupyter")}
    template = '{"argv": ["%s"], "display_name": "x", "env": {"A": "b"}}'
    specification.write_text(template % "/opt/conda/bin/python")
    with start(sys.executable, tmp_path, **jupyter) as probe:
        kernel = probe.ask(Kernel, "kernel")
    assert kernel.python == "/opt/conda/bin/python"
    assert kernel.environment == {"A": "b"}
    # Jupyter takes the server's own Python for a bare name.
    specification.write_text(template % "python3")
    with start(sys.executable, tmp_path, **jupyter) as probe:
        assert probe.ask(Kernel, "kernel").python == sys.executable


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise SystemExit(3)", "ended in `kernel` with status 3."),
        (
            "import sys; sys.stderr.write('no driver\\n\\n'); raise SystemExit(4)",
            "with status 4. Its last words: no driver",
        ),
        ("import os; os.kill(os.getpid(), 11)", "with signal 11."),
        ("import time; time.sleep(100)", "`kernel` had not answered after 2 s."),
        ("print('nonsense', flush=True); input()", "was answered with b'nonsense'"),
        ("print('[1]', flush=True); input()", "was answered with b'[1]'"),
        ("print('{}', flush=True); input()", "was answered with b'{}'"),
        (
            'print(\'{"value": "x"}\', flush=True); input()',
            "was answered with",
        ),
        (
            'print(\'{"error": "ValueError: no"}\', flush=True); input()',
            "`kernel` failed: ValueError: no",
        ),
        ("print('[' * 60000, flush=True); input()", "was answered with"),
        ("while True: print('x' * 9999, end='')", "was answered without an end"),
    ],
)
def test_whatever_it_does_it_fails_with_a_sentence_and_is_gone(
    scripted: Path, program: str, said: str, tmp_path: Path
) -> None:
    scripted.write_text(program)
    with (
        pytest.raises(ProbeFailed) as failed,
        start(sys.executable, tmp_path, 2.0 if "sleep" in program else 60.0) as probe,
    ):
        probe.ask(Anything, "kernel")
    assert said in str(failed.value)
    assert not psutil.pid_exists(probe.pid)


def test_its_children_go_with_it_wherever_they_are(
    scripted: Path, tmp_path: Path
) -> None:
    scripted.write_text(
        "import json, subprocess, sys\n"
        "sleep = [sys.executable, '-c', 'import time; time.sleep(1000)']\n"
        "children = [subprocess.Popen(sleep, start_new_session=x) for x in (0, 1)]\n"
        "for child in children:\n"
        "    print(json.dumps({'value': child.pid}), flush=True)\n"
        "children[0].wait()\n"
    )
    with start(sys.executable, tmp_path) as probe:
        pids = [probe.ask(Anything, "first").value, probe.answer(Anything).value]
        children = [psutil.Process(pid) for pid in pids]
        assert all(child.is_running() for child in children)
    _, alive = psutil.wait_procs(children, timeout=30)
    assert all(x.status() == psutil.STATUS_ZOMBIE for x in alive)


def test_it_ends_when_the_doctor_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.tools.prove_caps.test_probing import start\n"
        f"probe = start(sys.executable, Path({str(tmp_path)!r}))\n"
        "print(probe.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as doctor:
        assert doctor.stdout is not None
        probe = psutil.Process(int(doctor.stdout.readline()))
        doctor.kill()
    _, alive = psutil.wait_procs([probe], timeout=30)
    assert all(x.status() == psutil.STATUS_ZOMBIE for x in alive)


def test_a_python_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProbeFailed, match=f"{ME} cannot run {tmp_path}/no: No such"):
        start(f"{tmp_path}/no", tmp_path)


# -- as whom


@pytest.mark.parametrize("variables", [{"A=B": "c"}, {"A": "b\0"}, {"A": "\ud800"}])
def test_variables_that_no_process_can_have_are_told(
    variables: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(ProbeFailed, match=f"{ME} cannot run {sys.executable}: "):
        start(sys.executable, tmp_path, **variables)


def test_a_user_who_is_not_there_is_told() -> None:
    with pytest.raises(ProofError, match="There is no Unix user 'nobody-at-all'"):
        account_of("nobody-at-all")


def test_only_root_can_run_it_as_somebody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(ProofError, match="Only root can run a program as nobody"):
        account_of("nobody")


@pytest.mark.root
def test_as_root_it_runs_as_nobody_with_nothing_of_roots() -> None:
    require_engine("root", os.geteuid() == 0, "run the tests as root")
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("no /usr/bin/python3, which any user can run: install python3")
    account = account_of(None)
    assert account.name == "nobody"
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, account.uid, account.gid)
        environment = plain_environment(account, python, folder)
        with Probe(python, environment, account, folder, 60.0) as probe:
            assert probe.ask(Kernel, "kernel").python
            process = psutil.Process(probe.pid)
            assert set(process.uids()) == {account.uid}
            assert set(process.gids()) == {account.gid}
            status = Path(f"/proc/{probe.pid}/status").read_text()
            (groups,) = [x for x in status.splitlines() if x.startswith("Groups:")]
            assert {int(x) for x in groups.split()[1:]} == set(account.groups)
            assert process.environ()["HOME"] in (account.home, folder)
