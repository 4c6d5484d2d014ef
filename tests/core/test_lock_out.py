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


def _kept(
    failures: int = 0, *, waits: int = 0, ago: float = 0, wait: float = 0
) -> Pair:
    return Pair(
        failures=failures,
        in_window=failures,
        waits=waits,
        at=_NOW - ago,
        until=_NOW + wait if wait else 0.0,
    )


@pytest.mark.parametrize(
    ("pair", "tries", "busy", "standing", "expected_seconds"),
    [
        (None, 0, 0, Standing.STRANGE, 0),
        (_kept(4), 0, 0, Standing.STRANGE, 0),
        (_kept(wait=300), 0, 0, Standing.STRANGE, 300),
        (_kept(wait=300), 0, 0, Standing.GOOD, 300),
        # A busy address.
        (None, 0, 10_000, Standing.STRANGE, 0),
        (_kept(1), 0, 10_000, Standing.STRANGE, 0),
        (_kept(2), 0, 99, Standing.STRANGE, 0),
        (_kept(2), 0, 100, Standing.STRANGE, 300),
        (_kept(2, ago=200), 0, 100, Standing.STRANGE, 100),
        (_kept(2, ago=300), 0, 100, Standing.STRANGE, 0),
        (_kept(2, ago=901, waits=9), 0, 100, Standing.STRANGE, 0),
        # A name that many guess at.
        (None, 29, 0, Standing.STRANGE, 0),
        (None, 30, 0, Standing.STRANGE, 30),
        (None, 30, 0, Standing.KNOWN, 0),
        (None, 100, 0, Standing.KNOWN, 30),
        (None, 100, 0, Standing.STRANGE, 71 * 30),
        (None, 100, 0, Standing.GOOD, 0),
        # The longer of two waits.
        (_kept(wait=300), 30, 0, Standing.STRANGE, 300),
    ],
)
def test_the_wait_follows_from_what_is_kept(
    pair: Pair | None,
    tries: float,
    busy: int,
    standing: Standing,
    expected_seconds: float,
) -> None:
    level = Level(tries=tries, at=_NOW)
    assert _wait(pair, level, busy=busy, standing=standing) == expected_seconds


def test_failures_long_before_do_not_count() -> None:
    pair = _kept(4, ago=DEFAULT_RULES.window_seconds)
    for _ in range(4):
        pair = pair_after_failure(pair, 0, _NOW)
    assert _wait(pair) == 0


def test_very_many_waits_are_still_a_number() -> None:
    pair = pair_after_failure(_kept(4, waits=10**9), 0, _NOW)
    assert _wait(pair) == DEFAULT_RULES.longest_wait_seconds


def test_guesses_that_were_under_way_at_once_do_not_shorten_a_wait() -> None:
    pair = _pair(5)
    for number in range(5):
        assert _wait(pair, now=_NOW + 5 + number) > 290
        pair = pair_after_failure(pair, 0, _NOW + 5 + number)
    assert _wait(pair, now=_NOW + 9) == 600


def test_a_name_is_done_with_when_all_its_tries_are_back() -> None:
    full, rules = _level(200), DEFAULT_RULES
    assert full is not None
    assert full.tries == rules.name_failures_if_known
    all_back = _NOW + rules.forget_name_seconds
    assert level_after_failure(full, all_back - 30).tries == 2
    assert level_after_failure(full, all_back).tries == 1


@given(busy=st.integers(0, 10**6), standing=st.sampled_from(Standing))
def test_a_name_without_failures_never_waits(busy: int, standing: Standing) -> None:
    assert _wait(busy=busy, standing=standing) == 0


@given(
    pauses=st.lists(
        st.sampled_from([0.0, 1.0, 299.0, 300.0, 899.0, 900.0, 3600.0, 86_399.0]),
        min_size=1,
        max_size=12,
    ),
    busy=st.sampled_from([0, 100]),
)
def test_whenever_one_guesses_a_day_admits_fewer_than_four_hundred(
    pauses: list[float], busy: int
) -> None:
    now, pair, guesses = _NOW, None, 0
    while now < _NOW + _DAY and guesses < 400:
        if wait := _wait(pair, busy=busy, now=now):
            now += wait
            continue
        pair = pair_after_failure(pair, busy, now)
        now += pauses[guesses % len(pauses)]
        guesses += 1
    assert guesses < 400


@pytest.mark.parametrize("standing", [Standing.STRANGE, Standing.KNOWN])
def test_a_day_admits_fewer_than_three_thousand_guesses_from_everywhere(
    standing: Standing,
) -> None:
    now, level, guesses = _NOW, None, 0
    while now < _NOW + _DAY:
        if wait := _wait(level=level, standing=standing, now=now):
            now += wait
            continue
        level = level_after_failure(level, now)
        guesses += 1
    assert 2880 < guesses <= 2980


@pytest.mark.parametrize("name", ["\udc80", "a\0b", "", "x" * 10**6])
def test_names_that_nobody_has_can_be_stored_too(name: str) -> None:
    assert len(name_key(name).encode()) <= 64 * 10
