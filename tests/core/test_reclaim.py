"""When a kernel is idle: nobody innocent is hit."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.idleness import KernelReading, KernelWatch, observe
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.need import needed
from jupyterhub_gpuworkshop.core.reclaim import Circumstances, DecisionKind, decide
from jupyterhub_gpuworkshop.core.rules import Action, IdleRules
from jupyterhub_gpuworkshop.core.snapshot import (
    DeviceSample,
    KernelState,
    ProcessId,
    ProcessUse,
)
from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.core.wire import Refusal

MAIN = ProcessId(pid=10, started=100)
WORKER = ProcessId(pid=11, started=101)
RULES = IdleRules(
    needed_after_seconds=20,
    after_seconds=60,
    notice_seconds=0,
    max_cpu=0.05,
    max_gap_seconds=12,
)
IDLE = KernelReading(
    at=0.0,
    state=KernelState.IDLE,
    last_activity="2026-11-20T10:00:00Z",
    gpu_utilisation=0.0,
    device_utilisation=0.9,
    cpu_seconds=5.0,
    memory_bytes=2 * GIB,
    process=MAIN,
    members=frozenset({MAIN}),
)


def watch_of(*readings, rules=RULES):
    watch = KernelWatch()
    for reading in readings:
        watch = observe(watch, reading, rules)
    return watch


def idle_until(seconds, step=5, **changes):
    """An idle kernel's readings, every few seconds from 0 on."""
    return [replace(IDLE, at=float(t), **changes) for t in range(0, seconds + 1, step)]


def verdict(readings, *, needed=True, rules=RULES, now=None):
    now = readings[-1].at if now is None else now
    case = Circumstances(needed=needed, action=rules.action)
    return decide(watch_of(*readings, rules=rules), rules, now, case)


def test_a_kernel_idle_by_all_signals_is_reclaimed_when_its_memory_is_needed():
    decision = verdict(idle_until(25))
    assert decision.kind is DecisionKind.RESTART
    assert "Idle for 20 s" in decision.reason
    assert "2 GiB" in decision.reason


def test_the_window_begins_at_our_own_first_idle_observation():
    # The reading at 0 has nothing before it to tell processor time from.
    assert watch_of(*idle_until(20)).idle_since == 5.0
    assert verdict(idle_until(20)).kind is DecisionKind.KEEP


def test_memory_that_nobody_waits_for_is_left_longer():
    assert verdict(idle_until(60), needed=False).kind is DecisionKind.KEEP
    assert verdict(idle_until(65), needed=False).kind is DecisionKind.RESTART


def test_needed_memory_is_never_left_longer_than_any_other():
    rules = replace(RULES, needed_after_seconds=900, after_seconds=60)
    assert verdict(idle_until(65), rules=rules).kind is DecisionKind.RESTART


def test_the_organiser_chooses_to_stop_the_kernel():
    rules = replace(RULES, action=Action.STOP_KERNEL)
    assert verdict(idle_until(25), rules=rules).kind is DecisionKind.STOP_KERNEL


@pytest.mark.parametrize("held", [None, 0, 255 * MIB])
def test_a_kernel_that_holds_little_or_nobody_knows_what_is_left_alone(held):
    assert verdict(idle_until(90, memory_bytes=held)).kind is DecisionKind.KEEP


