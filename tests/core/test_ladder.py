"""Before memory is taken its owner is told, and a notice stands for its whole time."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.idleness import KernelWatch, observe
from jupyterhub_gpuworkshop.core.reclaim import Circumstances, DecisionKind, decide
from jupyterhub_gpuworkshop.core.rules import Action

from .test_reclaim import IDLE, RULES, watch_of

TOLD_FIRST = replace(RULES, notice_seconds=10)


def idle_for(seconds, rules=TOLD_FIRST, **changes):
    """A kernel idle for so long, whose window began at 5."""
    readings = [replace(IDLE, at=float(t), **changes) for t in range(0, seconds + 6, 5)]
    return watch_of(*readings, rules=rules)


def decided(watch, rules=TOLD_FIRST, **case):
    return decide(watch, rules, watch.reading.at, Circumstances(**case))


def test_a_notice_is_due_so_long_before_the_limit():
    assert decided(idle_for(45)).kind is DecisionKind.KEEP
    assert decided(idle_for(45)).acts_at is None
    decision = decided(idle_for(50))
    assert decision.kind is DecisionKind.NOTICE
    assert decision.acts_at == 65.0


def test_nothing_is_taken_while_no_notice_stands_however_long_it_was_idle():
    assert decided(idle_for(300)).kind is DecisionKind.NOTICE
    assert decided(idle_for(300)).acts_at == 315.0


def test_a_notice_stands_its_whole_time_before_the_act():
    watch = idle_for(300)
    assert decided(watch, noticed_at=296.0).kind is DecisionKind.KEEP
    assert decided(watch, noticed_at=296.0).acts_at == 306.0
    assert decided(watch, noticed_at=295.0).kind is DecisionKind.RESTART


def test_a_notice_promises_no_pause_where_there_can_be_none():
    case = {"action": Action.PARK, "why_not_park": "it runs on a MIG slice."}
    assert decided(idle_for(50), action=Action.PARK).action is Action.PARK
    assert decided(idle_for(50), **case).action is Action.RESTART


def test_a_dry_run_tells_no_attendee_anything():
    rules = replace(TOLD_FIRST, dry_run=True)
    assert decided(idle_for(55), rules).kind is DecisionKind.KEEP
    assert decided(idle_for(60), rules).kind is DecisionKind.RESTART


def test_a_pinned_kernel_is_kept_and_the_reason_says_by_whom():
    decision = decided(idle_for(300), pinned="Kept until 14:00 by ada.")
    assert decision.kind is DecisionKind.KEEP
    assert "by ada" in decision.reason
    assert decision.acts_at is None


def test_a_kernel_that_cannot_be_parked_is_restarted_and_the_reason_says_why():
    case = {"action": Action.PARK, "noticed_at": 0.0}
    assert decided(idle_for(60), **case).kind is DecisionKind.PARK
    decision = decided(idle_for(60), **case, why_not_park="it runs on a MIG slice.")
    assert decision.kind is DecisionKind.RESTART
    assert "MIG slice" in decision.reason


def test_groups_differ_and_the_first_of_the_file_counts():
    actions = {"mentors": Action.PARK, "guests": Action.STOP_KERNEL}
    rules = replace(RULES, group_actions=actions)
    assert rules.action_for(("guests", "mentors")) is Action.PARK
    assert rules.action_for(("guests",)) is Action.STOP_KERNEL
    assert rules.action_for(()) is Action.RESTART


@pytest.mark.parametrize(
    ("gpu", "device", "trusted", "idle"),
    [
        (None, None, False, False),
        (None, None, True, True),
        (None, 0.5, True, False),
        (0.5, None, True, False),
    ],
)
def test_without_any_utilisation_nothing_is_idle_unless_the_organiser_trusts_the_rest(
    gpu, device, trusted, idle
):
    rules = replace(RULES, without_utilisation=trusted)
    watch = idle_for(60, rules, gpu_utilisation=gpu, device_utilisation=device)
    assert (watch.idle_since is not None) is idle


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 25),
)
def test_nothing_is_ever_taken_without_a_notice_that_stood(rounds, notice_seconds):
    """Play the reaper: a notice is given when due, withdrawn when its cause goes."""
    rules = replace(RULES, notice_seconds=notice_seconds)
    watch, noticed_at = KernelWatch(), None
    for index, (works, is_needed) in enumerate(rounds):
        at = 5.0 * index
        activity = f"at {at}" if works else IDLE.last_activity
        reading = replace(IDLE, at=at, last_activity=activity)
        watch = observe(watch, reading, rules)
        case = Circumstances(needed=is_needed, noticed_at=noticed_at)
        decision = decide(watch, rules, at, case)
        if decision.kind is DecisionKind.NOTICE:
            noticed_at = at
        elif decision.acts_at is None:
            noticed_at = None
        if decision.kind.takes:
            assert noticed_at is not None
            stood_seconds = min(notice_seconds, rules.limit_seconds(is_needed))
            assert at - noticed_at >= stood_seconds
