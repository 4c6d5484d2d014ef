"""Wrong codes in a file that outlives the hub."""

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.lock_out import (
    ANY_STRANGE_ADDRESS,
    DEFAULT_RULES,
    Locked,
    LockOutRules,
)
from jupyterhub_gpuworkshop.hub.lock_outs import LockOuts

_ROOM = "192.0.2.7"
_HOME = "203.0.113.9"


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


@pytest.fixture
def opened(path: Path, clock: Clock) -> Iterator[Callable[..., LockOuts]]:
    """Return a factory of lock-outs that end with the test."""
    made: list[LockOuts] = []

    def make(at: Path = path, **rules: int) -> LockOuts:
        made.append(LockOuts(at, LockOutRules(**rules), clock))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def lock_outs(opened: Callable[..., LockOuts]) -> LockOuts:
    """Return lock-outs by the rules that everybody has."""
    return opened()


def _elsewhere(number: int) -> str:
    return f"198.51.100.{number}"


def _guess_from_everywhere(lock_outs: LockOuts, name: str, times: int = 30) -> None:
    for number in range(times):
        lock_outs.failed(name, _elsewhere(number))


def test_a_success_clears_the_failures_from_there_only(lock_outs: LockOuts) -> None:
    _fail(lock_outs, "ada", 5, _ROOM)
    _fail(lock_outs, "ada", 5, _HOME)
    lock_outs.succeeded("ada", _ROOM)
    assert lock_outs.wait_seconds("ada", _ROOM) == 0
    assert lock_outs.wait_seconds("ada", _HOME) == 300


def test_a_room_is_no_strange_address_for_who_has_never_logged_in(
    lock_outs: LockOuts,
) -> None:
    lock_outs.succeeded("grace", _ROOM)
    _guess_from_everywhere(lock_outs, "ada")
    assert lock_outs.wait_seconds("ada", _HOME) == 30
    assert lock_outs.wait_seconds("ada", _ROOM) == 0
    _guess_from_everywhere(lock_outs, "ada", 100)
    assert lock_outs.wait_seconds("ada", _ROOM) == 30


def test_an_address_is_good_for_a_month_whatever_is_restarted(
    opened: Callable[..., LockOuts], clock: Clock
) -> None:
    opened().succeeded("ada", _HOME)
    lock_outs = opened()
    clock.now += DEFAULT_RULES.good_seconds - 1
    _guess_from_everywhere(lock_outs, "ada")
    assert lock_outs.wait_seconds("ada", _HOME) == 0
    clock.now += 1
    assert lock_outs.wait_seconds("ada", _HOME) > 0


def test_a_busy_address_has_fewer_tries_for_each_name_until_it_is_quiet(
    lock_outs: LockOuts, clock: Clock
) -> None:
    _fail(lock_outs, "grace", 2)
    for number in range(98):
        lock_outs.failed(f"invented-{number}", _ROOM)
    assert lock_outs.wait_seconds("grace", _ROOM) == 300
    _fail(lock_outs, "ada", 2)
    assert lock_outs.wait_seconds("ada", _ROOM) == 300
    clock.now += DEFAULT_RULES.window_seconds
    _fail(lock_outs, "bob", 2)
    assert lock_outs.wait_seconds("bob", _ROOM) == 0