def test_a_kernel_without_gpu_memory_is_kept_whatever_the_smallest_amount():
    rules = replace(RULES, min_memory_bytes=0)
    readings = idle_until(90, memory_bytes=0)
    assert verdict(readings, rules=rules).kind is DecisionKind.KEEP


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"state": KernelState.BUSY}, "busy"),
        ({"state": KernelState.STARTING}, "starting"),
        ({"state": KernelState.UNKNOWN}, "unknown"),
        ({"gpu_utilisation": 0.01}, "computes"),
        ({"gpu_utilisation": None}, "computes"),
        ({"gpu_utilisation": float("nan")}, "computes"),
        ({"gpu_utilisation": None, "device_utilisation": None}, "unknown"),
        ({"cpu_seconds": None}, "unknown"),
        ({"cpu_seconds": 4.0}, "unknown"),
        ({"cpu_seconds": float("nan")}, "unknown"),
        ({"cpu_seconds": 7.0}, "work"),
        ({"process": None}, "unknown"),
        ({"process": ProcessId(pid=10, started=999)}, "new"),
        ({"members": frozenset({MAIN, WORKER})}, "began or ended"),
        ({"last_activity": "2026-11-20T10:00:01Z"}, "active"),
    ],
)
def test_any_other_signal_begins_the_window_anew(change, why):
    *before, last = idle_until(25)
    watch = watch_of(*before, replace(last, **change))
    assert watch.idle_since is None
    assert watch.idle_seconds is None
    assert why in watch.why_not
    decision = decide(watch, RULES, last.at, Circumstances(needed=True))
    assert decision.kind is DecisionKind.KEEP
    assert decision.reason == watch.why_not


@pytest.mark.parametrize("at", [19.9, 20.0, 33.0])
def test_a_gap_or_a_clock_that_goes_back_begins_the_window_anew(at):
    watch = watch_of(*idle_until(20), replace(IDLE, at=at))
    assert watch.idle_since is None


def test_after_an_interruption_the_whole_window_has_to_pass_again():
    busy = replace(IDLE, at=25.0, state=KernelState.BUSY)
    later = [replace(IDLE, at=float(t)) for t in range(30, 51, 5)]
    assert verdict([*idle_until(20), busy, *later[:-1]]).kind is DecisionKind.KEEP
    assert verdict([*idle_until(20), busy, *later]).kind is DecisionKind.RESTART


def test_without_utilisation_per_process_only_a_device_idle_as_a_whole_counts():
    unseen = idle_until(25, gpu_utilisation=None, device_utilisation=0.0)
    assert verdict(unseen).kind is DecisionKind.RESTART


def test_two_readings_close_together_do_not_make_a_tick_of_the_clock_work():
    again = replace(IDLE, at=25.01, cpu_seconds=5.02)
    assert verdict([*idle_until(25), again]).kind is DecisionKind.RESTART


@pytest.mark.parametrize("now", [24.0, 38.0])
def test_a_stale_reading_or_a_clock_that_went_back_decides_nothing(now):
    assert verdict(idle_until(25), now=now).kind is DecisionKind.KEEP


def test_a_kernel_nobody_has_looked_at_is_kept():
    assert (
        decide(KernelWatch(), RULES, 0.0, Circumstances(needed=True)).kind
        is DecisionKind.KEEP
    )


def test_the_peak_outlives_the_window():
    watch = watch_of(replace(IDLE, memory_bytes=9 * GIB), replace(IDLE, at=5.0))
    assert watch.peak_memory_bytes == 9 * GIB


SIGNALS = st.fixed_dictionaries(
    {},
    optional={
        "state": st.sampled_from(list(KernelState)),
        "last_activity": st.sampled_from(["a", "b"]),
        "gpu_utilisation": st.sampled_from([None, 0.0, 0.5]),
        "device_utilisation": st.sampled_from([None, 0.0, 0.5]),
        "cpu": st.sampled_from([None, 0.0, 0.2, 5.0, -1.0]),
        "memory_bytes": st.sampled_from([None, 0, 1 * GIB]),
        "process": st.sampled_from([None, MAIN, WORKER]),
        "members": st.sampled_from([frozenset({MAIN}), frozenset({MAIN, WORKER})]),
        "step": st.sampled_from([-3.0, 0.0, 1.0, 5.0, 12.0, 12.1, 40.0]),
    },
)


def _readings(changes):
    at, cpu = 0.0, 5.0
    for change in changes:
        change = dict(change)
        at += change.pop("step", 5.0)
        worked = change.pop("cpu", 0.0)
        cpu += worked or 0.0
        yield replace(
            IDLE, at=at, cpu_seconds=None if worked is None else cpu, **change
        )


