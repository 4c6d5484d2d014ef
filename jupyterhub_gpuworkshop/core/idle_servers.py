"""When a whole server is idle, and what follows while somebody waits for its share.

Owns the window of a server: no GPU memory, every kernel idle, no browser, no terminal
and no process outside its kernels, all the time. It begins with our own first look
and begins anew at anything else, as a kernel's does (`idleness`).
"""

from dataclasses import dataclass, replace
from enum import Enum

from .idleness import KernelWatch
from .rules import IdleRules
from .snapshot import KernelState, ProcessId
from .units import format_duration

Activity = tuple[tuple[str, str, ProcessId | None], ...]
"""(kernel id, last activity, main process) of each kernel, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReading:
    """All signals of one server, at one instant.

    Attributes:
        at: monotonic seconds.
        problem: why something of it is unknown, in a sentence; empty where all is
            known.
        kernels: every kernel's id and watch.
        holds_memory: whether any process of its lease holds GPU memory, or is parked.
        pinned: whether a kernel of it is pinned.
        browsers: connections that a browser, or another client, keeps open.
        last_activity: of the server itself, in its own words.
        terminals: open terminals.
        outside: processes in terminals, and outside its kernels.
    """

    at: float
    problem: str = ""
    kernels: tuple[tuple[str, KernelWatch], ...] = ()
    holds_memory: bool = False
    pinned: bool = False
    browsers: int = 0
    last_activity: str = ""
    terminals: int = 0
    outside: int = 0

    @property
    def activity(self) -> Activity:
        """What changes when anything is done in it."""
        return tuple(
            (kernel_id, watch.reading.last_activity, watch.reading.process)
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


def observe_server(
    watch: ServerWatch, reading: ServerReading, rules: IdleRules, max_gap_seconds: float
) -> ServerWatch:
    """Return the watch after one more reading.

    Args:
        watch: what it was.
        reading: the new one.
        rules: the organiser's.
        max_gap_seconds: readings further apart than this do not add up to a window.
    """
    why_not = _signal(reading, rules) or _interruption(
        watch.reading, reading, max_gap_seconds
    )
    if why_not:
        return ServerWatch(reading=reading, why_not=why_not)
    since = reading.at if watch.idle_since is None else watch.idle_since
    return replace(watch, reading=reading, idle_since=since, why_not="")


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
        wanted: whether somebody waits for a share.
        noticed_at: when the notice that stands was given; None where none stands.
    """
    since, idle = watch.idle_since, watch.idle_seconds
    if since is None or idle is None:
        return _keep(watch.why_not)
    limit_seconds = rules.server_after_seconds
    lasts = f"{format_duration(idle)} of {format_duration(limit_seconds)}"
    if not wanted:
        return _keep(f"Idle for {lasts}; nobody waits for its share.")
    notice_seconds = 0.0 if rules.dry_run else min(rules.notice_seconds, limit_seconds)
    if idle < limit_seconds - notice_seconds:
        return _keep(f"Idle for {lasts}; somebody waits for a share.")
    acts_at = since + limit_seconds
    if notice_seconds:
        told_at = now if noticed_at is None else noticed_at
        acts_at = max(acts_at, told_at + notice_seconds)
    if now < acts_at:
        told = noticed_at is not None
        kind = ServerDecisionKind.KEEP if told else ServerDecisionKind.NOTICE
        return ServerDecision(
            kind=kind,
            reason=(
                f"Idle for {lasts}, and somebody waits for a share: it is stopped in "
                f"{format_duration(acts_at - now)} if it stays idle."
            ),
            acts_at=acts_at,
        )
    return ServerDecision(
        kind=ServerDecisionKind.STOP,
        reason=(
            f"Idle for {format_duration(idle)} (limit {format_duration(limit_seconds)})"
            " while somebody waited for a share: no GPU memory, every kernel idle, no "
            "browser, no terminal, no process outside its kernels."
        ),
        acts_at=now,
    )


def _signal(reading: ServerReading, rules: IdleRules) -> str:
    """Say which signal of this one reading is not idle; empty when none."""
    if reading.problem:
        return reading.problem
    if reading.holds_memory:
        return "It holds GPU memory."
    if reading.pinned:
        return "A kernel of it is pinned."
    if reading.browsers:
        return "A browser is open on it."
    if reading.terminals or reading.outside:
        return "A terminal is open, or a process runs outside its kernels."
    for kernel_id, watch in reading.kernels:
        state = watch.reading.state if watch.reading else KernelState.UNKNOWN
        if state is not KernelState.IDLE or not watch.is_fresh(reading.at, rules):
            return f"Its kernel {kernel_id} is {state.value}, or not seen lately."
        if watch.idle_since is None:
            return f"Its kernel {kernel_id} is not idle: {watch.why_not}"
    return ""


def _interruption(
    previous: ServerReading | None, reading: ServerReading, max_gap_seconds: float
) -> str:
    """Say why this reading does not continue the one before; empty when it does."""
    if previous is None:
        return "It has been looked at only once."
    if not 0 < reading.at - previous.at <= max_gap_seconds:
        return "There was a gap between two readings."
    if reading.activity != previous.activity:
        return "A kernel of it was active, began or ended."
    if reading.last_activity != previous.last_activity:
        return "It was used since the last reading."
    for (_, watch), (_, before) in zip(reading.kernels, previous.kernels, strict=True):
        if watch.idle_since != before.idle_since:
            return "A kernel of it worked between two readings."
    return ""


def _keep(reason: str) -> ServerDecision:
    return ServerDecision(kind=ServerDecisionKind.KEEP, reason=reason)
