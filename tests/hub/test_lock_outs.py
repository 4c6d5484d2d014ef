"""Wrong codes in a file that outlives the hub."""

import logging
import os
import sqlite3
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.lock_out import LockOutRules
from jupyterhub_gpuworkshop.hub.lock_outs import LockOuts

_ROOM = "192.0.2.7"


class Clock:
    """A clock that stands until it is set."""

    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return the clock of the test."""
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file is."""
    return tmp_path / "lock-outs.sqlite"


def _fail(lock_outs: LockOuts, name: str, times: int, address: str = _ROOM) -> None:
    for _ in range(times):
        assert lock_outs.attempt(name, address) == 0


def test_a_lock_survives_a_restart_and_ends_by_itself(path: Path, clock: Clock) -> None:
    _fail(LockOuts(path, clock=clock), "ada", 5)
    again = LockOuts(path, clock=clock)
    assert again.wait_seconds("ada", _ROOM) == 300
    assert again.attempt("ada", _ROOM) == 300, "and counts nothing"
    assert path.stat().st_mode & 0o777 == 0o600
    clock.now += 300
    assert again.wait_seconds("ada", _ROOM) == 0


def test_one_who_guesses_for_ever_locks_nobody_else_of_the_room_out(
    path: Path, clock: Clock
) -> None:
    lock_outs = LockOuts(path, clock=clock)
    for _ in range(300):
        lock_outs.attempt("mallory", _ROOM)
        lock_outs.attempt("no-such-name", _ROOM)
        clock.now += 10
    for number in range(100):
        assert lock_outs.attempt(f"a{number}", _ROOM) == 0
        lock_outs.succeeded(f"a{number}", _ROOM)


def test_guesses_from_elsewhere_do_not_reach_where_a_name_has_logged_in(
    path: Path, clock: Clock
) -> None:
    lock_outs = LockOuts(path, clock=clock)
    lock_outs.succeeded("ada", _ROOM)
    for number in range(200):
        lock_outs.attempt("ada", f"198.51.100.{number}")
    assert lock_outs.wait_seconds("ada", "203.0.113.1") > 0
    assert lock_outs.wait_seconds("ada", _ROOM) == 0


def test_an_organiser_unlocks_from_another_process_while_the_hub_runs(
    path: Path, clock: Clock
) -> None:
    hub, command = LockOuts(path, clock=clock), LockOuts(path, clock=clock)
    _fail(hub, "ada", 5)
    _fail(hub, "bob", 5)
    assert [one.name for one in command.locked()] == ["ada", "bob"]
    assert command.unlock("ada") == 1
    assert command.problem == ""
    assert hub.wait_seconds("ada", _ROOM) == 0
    assert hub.wait_seconds("bob", _ROOM) > 0
    assert command.unlock() == 1
    assert hub.wait_seconds("bob", _ROOM) == 0


def test_invented_names_push_out_what_is_kept_of_their_own_address_only(
    path: Path, clock: Clock
) -> None:
    rules = LockOutRules(most_pairs=50, most_pairs_per_address=20)
    lock_outs = LockOuts(path, rules, clock)
    _fail(lock_outs, "ada", 5)
    for number in range(200):
        lock_outs.failed(f"invented-{number}", "203.0.113.1")
    assert lock_outs.wait_seconds("ada", _ROOM) > 0
    with sqlite3.connect(path) as db:
        (kept,) = db.execute("SELECT count(*) FROM pairs").fetchone()
    db.close()
    assert kept == 21


def test_a_file_that_is_none_is_moved_aside_and_counting_goes_on(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b"this is no database " * 100)
    lock_outs = LockOuts(path, clock=clock)
    _fail(lock_outs, "ada", 5)
    assert lock_outs.wait_seconds("ada", _ROOM) > 0
    assert (path.parent / "lock-outs.sqlite.broken").exists()
    assert "counted anew" in caplog.text
    assert LockOuts(path, clock=clock).wait_seconds("ada", _ROOM) > 0


def test_without_a_place_for_the_file_it_counts_in_memory_and_takes_it_along_later(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "later" / "lock-outs.sqlite"
    lock_outs = LockOuts(path, clock=clock)
    with caplog.at_level(logging.ERROR):
        _fail(lock_outs, "ada", 5)
        assert lock_outs.wait_seconds("ada", _ROOM) > 0
    assert caplog.text.count("in memory only") == 1
    path.parent.mkdir()
    clock.now += 61
    assert lock_outs.wait_seconds("ada", _ROOM) > 0
    assert lock_outs.problem == ""
    assert LockOuts(path, clock=clock).wait_seconds("ada", _ROOM) > 0


def test_a_file_that_was_removed_under_the_hub_is_made_anew(
    path: Path, clock: Clock
) -> None:
    lock_outs = LockOuts(path, clock=clock)
    _fail(lock_outs, "ada", 5)
    path.unlink()
    assert lock_outs.wait_seconds("ada", _ROOM) == 0
    _fail(lock_outs, "ada", 1)
    assert path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_what_root_makes_is_the_hubs_user_to_write(path: Path, clock: Clock) -> None:
    os.chown(path.parent, 65534, 65534)
    LockOuts(path, clock=clock).unlock()
    assert path.stat().st_uid == 65534
