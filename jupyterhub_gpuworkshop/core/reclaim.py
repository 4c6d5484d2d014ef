"""When a kernel is idle, and what follows: the readings of one kernel -> a decision.

Owns the law that nobody innocent is hit. The window in which *all* signals say idle
begins with our own first idle observation and begins anew at anything else: a signal
that is not idle, is unknown or missing, a gap between readings, a clock that goes
back, another process, another time of last activity. It carries nothing out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from .leases import Lease
from .snapshot import DeviceSample, KernelState, ProcessId
from .units import MIB, format_duration, format_size
from .wire import Refusal

_CLOCK_GRAIN_SECONDS = 0.02
"""Processor time is counted in ticks of 10 ms: two of them prove nothing."""


class Action(str, Enum):
    """What reclaim may do to a kernel. Notice and park have their place here."""

    RESTART = "restart"
    STOP_KERNEL = "stop_kernel"


class DecisionKind(str, Enum):
    """What to do with a kernel now."""

    KEEP = "keep"
    RESTART = "restart"
    STOP_KERNEL = "stop_kernel"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleRules:
    """The organiser's rules, from the workshop file's `idle`.

    Attributes:
        needed_after_seconds: idle that long, memory that is needed is taken back.
        after_seconds: idle that long, memory is taken back in any case.
        min_memory_bytes: a kernel that holds less is left alone.
        max_cpu: processor time that still counts as idle, as a part of one core.
        action: what is done.
        dry_run: only say what would be done.
        max_gap_seconds: readings further apart than this do not add up to a window.
    """

    needed_after_seconds: float = 20 * 60
    after_seconds: float = 2 * 60 * 60
    min_memory_bytes: int = 256 * MIB
    max_cpu: float = 0.05
    action: Action = Action.RESTART
    dry_run: bool = False
    max_gap_seconds: float = 30.0


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


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelWatch:
    """What the readings of one kernel add up to.

    Attributes:
        reading: the last one; None before the first.
        idle_since: when the present window began, in monotonic seconds; None while
            there is none.
        cpu: the most processor time within the window, as a part of one core.
        why_not: why there is no window.
        peak_memory_bytes: the most GPU memory it ever held.
    """

    reading: KernelReading | None = None
    idle_since: float | None = None
    cpu: float = 0.0
    why_not: str = "It has not been looked at yet."
    peak_memory_bytes: int = 0

    @property
    def idle_seconds(self) -> float | None:
        """How long all signals have been seen idle; None when they are not."""
        if self.reading is None or self.idle_since is None:
            return None
        return self.reading.at - self.idle_since


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with a kernel now, and why, in a sentence with the readings."""

    kind: DecisionKind
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Whose lack makes idle memory needed.

    Attributes:
        refused: somebody was refused a share and still waits.
        short_bytes: what each device lacks for the leases on it, by UUID.
    """

    refused: bool = False
    short_bytes: Mapping[str, int] = field(default_factory=dict)

    @property
    def anywhere(self) -> bool:
        """Whether memory is needed at all."""
        return self.refused or bool(self.short_bytes)

    def on(self, uuids: Iterable[str]) -> bool:
        """Say whether memory on these devices is needed."""
        return self.refused or any(uuid in self.short_bytes for uuid in uuids)


def needed(
    refusals: Iterable[Refusal],
    samples: Iterable[DeviceSample],
    leases: Iterable[Lease],
    used_bytes: Mapping[str, Mapping[str, int]],
    keep_free_bytes: int = 0,
) -> Need:
    """Say where memory is needed.

    Args:
        refusals: who was refused and has not been granted since.
        samples: one reading of each device; a device without one is not judged.
        leases: all of them.
        used_bytes: what the holders of each lease use, by lease id, then by UUID.
        keep_free_bytes: how much memory that no process owns up to is no lack: it is
            what `gpus.keep_free_per_gpu` is kept free for. Without it a device whose
            shares are all granted would lack a few MiB for ever.
    """
    still_due: dict[str, int] = {}
    for lease in leases:
        for device in lease.devices:
            used = used_bytes.get(lease.id, {}).get(device.uuid, 0)
            due = max(0, device.memory_bytes - used)
            still_due[device.uuid] = still_due.get(device.uuid, 0) + due
    free = {x.uuid: _free_or_forgiven(x, keep_free_bytes) for x in samples}
    return Need(
        refused=any(True for _ in refusals),
        short_bytes={
            uuid: still_due[uuid] - free_bytes
            for uuid, free_bytes in free.items()
            if still_due.get(uuid, 0) > free_bytes
        },
    )


def _free_or_forgiven(sample: DeviceSample, keep_free_bytes: int) -> int:
    owned = sum(process.memory_bytes or 0 for process in sample.processes or ())
    unnamed = max(0, sample.memory_used_bytes - owned)
    return sample.memory_free_bytes + min(unnamed, keep_free_bytes)


def observe(
    watch: KernelWatch, reading: KernelReading, rules: IdleRules
) -> KernelWatch:
    """Return the watch after one more reading."""
    previous = watch.reading
    why_not = (
        _signal(reading)
        or _interruption(previous, reading, rules)
        or _cpu_signal(previous, reading, rules)
    )
    goes_on = not why_not and watch.idle_since is not None
    cpu = _cpu(previous, reading)
    return KernelWatch(
        reading=reading,
        idle_since=None if why_not else watch.idle_since if goes_on else reading.at,
        cpu=max(watch.cpu if goes_on else 0.0, cpu or 0.0),
        why_not=why_not,
        peak_memory_bytes=max(watch.peak_memory_bytes, reading.memory_bytes or 0),
    )


def decide(watch: KernelWatch, rules: IdleRules, now: float, needed: bool) -> Decision:
    """Decide what to do with a kernel.

    Args:
        watch: what its readings add up to.
        rules: the organiser's.
        now: monotonic seconds, of the same clock as the readings.
        needed: whether memory on its devices is needed (`Need.on`).
    """
    reading, idle_seconds = watch.reading, watch.idle_seconds
    if reading is None or idle_seconds is None:
        return _keep(watch.why_not)
    if not 0 <= now - reading.at <= rules.max_gap_seconds:
        return _keep("The last reading is too old to judge by.")
    if reading.memory_bytes is None:
        return _keep("How much GPU memory it holds is unknown.")
    if reading.memory_bytes <= 0:
        return _keep("Idle, and it holds no GPU memory.")
    held = format_size(reading.memory_bytes)
    if reading.memory_bytes < rules.min_memory_bytes:
        return _keep(
            f"Idle, but it holds only {held} of GPU memory, less than "
            f"{format_size(rules.min_memory_bytes)}."
        )
    limit_seconds = rules.after_seconds
    if needed:
        limit_seconds = min(limit_seconds, rules.needed_after_seconds)
    if idle_seconds < limit_seconds:
        return _keep(
            f"Idle for {format_duration(idle_seconds)} of "
            f"{format_duration(limit_seconds)}, holding {held}."
        )
    use = "that is needed" if needed else "that nobody waits for"
    return Decision(
        kind=DecisionKind(rules.action.value),
        reason=(
            f"Idle for {format_duration(idle_seconds)} (limit "
            f"{format_duration(limit_seconds)}) with {held} of GPU memory {use}: "
            f"kernel idle, no activity, GPU utilisation 0 %, at most "
            f"{watch.cpu:.1%} of a core."
        ),
    )


def _keep(reason: str) -> Decision:
    return Decision(kind=DecisionKind.KEEP, reason=reason)


def _signal(reading: KernelReading) -> str:
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
        return "Its GPU utilisation is unknown."
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


def _cpu(previous: KernelReading | None, reading: KernelReading) -> float | None:
    """Return the processor time between two readings, as a part of one core."""
    if (
        previous is None
        or previous.cpu_seconds is None
        or reading.cpu_seconds is None
        or not reading.at > previous.at
    ):
        return None
    used_seconds = reading.cpu_seconds - previous.cpu_seconds
    if not used_seconds >= 0:
        return None
    return max(0.0, used_seconds - _CLOCK_GRAIN_SECONDS) / (reading.at - previous.at)


def _cpu_signal(
    previous: KernelReading | None, reading: KernelReading, rules: IdleRules
) -> str:
    cpu = _cpu(previous, reading)
    if cpu is None:
        return "Its processor time is unknown."
    if cpu > rules.max_cpu:
        return f"Its processes work: {cpu:.0%} of a core."
    return ""
