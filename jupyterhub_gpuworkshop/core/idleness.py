"""When a kernel is idle: the readings of one kernel -> the window in which it is.

Owns the law that nobody innocent is hit. The window in which *all* signals say idle
begins with our own first idle observation and begins anew at anything else: a signal
that is not idle, is unknown or missing, a gap between readings, a clock that goes
back, another process, another time of last activity. What follows from a window is
for `reclaim`, `idle_servers` and `over_share` to say.
"""

from dataclasses import dataclass

from .rules import IdleRules
from .snapshot import KernelState, ProcessId

_CLOCK_GRAIN_SECONDS = 0.02
"""Processor time is counted in ticks of 10 ms: two of them prove nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelReading:
    """All signals of one kernel, at one instant.

    Attributes:
        at: monotonic seconds.
        state: what its server says.
        last_activity: the server's own words; compared, never computed with.
        gpu_utilisation: the most of any process of its tree; None where unknown.
        device_utilisation: the most of any of its devices as a whole, for where the
            former is missing; None where unknown.
        cpu_seconds: processor time of its tree; None where unknown.
        memory_bytes: GPU memory of its tree; None where unknown.
        process: its main process; None where unknown.
        members: all of its processes.
        connections: open websockets; None where its server does not say. For people:
            a forgotten tab holds one for days, and proves nothing.
        age_seconds: how long its main process has lived; None where unknown.
    """

    at: float
    state: KernelState
    last_activity: str
    gpu_utilisation: float | None
    device_utilisation: float | None
    cpu_seconds: float | None
    memory_bytes: int | None
    process: ProcessId | None
    members: frozenset[ProcessId] = frozenset()
    connections: int | None = None
    age_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelWatch:
    """What the readings of one kernel add up to.

    Attributes:
        reading: the last one; None before the first.
        idle_since: when the present window began, in monotonic seconds; None while
            there is none.
        cpu: the most processor time within the window, as a part of one core.
        last_cpu: that between the last two readings; None where unknown.
        why_not: why there is no window.
        peak_memory_bytes: the most GPU memory it ever held.
    """

    reading: KernelReading | None = None
    idle_since: float | None = None
    cpu: float = 0.0
    last_cpu: float | None = None
    why_not: str = "It has not been looked at yet."
    peak_memory_bytes: int = 0

    @property
    def idle_seconds(self) -> float | None:
        """How long all signals have been seen idle; None when they are not."""
        if self.reading is None or self.idle_since is None:
            return None
        return self.reading.at - self.idle_since

    def is_fresh(self, now: float, rules: IdleRules) -> bool:
        """Whether the last reading is recent enough to judge by."""
        return (
            self.reading is not None
            and 0 <= now - self.reading.at <= rules.max_gap_seconds
        )


def observe(
    watch: KernelWatch, reading: KernelReading, rules: IdleRules
) -> KernelWatch:
    """Return the watch after one more reading."""
    previous = watch.reading
    cpu = _cpu(previous, reading)
    why_not = (
        _signal(reading, rules)
        or _interruption(previous, reading, rules)
        or _cpu_signal(cpu, rules)
    )
    goes_on = not why_not and watch.idle_since is not None
    return KernelWatch(
        reading=reading,
        idle_since=None if why_not else watch.idle_since if goes_on else reading.at,
        cpu=max(watch.cpu if goes_on else 0.0, cpu or 0.0),
        last_cpu=cpu,
        why_not=why_not,
        peak_memory_bytes=max(watch.peak_memory_bytes, reading.memory_bytes or 0),
    )


def _signal(reading: KernelReading, rules: IdleRules) -> str:
    """Say which signal of this one reading is not idle; empty when none."""
    if reading.state is KernelState.UNKNOWN:
        return "Its state is unknown."
    if reading.state is not KernelState.IDLE:
        return f"It is {reading.state.value}."
    if reading.process is None:
        return "Its process is unknown."
    if reading.gpu_utilisation is not None:
        # Not "above zero": what is not a number is not idle either.
        if reading.gpu_utilisation != 0:
            return f"It computes: GPU utilisation {reading.gpu_utilisation:.0%}."
    elif reading.device_utilisation is None:
        if not rules.without_utilisation:
            return (
                "Its GPU utilisation is unknown (idle.without_utilisation: true would "
                "trust kernel state and processor time alone)."
            )
    elif reading.device_utilisation != 0:
        return (
            "Its GPU computes, and the driver does not say for whom: utilisation "
            f"{reading.device_utilisation:.0%}."
        )
    return ""


def _interruption(
    previous: KernelReading | None, reading: KernelReading, rules: IdleRules
) -> str:
    """Say why this reading does not continue the one before; empty when it does."""
    if previous is None:
        return "It has been looked at only once."
    if not 0 < reading.at - previous.at <= rules.max_gap_seconds:
        return "There was a gap between two readings."
    if reading.process != previous.process:
        return "Its process is a new one."
    if reading.members != previous.members:
        return "A process of its own began or ended."
    if reading.last_activity != previous.last_activity:
        return "It was active since the last reading."
    return ""


def cpu_between(
    before_seconds: float | None, after_seconds: float | None, elapsed_seconds: float
) -> float | None:
    """Return the processor time used between two readings, as a part of one core.

    Args:
        before_seconds: what had been used at the first; None where unknown.
        after_seconds: what had been used at the second.
        elapsed_seconds: from the first to the second.

    Returns:
        None where it is unknown: a process has ended, or a clock went back.
    """
    if before_seconds is None or after_seconds is None or not elapsed_seconds > 0:
        return None
    used_seconds = after_seconds - before_seconds
    if not used_seconds >= 0:
        return None
    return max(0.0, used_seconds - _CLOCK_GRAIN_SECONDS) / elapsed_seconds


def _cpu(previous: KernelReading | None, reading: KernelReading) -> float | None:
    if previous is None:
        return None
    return cpu_between(
        previous.cpu_seconds, reading.cpu_seconds, reading.at - previous.at
    )


def _cpu_signal(cpu: float | None, rules: IdleRules) -> str:
    if cpu is None:
        return "Its processor time is unknown."
    if cpu > rules.max_cpu:
        return f"Its processes work: {cpu:.0%} of a core."
    return ""
