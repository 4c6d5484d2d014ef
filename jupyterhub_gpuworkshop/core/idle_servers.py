"""When a whole server is idle, and what follows while somebody waits for its share.

Owns the window of a server: no GPU memory, every kernel idle, no browser, no terminal
and no process outside its kernels, all the time. It begins with our own first look
and begins anew at anything else, as a kernel's does (`idleness`). Whose share is
wanted is for `giving_way` to say.
"""

from dataclasses import dataclass
from enum import Enum

from .idleness import KernelWatch
from .rules import IdleRules
from .snapshot import KernelState, ProcessId
from .units import format_duration

ASK_EVERY_SECONDS = 60.0
"""How often a server is asked what it says of itself."""

_ANSWER_STANDS_SECONDS = 2.5 * ASK_EVERY_SECONDS
"""An answer that comes late is no gap; one that does not come is."""

Activity = tuple[tuple[str, str, ProcessId | None, float | None], ...]
"""(kernel id, last activity, main process, idle since) of each kernel, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAnswer:
    """What was asked of a server, and of Linux about who is connected to it.

    Attributes:
        at: when it was asked, in monotonic seconds.
        problem: why something of it is unknown, in a sentence; else empty.
        browsers: connections that a browser, or another client, keeps open.
        last_activity: of the server itself, in its own words.
        terminals: how many are open in it.
        kernels: how many it has.
    """

    at: float
    problem: str = ""
    browsers: int = 0
    last_activity: str = ""
    terminals: int = 0
    kernels: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReading:
    """All signals of one server, at one instant.

    Attributes:
        at: monotonic seconds.
        problem: why something of it is unknown, in a sentence; else empty.
        process: its own.
        kernels: every kernel's id and watch, in order of the ids.
        holds_memory: whether any process of its lease holds GPU memory, is parked, or
            may be one of those of which nobody knows whose they are.
        pinned: whether a kernel of it is pinned.
        terminals: processes in terminals.
        outside: other processes in no kernel of it.
        answer: the last one; None where it has not been asked.
    """

    at: float
    problem: str = ""
    process: ProcessId | None = None
    kernels: tuple[tuple[str, KernelWatch], ...] = ()
    holds_memory: bool = False
    pinned: bool = False
    terminals: int = 0
    outside: int = 0
    answer: ServerAnswer | None = None

    @property
    def activity(self) -> Activity:
        """What changes when anything is done in a kernel of it."""
        return tuple(
            (
                kernel_id,
                watch.reading.last_activity,
                watch.reading.process,
                watch.idle_since,
            )
            for kernel_id, watch in self.kernels
            if watch.reading is not None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerWatch:
    """What the readings of one server add up to.

    Attributes:
        reading: the last one; None before the first.
        idle_since: when the present window began, in monotonic seconds; None while
            there is none.
        why_not: why there is no window.
    """

    reading: ServerReading | None = None
    idle_since: float | None = None
    why_not: str = "It has not been looked at yet."

    @property
    def idle_seconds(self) -> float | None:
        """How long all signals have been seen idle; None when they are not."""
        if self.reading is None or self.idle_since is None:
            return None
        return self.reading.at - self.idle_since


class ServerDecisionKind(str, Enum):
    """What to do with a server now."""

    KEEP = "keep"
    NOTICE = "notice"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerDecision:
    """What to do with a server now, and why, in a sentence.

    Attributes:
        kind: what to do.
        reason: why.
        acts_at: when it is stopped if nothing changes, in monotonic seconds, where a
            notice is due or stands; else None.
    """

    kind: ServerDecisionKind
    reason: str
    acts_at: float | None = None


def is_worth_asking(reading: ServerReading, rules: IdleRules) -> bool:
    """Say whether all is idle that is known without asking the server."""
    return not _signal(reading, rules)


def observe_server(
    watch: ServerWatch, reading: ServerReading, rules: IdleRules
) -> ServerWatch:
    """Return the watch after one more reading."""
    why_not = (
        _signal(reading, rules)
        or _answer_signal(reading)
        or _interruption(watch.reading, reading, rules)
    )
    if why_not:
        return ServerWatch(reading=reading, why_not=why_not)
    since = reading.at if watch.idle_since is None else watch.idle_since
    return ServerWatch(reading=reading, idle_since=since, why_not="")


def is_nearly_due(watch: ServerWatch, rules: IdleRules) -> bool:
    """Say whether it has been idle for so long that its attendee may be told."""
    idle_seconds = watch.idle_seconds
    return idle_seconds is not None and (
        idle_seconds >= rules.server_after_seconds - _notice_seconds(rules)
    )


def decide_server(
    watch: ServerWatch,
    rules: IdleRules,
    now: float,
    *,
    wanted: bool,
    noticed_at: float | None = None,
) -> ServerDecision:
    """Decide what to do with a server.

    Args:
        watch: what its readings add up to.
        rules: the organiser's.
        now: monotonic seconds.
        wanted: whether somebody waits for a share, and would get this one.
        noticed_at: when the notice that stands was given; None where none stands.
    """
    reading, since, idle = watch.reading, watch.idle_since, watch.idle_seconds
    if reading is None or since is None or idle is None:
        return _keep(watch.why_not)
    if not 0 <= now - reading.at <= rules.max_gap_seconds:
        return _keep("It has not been looked at lately.")
    limit_seconds = rules.server_after_seconds
    lasts = f"{format_duration(idle)} of {format_duration(limit_seconds)}"
    if not is_nearly_due(watch, rules):
        return _keep(f"Idle for {lasts}.")
    if not wanted:
        return _keep(f"Idle for {lasts}; nobody waits who would get its share.")
    acts_at = since + limit_seconds
    if notice_seconds := _notice_seconds(rules):
        told_at = now if noticed_at is None else noticed_at
        acts_at = max(acts_at, told_at + notice_seconds)
    # The window is what was seen, not what time has passed since.
    if reading.at < acts_at:
        told = noticed_at is not None or not notice_seconds
        kind = ServerDecisionKind.KEEP if told else ServerDecisionKind.NOTICE
        return ServerDecision(
            kind=kind,
            reason=(
                f"Idle for {lasts}, and somebody waits for a share: it is stopped in "
                f"{format_duration(max(0.0, acts_at - now))} if it stays idle."
            ),
            acts_at=acts_at,
        )
    return ServerDecision(
        kind=ServerDecisionKind.STOP,
        reason=(
            f"Idle for {format_duration(idle)} (limit {format_duration(limit_seconds)})"
            " while somebody waited for a share: no GPU memory, every notebook idle, "
            "no browser, no terminal, no process outside its notebooks."
        ),
        acts_at=now,
    )


def _notice_seconds(rules: IdleRules) -> float:
    return 0.0 if rules.dry_run else rules.notice_seconds


def _signal(reading: ServerReading, rules: IdleRules) -> str:
    """Say which signal of this one reading is not idle; empty when none."""
    if reading.problem:
        return reading.problem
    if reading.process is None:
        return "Its process is unknown."
    if reading.holds_memory:
        return "It holds, or may hold, GPU memory."
    if reading.pinned:
        return "A kernel of it is to be kept."
    if reading.terminals:
        return "A process runs in a terminal of it."
    if reading.outside:
        return "A process of it runs outside its kernels."
    for kernel_id, watch in reading.kernels:
        state = watch.reading.state if watch.reading else KernelState.UNKNOWN
        if state is not KernelState.IDLE or not watch.is_fresh(reading.at, rules):
            return f"Its kernel {kernel_id} is {state.value}, or not seen lately."
        if watch.idle_since is None:
            return f"Its kernel {kernel_id} is not idle: {watch.why_not}"
    return ""


def _answer_signal(reading: ServerReading) -> str:
    answer = reading.answer
    if answer is None:
        return "It has not been asked yet."
    if not 0 <= reading.at - answer.at <= _ANSWER_STANDS_SECONDS:
        return "It has not been asked lately."
    if answer.problem:
        return answer.problem
    if answer.browsers:
        return "A browser is open on it."
    if answer.terminals:
        return "A terminal is open in it."
    if answer.kernels != len(reading.kernels):
        return "It has other kernels than are known."
    return ""


def _interruption(
    previous: ServerReading | None, reading: ServerReading, rules: IdleRules
) -> str:
    """Say why this reading does not continue the one before; empty when it does."""
    if previous is None:
        return "It has been looked at only once."
    if not 0 < reading.at - previous.at <= rules.max_gap_seconds:
        return "There was a gap between two readings."
    if reading.process != previous.process:
        return "Its process is a new one."
    if reading.activity != previous.activity:
        return "A kernel of it worked, began or ended since the last reading."
    before, after = previous.answer, reading.answer
    if before and after and before.last_activity != after.last_activity:
        return "It was used since the last reading."
    return ""


def _keep(reason: str) -> ServerDecision:
    return ServerDecision(kind=ServerDecisionKind.KEEP, reason=reason)
