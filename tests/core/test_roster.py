"""Who may attend: which names and codes are fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.errors import RosterError
from jupyterhub_gpuworkshop.core.roster import (
    CODE_LENGTH,
    CODE_LETTERS,
    MOST_ATTENDEES,
    Attendee,
    Organiser,
    Room,
    Roster,
    code_from,
    joining_name,
    name_mistake,
    numbered_names,
    readable_code,
    share_group,
    share_of,
    tidy_code,
)
from jupyterhub_gpuworkshop.core.shares import Share


def _attendees(*names: str) -> tuple[Attendee, ...]:
    return tuple(Attendee(name=name, code_hash=f"hash of {name}") for name in names)


@pytest.mark.parametrize("name", ["ada", "a", "attendee-001", "zoe-ohara", "x2-y"])
def test_fit_names_are_names_of_hub_and_host(name: str) -> None:
    assert name_mistake(name) is None


@pytest.mark.parametrize(
    "name",
    [
        *("", "Ada", "1st", "-a", "a-", "a--b", "a b", "a_b", "a.b", "a/b", "../a"),
        *("a\n", "ä", "root", "www-data", "systemd-x", "a" * 25, "a\x00", "$(id)"),
    ],
)
def test_other_names_are_refused_on_one_printable_line(name: str) -> None:
    mistake = name_mistake(name)
    assert mistake is not None
    assert mistake.isprintable()


def test_a_name_stands_once_among_attendees_and_organisers() -> None:
    with pytest.raises(RosterError, match="ada is there twice"):
        Roster(attendees=_attendees("ada", "bob", "ada"))
    with pytest.raises(RosterError, match="ada is there twice"):
        Roster(
            attendees=_attendees("ada"),
            organisers=(Organiser(name="ada", password_hash=""),),
        )


def test_changes_name_whom_the_roster_does_not_have() -> None:
    roster = Roster(attendees=_attendees("ada", "bob"))
    assert roster.without(["ada"]).names() == ("bob",)
    assert roster.plus(_attendees("cy")).names() == ("ada", "bob", "cy")
    renewed = roster.with_codes({"bob": "new"})
    assert [one.code_hash for one in renewed.attendees] == ["hash of ada", "new"]
    for change in (
        roster.without,
        lambda names: roster.with_codes(dict.fromkeys(names)),
    ):
        with pytest.raises(RosterError, match="no attendee eve, zed"):
            change(["ada", "zed", "eve"])


def test_a_group_is_no_way_to_a_share_and_organisers_can_be_taken_off() -> None:
    with pytest.raises(RosterError, match="column share"):
        Roster(attendees=(Attendee(name="eve", code_hash="", group="gpu-share:1/1"),))
    olga = Organiser(name="olga", password_hash="")
    roster = Roster(attendees=_attendees("ada"), organisers=(olga,))
    assert roster.without(["olga"]) == Roster(attendees=_attendees("ada"))


def test_a_room_is_full_with_those_who_joined_and_are_on_the_roster_still() -> None:
    room = Room(code_hash="x", at_most=2)
    roster = Roster(attendees=_attendees("ada", "bob"), room=room)
    assert (roster.joined, roster.is_full) == (0, False)
    joined = [Attendee(name=n, code_hash="x", joined=True) for n in ("cy", "dee")]
    full = roster.plus(joined)
    assert (full.joined, full.is_full) == (2, True)
    after = full.without(["cy"])
    assert (after.joined, after.is_full, after.room) == (1, False, room)
    assert after.with_codes({"dee": "y"}).joined == 1
    assert Roster(attendees=_attendees("ada")).is_full, "nobody joins without a room"


@pytest.mark.parametrize("at_most", [0, -1, MOST_ATTENDEES + 1])
def test_a_room_has_a_bound(at_most: int) -> None:
    with pytest.raises(RosterError, match="number of people"):
        Room(code_hash="x", at_most=at_most)


def test_a_room_is_full_when_the_roster_is() -> None:
    room = Room(code_hash="x", at_most=MOST_ATTENDEES)
    names = (f"a{number}" for number in range(MOST_ATTENDEES))
    roster = Roster(attendees=_attendees(*names), room=room)
    assert roster.joined == 0
    assert roster.is_full


def test_wrong_room_codes_are_counted_under_a_name_that_nobody_can_have() -> None:
    assert name_mistake(joining_name("ada")) is not None


def test_numbers_go_on_where_names_are_taken() -> None:
    assert numbered_names("gpu-", 3, ["gpu-02"]) == ["gpu-01", "gpu-03", "gpu-04"]
    assert numbered_names("attendee", 100)[99] == "attendee-100"
    assert numbered_names("attendee", 100)[0] == "attendee-001"
    with pytest.raises(RosterError, match="unfit"):
        numbered_names("Grüße", 1)


@given(
    picks=st.lists(
        st.integers(0, len(CODE_LETTERS) - 1),
        min_size=CODE_LENGTH,
        max_size=CODE_LENGTH,
    ),
    between=st.sampled_from(["", " ", "-", "\u2013", "\u00a0", " - "]),
    lower=st.booleans(),
)
def test_a_code_is_the_same_however_it_is_typed(
    picks: list[int], between: str, lower: bool
) -> None:
    code = code_from(picks)
    typed = readable_code(code).replace("-", between)
    assert tidy_code(f" {typed.lower() if lower else typed}\n") == code


def test_a_share_travels_as_a_group_and_other_groups_are_passed_over() -> None:
    share = Share.parse("1/4")
    groups = ["gpu-share:nonsense", "teachers", share_group(share)]
    assert share_of(groups) == (share, "gpu-share:1/4")
    assert share_of(["teachers"]) is None
