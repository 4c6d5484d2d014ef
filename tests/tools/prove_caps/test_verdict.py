"""What figures prove: a table of trials and what is said of them."""

from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.tools.doctor.check import Status
from jupyterhub_gpuworkshop.tools.prove_caps.verdict import (
    Fill,
    Limits,
    Trial,
    Verdict,
    judge,
    report,
)

LIMITS = Limits(
    device="GPU 0",
    share="1/5",
    share_bytes=16 * GIB,
    cap_bytes=15 * GIB,
    block_bytes=256 * MIB,
    past_bytes=18 * GIB,
)
WHOLE = replace(LIMITS, whole=True)
AT_THE_CAP = Fill(held_bytes=15 * GIB, refused="OutOfMemoryError: no")
PAST = Fill(held_bytes=18 * GIB, refused="")
BETWEEN = Fill(held_bytes=15 * GIB + 1, refused="OutOfMemoryError: no")
BOTH = (AT_THE_CAP, AT_THE_CAP)


def trial(leased: Fill, undone: Fill | None = PAST, **more: object) -> Trial:
    return Trial(
        framework="torch",
        version="2.11.0",
        hooked=True,
        leased=leased,
        undone=undone,
        **{"pair": BOTH, **more},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("limits", "leased", "undone", "verdict"),
    [
        (LIMITS, AT_THE_CAP, PAST, Verdict.SOFT),
        (LIMITS, AT_THE_CAP, BETWEEN, Verdict.SOFT),
        (LIMITS, AT_THE_CAP, AT_THE_CAP, Verdict.HOLDS),
        # Not tried without the settings: no more than soft is proven.
        (LIMITS, AT_THE_CAP, None, Verdict.SOFT),
        (LIMITS, PAST, None, Verdict.DOES_NOT_HOLD),
        # A byte too much is too much, whatever ended it.
        (LIMITS, BETWEEN, AT_THE_CAP, Verdict.DOES_NOT_HOLD),
        (WHOLE, BETWEEN, None, Verdict.HOLDS),
        (WHOLE, PAST, None, Verdict.DOES_NOT_HOLD),
    ],
)
def test_the_verdict_follows_from_the_figures(limits, leased, undone, verdict) -> None:
    tried = trial(leased, undone)
    assert judge(limits, tried) is verdict
    assert report(limits, tried).finding.startswith(f"{verdict.value}: torch 2.11.0 ")


def test_a_cap_that_holds_softly_is_as_it_should_be() -> None:
    check = report(LIMITS, trial(AT_THE_CAP))
    assert (check.check, check.status, check.remedy) == ("caps.torch", Status.OK, "")


@pytest.mark.parametrize(
    ("framework", "hooked", "status", "remedy"),
    [
        ("torch", True, Status.FAIL, "Do not rely on this cap."),
        ("torch", False, Status.FAIL, "The import hook did not run"),
        ("tensorflow", False, Status.FAIL, "The import hook did not run"),
        ("jax", False, Status.FAIL, "Do not rely on this cap."),
        ("cudf", True, Status.WARN, "No setting is known that caps cudf."),
    ],
)
def test_a_cap_that_does_not_hold_comes_with_what_to_do(
    framework: str, hooked: bool, status: Status, remedy: str
) -> None:
    tried = replace(trial(PAST, None), framework=framework, hooked=hooked)
    check = report(LIMITS, tried)
    assert check.status is status
    assert check.remedy.startswith(remedy)


def test_a_context_larger_than_was_set_aside_is_told_with_its_figure() -> None:
    leased = replace(AT_THE_CAP, counted_bytes=16 * GIB + 70 * MIB)
    check = report(LIMITS, trial(leased))
    assert check.status is Status.WARN
    assert "counted 16.1 GiB for the process, 70 MiB above the share" in check.finding
    assert "gpus.keep_free_per_gpu" in check.remedy
    within = report(LIMITS, trial(replace(AT_THE_CAP, counted_bytes=16 * GIB)))
    assert within.status is Status.OK
    # Nobody is beside who has all of it.
    assert report(WHOLE, trial(leased)).status is Status.OK


def test_a_share_that_cannot_be_used_fails_although_its_cap_holds() -> None:
    little = Fill(held_bytes=11 * GIB, refused="OutOfMemoryError: no")
    check = report(LIMITS, trial(little, PAST, pair=(little, little)))
    assert check.status is Status.FAIL
    assert check.finding.startswith("soft: holds until unset")
    assert "refused already at 11 GiB (OutOfMemoryError: no)" in check.remedy
    enough = Fill(held_bytes=12 * GIB, refused="OutOfMemoryError: no")
    check = report(LIMITS, trial(enough, PAST, pair=(enough, enough)))
    assert check.status is Status.OK


def test_two_attendees_must_each_have_what_one_has_alone() -> None:
    short = Fill(held_bytes=14 * GIB, refused="OutOfMemoryError: the device is full")
    check = report(LIMITS, trial(AT_THE_CAP, PAST, pair=(AT_THE_CAP, short)))
    assert check.status is Status.FAIL
    assert "Two attendees at once got 15 GiB and 14 GiB." in check.finding
    assert "OutOfMemoryError: the device is full" in check.remedy


def test_two_attendees_of_whom_one_broke_off_fail() -> None:
    why = "the process ended in `fill` with signal 9."
    tried = trial(AT_THE_CAP, PAST, pair=(), pair_why=why, pair_failed=True)
    check = report(LIMITS, tried)
    assert check.status is Status.FAIL
    assert f"Two attendees at once: failed: {why}" in check.finding


def test_what_was_not_tried_is_said() -> None:
    tried = trial(AT_THE_CAP, None, undone_why="GPU 0 is in use.", pair=())
    tried = replace(tried, pair_why="one share leaves no room for a second.")
    check = report(LIMITS, tried)
    assert check.status is Status.OK
    assert "Not tried without the settings: GPU 0 is in use." in check.finding
    assert "not tried: one share leaves no room for a second." in check.finding