def test_of_many_guesses_at_once_few_are_looked_at(lock_outs: LockOuts) -> None:
    waits: list[float] = []
    threads = [
        threading.Thread(target=lambda: waits.append(lock_outs.attempt("ada", _ROOM)))
        for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == [0] * 5 + [300] * 35


def test_logging_in_uses_no_tries_up(lock_outs: LockOuts) -> None:
    for number in range(50):
        assert lock_outs.attempt("guest", _elsewhere(number)) == 0
        lock_outs.succeeded("guest", _elsewhere(number))


def test_an_unlock_of_all_leaves_good_addresses_good(lock_outs: LockOuts) -> None:
    lock_outs.succeeded("ada", _HOME)
    _fail(lock_outs, "ada", 5)
    _guess_from_everywhere(lock_outs, "bob")
    assert lock_outs.unlock() == 2
    assert lock_outs.locked() == []
    _guess_from_everywhere(lock_outs, "ada")
    assert lock_outs.wait_seconds("ada", _HOME) == 0


def test_who_has_to_wait_is_listed_by_name(lock_outs: LockOuts, clock: Clock) -> None:
    _fail(lock_outs, "bob", 5, "2001:db8::1")
    _guess_from_everywhere(lock_outs, "ada")
    _fail(lock_outs, "grace", 1)
    assert lock_outs.locked() == [
        Locked(name="ada", address=ANY_STRANGE_ADDRESS, until=clock.now + 30),
        Locked(name="bob", address="2001:db8::/64", until=clock.now + 300),
    ]


def test_the_newest_are_kept_though_the_clock_runs_backward(
    opened: Callable[..., LockOuts], path: Path, clock: Clock
) -> None:
    most = {"most_pairs": 30, "most_names": 40, "most_good": 20}
    lock_outs = opened(**most, most_good_per_name=3)
    for number in range(50):
        clock.now -= 1
        lock_outs.failed(f"name-{number}", _elsewhere(number))
        lock_outs.succeeded(f"good-{number}", _elsewhere(number))
        lock_outs.succeeded("ada", _elsewhere(number))
    db = sqlite3.connect(path)
    counts = db.execute(
        "SELECT (SELECT count(*) FROM pairs), (SELECT count(*) FROM names), "
        "(SELECT count(*) FROM good), (SELECT count(*) FROM good WHERE name = 'ada'), "
        "(SELECT count(*) FROM pairs WHERE name = 'name-49')"
    ).fetchone()
    db.close()
    assert counts == (30, 40, 20, 3, 1)


def test_what_is_over_is_not_kept(
    lock_outs: LockOuts, path: Path, clock: Clock
) -> None:
    _fail(lock_outs, "ada", 5)
    clock.now += DEFAULT_RULES.forget_seconds
    _fail(lock_outs, "bob", 1)
    db = sqlite3.connect(path)
    kept = db.execute("SELECT name FROM pairs UNION ALL SELECT name FROM names")
    assert kept.fetchall() == [("bob",), ("bob",)]
    db.close()


def test_a_clock_that_was_years_ahead_locks_nobody(
    lock_outs: LockOuts, clock: Clock
) -> None:
    clock.now += 10**9
    _fail(lock_outs, "ada", 5)
    _guess_from_everywhere(lock_outs, "bob")
    for number in range(100):
        lock_outs.failed(f"invented-{number}", _ROOM)
    clock.now -= 10**9
    assert lock_outs.wait_seconds("bob", _HOME) == 0
    _fail(lock_outs, "ada", 4)
    assert lock_outs.wait_seconds("ada", _ROOM) == 0


@pytest.mark.parametrize("name", ["", "a\0b", "\udc80", "x" * 10**6, "'; DROP", "ä"])
def test_any_name_is_counted(lock_outs: LockOuts, name: str) -> None:
    _fail(lock_outs, name, 5)
    assert lock_outs.wait_seconds(name, _ROOM) == 300
    assert lock_outs.unlock(name) == 1


def test_the_file_is_closed_to_others_whatever_the_umask_and_whoever_made_it(
    opened: Callable[..., LockOuts], tmp_path: Path
) -> None:
    new, found = tmp_path / "new.sqlite", tmp_path / "found.sqlite"
    before = os.umask(0)
    try:
        found.touch()
        for path in (new, found):
            opened(path).failed("ada", _ROOM)
    finally:
        os.umask(before)
    assert [x.stat().st_mode & 0o777 for x in (new, found)] == [0o600, 0o600]


def test_a_file_that_breaks_under_the_hub_is_moved_aside_with_its_journal(
    opened: Callable[..., LockOuts], path: Path
) -> None:
    hub = opened()
    _fail(hub, "ada", 5)
    with path.open("r+b") as file:
        file.write(b"x" * 4096)
    journal = path.with_name(f"{path.name}-journal")
    journal.write_text("of the old file")
    assert hub.wait_seconds("ada", _ROOM) == 0
    assert not journal.exists()
    _fail(hub, "ada", 5)
    assert hub.problem == ""
    assert opened().wait_seconds("ada", _ROOM) == 300


def _a_folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def _a_newer_file(tmp_path: Path) -> Path:
    path = tmp_path / "newer.sqlite"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    return path


def _in_a_read_only_folder(tmp_path: Path) -> Path:
    if os.geteuid() == 0:
        pytest.skip("root may write in any folder: run the tests as another user")
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    return folder / "lock-outs.sqlite"


@pytest.mark.parametrize("unusable", [_a_folder, _a_newer_file, _in_a_read_only_folder])
def test_without_a_file_of_use_it_counts_in_memory_and_says_so_once(
    opened: Callable[..., LockOuts],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    unusable: Callable[[Path], Path],
) -> None:
    path = unusable(tmp_path)
    lock_outs = opened(path)
    _fail(lock_outs, "ada", 5)
    assert lock_outs.wait_seconds("ada", _ROOM) == 300
    assert str(path) in lock_outs.problem
    assert caplog.messages == [lock_outs.problem]


def test_a_full_file_holds_on_in_memory_and_is_used_again_when_there_is_room(
    opened: Callable[..., LockOuts],
    path: Path,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    hub = opened()
    _fail(hub, "ada", 5)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(
        "CREATE TRIGGER full BEFORE INSERT ON pairs "
        "BEGIN SELECT RAISE(FAIL, 'no room'); END"
    )
    clock.now += 1
    _fail(hub, "bob", 5)
    assert "no room" in hub.problem
    assert hub.wait_seconds("ada", _ROOM) == 299, "as the file had it"
    assert hub.wait_seconds("bob", _ROOM) == 300

    clock.now += 60
    hub.failed("bob", _HOME)
    assert hub.problem, "it was tried again"
    assert len(caplog.records) == 1

    db.execute("DROP TRIGGER full")
    db.execute("DELETE FROM pairs WHERE name = 'ada'")
    db.close()
    clock.now += 60
    assert hub.wait_seconds("bob", _ROOM) == 180
    assert hub.problem == ""
    assert hub.wait_seconds("ada", _ROOM) == 0, "unlocked meanwhile"
    assert opened().wait_seconds("bob", _ROOM) == 180
