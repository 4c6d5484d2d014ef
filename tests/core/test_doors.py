"""Opening hours: what attendees may do at each instant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.doors import Doors, Hours, Stage

TWO_DAYS = Doors(
    hours=(Hours(opens_at=100, closes_at=200), Hours(opens_at=300, closes_at=400)),
    grace_seconds=20,
    work_seconds=1000,
)


@pytest.mark.parametrize(
    ("now", "stage"),
    [
        (99, Stage.BEFORE),
        (100, Stage.OPEN),
        (199, Stage.OPEN),
        (200, Stage.CLOSING),
        (219, Stage.CLOSING),
        (220, Stage.CLOSED),
        (299, Stage.CLOSED),
        (300, Stage.OPEN),
        (400, Stage.CLOSING),
        (420, Stage.CLOSED),
        (1399, Stage.CLOSED),
        (1400, Stage.OVER),
    ],
)
def test_the_doors_of_two_days(now, stage):
    assert TWO_DAYS.at(now).stage is stage


def test_without_hours_the_doors_are_always_open():
    standing = Doors().at(0)
    assert standing.stage is Stage.OPEN
    assert not standing.tells


@pytest.mark.parametrize(
    ("now", "tells"), [(150, False), (180, True), (219, True), (250, False)]
)
def test_who_works_is_told_as_long_before_the_closing_as_servers_go_on(now, tells):
    assert TWO_DAYS.at(now).tells is tells


def test_a_break_shorter_than_the_grace_stops_nobody():
    lunch = Doors(
        hours=(Hours(opens_at=0, closes_at=100), Hours(opens_at=110, closes_at=200)),
        grace_seconds=10,
    )
    standing = lunch.at(105)
    assert standing.stage is Stage.CLOSING
    assert standing.stops_at is None
    assert not standing.tells
    assert standing.opens_at == 110


def test_no_time_for_ones_work_ends_it_with_the_servers():
    assert Doors(hours=(Hours(opens_at=0, closes_at=9),)).at(9).stage is Stage.OVER


@st.composite
def any_doors(draw):
    marks = draw(
        st.lists(st.integers(0, 10_000), min_size=2, max_size=8, unique=True).map(
            sorted
        )
    )
    pairs = zip(marks[::2], marks[1::2], strict=False)
    return Doors(
        hours=tuple(Hours(opens_at=a, closes_at=b) for a, b in pairs),
        grace_seconds=draw(st.integers(0, 500)),
        work_seconds=draw(st.integers(0, 5000)),
    )


@given(any_doors(), st.integers(-10, 20_000))
def test_nobody_loses_a_server_within_the_hours_or_the_grace(doors, now):
    standing = doors.at(now)
    within = [h for h in doors.hours if h.opens_at <= now < h.closes_at]
    spared = [
        h for h in doors.hours if h.opens_at <= now < h.closes_at + doors.grace_seconds
    ]
    assert (standing.stage is Stage.OPEN) == bool(within)
    if spared:
        assert standing.stage in (Stage.OPEN, Stage.CLOSING)
    if standing.stage in (Stage.CLOSED, Stage.OVER):
        assert standing.stops_at is not None
        assert standing.stops_at <= now


@given(any_doors(), st.integers(-10, 20_000))
def test_what_a_standing_says_lies_on_the_right_side_of_now(doors, now):
    standing = doors.at(now)
    if standing.opens_at is not None:
        assert standing.opens_at > now
    if standing.stage is Stage.BEFORE:
        assert standing.opens_at is not None
    if standing.stage is Stage.OPEN:
        assert standing.closes_at > now
    if standing.stage is Stage.CLOSED and standing.opens_at is None:
        assert standing.ends_at > now
