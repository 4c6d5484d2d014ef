"""When a whole server is idle, and when it is stopped: nobody innocent is hit."""

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.idle_servers import (
    ServerAnswer,
    ServerDecisionKind,
    ServerReading,
    ServerWatch,
    decide_server,
    is_worth_asking,
    observe_server,
)
from jupyterhub_gpuworkshop.core.idleness import KernelReading, KernelWatch
from jupyterhub_gpuworkshop.core.rules import IdleRules
from jupyterhub_gpuworkshop.core.snapshot import KernelState, ProcessId

SERVER = ProcessId(pid=9, started=90)
MAIN = ProcessId(pid=10, started=100)
RULES = IdleRules(server_after_seconds=100, notice_seconds=40, max_gap_seconds=25)
STEP = 20
KEEP, NOTICE, STOP = (
    ServerDecisionKind.KEEP,
    ServerDecisionKind.NOTICE,
    ServerDecisionKind.STOP,
)
ANSWER = ServerAnswer(at=0.0, last_activity="2026-11-20T10:00:00Z", kernels=1)


def a_kernel(at, idle_since=-100.0, **changes):
    reading = KernelReading(
        at=at,
        state=KernelState.IDLE,
        last_activity="2026-11-20T10:00:00Z",
        gpu_utilisation=0.0,
        device_utilisation=0.0,
        cpu_seconds=1.0,
        memory_bytes=0,
        process=MAIN,
    )
    return KernelWatch(
        reading=replace(reading, **changes),
        idle_since=idle_since,
        why_not="" if idle_since is not None else "Its processes work.",
    )


def idle_at(at, **changes):
    """One reading of an idle server with one idle kernel, asked at that moment."""
    answer = replace(ANSWER, at=float(at))
    reading = ServerReading(
        at=float(at),
        process=SERVER,
        kernels=(("k", a_kernel(float(at))),),
        answer=answer,
    )
    return replace(reading, **changes)


def watch_of(*readings, rules=RULES):
    watch = ServerWatch()
    for reading in readings:
        watch = observe_server(watch, reading, rules)
    return watch


def idle_until(seconds):
    return [idle_at(at) for at in range(0, seconds + 1, STEP)]


def decided(watch, *, wanted=True, noticed_at=None, rules=RULES, now=None):
    now = watch.reading.at if now is None else now
    return decide_server(watch, rules, now, wanted=wanted, noticed_at=noticed_at)


def test_a_server_idle_for_long_is_told_of_it_first_and_then_stopped():
    # The first reading has nothing before it: the window begins at 20.
    assert watch_of(*idle_until(120)).idle_since == 20.0
    assert decided(watch_of(*idle_until(60))).kind is KEEP
    told = decided(watch_of(*idle_until(80)))
    assert told.kind is NOTICE
    assert told.acts_at == 120.0
    assert decided(watch_of(*idle_until(100)), noticed_at=80.0).kind is KEEP
    stopped = decided(watch_of(*idle_until(120)), noticed_at=80.0)
    assert stopped.kind is STOP
    assert "Idle for 100 s (limit 100 s)" in stopped.reason
    assert "somebody waited" in stopped.reason


def test_a_server_whose_share_nobody_would_get_is_kept():
    decision = decided(watch_of(*idle_until(400)), wanted=False)
    assert decision.kind is KEEP
    assert "nobody waits" in decision.reason
    assert decision.acts_at is None


def test_who_has_been_idle_for_hours_has_the_whole_notice_all_the_same():
    long_idle = watch_of(*idle_until(400))
    assert decided(long_idle).kind is NOTICE
    assert decided(long_idle).acts_at == 440.0
    assert decided(long_idle, noticed_at=380.0).kind is KEEP
    assert decided(long_idle, noticed_at=360.0).kind is STOP


