"""Wrong codes in a file: restarts, other processes, and files of no use."""

import os
import sqlite3
import stat
import threading
from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.lock_out import DEFAULT_RULES
from jupyterhub_gpuworkshop.hub.lock_outs import (
    ANY_STRANGE_ADDRESS,
    Locked,
    LockOuts,
)

ROOM = "192.0.2.1"
HOME = "198.51.100.9"
MINUTE = 60.0
NOW = 1_800_000_000.0


class Clock:
    def __init__(self):
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lock-outs.sqlite"


@pytest.fixture
def opened(path, clock):
    """Return a factory of lock-outs on one file, as each process has its own."""
    made = []

    def make(at=path, **rules):
        lock_outs = LockOuts(at, replace(DEFAULT_RULES, **rules), clock)
        made.append(lock_outs)
        return lock_outs

    yield make
    for lock_outs in made:
        lock_outs.close()


@pytest.fixture
def lock_outs(opened):
    return opened()


def fail(lock_outs, name, address, times=5):
    for _ in range(times):
        lock_outs.failed(name, address)


def elsewhere(number):
    return f"203.0.113.{number}"


def guess_from_everywhere(lock_outs, name, times=30):
    for number in range(times):
        lock_outs.failed(name, elsewhere(number))


def test_who_guesses_waits_and_then_may_try_again(lock_outs, clock):
    fail(lock_outs, "ada", ROOM, 4)
    assert lock_outs.wait_seconds("ada", ROOM) == 0
    lock_outs.failed("ada", ROOM)
    assert lock_outs.wait_seconds("ada", ROOM) == 5 * MINUTE
    assert lock_outs.wait_seconds("ada", HOME) == 0
    clock.now += 5 * MINUTE
    assert lock_outs.wait_seconds("ada", ROOM) == 0


def test_a_success_clears_the_failures_from_there_only(lock_outs):
    fail(lock_outs, "ada", ROOM)
    fail(lock_outs, "ada", HOME)
    lock_outs.succeeded("ada", ROOM)
    assert lock_outs.wait_seconds("ada", ROOM) == 0
    assert lock_outs.wait_seconds("ada", HOME) == 5 * MINUTE


def test_a_wait_survives_a_restart(opened):
    before = opened()
    fail(before, "ada", ROOM)
    guess_from_everywhere(before, "bob")
    before.close()
    after = opened()
    assert after.wait_seconds("ada", ROOM) == 5 * MINUTE
    assert after.wait_seconds("bob", HOME) == 30


def test_a_room_gets_in_while_one_in_it_guesses_for_ever(lock_outs, clock):
    for _ in range(100):
        for number in range(100):
            lock_outs.attempt(f"name-{number % 3}", ROOM)
            lock_outs.attempt(f"invented-{number}", ROOM)
        clock.now += MINUTE
    for number in range(100):
        name = f"attendee-{number}"
        assert lock_outs.attempt(name, ROOM) == 0
        assert lock_outs.attempt(name, ROOM) == 0
        lock_outs.succeeded(name, ROOM)


def test_a_name_that_many_guess_at_waits_at_strange_addresses_only(lock_outs):
    lock_outs.succeeded("ada", HOME)
    lock_outs.succeeded("grace", ROOM)
    guess_from_everywhere(lock_outs, "ada")
    assert lock_outs.wait_seconds("ada", elsewhere(200)) == 30
    assert lock_outs.wait_seconds("ada", HOME) == 0
    assert lock_outs.wait_seconds("ada", ROOM) == 0
    guess_from_everywhere(lock_outs, "ada", 100)
    assert lock_outs.wait_seconds("ada", HOME) == 0
    assert lock_outs.wait_seconds("ada", ROOM) == 30


def test_an_address_is_good_for_a_month_and_after_a_restart(opened, clock):
    opened().succeeded("ada", HOME)
    lock_outs = opened()
    clock.now += 29 * 24 * 60 * MINUTE
    guess_from_everywhere(lock_outs, "ada")
    assert lock_outs.wait_seconds("ada", HOME) == 0
    clock.now += 24 * 60 * MINUTE
    guess_from_everywhere(lock_outs, "ada")
    assert lock_outs.wait_seconds("ada", HOME) > 0


def test_a_busy_address_has_fewer_tries_for_each_name(lock_outs, clock):
    fail(lock_outs, "grace", ROOM, 2)
    for number in range(98):
        lock_outs.failed(f"invented-{number}", ROOM)
    assert lock_outs.wait_seconds("ada", ROOM) == 0
    assert lock_outs.wait_seconds("grace", ROOM) == 5 * MINUTE
    fail(lock_outs, "ada", ROOM, 2)
    assert lock_outs.wait_seconds("ada", ROOM) == 5 * MINUTE
    clock.now += DEFAULT_RULES.window_seconds
    fail(lock_outs, "bob", ROOM, 2)
    assert lock_outs.wait_seconds("bob", ROOM) == 0


