"""The loop that carries out reclaim decisions: notices, then what was announced.

Owns the turn of events: who is told, when a decision must stand in a second picture,
who may act at all. The act itself is `acting`'s.
"""

import logging
import time
from collections.abc import Callable

from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.reclaim import DecisionKind
from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.core.units import format_duration, format_size
from jupyterhub_gpuworkshop.core.wire import EventKind

from .acting import Actor
from .monitor import Monitor
from .rules import Rules
from .taking import Taking
from .watching import Watched, subject_of

_LOG = logging.getLogger(__name__)

_OFFERED_SECONDS = 1800.0
"""For how long the attendee's page offers to keep a kernel, if so long is allowed."""

_WILL = {
    Action.PARK: "the kernel is paused, and its variables are kept (it is restarted "
    "where that cannot be, and they are lost)",
    Action.RESTART: "the kernel is restarted, and its variables are lost",
    Action.STOP_KERNEL: "the kernel is stopped, and its variables are lost",
}


class Reaper:
    """Carries out what `core.reclaim` decides.

    Args:
        monitor: where decisions come from.
        actor: takes memory.
        rules: the organiser's.
        why_not_act: says why another is to act, in a sentence; empty where we may.
        clock: monotonic seconds, the monitor's.
    """

    def __init__(
        self,
        monitor: Monitor,
        actor: Actor,
        rules: Rules,
        *,
        why_not_act: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monitor = monitor
        self._actor = actor
        self._rules = rules
        self._why_not_act = why_not_act
        self._clock = clock
        self._seen_rounds = 0
        self._said: dict[Owner, float] = {}

    async def step(self) -> None:
        """Wait for the next snapshot, and carry out what follows from it."""
        await self._monitor.newer_than(self._seen_rounds)
        self._seen_rounds = self._monitor.rounds
        self._forget()
        if self._why_not_act():
            return
        await self._give_notices()
        due = self._due()
        if not due:
            return
        if self._rules.idle().dry_run:
            for owner in due:
                await self._say(owner)
            return
        # Look at everything once more: the decision must stand in a second picture.
        before = {owner: self._monitor.kernels[owner] for owner in due}
        await self._monitor.tick()
        self._seen_rounds = self._monitor.rounds
        if self._rules.idle().dry_run:
            return
        for owner in self._due():
            watched = self._monitor.kernels[owner]
            if (
                owner in before
                and is_same(before[owner], watched)
                and self._actor.may_act_on(owner)
            ):
                self._actor.begin(taking_of(owner, watched))

    def _due(self) -> list[Owner]:
        return [o for o in self._monitor.due() if self._actor.may_act_on(o)]

    def _forget(self) -> None:
        """Keep nothing about kernels that are gone or idle spells that ended."""
        kernels = self._monitor.kernels
        self._actor.forget()
        self._said = {
            owner: since
            for owner, since in self._said.items()
            if owner in kernels and kernels[owner].watch.idle_since == since
        }
        is_dry = self._rules.idle().dry_run
        self._monitor.notices.keep_only(
            NoticeKind.KERNEL_IDLE,
            {
                subject_of(owner)
                for owner, watched in kernels.items()
                if self._actor.is_acting_on(owner)
                # Of a dry run nobody is told, nor held to what was told before it.
                or (watched.decision.acts_at is not None and not is_dry)
            },
        )

    async def _give_notices(self) -> None:
        """Tell each attendee whose kernel's time is nearly up, once."""
        for owner, watched in self._monitor.kernels.items():
            decision = watched.decision
            if decision.kind is not DecisionKind.NOTICE or decision.acts_at is None:
                continue
            in_seconds = decision.acts_at - self._clock()
            self._monitor.notices.give(
                NoticeKind.KERNEL_IDLE,
                user=owner.user,
                server=owner.server,
                kernel_id=owner.kernel_id,
                text=_announcement(
                    watched, in_seconds, self._rules.idle().pin_max_seconds
                ),
                acts_in_seconds=in_seconds,
            )
            await self._actor.teller.record(
                EventKind.NOTICE_GIVEN, taking_of(owner, watched), decision.reason
            )

    async def _say(self, owner: Owner) -> None:
        """Say what would be done, once in an idle spell."""
        watched = self._monitor.kernels[owner]
        since = watched.watch.idle_since
        if since is None or owner in self._said:
            return
        self._said[owner] = since
        await self._actor.teller.record(
            EventKind.RECLAIM_WOULD, taking_of(owner, watched), watched.decision.reason
        )


def is_same(before: Watched, after: Watched) -> bool:
    """Say whether two pictures show the same kernel in the same idle spell."""
    old, new = before.watch.reading, after.watch.reading
    return (
        old is not None
        and new is not None
        and old.process == new.process
        and old.members == new.members
        and old.last_activity == new.last_activity
        and before.watch.idle_since == after.watch.idle_since
        and before.server == after.server
    )


def taking_of(owner: Owner, watched: Watched) -> Taking:
    decision = watched.decision
    return Taking(
        owner=owner,
        watched=watched,
        action=decision.action or Action.RESTART,
        reason=decision.reason,
    )


def _announcement(watched: Watched, in_seconds: float, pin_seconds: float) -> str:
    """Return what the attendee reads."""
    name = watched.view.notebook or "A notebook without a name"
    action = watched.decision.action or Action.RESTART
    offered = min(_OFFERED_SECONDS, pin_seconds)
    return (
        f"{name} has not been used for a while and holds "
        f"{format_size(watched.view.memory_bytes or 0)} of GPU memory. In "
        f"{format_duration(in_seconds)} {_WILL[action]}. To keep it, run a cell"
        + (
            f', or choose "Keep for {format_duration(offered)}" on the page GPUs.'
            if offered
            else "."
        )
    )
