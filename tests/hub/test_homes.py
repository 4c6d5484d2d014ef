"""Where homes are: a file that hub and commands change at once, and none may lose."""

import fcntl
import json
import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.hub import own_files
from jupyterhub_gpuworkshop.hub.homes import (
    Home,
    Homes,
    Mount,
    file_beside,
    forget,
    read_homes,
)

ANN = Home(kind="unix", path="/home/ann", uid=1001, gid=1002, account="ann")
BOX = Home(
    kind="docker",
    path="",
    image="quay.io/jupyter/base-notebook",
    user="1000",
    mounts=(Mount(kind="volume", source="jupyter-zoe", target="/home/jovyan/work"),),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return file_beside(tmp_path / "roster.json")


def test_what_is_written_is_read_again_and_only_by_the_hub(path: Path):
    homes = Homes(path)
    homes.record("ann", ANN)
    homes.record("zoé\n", BOX)
    assert path.name == "roster.homes.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_homes(path) == {"ann": ANN, "zoé\n": BOX}


def test_what_is_known_already_is_not_written_again(path: Path):
    Homes(path).record("ann", ANN)
    before = path.stat().st_ino
    Homes(path).record("ann", ANN)
    assert path.stat().st_ino == before
    Homes(path).record("ann", replace(ANN, uid=1003))
    assert path.stat().st_ino != before
    assert read_homes(path)["ann"].uid == 1003


def test_no_file_means_no_homes(path: Path):
    assert read_homes(path) == {}
    assert forget(path, ["ann"]) == 0
    assert not path.exists()


def test_the_forgotten_are_gone_and_the_others_stay(path: Path):
    homes = Homes(path)
    homes.record("ann", ANN)
    homes.record("zoe", BOX)
    assert forget(path, ["ann", "nobody"]) == 1
    assert read_homes(path) == {"zoe": BOX}
    homes.record("ann", ANN)
    assert set(read_homes(path)) == {"ann", "zoe"}


def _record_many(path: Path, letter: str) -> None:
    homes = Homes(path)
    for number in range(25):
        homes.record(f"{letter}{number}", ANN)


def test_two_processes_at_once_lose_nothing(path: Path):
    context = multiprocessing.get_context("fork")
    writers = [
        context.Process(target=_record_many, args=(path, letter)) for letter in "ab"
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert len(read_homes(path)) == 50
    lock = path.with_name(".roster.homes.json.lock")
    assert set(path.parent.iterdir()) == {path, lock}
    assert lock.stat().st_mode & 0o777 == 0o600


@contextmanager
def _held_by_an_attendee(path: Path) -> Iterator[None]:
    """Lock, until the end, whatever an attendee of this machine can open."""
    handles = []
    for found in (path, *path.iterdir()):
        if found.stat().st_mode & 0o004:
            handles.append(os.open(found, os.O_RDONLY))
            fcntl.flock(handles[-1], fcntl.LOCK_EX)
    try:
        yield
    finally:
        for handle in handles:
            os.close(handle)


def test_no_attendee_can_hold_the_hub_up_with_a_lock_of_their_own(path: Path):
    Homes(path).record("ann", ANN)
    path.parent.chmod(0o755)
    recording = threading.Thread(target=Homes(path).record, args=("zoe", BOX))
    with _held_by_an_attendee(path.parent):
        recording.start()
        recording.join(20)
        is_held_up = recording.is_alive()
    recording.join()
    assert not is_held_up
    assert set(read_homes(path)) == {"ann", "zoe"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_root_changes_stays_the_hubs_user_to_write(path: Path):
    os.chown(path.parent, 65534, 65534)
    homes = Homes(path)
    homes.record("ann", ANN)
    homes.record("zoe", BOX)
    forget(path, ["zoe"])
    files = list(path.parent.iterdir())
    assert len(files) == 2
    assert {file.stat().st_uid for file in files} == {65534}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"homes": []}',
        b'{"homes": {"ann": {"kind": "unix", "path": "/home/ann"}}}',
        b'{"homes": {"ann": {"kind": "tape", "path": "/home/ann"}}}',
        b'{"homes": {"ann": {"kind": "docker", "path": 1}}}',
        b'{"homes": {"ann": {"kind": "docker", "path": "", "mounts": [1]}}}',
    ],
)
def test_a_damaged_file_is_told_and_kept(path: Path, content: bytes, caplog):
    path.write_bytes(content)
    with pytest.raises(HostError, match="is damaged"):
        read_homes(path)
    Homes(path).record("ann", ANN)
    assert path.read_bytes() == content
    assert "is damaged" in caplog.text


def test_a_file_of_a_newer_version_is_left_alone(path: Path):
    path.write_text(json.dumps({"version": 2, "homes": {}}))
    with pytest.raises(HostError, match="newer version"):
        read_homes(path)
    with pytest.raises(HostError, match="newer version"):
        forget(path, ["ann"])


def test_a_full_disk_leaves_what_was_there_and_stops_no_server(
    path: Path, monkeypatch, caplog
):
    homes = Homes(path)
    homes.record("ann", ANN)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(own_files.os, "fsync", full)
    homes.record("zoe", BOX)
    homes.record("zoe", BOX)
    monkeypatch.undo()
    assert read_homes(path) == {"ann": ANN}
    lock = path.with_name(".roster.homes.json.lock")
    assert set(path.parent.iterdir()) == {path, lock}
    assert caplog.text.count("No space left on device") == 1
