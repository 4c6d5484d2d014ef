"""Who has to wait after wrong codes, as the hub says, and whom it is to let in.

Owns the orders to unlock: each is told to the hub until the hub reports that it is
done, or until it has taken too long. The hub alone has the lock-outs.
"""

import logging
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import replace

from jupyterhub_gpuworkshop.core.errors import ActForbidden, ActRefused, NothingThere
from jupyterhub_gpuworkshop.core.lock_out import Locked, name_key
from jupyterhub_gpuworkshop.core.roster import joining_name
from jupyterhub_gpuworkshop.core.units import format_duration
from jupyterhub_gpuworkshop.core.wire import (
    MOST_LOCKED,
    Event,
    EventKind,
    Report,
    Unlock,
)

from .history import History
from .kept import Kept, KeptState, UnlockOrder
from .link import Link
from .web.auth import Viewer

_LOG = logging.getLogger(__name__)
_GIVEN_UP_AFTER_SECONDS = 300.0

NO_LOCK_OUTS = (
    "The hub does not say who is locked out: it does where attendees log in with the "
    "roster's codes, and some seconds after its start."
)


class LockedOut:
    """Who has to wait, and the orders to let them in.

    Args:
        link: what the hub said last.
        kept: where the orders are written.
        history: takes the events.
        why_not_act: says why another service is to act, in a sentence.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        link: Link,
        kept: Kept,
        history: History,
        *,
        why_not_act: Callable[[], str] = str,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._link = link
        self._kept = kept
        self._history = history
        self._why_not_act = why_not_act
        self._wall = wall

    @property
    def locked(self) -> tuple[Locked, ...]:
        """Who has to wait now, as far as the hub says."""
        now = self._wall()
        return tuple(x for x in self._link.report.locked or () if x.until > now)

    @property
    def problem(self) -> str:
        """Why that may not be so, in a sentence; else empty."""
        if self._link.problem:
            return self._link.problem
        return "" if self._link.report.locked is not None else NO_LOCK_OUTS

    @property
    def is_known(self) -> bool:
        """Whether the hub says who has to wait, if only a while ago."""
        return self._link.report.locked is not None

    @property
    def orders(self) -> tuple[Unlock, ...]:
        """What the hub is told: all orders that it has not carried out."""
        return tuple(
            Unlock(id=order.id, name=order.name, by=order.by)
            for order in self._kept.state.unlocks
            if not self._is_too_old(order)
        )

    async def unlock(self, viewer: Viewer, name: str) -> str:
        """Order that somebody may try again; return what is going to happen.

        Raises:
            ActRefused: it is not done.
        """
        if not viewer.is_organiser:
            raise ActForbidden("Only an organiser may unlock an attendee.")
        if why_not := self._why_not_act():
            raise ActRefused(why_not)
        if self.problem:
            raise ActRefused(self.problem)
        found = self._find(name)
        made = UnlockOrder(
            id=uuid.uuid4().hex, name=found, by=viewer.name, at=self._wall()
        )
        is_new = False

        def order(state: KeptState) -> KeptState:
            nonlocal is_new
            is_new = not any(
                one.name == found and not self._is_too_old(one) for one in state.unlocks
            )
            return replace(state, unlocks=(*state.unlocks, made)) if is_new else state

        await self._kept.change(order)
        if is_new:
            _LOG.info("%s asks the hub to unlock %r", viewer.name, found)
        return f"The hub lets {found} try again within seconds."

    async def hear(self, report: Report) -> None:
        """Take in what the hub has carried out."""
        orders = self._kept.state.unlocks
        done = [order for order in orders if order.id in report.unlocked]
        if not done or self._why_not_act():
            return
        for order in await self._drop(done):
            await self._record(
                EventKind.ATTENDEE_UNLOCKED,
                order,
                f"An organiser ended the wait of {order.name} after wrong codes.",
            )

    async def step(self) -> None:
        """Give up the orders that the hub has not carried out for minutes."""
        late = [order for order in self._kept.state.unlocks if self._is_too_old(order)]
        if not late or not self._kept.is_read or self._why_not_act():
            return
        for order in await self._drop(late):
            within = format_duration(_GIVEN_UP_AFTER_SECONDS)
            await self._record(
                EventKind.UNLOCK_FAILED,
                order,
                f"An organiser wanted to end the wait of {order.name} after wrong "
                f"codes, and the hub did not do it within {within}. It is not tried "
                "any more.",
            )

    def _find(self, name: str) -> str:
        """Return the name that is meant, as the hub has it."""
        typed = name_key(name.strip().lower())
        locked = self._link.report.locked or ()
        names = {one.name for one in self.locked}
        for found in (name, typed):
            if found in names or joining_name(found) in names:
                return found
        # The hub tells of no more than these: this one may wait all the same.
        if len(locked) >= MOST_LOCKED and typed:
            return typed
        raise NothingThere(
            "Nobody of this name has to wait now: api/v1/locked lists those who do."
        )

    async def _drop(self, orders: Collection[UnlockOrder]) -> list[UnlockOrder]:
        """Forget orders; return those that were there."""
        dropped: list[UnlockOrder] = []

        def drop(state: KeptState) -> KeptState:
            dropped[:] = [order for order in state.unlocks if order in orders]
            left = tuple(order for order in state.unlocks if order not in orders)
            return replace(state, unlocks=left)

        await self._kept.change(drop)
        return dropped

    def _is_too_old(self, order: UnlockOrder) -> bool:
        # An order of a time to come is from a clock that was wrong.
        return abs(self._wall() - order.at) > _GIVEN_UP_AFTER_SECONDS

    async def _record(self, kind: EventKind, order: UnlockOrder, reason: str) -> None:
        _LOG.info("%s of %r, by %s", kind.value, order.name, order.by)
        await self._history.add(
            Event(
                at=self._wall(),
                kind=kind,
                # Of who wants to join: the name alone, so that it can be forgotten.
                user=order.name.removeprefix(joining_name("")),
                reason=reason,
                details={"by": order.by},
            )
        )