def _continues_idle(previous, reading, rules):
    """State the law once more, in other words than the code's."""
    gpu = reading.gpu_utilisation
    gpu = reading.device_utilisation if gpu is None else gpu
    same = ("process", "members", "last_activity")
    return (
        reading.state is KernelState.IDLE
        and reading.process is not None
        and gpu == 0
        and 0 < reading.at - previous.at <= rules.max_gap_seconds
        and all(getattr(reading, x) == getattr(previous, x) for x in same)
        and None not in (reading.cpu_seconds, previous.cpu_seconds)
        and 0
        <= reading.cpu_seconds - previous.cpu_seconds
        <= rules.max_cpu * (reading.at - previous.at) + 0.02 + 1e-9
    )


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.one_of(st.just({}), st.just({}), SIGNALS), min_size=1, max_size=40),
    st.booleans(),
)
def test_no_kernel_is_reclaimed_unless_the_whole_window_was_idle(changes, is_needed):
    readings = list(_readings(changes))
    watch = KernelWatch()
    limit_seconds = 20 if is_needed else 60
    for index, reading in enumerate(readings):
        watch = observe(watch, reading, RULES)
        decision = decide(watch, RULES, reading.at, Circumstances(needed=is_needed))
        # Walk back over the readings that continue an idle spell, unbroken.
        first = index + 1
        while first > 1 and _continues_idle(
            readings[first - 2], readings[first - 1], RULES
        ):
            first -= 1
        spell = reading.at - readings[first].at if first <= index else 0
        due = (
            first <= index
            and spell >= limit_seconds
            and (reading.memory_bytes or 0) >= RULES.min_memory_bytes
        )
        assert (decision.kind is not DecisionKind.KEEP) == due
        assert decision.reason


# Is memory needed?


def a_lease(lease_id, uuid="GPU-0", memory_bytes=4 * GIB):
    return Lease(
        id=lease_id,
        user=lease_id,
        server="",
        share="1/4",
        granted_at=0.0,
        devices=(
            LeasedDevice(
                uuid=uuid, label="0", memory_bytes=memory_bytes, total_bytes=16 * GIB
            ),
        ),
    )


def free(uuid, free_bytes):
    return DeviceSample(
        uuid=uuid,
        memory_total_bytes=16 * GIB,
        memory_used_bytes=16 * GIB - free_bytes,
        memory_free_bytes=free_bytes,
    )


def test_memory_is_needed_everywhere_once_somebody_was_refused():
    refusal = Refusal(user="x", server="", share="1/5", at=0.0)
    need = needed([refusal], [], [], {})
    assert need.on(["GPU-0"])
    assert need.anywhere


def test_memory_is_needed_where_the_leases_may_still_ask_for_more_than_is_free():
    leases = [a_lease("a"), a_lease("b"), a_lease("c", uuid="GPU-1")]
    samples = [free("GPU-0", 6 * GIB), free("GPU-1", 6 * GIB)]
    need = needed([], samples, leases, {})
    assert need.short_bytes == {"GPU-0": 2 * GIB}
    assert need.on(["GPU-0"])
    assert not need.on(["GPU-1"])


def test_what_leases_use_already_is_not_asked_for_twice():
    used = {"a": {"GPU-0": 3 * GIB}}
    need = needed([], [free("GPU-0", 6 * GIB)], [a_lease("a"), a_lease("b")], used)
    assert not need.anywhere


def test_who_uses_more_than_the_lease_says_does_not_lower_what_others_may_ask():
    used = {"a": {"GPU-0": 12 * GIB}}
    need = needed([], [free("GPU-0", 3 * GIB)], [a_lease("a"), a_lease("b")], used)
    assert need.short_bytes == {"GPU-0": 1 * GIB}


def test_memory_that_no_process_owns_is_no_lack_up_to_what_is_kept_free():
    leases = [a_lease(name) for name in "abcd"]
    sample = free("GPU-0", 15 * GIB + 512 * MIB)
    assert needed([], [sample], leases, {}).short_bytes == {"GPU-0": 512 * MIB}
    assert not needed([], [sample], leases, {}, 512 * MIB).anywhere
    owned = replace(
        sample, processes=(ProcessUse(pid=1, memory_bytes=512 * MIB, utilisation=0.0),)
    )
    assert needed([], [owned], leases, {}, 512 * MIB).anywhere