def test_a_notice_longer_than_the_limit_is_given_in_full():
    rules = replace(RULES, server_after_seconds=10)
    assert decided(watch_of(*idle_until(40)), rules=rules).kind is NOTICE
    assert decided(watch_of(*idle_until(40)), rules=rules).acts_at == 80.0


@pytest.mark.parametrize("changes", [{"notice_seconds": 0}, {"dry_run": True}])
def test_without_a_notice_the_limit_alone_counts(changes):
    rules = replace(RULES, **changes)
    assert decided(watch_of(*idle_until(100)), rules=rules).kind is KEEP
    assert decided(watch_of(*idle_until(120)), rules=rules).kind is STOP


@pytest.mark.parametrize("now", [119.0, 146.0])
def test_a_stale_reading_or_a_clock_that_went_back_stops_nothing(now):
    watch = watch_of(*idle_until(120))
    assert decided(watch, noticed_at=0.0, now=now).kind is KEEP


NOT_IDLE = [
    ({"problem": "The hub is silent."}, "silent"),
    ({"process": None}, "process is unknown"),
    ({"holds_memory": True}, "GPU memory"),
    ({"pinned": True}, "to be kept"),
    ({"terminals": 1}, "terminal"),
    ({"outside": 1}, "outside"),
    ({"kernels": (("k", a_kernel(140.0, state=KernelState.BUSY)),)}, "busy"),
    ({"kernels": (("k", a_kernel(140.0, state=KernelState.UNKNOWN)),)}, "unknown"),
    ({"kernels": (("k", KernelWatch()),)}, "unknown"),
    ({"kernels": (("k", a_kernel(114.0)),)}, "not seen lately"),
    ({"kernels": (("k", a_kernel(140.0, idle_since=None)),)}, "processes work"),
]
ASKED = [
    (None, "not been asked yet"),
    (replace(ANSWER, at=140.0, problem="It does not answer."), "does not answer"),
    (replace(ANSWER, at=140.0, browsers=1), "browser"),
    (replace(ANSWER, at=140.0, terminals=1), "terminal"),
    (replace(ANSWER, at=140.0, kernels=2), "other kernels"),
    (replace(ANSWER, at=-11.0), "asked lately"),
    (replace(ANSWER, at=141.0), "asked lately"),
    (replace(ANSWER, at=140.0, last_activity="2026-11-20T10:00:01Z"), "was used"),
]


@pytest.mark.parametrize(
    ("change", "why"), [*NOT_IDLE, *(({"answer": a}, why) for a, why in ASKED)]
)
def test_any_other_signal_begins_the_window_anew(change, why):
    watch = watch_of(*idle_until(120), idle_at(140, **change))
    assert watch.idle_since is None
    assert why in watch.why_not
    decision = decided(watch, noticed_at=0.0)
    assert decision.kind is KEEP
    assert decision.reason == watch.why_not


@pytest.mark.parametrize(
    "kernels",
    [
        (("k", a_kernel(140.0, last_activity="2026-11-20T10:00:01Z")),),
        (("k", a_kernel(140.0, process=ProcessId(pid=10, started=999))),),
        # It worked between two readings, and is idle again.
        (("k", a_kernel(140.0, idle_since=130.0)),),
        (("another", a_kernel(140.0)),),
    ],
)
def test_a_kernel_that_was_used_begins_its_servers_window_anew(kernels):
    watch = watch_of(*idle_until(120), idle_at(140, kernels=kernels))
    assert watch.idle_since is None
    assert "A kernel of it" in watch.why_not


def test_another_process_under_the_same_lease_begins_anew():
    other = ProcessId(pid=9, started=91)
    watch = watch_of(*idle_until(120), idle_at(140, process=other))
    assert watch.idle_since is None


@pytest.mark.parametrize("at", [110.0, 120.0, 146.0])
def test_a_gap_or_a_clock_that_goes_back_begins_anew(at):
    assert watch_of(*idle_until(120), idle_at(at)).idle_since is None


