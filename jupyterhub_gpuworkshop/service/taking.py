"""What is to be done to one kernel, and what came of it, as values.

Owns the words between whoever decides that memory is taken (reaper, watchdog, returns)
and whoever takes it (`acting`, `parking`).
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from jupyterhub_gpuworkshop.core.asking import Asker
from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.rules import Action

from .last_check import Checked, Must
from .notices import Subject
from .watching import Watched

Check = Callable[[], Awaitable[Checked]]
"""The last look, right before an act."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """One kernel whose memory is to be taken.

    Attributes:
        owner: the kernel.
        watched: what was known of it when that was decided.
        action: what is done.
        reason: why, in a sentence for the log, the history and the owner.
        must_be_idle: False only where the largest busy kernel of a lease that exceeds
            its share is restarted.
        or_restart: whether it is restarted where it cannot be parked. False where it
            was not told: it only makes room.
        announced: what the notice was about that told it; None for that of an idle
            kernel.
        asked: the person whose word it is; None where it is the machine's own.
    """

    owner: Owner
    watched: Watched
    action: Action
    reason: str
    must_be_idle: bool = True
    or_restart: bool = True
    announced: Subject | None = None
    asked: Asker | None = None

    @property
    def must(self) -> Must:
        """What must hold still right before it is done."""
        if self.asked is not None and self.action is Action.PARK:
            return Must.BE_AT_REST
        is_meant = self.asked is not None or not self.must_be_idle
        return Must.BE_THE_SAME if is_meant else Must.BE_IDLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """What came of parking a kernel; both empty where it is parked.

    Attributes:
        change: why it is to be left alone, in a sentence.
        why_not: why it is not parked, and runs as before, in a sentence.
        window_seconds: from the last look to the act.
    """

    change: str = ""
    why_not: str = ""
    window_seconds: float = 0.0


class Parks(Protocol):
    """Who parks kernels."""

    async def park(self, taking: Taking, check: Check) -> Parked:
        """Park a kernel, looking at it one last time right before."""

    async def refresh(self) -> None:
        """Find out what can be parked, where that is not known."""

    def stand_still(self, owner: Owner) -> AbstractAsyncContextManager[None]:
        """Let nobody bring a parked kernel back while it is ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What was done.

    Attributes:
        action: to the kernel.
        instead: why it is not what was meant, in a sentence; else empty.
        window_seconds: from the last look to the act.
    """

    action: Action
    instead: str = ""
    window_seconds: float = 0.0