def test_an_attempt_that_has_to_wait_extends_nothing(lock_outs, clock):
    assert [lock_outs.attempt("ada", ROOM) for _ in range(5)] == [0.0] * 5
    clock.now += MINUTE
    assert lock_outs.attempt("ada", ROOM) == 4 * MINUTE
    assert lock_outs.attempt("ada", ROOM) == 4 * MINUTE


def test_of_many_guesses_at_once_few_are_looked_at(lock_outs):
    waits = []
    threads = [
        threading.Thread(target=lambda: waits.append(lock_outs.attempt("ada", ROOM)))
        for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == [0.0] * 5 + [5 * MINUTE] * 35


def test_logging_in_uses_no_tries_up(lock_outs):
    for number in range(200):
        assert lock_outs.attempt("guest", elsewhere(number)) == 0
        lock_outs.succeeded("guest", elsewhere(number))


def test_an_unlock_in_another_process_is_seen_at_once(opened):
    hub, command = opened(), opened()
    fail(hub, "ada", ROOM)
    fail(hub, "bob", ROOM)
    assert command.unlock("ada") == 1
    assert command.problem == ""
    assert hub.wait_seconds("ada", ROOM) == 0
    assert hub.wait_seconds("bob", ROOM) > 0
    assert command.unlock("nobody") == 0


def test_all_can_be_unlocked_and_good_addresses_stay_good(lock_outs):
    lock_outs.succeeded("ada", HOME)
    fail(lock_outs, "ada", ROOM)
    guess_from_everywhere(lock_outs, "bob")
    assert lock_outs.unlock() == 2
    assert lock_outs.locked() == []
    guess_from_everywhere(lock_outs, "ada")
    assert lock_outs.wait_seconds("ada", HOME) == 0


def test_who_has_to_wait_is_listed(lock_outs):
    fail(lock_outs, "bob", "2001:db8::1")
    guess_from_everywhere(lock_outs, "ada")
    lock_outs.failed("grace", ROOM)
    assert lock_outs.locked() == [
        Locked(name="ada", address=ANY_STRANGE_ADDRESS, until=NOW + 30),
        Locked(name="bob", address="2001:db8::/64", until=NOW + 5 * MINUTE),
    ]


def test_a_flood_of_invented_names_pushes_out_its_own_address_only(opened):
    lock_outs = opened(most_pairs=30, most_pairs_per_address=10)
    fail(lock_outs, "ada", ROOM)
    fail(lock_outs, "bob", HOME)
    for number in range(200):
        lock_outs.failed(f"invented-{number}", HOME)
    assert lock_outs.wait_seconds("ada", ROOM) == 5 * MINUTE
    assert lock_outs.wait_seconds("bob", HOME) == 0


def test_the_file_stays_small(opened, path, clock):
    most = {"most_pairs": 30, "most_names": 40, "most_good": 20}
    lock_outs = opened(**most, most_pairs_per_address=10, most_good_per_name=3)
    for number in range(300):
        # A clock that runs backward must not make the newest the oldest.
        clock.now -= 1
        lock_outs.failed(f"name-{number}", elsewhere(number % 250))
        lock_outs.succeeded(f"name-{number % 100}", elsewhere(number % 250))
        lock_outs.succeeded("ada", elsewhere(number % 250))
    db = sqlite3.connect(path)
    counts = db.execute(
        "SELECT (SELECT count(*) FROM pairs), (SELECT count(*) FROM names), "
        "(SELECT count(*) FROM good), "
        "(SELECT count(*) FROM good WHERE name = 'ada')"
    ).fetchone()
    db.close()
    assert counts == (30, 40, 20, 3)


def test_what_is_over_is_not_kept(lock_outs, path, clock):
    fail(lock_outs, "ada", ROOM)
    clock.now += DEFAULT_RULES.forget_seconds
    lock_outs.failed("bob", ROOM)
    db = sqlite3.connect(path)
    assert db.execute("SELECT DISTINCT name FROM pairs").fetchall() == [("bob",)]
    assert db.execute("SELECT name FROM names").fetchall() == [("bob",)]
    db.close()


def test_a_clock_that_was_years_ahead_locks_nobody(lock_outs, clock):
    clock.now += 10**9
    fail(lock_outs, "ada", ROOM)
    guess_from_everywhere(lock_outs, "bob")
    for number in range(200):
        lock_outs.failed(f"invented-{number}", ROOM)
    clock.now = NOW
    assert lock_outs.wait_seconds("ada", ROOM) == 0
    assert lock_outs.wait_seconds("bob", HOME) == 0
    fail(lock_outs, "ada", ROOM, 4)
    assert lock_outs.wait_seconds("ada", ROOM) == 0


@pytest.mark.parametrize("name", ["", "a\0b", "\udc80", "x" * 10**6, "'; DROP", "ä"])
def test_any_name_is_counted(lock_outs, name):
    fail(lock_outs, name, ROOM)
    assert lock_outs.wait_seconds(name, ROOM) == 5 * MINUTE
    assert lock_outs.unlock(name) == 1


def test_the_file_is_the_hubs_alone_whatever_the_umask(opened, path):
    before = os.umask(0)
    try:
        opened().failed("ada", ROOM)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_others_may_read_is_closed_to_them(opened, path):
    path.touch()
    path.chmod(0o644)
    opened().failed("ada", ROOM)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_no_database_is_put_aside(opened, path, caplog):
    path.write_text("no database" * 1000)
    journal = path.with_name(f"{path.name}-journal")
    journal.write_text("of the old file")
    lock_outs = opened()
    fail(lock_outs, "ada", ROOM)
    assert lock_outs.problem == ""
    assert opened().wait_seconds("ada", ROOM) == 5 * MINUTE
    aside = path.with_name(f"{path.name}.broken")
    assert aside.read_text().startswith("no database")
    assert not journal.exists()
    assert [x.levelname for x in caplog.records] == ["ERROR"]
    assert aside.name in caplog.text


def test_a_file_that_breaks_under_the_hub_is_put_aside(opened, path):
    hub = opened()
    fail(hub, "ada", ROOM)
    with path.open("r+b") as file:
        file.write(b"x" * 4096)
    assert hub.wait_seconds("ada", ROOM) == 0
    fail(hub, "ada", ROOM)
    assert hub.problem == ""
    assert opened().wait_seconds("ada", ROOM) == 5 * MINUTE


def test_a_file_that_is_removed_is_begun_anew(opened, path):
    hub = opened()
    fail(hub, "ada", ROOM)
    path.unlink()
    assert hub.wait_seconds("ada", ROOM) == 0
    fail(hub, "ada", ROOM)
    assert opened().unlock("ada") == 1
    assert hub.wait_seconds("ada", ROOM) == 0


def no_folder(tmp_path):
    return tmp_path / "no-such-folder" / "lock-outs.sqlite"


def a_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


def a_newer_file(tmp_path):
    path = tmp_path / "newer.sqlite"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    return path


def a_read_only_folder(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write in any folder: run the tests as another user")
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    return folder / "lock-outs.sqlite"


@pytest.mark.parametrize(
    "unusable", [no_folder, a_folder, a_newer_file, a_read_only_folder]
)
def test_without_a_file_failures_are_counted_in_memory(
    opened, tmp_path, caplog, unusable
):
    path = unusable(tmp_path)
    lock_outs = opened(path)
    fail(lock_outs, "ada", ROOM)
    assert lock_outs.wait_seconds("ada", ROOM) == 5 * MINUTE
    assert str(path) in lock_outs.problem
    assert caplog.messages == [lock_outs.problem]


FULL = "CREATE TRIGGER full BEFORE INSERT ON {} BEGIN SELECT RAISE(FAIL, 'full'); END"


def test_a_file_that_takes_no_more_is_used_again_when_it_does(
    opened, path, clock, caplog
):
    hub = opened()
    fail(hub, "ada", ROOM)
    hub.succeeded("grace", HOME)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(FULL.format("pairs"))

    clock.now += 1
    fail(hub, "bob", ROOM)
    assert "full" in hub.problem
    # What was in the file holds on, beside what is in memory.
    assert hub.wait_seconds("ada", ROOM) == 5 * MINUTE - 1
    assert hub.wait_seconds("bob", ROOM) == 5 * MINUTE

    clock.now += MINUTE
    hub.failed("bob", HOME)
    assert hub.problem
    assert len(caplog.records) == 1

    db.execute("DROP TRIGGER full")
    db.execute("DELETE FROM pairs WHERE name = 'ada'")
    clock.now += MINUTE
    assert hub.wait_seconds("bob", ROOM) == 3 * MINUTE
    assert hub.problem == ""
    # It was unlocked there meanwhile.
    assert hub.wait_seconds("ada", ROOM) == 0
    assert opened().wait_seconds("bob", ROOM) == 3 * MINUTE
    db.close()
