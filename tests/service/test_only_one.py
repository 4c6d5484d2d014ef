"""Two services on one state folder never both take memory."""

import asyncio
import errno
import fcntl
import logging
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.service import only_one
from jupyterhub_gpuworkshop.service.only_one import OnlyOne

FILE = "gpuworkshop-service.lock"
HOLD = """
import sys, time
from pathlib import Path
from jupyterhub_gpuworkshop.service.only_one import OnlyOne
held = OnlyOne(Path(sys.argv[1]))
print(held.acquire(), flush=True)
time.sleep(600)
"""


@pytest.fixture
def services(tmp_path):
    """Return a way to make services on one folder."""
    made = []

    def make(folder=tmp_path):
        made.append(OnlyOne(folder))
        return made[-1]

    yield make
    for service in made:
        service.release()


@pytest.fixture
def full_disk(monkeypatch):
    """Let no file be made, and return how to make room."""
    real = os.open

    def fail(path, flags, *args, **kwargs):
        if flags & os.O_CREAT and not Path(path).exists():
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(only_one.os, "open", fail)
    return lambda: monkeypatch.setattr(only_one.os, "open", real)


def test_before_it_has_looked_nobody_acts(services):
    service = services()
    assert not service.is_held
    assert "not known yet" in service.why_not()


def test_of_two_only_the_first_acts_and_the_second_says_who(services, caplog):
    first, second = services(), services()
    assert first.acquire()
    for _ in range(3):
        assert not second.acquire()
        assert first.acquire()
    assert first.is_held
    assert first.why_not() == ""
    assert not second.is_held
    assert f"Another GPU service (pid {os.getpid()}) runs" in second.why_not()
    assert [r.levelno for r in caplog.records] == [logging.WARNING]


def test_services_on_folders_of_their_own_both_act(services, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert services(tmp_path / "a").acquire()
    assert services(tmp_path / "b").acquire()


async def test_when_the_first_is_killed_the_second_takes_over(services, tmp_path):
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert await other.stdout.readline() == b"True\n"
    service = services()
    await service.step()
    assert f"(pid {other.pid})" in service.why_not()
    other.send_signal(signal.SIGKILL)
    await other.wait()
    await service.step()
    assert service.is_held


def test_nobody_but_its_owner_can_open_the_lock(services, tmp_path):
    assert services().acquire()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_no_child_inherits_it(services, tmp_path):
    service = services()
    assert service.acquire()
    assert not os.get_inheritable(service._file)


def test_a_lock_whose_file_was_removed_is_taken_anew_or_lost(services, tmp_path):
    first, second = services(), services()
    first.acquire()
    (tmp_path / FILE).unlink()
    assert first.acquire()
    assert not second.acquire()
    (tmp_path / FILE).unlink()
    assert second.acquire()
    assert not first.acquire()


def test_a_full_disk_keeps_two_apart_and_one_at_work(services, full_disk):
    first, second = services(), services()
    assert first.acquire()
    assert not second.acquire()
    assert first.acquire()
    first.release()
    assert second.acquire()


def test_when_there_is_room_again_the_one_that_acts_goes_on(services, full_disk):
    first, second = services(), services()
    assert first.acquire()
    full_disk()
    assert first.acquire()
    assert not second.acquire()
    assert f"pid {os.getpid()}" in second.why_not()


def test_who_is_faster_once_there_is_room_acts_and_the_other_yields(
    services, full_disk
):
    first, second, third = services(), services(), services()
    assert first.acquire()
    full_disk()
    assert second.acquire()
    assert not first.acquire()
    assert first._folder_lock is None
    assert not third.acquire()
    second.release()
    assert first.acquire()


def test_a_disk_that_may_only_be_read_has_a_lock_too(services, tmp_path, monkeypatch):
    (tmp_path / FILE).touch()
    real = os.open

    def fail(path, flags, *args, **kwargs):
        if flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(only_one.os, "open", fail)
    first, second = services(), services()
    assert first.acquire()
    assert not second.acquire()
    assert "Another GPU service runs" in second.why_not()


def test_a_lock_that_may_not_be_opened_lets_nobody_act(services, tmp_path, monkeypatch):
    # As when root's service left it, or has it: another lock would not tell them apart.
    real = os.open

    def fail(path, *args, **kwargs):
        if str(path).endswith(FILE):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(only_one.os, "open", fail)
    service = services()
    assert not service.acquire()
    assert f"Permission denied: {tmp_path / FILE}" in service.why_not()
    monkeypatch.undo()
    assert service.acquire()


def test_a_folder_that_is_not_there_lets_nobody_act(services, tmp_path):
    service = services(tmp_path / "none")
    assert not service.acquire()
    assert "No such file or directory" in service.why_not()
    (tmp_path / "none").mkdir()
    assert service.acquire()


def test_a_link_in_its_place_is_not_followed(services, tmp_path):
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    assert not services().acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_a_disk_without_locks_lets_nobody_act(services, monkeypatch):
    def fail(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(only_one.fcntl, "flock", fail)
    service = services()
    assert not service.acquire()
    assert "No locks available" in service.why_not()


def test_junk_in_the_file_names_nobody(services, tmp_path):
    (tmp_path / FILE).write_text("<script> 12\n")
    with (tmp_path / FILE).open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        service = services()
        assert not service.acquire()
    assert service.why_not().startswith("Another GPU service runs")


async def test_a_disk_that_hangs_holds_up_nobody_and_keeps_what_is_held(
    services, monkeypatch
):
    service, gate = services(), threading.Event()
    await service.step()
    assert service.is_held
    monkeypatch.setattr(only_one, "_TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr(service, "acquire", lambda: gate.wait(60))
    await service.step()
    await service.step()
    assert service.is_held
    gate.set()
