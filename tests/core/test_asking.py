"""A person's word: who gave it, what stands against it, and what may be said."""

import pytest

from jupyterhub_gpuworkshop.core.asking import (
    MOST_NOTICE_CHARACTERS,
    Asker,
    Meant,
    why_no_notice,
    why_not_take,
)
from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.core.snapshot import KernelState

IDLE = {"is_known": True, "state": KernelState.IDLE, "memory_bytes": 2**30}


@pytest.mark.parametrize(
    ("asker", "did"),
    [
        (Asker(name="ada", is_organiser=False, is_own=True), "ada restarted it."),
        (Asker(name="olga", is_organiser=True), "Organiser olga restarted it."),
        (Asker(name="olga", is_organiser=True, is_own=True), "olga restarted it."),
        (
            Asker(name="robots", is_organiser=True, is_user=False),
            "The service robots restarted it.",
        ),
    ],
)
def test_who_asked_is_named_as_those_concerned_know_them(asker, did):
    assert asker.did(Action.RESTART) == did
    assert asker.wanted(Action.STOP_KERNEL).endswith(" wanted it stopped.")


@pytest.mark.parametrize("action", list(Action))
def test_a_process_that_linux_does_not_vouch_for_is_left_alone_by_everybody(action):
    kernel = Meant(**{**IDLE, "is_known": False})
    assert "cannot be said now" in why_not_take(action, kernel)


@pytest.mark.parametrize("action", [Action.RESTART, Action.STOP_KERNEL])
@pytest.mark.parametrize("state", list(KernelState))
@pytest.mark.parametrize("memory_bytes", [0, 2**30])
@pytest.mark.parametrize("is_parked", [True, False])
def test_a_person_may_mean_a_kernel_whatever_it_does_and_holds(
    action, state, memory_bytes, is_parked
):
    kernel = Meant(
        is_known=True, state=state, memory_bytes=memory_bytes, is_parked=is_parked
    )
    assert why_not_take(action, kernel) == ""


@pytest.mark.parametrize(
    ("kernel", "why"),
    [
        ({}, ""),
        ({"state": KernelState.BUSY}, "It works just now"),
        ({"is_parked": True, "memory_bytes": 0}, "It is paused already"),
        ({"memory_bytes": 0}, "It holds no GPU memory"),
        (
            {"why_not_park": "it is on a slice."},
            "It cannot be paused: it is on a slice",
        ),
    ],
)
def test_what_cannot_be_paused_is_said_and_why(kernel, why):
    said = why_not_take(Action.PARK, Meant(**{**IDLE, **kernel}))
    assert said.startswith(why)
    assert bool(said) == bool(why)


@pytest.mark.parametrize(
    "text",
    [
        "Please free GPU 0.",
        "Großartig, 1 < 2 & <b>3</b>",
        "👩\u200d💻 \u2764\ufe0f",
        "x" * 500,
    ],
)
def test_one_line_of_any_language_is_a_notice(text):
    assert why_no_notice(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "x" * (MOST_NOTICE_CHARACTERS + 1),
        "two\nlines",
        "a\x00b",
        "a\x1b[31mb",
        "a\u202eb",
        "a\u2028b",
        "a\ud800b",
    ],
)
def test_what_nobody_could_read_or_see_is_none(text):
    assert why_no_notice(text)
