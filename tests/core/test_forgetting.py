"""Names that become numbers, in users, servers and texts."""

import random

import pytest

from jupyterhub_gpuworkshop.core.forgetting import (
    Forgetting,
    choose_numbers,
    number_of,
    numbered,
)
from jupyterhub_gpuworkshop.core.wire import Event, EventKind


def _event(user: str, reason: str = "", **more: object) -> Event:
    details = {key: str(value) for key, value in more.items()}
    return Event(
        at=1.0,
        kind=EventKind.LEASE_GRANTED,
        user=user,
        reason=reason,
        details=details,
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ann holds 3 GiB", "attendee 17 holds 3 GiB"),
        ("anna holds 3 GiB", "anna holds 3 GiB"),
        ("hann, ann-2, joe-ann, ann_2", "hann, ann-2, joe-ann, ann_2"),
        ("ann, ann's and (ann).", "attendee 17, attendee 17's and (attendee 17)."),
        ("ann/thesis holds 1 GiB", "attendee 17 holds 1 GiB"),
        ("ann/a long name, bob", "attendee 17, bob"),
        ("read /home/jupyter-ann/ann.csv", "read /home/attendee 17"),
        ("jupyter-ann.service ended", "attendee 17.service ended"),
        ("jupyter-ann--thesis.service", "attendee 17.service"),
        ("jupyter-anna.service ended", "jupyter-anna.service ended"),
        ("container jupyter-a-2d1 of a-1", "container attendee 4 of attendee 4"),
        ("", ""),
    ],
)
def test_a_name_is_taken_out_of_texts_where_it_stands_for_itself(
    before: str, after: str
) -> None:
    forgetting = Forgetting(
        numbers={"ann": 17, "a-1": 4}, servers={"ann": {"a long name", "a"}}
    )
    assert forgetting.text(before) == after


def test_the_longer_of_two_forgotten_names_is_its_own_number() -> None:
    forgetting = Forgetting(numbers={"ann": 17, "anna": 4, "ann-2": 9})
    found = forgetting.text("ann-2 and anna and ann")
    assert found == "attendee 9 and attendee 4 and attendee 17"


def test_somebody_called_jupyter_ann_is_not_ann() -> None:
    others = Forgetting(numbers={"ann": 17}, others={"ann", "jupyter-ann"})
    assert others.text("jupyter-ann holds it") == "jupyter-ann holds it"
    both = Forgetting(numbers={"ann": 17, "jupyter-ann": 4})
    assert both.text("jupyter-ann, ann") == "attendee 4, attendee 17"


def test_nobody_to_forget_changes_nothing() -> None:
    event = _event("ann", "ann has it", notebook="a.ipynb")
    assert Forgetting(numbers={}).event(event) == event


def test_an_event_loses_what_its_attendee_named_and_another_only_the_name() -> None:
    forgetting = Forgetting(numbers={"ann": 17})
    own = forgetting.event(
        _event("ann", "Ann Lee.ipynb is idle", notebook="Ann Lee.ipynb", lease_id="x1")
    )
    assert own.user == "attendee 17"
    assert own.reason == "a notebook is idle"
    assert own.details == {"notebook": "", "lease_id": "x1"}
    others = forgetting.event(_event("bob", "full", notebook="b.ipynb", detail="ann"))
    assert others.user == "bob"
    assert others.details == {"notebook": "b.ipynb", "detail": "attendee 17"}
    assert forgetting.server("ann", "my-thesis") == "server"
    assert forgetting.server("ann", "") == ""
    assert forgetting.server("bob", "my-thesis") == "my-thesis"


def test_numbers_are_nobody_elses_and_do_not_follow_the_order_of_names() -> None:
    names = [f"attendee-{number:02d}" for number in range(50)]
    taken = set(range(1, 60))
    pick = random.Random(1).randrange  # noqa: S311 - the same one in each run
    chosen = choose_numbers(names, taken, pick)
    assert sorted(chosen) == names
    numbers = list(chosen.values())
    assert len(set(numbers)) == 50
    assert not taken & set(numbers)
    assert numbers != sorted(numbers)


def test_a_number_is_read_back_and_a_name_is_none() -> None:
    assert number_of(numbered(17)) == 17
    for name in ("attendee-17", "attendee 017", "attendee 17 ", "ada", ""):
        assert number_of(name) is None
