"""gpu-local: each attendee a Unix user of their own."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest

from tests.conftest import require_engine

from .running_hub import HERE, wait_for

pytestmark = [pytest.mark.hub, pytest.mark.root]

_CONFIG = """
c.JupyterHub.spawner_class = "gpu-local"
c.LocalProcessSpawner.notebook_dir = "/"
c.Spawner.cmd = [{python!r}, "-S", "-E", {stub!r}]
"""
_PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")
"""One that every Unix user may run: a venv can lie below a closed /root."""


@pytest.fixture
def unix_users():
    require_engine(
        "root",
        os.geteuid() == 0 and None not in (shutil.which("useradd"), _PYTHON),
        "run as root on a machine with useradd and a python3 of its own",
    )
    names = ["gpuws-ann", "gpuws-zoe"]
    for name in names:
        _run("useradd", "--create-home", name)
    yield names
    for name in names:
        _run("userdel", "--remove", name)


@pytest.fixture
def open_folder():
    """A folder that every Unix user may read, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="gpuworkshop-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _run(program, *arguments):
    path = shutil.which(program)
    assert path is not None
    subprocess.run([path, *arguments], check=True, capture_output=True)  # noqa: S603  # two fixed programs


def test_each_server_runs_as_its_attendee_on_a_gpu_of_its_own(
    make_hub, unix_users, open_folder
):
    stub = shutil.copy(HERE / "stub_server.py", open_folder)
    early = _CONFIG.format(python=_PYTHON, stub=stub)
    hub = make_hub(gpus=2, early=early).start()
    hub.add_users(*unix_users)
    for name in unix_users:
        hub.spawn(name)
    pids = {name: hub.server(name)["state"]["pid"] for name in unix_users}
    try:
        leases = {lease.user: lease for lease in hub.leases()}
        for name, pid in pids.items():
            server = psutil.Process(pid)
            assert server.uids().real == pwd.getpwnam(name).pw_uid
            env = server.environ()
            assert env["CUDA_VISIBLE_DEVICES"] == leases[name].uuids[0]
            assert env["HOME"] == f"/home/{name}"
            record = hub.folder / "gpuworkshop-servers" / leases[name].id
            assert record.read_text().split()[0] == str(pid)
            # The record is the hub's: the attendee can neither read nor forge it.
            assert record.stat().st_uid == 0
            assert record.parent.stat().st_mode & 0o077 == 0
        hub.kill()
        hub.start()
        wait_for(lambda: (s := hub.server(unix_users[0])) and s["ready"])
        assert {lease.user: lease for lease in hub.leases()} == leases
        for name in unix_users:
            hub.stop_server(name)
        assert not hub.leases()
    finally:
        for pid in pids.values():
            if Path(f"/proc/{pid}").exists():
                os.kill(pid, signal.SIGKILL)
