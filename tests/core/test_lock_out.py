"""Who has to wait after wrong codes, how long, and who never does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.lock_out import (
    CLOCK_SLACK_SECONDS,
    DEFAULT_RULES,
    LONGEST_KEPT_NAME,
    Level,
    Pair,
    Standing,
    address_key,
    level_after_failure,
    level_after_success,
    name_key,
    pair_after_failure,
    wait_seconds,
)

NOW = 1_800_000_000.0
MINUTE = 60.0
DAY = 86400.0
GUESSES_A_DAY_FROM_ONE_ADDRESS = 400
GUESSES_A_DAY_FROM_OTHERS = 100 + 2880


def pair(failures=0, waits=0, ago=0.0, until=0.0):
    at = NOW - ago
    return Pair(failures=failures, in_window=failures, waits=waits, at=at, until=until)


def wait(*, pair=None, tries=None, busy=0, standing=Standing.STRANGE, now=NOW):
    level = None if tries is None else Level(tries=tries, at=NOW)
    return wait_seconds(
        pair=pair, level=level, address_failures=busy, standing=standing, now=now
    )


@pytest.mark.parametrize(
    ("given", "expected_seconds"),
    [
        ({}, 0),
        ({"pair": pair(failures=4)}, 0),
        ({"pair": pair(until=NOW + 300)}, 300),
        ({"pair": pair(until=NOW)}, 0),
        ({"pair": pair(until=NOW + 300), "standing": Standing.GOOD}, 300),
        # An address with many failures.
        ({"busy": 10_000}, 0),
        ({"busy": 10_000, "pair": pair(failures=1)}, 0),
        ({"busy": 99, "pair": pair(failures=2)}, 0),
        ({"busy": 100, "pair": pair(failures=2)}, 300),
        ({"busy": 100, "pair": pair(failures=2, ago=200)}, 100),
        ({"busy": 100, "pair": pair(failures=2, ago=300)}, 0),
        ({"busy": 100, "pair": pair(failures=2, waits=9, ago=901)}, 0),
        # A name with many failures.
        ({"tries": 29}, 0),
        ({"tries": 30}, 30),
        ({"tries": 30, "standing": Standing.KNOWN}, 0),
        ({"tries": 100, "standing": Standing.KNOWN}, 30),
        ({"tries": 100, "standing": Standing.GOOD}, 0),
        ({"tries": 100}, 30 + 70 * 30),
        # The longer of two waits.
        ({"tries": 30, "pair": pair(until=NOW + 300)}, 300),
    ],
)
def test_the_wait_follows_from_what_is_kept(given, expected_seconds):
    assert wait(**given) == expected_seconds


def fail(times, kept=None, at=NOW, busy=0):
    for _ in range(times):
        kept = pair_after_failure(kept, busy, at)
    return kept


def test_the_fifth_failure_makes_a_name_wait():
    assert wait(pair=fail(4)) == 0
    assert wait(pair=fail(5)) == 5 * MINUTE


def test_failures_long_before_do_not_count():
    kept = fail(4, at=NOW - DEFAULT_RULES.window_seconds)
    assert wait(pair=fail(4, kept)) == 0


def test_waits_double_up_to_an_hour():
    kept, now, lengths = None, NOW, []
    for _ in range(6):
        kept = fail(5, kept, at=now)
        length = wait(pair=kept, now=now)
        lengths.append(length / MINUTE)
        now += length
        assert wait(pair=kept, now=now) == 0
    assert lengths == [5, 10, 20, 40, 60, 60]


def test_a_wait_is_short_again_after_a_day():
    kept = fail(15, at=NOW - DEFAULT_RULES.forget_seconds)
    assert wait(pair=fail(5, kept)) == 5 * MINUTE


def test_very_many_waits_are_still_a_number():
    assert wait(pair=fail(1, pair(failures=4, waits=10**9))) == 60 * MINUTE


def test_a_busy_address_has_two_tries_for_each_name():
    assert wait(pair=fail(1, busy=100), busy=100) == 0
    assert wait(pair=fail(2, busy=100), busy=100) == 5 * MINUTE


def test_guesses_that_were_under_way_at_once_do_not_shorten_a_wait():
    kept = fail(7)
    assert wait(pair=kept) == 5 * MINUTE
    assert wait(pair=fail(3, kept)) == 10 * MINUTE


def test_tries_of_a_name_come_back_one_by_one():
    level = None
    for _ in range(200):
        level = level_after_failure(level, NOW)
    assert level.tries == DEFAULT_RULES.name_failures_if_known
    after = NOW + DEFAULT_RULES.forget_name_seconds / 2
    assert level_after_failure(level, after).tries == 51
    assert (
        level_after_failure(level, NOW + DEFAULT_RULES.forget_name_seconds).tries == 1
    )


def test_a_success_gives_its_own_try_back_and_no_other():
    assert level_after_success(Level(tries=30, at=NOW), NOW).tries == 29
    assert level_after_success(None, NOW).tries == 0


@given(back=st.floats(0, 100 * 365 * DAY))
def test_a_clock_that_is_set_back_makes_nobody_wait_longer(back):
    then = NOW - back
    kept, level = fail(5, pair(waits=9)), Level(tries=100, at=NOW)
    waits = wait_seconds(
        pair=kept,
        level=level,
        address_failures=1000,
        standing=Standing.STRANGE,
        now=then,
    )
    assert waits <= DEFAULT_RULES.longest_wait_seconds
    if back > CLOCK_SLACK_SECONDS:
        assert waits == 0
    assert pair_after_failure(kept, 0, then).at == then
    assert level_after_failure(level, then).at == then


@given(busy=st.integers(0, 10**6), standing=st.sampled_from(Standing))
def test_a_name_without_failures_never_waits(busy, standing):
    assert wait(busy=busy, standing=standing) == 0


@given(
    pauses=st.lists(
        st.sampled_from([0.0, 1.0, 299.0, 300.0, 899.0, 900.0, 901.0, 3600.0]),
        min_size=1,
        max_size=12,
    ),
    busy=st.sampled_from([0, 100]),
)
def test_guesses_at_a_name_from_one_address_stay_few(pauses, busy):
    now, kept, guesses, turn = NOW, None, 0, 0
    while now < NOW + DAY:
        if waits := wait(pair=kept, busy=busy, now=now):
            now += waits
            continue
        kept = pair_after_failure(kept, busy, now)
        guesses += 1
        now += pauses[turn % len(pauses)]
        turn += 1
        if guesses > GUESSES_A_DAY_FROM_ONE_ADDRESS:
            break
    assert guesses <= GUESSES_A_DAY_FROM_ONE_ADDRESS


@pytest.mark.parametrize("standing", [Standing.STRANGE, Standing.KNOWN])
def test_guesses_at_a_name_from_all_addresses_stay_few(standing):
    now, level, guesses = NOW, None, 0
    while now < NOW + DAY:
        waits = wait_seconds(
            pair=None, level=level, address_failures=0, standing=standing, now=now
        )
        if waits:
            now += waits
            continue
        level = level_after_failure(level, now)
        guesses += 1
    assert guesses <= GUESSES_A_DAY_FROM_OTHERS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", "unknown"),
        ("192.0.2", "unknown"),
        ("a room\0\udc80", "unknown"),
        ("192.0.2.7, 192.0.2.8", "unknown"),
    ],
)
def test_an_address_counts_as_its_network(text, expected):
    assert address_key(text) == expected


@given(st.text())
def test_any_text_is_an_address_of_some_kind(text):
    assert address_key(text)


@given(st.text(st.characters(codec=None), max_size=100))
def test_any_name_can_be_written_down(name):
    assert isinstance(name_key(name).encode(), bytes)


def test_a_long_name_is_kept_short_and_an_attendees_as_it_is():
    assert len(name_key("x" * 10**6)) == LONGEST_KEPT_NAME
    assert name_key("attendee-07") == "attendee-07"
