"""How long who gave wrong codes has to wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.lock_out import (
    DEFAULT_RULES,
    Level,
    LockOutRules,
    Pair,
    Standing,
    address_key,
    level_after_failure,
    level_after_success,
    name_key,
    pair_after_failure,
    wait_seconds,
)

_NOW = 1_800_000_000.0
_DAY = 86_400


def _pair(failures: int, *, busy: int = 0, start: float = _NOW) -> Pair | None:
    pair = None
    for number in range(failures):
        pair = pair_after_failure(pair, busy, start + number)
    return pair


def _level(failures: int) -> Level | None:
    level = None
    for _ in range(failures):
        level = level_after_failure(level, _NOW)
    return level


def _wait(
    pair: Pair | None = None,
    level: Level | None = None,
    *,
    busy: int = 0,
    standing: Standing = Standing.STRANGE,
    now: float = _NOW,
) -> float:
    return wait_seconds(
        pair=pair, level=level, address_failures=busy, standing=standing, now=now
    )


@pytest.mark.parametrize(
    ("failures", "busy", "waits"),
    [(0, 0, False), (4, 0, False), (5, 0, True), (1, 100, False), (2, 100, True)],
)
def test_a_name_has_five_tries_at_an_address_and_two_at_a_busy_one(
    failures: int, busy: int, waits: bool
) -> None:
    pair = _pair(failures, busy=busy)
    assert (_wait(pair, busy=busy, now=_NOW + failures) > 0) is waits


def test_tries_at_an_address_that_became_busy_count() -> None:
    pair = _pair(3)
    assert _wait(pair, now=_NOW + 3) == 0
    assert _wait(pair, busy=100, now=_NOW + 3) > 0


def test_each_wait_is_twice_as_long_up_to_an_hour_and_ends() -> None:
    now, pair, waits = _NOW, None, []
    for _ in range(6):
        for _ in range(5):
            pair = pair_after_failure(pair, 0, now)
        waits.append(_wait(pair, now=now))
        now += waits[-1]
        assert _wait(pair, now=now) == 0
    assert waits == [300, 600, 1200, 2400, 3600, 3600]
    pair = pair_after_failure(pair, 0, now + _DAY)
    assert pair.waits == 0, "a day later the first wait is short again"


@pytest.mark.parametrize(
    ("failures", "standing", "waits"),
    [
        (29, Standing.STRANGE, False),
        (30, Standing.STRANGE, True),
        (30, Standing.KNOWN, False),
        (100, Standing.KNOWN, True),
        (10_000, Standing.GOOD, False),
    ],
)
def test_guesses_from_everywhere_stop_strange_addresses_first_and_good_ones_never(
    failures: int, standing: Standing, waits: bool
) -> None:
    assert (_wait(level=_level(failures), standing=standing) > 0) is waits


def test_a_names_tries_come_back_and_a_success_gives_back_one() -> None:
    level = _level(30)
    assert level is not None
    assert _wait(level=level, now=_NOW + 31) == 0
    assert level_after_success(level, _NOW).tries == 29
    assert level_after_success(None, _NOW).tries == 0


@given(
    at=st.floats(0, 4e9),
    now=st.floats(0, 4e9),
    failures=st.integers(1, 200),
    busy=st.integers(0, 1000),
    standing=st.sampled_from(Standing),
)
def test_no_clock_however_it_jumps_makes_a_wait_longer_than_an_hour(
    at: float, now: float, failures: int, busy: int, standing: Standing
) -> None:
    pair = None
    for _ in range(failures):
        pair = pair_after_failure(pair, busy, at)
    level = Level(tries=float(failures), at=at)
    wait = _wait(pair, level, busy=busy, standing=standing, now=now)
    assert 0 <= wait <= max(3600, failures * 30)
    if at > now + 60:
        assert wait == 0


def test_a_day_admits_fewer_than_four_hundred_guesses_at_a_name_from_one_address() -> (
    None
):
    now, end, guesses = _NOW, _NOW + _DAY, 0
    pair = None
    while now < end:
        wait = _wait(pair, now=now)
        if wait:
            now += wait
            continue
        pair = pair_after_failure(pair, 0, now)
        guesses += 1
    assert 50 < guesses < 400


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("not an address", "unknown"),
        ("192.0.2.7:80", "unknown"),
    ],
)
def test_addresses_count_by_what_one_machine_has(text: str, key: str) -> None:
    assert address_key(text) == key


@given(st.text())
def test_any_name_is_counted_under_a_short_one_that_can_be_stored(name: str) -> None:
    assert len(name_key(name).encode()) <= 64 * 10
    assert name_key(name) == name_key(name)


def test_the_limits_leave_a_room_its_tries() -> None:
    assert DEFAULT_RULES.pair_failures_if_busy >= 1
    assert LockOutRules(pair_failures=3).pair_failures == 3
