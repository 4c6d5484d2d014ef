"""What follows from a kernel's idle window: keep, tell, park, restart or stop it.

Owns the ladder: a notice first, and the act only when the notice has stood for its
time. Windows are `idleness`'s to say, and need is `need`'s. It carries nothing out.
"""

from dataclasses import dataclass
from enum import Enum

from .idleness import KernelWatch
from .rules import Action, IdleRules
from .units import format_duration, format_size


class DecisionKind(str, Enum):
    """What to do with a kernel now."""

    KEEP = "keep"
    NOTICE = "notice"
    """Tell its attendee what will follow, and when."""
    PARK = "park"
    RESTART = "restart"
    STOP_KERNEL = "stop_kernel"

    @property
    def takes(self) -> bool:
        """Whether memory is taken, now."""
        return self not in (DecisionKind.KEEP, DecisionKind.NOTICE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What beside its readings decides about one kernel.

    Attributes:
        needed: whether memory on its devices is needed (`Need.on`).
        action: what is done to this attendee's kernels.
        noticed_at: when the notice that stands was given, in monotonic seconds of the
            same clock as the readings; None where none stands.
        pinned: by whom and until when it is pinned, in a sentence; empty where not.
        why_not_park: why it cannot be parked, in a sentence; empty where it can be.
    """

    needed: bool = False
    action: Action = Action.RESTART
    noticed_at: float | None = None
    pinned: str = ""
    why_not_park: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with a kernel now, and why, in a sentence with the readings.

    Attributes:
        kind: what to do now.
        reason: why.
        acts_at: when memory will be taken if nothing changes, in monotonic seconds,
            where a notice is due or stands; else None.
        action: what is done then.
    """

    kind: DecisionKind
    reason: str
    acts_at: float | None = None
    action: Action | None = None


def decide(
    watch: KernelWatch, rules: IdleRules, now: float, case: Circumstances
) -> Decision:
    """Decide what to do with a kernel.

    Args:
        watch: what its readings add up to.
        rules: the organiser's.
        now: monotonic seconds, of the same clock as the readings.
        case: all else.
    """
    reading, since, idle = watch.reading, watch.idle_since, watch.idle_seconds
    if reading is None or since is None or idle is None:
        return _keep(watch.why_not)
    if not watch.is_fresh(now, rules):
        return _keep("The last reading is too old to judge by.")
    if not_held := _holds_too_little(reading.memory_bytes, rules):
        return _keep(not_held)
    held = format_size(reading.memory_bytes or 0)
    if case.pinned:
        return _keep(f"{case.pinned} Idle for {format_duration(idle)}, holding {held}.")
    limit_seconds = rules.limit_seconds(case.needed)
    how_long = f"{format_duration(idle)} of {format_duration(limit_seconds)}"
    notice_seconds = 0.0 if rules.dry_run else min(rules.notice_seconds, limit_seconds)
    if idle < limit_seconds - notice_seconds:
        return _keep(f"Idle for {how_long}, holding {held}.")
    acts_at = since + limit_seconds
    if notice_seconds:
        noticed_at = now if case.noticed_at is None else case.noticed_at
        acts_at = max(acts_at, noticed_at + notice_seconds)
    when = "while memory is needed" if case.needed else "while nobody waits for memory"
    kind, instead = _act(case)
    if now < acts_at:
        told = case.noticed_at is not None
        return Decision(
            kind=DecisionKind.KEEP if told else DecisionKind.NOTICE,
            reason=(
                f"Idle for {how_long}, holding {held} {when}: it is taken back in "
                f"{format_duration(acts_at - now)} if it stays idle."
            ),
            acts_at=acts_at,
            action=Action(kind.value),
        )
    return Decision(
        kind=kind,
        reason=(
            f"Idle for {format_duration(idle)} (limit "
            f"{format_duration(limit_seconds)} {when}) with {held} of GPU memory: "
            f"kernel idle, no activity, {_utilisation(watch)}, at most "
            f"{watch.cpu:.1%} of a core.{instead}"
        ),
        acts_at=now,
        action=Action(kind.value),
    )


def _act(case: Circumstances) -> tuple[DecisionKind, str]:
    """Return what is done, and why it is not what the organiser would have."""
    if case.action is Action.PARK and case.why_not_park:
        return DecisionKind.RESTART, f" It cannot be paused: {case.why_not_park}"
    return DecisionKind(case.action.value), ""


def _holds_too_little(memory_bytes: int | None, rules: IdleRules) -> str:
    if memory_bytes is None:
        return "How much GPU memory it holds is unknown."
    if memory_bytes <= 0:
        return "Idle, and it holds no GPU memory."
    if memory_bytes < rules.min_memory_bytes:
        return (
            f"Idle, but it holds only {format_size(memory_bytes)} of GPU memory, less "
            f"than {format_size(rules.min_memory_bytes)}."
        )
    return ""


def _utilisation(watch: KernelWatch) -> str:
    reading = watch.reading
    if reading is not None and reading.gpu_utilisation is not None:
        return "GPU utilisation 0 %"
    if reading is not None and reading.device_utilisation is not None:
        return "the GPU as a whole idle"
    return "GPU utilisation not told (idle.without_utilisation)"


def _keep(reason: str) -> Decision:
    return Decision(kind=DecisionKind.KEEP, reason=reason)
