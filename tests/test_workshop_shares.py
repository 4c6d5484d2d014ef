"""Which share the workshop file gives to whom, and which key says so."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given

from jupyterhub_gpuworkshop.core.shares import Share
from jupyterhub_gpuworkshop.workshop import Workshop

from .core.test_shares import shares


@pytest.mark.parametrize(
    ("source", "devices", "share"),
    [
        ({}, 4, "1/5"),
        ({}, 0, "1/5"),
        ({"attendees": 40}, 4, "1/10"),
        ({"attendees": 41}, 4, "1/11"),
        ({"attendees": 3}, 4, "1/1"),
        ({"attendees": 40}, 0, "1/5"),
        ({"attendees": 40, "gpus": {"oversubscribe": 2}}, 4, "1/5"),
        ({"attendees": 7, "gpus": {"oversubscribe": 1.2}}, 3, "1/3"),
        ({"attendees": 40, "gpus": {"attendees_per_gpu": 8}}, 4, "1/8"),
        ({"attendees": 40, "gpus": {"memory_per_attendee": "3GiB"}}, 4, "3GiB"),
        ({"attendees": 40, "shares": {"default": "1 gpu"}}, 4, "1 gpu"),
    ],
)
def test_the_default_share_follows_from_the_file(
    source: Mapping[str, object], devices: int, share: str
) -> None:
    assert str(Workshop.load(source).default_share(devices)) == share


SHARES = {
    "shares": {
        "default": "1/4",
        "groups": {"staff": "1 gpu", "guests": "cpu"},
        "users": {"alice": "8GiB"},
    }
}


@pytest.mark.parametrize(
    ("user", "groups", "share", "where"),
    [
        ("alice", ["staff"], "8GiB", "shares.users.alice"),
        ("bob", ["guests", "staff"], "1 gpu", "shares.groups.staff"),
        ("bob", {"guests"}, "cpu", "shares.groups.guests"),
        ("bob", ["others"], "1/4", "shares.default"),
        ("staff", [], "1/4", "shares.default"),
    ],
)
def test_a_users_share_goes_before_a_groups_and_that_before_the_default(
    user: str, groups: Any, share: str, where: str
) -> None:
    got, said = Workshop.load(SHARES).share_for(user, groups, 4)
    assert (str(got), said) == (share, where)


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ({}, "the default of 5 a GPU"),
        ({"attendees": 40}, "attendees: 40"),
        ({"gpus": {"attendees_per_gpu": 8}}, "gpus.attendees_per_gpu"),
        ({"gpus": {"memory_per_attendee": "8GiB"}}, "gpus.memory_per_attendee"),
    ],
)
def test_the_default_share_says_what_sets_it(
    source: Mapping[str, object], where: str
) -> None:
    assert Workshop.load(source).share_for("bob", (), 4)[1] == where


@given(shares())
def test_any_share_in_the_file_reads_back_as_it_was_written(share: Share) -> None:
    workshop = Workshop.load({"shares": {"users": {"alice": str(share)}}})
    assert workshop.share_for("alice", (), 4)[0] == share
    assert Workshop.load(workshop.model_dump(mode="json")) == workshop


def test_a_share_of_the_roster_goes_before_groups_and_after_users() -> None:
    shares = {"users": {"ada": "cpu"}, "groups": {"team": "1/2"}, "default": "1/9"}
    workshop = Workshop.load({"shares": shares})
    groups = ["team", "gpu-share:1/4"]
    assert workshop.share_for("bob", groups, 4) == (Share.parse("1/4"), groups[1])
    assert str(workshop.share_for("ada", groups, 4)[0]) == "cpu"
    assert str(workshop.share_for("bob", ["team"], 4)[0]) == "1/2"
