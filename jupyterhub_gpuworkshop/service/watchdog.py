"""The loop that sees to leases whose processes together use more than their share.

Owns who is told, and whose kernels give memory back: idle ones first, the largest
first, one of a lease at a time. The act itself is `acting`'s.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.over_share import (
    OverDecision,
    OverKind,
    OverWatch,
    decide_over,
)
from jupyterhub_gpuworkshop.core.rules import Action, OverShareAction
from jupyterhub_gpuworkshop.core.units import format_duration
from jupyterhub_gpuworkshop.core.wire import Event, EventKind

from .acting import Actor
from .history import History
from .monitor import Monitor
from .notices import Subject
from .rules import Rules
from .taking import Taking
from .watching import Watched

_LOG = logging.getLogger(__name__)
_DONE = {
    Action.PARK: "paused, their variables kept (restarted where that cannot be, and "
    "their variables are gone)",
    Action.RESTART: "restarted, and their variables are gone",
    Action.STOP_KERNEL: "stopped, and their variables are gone",
}


class Watchdog:
    """Carries out what `core.over_share` decides.

    Args:
        monitor: shows who exceeds what.
        actor: takes memory.
        rules: the organiser's.
        history: takes the events.
        why_not_act: says why another is to act, in a sentence; empty where we may.
        clock: monotonic seconds, the monitor's.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        monitor: Monitor,
        actor: Actor,
        rules: Rules,
        history: History,
        *,
        why_not_act: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monitor = monitor
        self._actor = actor
        self._rules = rules
        self._history = history
        self._why_not_act = why_not_act
        self._clock = clock
        self._wall = wall
        self._seen_rounds = 0
        self._told: dict[str, float] = {}
        self._announced: dict[Owner, Subject] = {}

    async def step(self) -> None:
        """Wait for the next snapshot, and carry out what follows from it."""
        await self._monitor.newer_than(self._seen_rounds)
        self._seen_rounds = self._monitor.rounds
        leases = {lease.id: lease for lease in self._monitor.snapshot.leases}
        over = {k: x for k, x in self._monitor.overs.items() if x.since is not None}
        self._told = {k: at for k, at in self._told.items() if k in over}
        # What came of an act is told with its notice: it stands until then.
        self._announced = {
            owner: subject
            for owner, subject in self._announced.items()
            if self._actor.is_acting_on(owner)
        }
        self._monitor.notices.keep_only(
            NoticeKind.OVER_SHARE,
            {_subject(leases[k]) for k in over if k in leases}
            | set(self._announced.values()),
        )
        if self._why_not_act() or self._rules.idle().dry_run:
            return
        for lease_id, watch in over.items():
            if lease_id in leases:
                await self._see_to(leases[lease_id], watch)

    async def _see_to(self, lease: Lease, watch: OverWatch) -> None:
        decision, kernel = self._decide(lease, watch)
        if decision.kind is OverKind.NOTICE:
            await self._tell(lease, decision, self._rules.over_share().grace_seconds)
        if kernel is None or not self._actor.may_act_on(kernel[0]):
            return
        # Look at everything once more: the excess must stand in a second picture.
        await self._monitor.tick()
        self._seen_rounds = self._monitor.rounds
        watch = self._monitor.overs.get(lease.id, OverWatch(over_bytes={}))
        decision, again = self._decide(lease, watch)
        if (
            again is None
            or again[0] != kernel[0]
            or self._why_not_act()
            or self._rules.idle().dry_run
        ):
            return
        has_begun = self._take(lease, *again, decision)
        if has_begun and decision.kind is OverKind.TAKE_BUSY:
            # Before the next one its attendee is told anew.
            self._told.pop(lease.id, None)

    def _decide(
        self, lease: Lease, watch: OverWatch
    ) -> tuple[OverDecision, tuple[Owner, Watched] | None]:
        """Return what to do about a lease, and the kernel that gives memory back."""
        rules = self._rules.over_share()
        uuids = frozenset(watch.over_bytes)
        kernels = [
            (owner, watched)
            for owner, watched in self._monitor.kernels.items()
            if owner.lease_id == lease.id
            and watched.memory_on(uuids)
            and watched.view.parked_at is None  # it would lose what is away
        ]
        if any(self._actor.is_acting_on(owner) for owner, _ in kernels):
            reason = "Some of it is being taken back."
            return OverDecision(kind=OverKind.KEEP, reason=reason), None
        kernels.sort(key=lambda each: each[1].memory_on(uuids), reverse=True)
        idle = [x for x in kernels if self._is_idle(x[1], rules.grace_seconds)]
        busy = [x for x in kernels if x not in idle]
        decision = decide_over(
            replace(watch, noticed_at=self._told.get(lease.id)),
            rules,
            self._clock(),
            lease,
            has_idle=bool(idle),
            has_busy=bool(busy),
        )
        if decision.kind is OverKind.TAKE_IDLE:
            return decision, idle[0]
        return decision, busy[0] if decision.kind is OverKind.TAKE_BUSY else None

    def _is_idle(self, watched: Watched, seconds: float) -> bool:
        idle_seconds = watched.watch.idle_seconds
        return (
            idle_seconds is not None
            and idle_seconds >= seconds
            and watched.watch.is_fresh(self._clock(), self._rules.idle())
            and not watched.is_pinned
        )

    async def _tell(
        self, lease: Lease, decision: OverDecision, grace_seconds: float
    ) -> None:
        self._told[lease.id] = self._clock()
        follows = self._what_follows(lease, grace_seconds)
        self._monitor.notices.give(
            NoticeKind.OVER_SHARE,
            user=lease.user,
            server=lease.server,
            text=(
                f"{decision.reason} Others run short of it: shut down notebooks that "
                f"you do not need.{follows}"
            ),
            acts_in_seconds=grace_seconds if follows else None,
        )
        _LOG.info("%s exceeds its share: %s", lease.owner, decision.reason)
        await self._history.add(
            Event(
                at=self._wall(),
                kind=EventKind.OVER_SHARE,
                user=lease.user,
                server=lease.server,
                devices=lease.uuids,
                reason=decision.reason,
                details={"lease_id": lease.id, "share": lease.share},
            )
        )

    def _what_follows(self, lease: Lease, grace_seconds: float) -> str:
        """Say what is done after the notice, in sentences; nothing where nothing is."""
        follows = self._rules.over_share().action
        if follows is OverShareAction.NOTICE:
            return ""
        action = self._rules.idle().action_for(self._groups(lease))
        sentences = (
            f" In {format_duration(grace_seconds)} idle notebooks of yours are "
            f"{_DONE[action]}, the largest first."
        )
        if follows is OverShareAction.RESTART:
            sentences += (
                " When no idle one is left, busy ones are restarted too, the largest "
                "first, and what they compute is lost."
            )
        return sentences

    def _groups(self, lease: Lease) -> tuple[str, ...]:
        return next(
            (
                tuple(watched.server.groups)
                for owner, watched in self._monitor.kernels.items()
                if owner.lease_id == lease.id
            ),
            (),
        )

    def _take(
        self, lease: Lease, owner: Owner, watched: Watched, decision: OverDecision
    ) -> bool:
        """Begin an act; return whether it has begun."""
        is_idle = decision.kind is OverKind.TAKE_IDLE
        if not self._actor.may_act_on(owner):
            return False
        action = self._rules.idle().action_for(watched.server.groups)
        self._announced[owner] = _subject(lease)
        self._actor.begin(
            Taking(
                owner=owner,
                watched=watched,
                action=action if is_idle else Action.RESTART,
                reason=decision.reason,
                must_be_idle=is_idle,
                announced=_subject(lease),
            )
        )
        return True


def _subject(lease: Lease) -> Subject:
    return (NoticeKind.OVER_SHARE, lease.user, lease.server, "")