def test_a_server_without_kernels_can_be_idle():
    readings = [
        replace(x, kernels=(), answer=replace(x.answer, kernels=0))
        for x in idle_until(120)
    ]
    assert decided(watch_of(*readings), noticed_at=0.0).kind is STOP


@pytest.mark.parametrize("change", [change for change, _ in NOT_IDLE])
def test_only_a_server_that_is_idle_otherwise_is_asked(change):
    assert is_worth_asking(idle_at(140, answer=None), RULES)
    assert not is_worth_asking(idle_at(140, answer=None, **change), RULES)


def test_a_server_nobody_has_looked_at_is_kept():
    decision = decide_server(ServerWatch(), RULES, 0.0, wanted=True, noticed_at=-99.0)
    assert decision.kind is KEEP


SIGNALS = {"answer", *(name for change, _ in NOT_IDLE for name in change)}
CHANGES = st.one_of(
    st.just({}),
    st.just({}),
    st.sampled_from([change for change, _ in NOT_IDLE]),
    st.sampled_from([{"answer": None}, {"ago": 151.0}, {"ago": -1.0}]),
    st.sampled_from([{"browsers": 1}, {"asked_terminals": 1}, {"asked_kernels": 2}]),
    st.sampled_from([{"step": step} for step in (-5.0, 0.0, 26.0)]),
    st.sampled_from([{"wanted": False}, {"worked": True}, {"used": True}]),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(CHANGES, min_size=1, max_size=25),
    st.sampled_from([1.0, 45.0, 100.0]),
    st.sampled_from([0.0, 5.0, 60.0, 200.0]),
)
@example([{"answer": None}, {"used": True}, {}], 1.0, 0.0)
def test_no_server_is_stopped_unless_a_notice_stood_and_the_whole_window_was_idle(
    changes, limit_seconds, notice_seconds
):
    rules = replace(
        RULES, server_after_seconds=limit_seconds, notice_seconds=notice_seconds
    )
    at, kernel_since, used, noticed_at, watch = 0.0, -100.0, 0, None, ServerWatch()
    spell, told = None, None  # the law once more, in words of the test's own
    for number, changed in enumerate(changes):
        at += changed.get("step", float(STEP))
        kernel_since = at if "worked" in changed else kernel_since
        used += "used" in changed
        wanted = "wanted" not in changed
        answer = ServerAnswer(
            at=at - changed.get("ago", 0.0),
            browsers=changed.get("browsers", 0),
            last_activity=f"{used}",
            terminals=changed.get("asked_terminals", 0),
            kernels=changed.get("asked_kernels", 1),
        )
        change = {x: changed[x] for x in changed if x in SIGNALS}
        if "kernels" in change:
            change["kernels"] = (("k", KernelWatch()),)
        usual = {"kernels": (("k", a_kernel(at, kernel_since)),), "answer": answer}
        watch = observe_server(watch, idle_at(at, **{**usual, **change}), rules)
        decision = decided(watch, wanted=wanted, noticed_at=noticed_at, rules=rules)

        # Of one that had not answered before it is not seen whether it was used.
        unasked = number > 0 and "answer" in changes[number - 1]
        quiet = {"step", "wanted", "used"} if unasked else {"step", "wanted"}
        is_idle = number > 0 and changed.keys() <= quiet
        goes_on = 0 < changed.get("step", STEP) <= rules.max_gap_seconds
        spell = (at if spell is None else spell) if is_idle and goes_on else None
        if decision.kind is STOP:
            assert wanted
            assert spell is not None
            assert at - spell >= limit_seconds
            if notice_seconds:
                assert told is not None
                assert at - told >= notice_seconds
        # As the service does it: what has no cause any more is withdrawn.
        if decision.kind is NOTICE:
            assert notice_seconds
            noticed_at = told = at
        elif decision.acts_at is None:
            noticed_at = told = None
