"""Who has to wait after wrong codes, as the GPU service is told; and who may go on.

Owns when the lock-outs are read for a report, and that what the service orders is done
once it is told to be. The lock-outs themselves are `lock_outs`'. Their file is looked
at in a thread and never waited for: a disk that hangs silences no report.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from jupyterhub_gpuworkshop.core.lock_out import Locked
from jupyterhub_gpuworkshop.core.roster import joining_name
from jupyterhub_gpuworkshop.core.wire import MOST_LOCKED, Unlock

from .addresses import shown_name
from .lock_outs import LockOuts

_EVERY_SECONDS = 4.0
_SHARE_OF_TIME = 0.05
"""Logins wait for a reading, and of a flood of guesses one takes half a second."""


class Unlocking:
    """The lock-outs of one hub, for its link.

    Args:
        lock_outs: those that logins are judged by.
        names: returns whom the roster knows; it may block.
        changed: called when there is something to report.
        log: the hub's.
        clock: monotonic seconds.

    Attributes:
        locked: who has to wait, as of the last reading; None before the first.
    """

    def __init__(
        self,
        lock_outs: LockOuts,
        names: Callable[[], Collection[str]],
        *,
        changed: Callable[[], None],
        log: "logging.Logger | logging.LoggerAdapter[Any]",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.locked: tuple[Locked, ...] | None = None
        self._lock_outs = lock_outs
        self._names = names
        self._changed = changed
        self._log = log
        self._clock = clock
        self._due_at: float | None = None
        self._orders: dict[str, Unlock] = {}
        self._done: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def done(self) -> tuple[str, ...]:
        """Ids of the orders that are carried out, and that the service still gives."""
        return tuple(self._done)

    def hear(self, orders: Iterable[Unlock]) -> None:
        """Take in all orders that stand, from the service's answer of this moment."""
        self._orders = {order.id: order for order in orders}
        self._done = {each: None for each in self._done if each in self._orders}
        if self._orders.keys() - self._done.keys():
            self._go_on()

    def soon(self) -> None:
        """See to it that the next reports are up to date; return at once."""
        if self._due_at is None or self._clock() >= self._due_at:
            self._go_on()

    async def settled(self) -> None:
        """Wait until what is under way is done."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def _go_on(self) -> None:
        # One at a time: of a disk that hangs one thread is kept, and no more.
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._work())

    async def _work(self) -> None:
        before = self.locked
        is_news = False
        try:
            while missing := [
                x for x in self._orders.values() if x.id not in self._done
            ]:
                for order in missing:
                    await self._unlock(order)
                    is_news = True
            begun = self._clock()
            self.locked = await asyncio.to_thread(self._read)
            took = self._clock() - begun
            self._due_at = self._clock() + max(_EVERY_SECONDS, took / _SHARE_OF_TIME)
        except Exception:
            self._due_at = self._clock() + _EVERY_SECONDS
            self._log.exception("Reading who is locked out failed")
        if is_news or _who(before) != _who(self.locked):
            self._changed()

    async def _unlock(self, order: Unlock) -> None:
        name = order.name.strip().lower()
        ended = await asyncio.to_thread(self._let_in, name)
        self._done[order.id] = None
        self._log.info(
            "%s lets %s try again: %d %s ended",
            shown_name(order.by),
            shown_name(name),
            ended,
            "wait" if ended == 1 else "waits",
        )

    def _let_in(self, name: str) -> int:
        ended = self._lock_outs.unlock(name)
        return ended + self._lock_outs.unlock(joining_name(name))

    def _read(self) -> tuple[Locked, ...]:
        found = self._lock_outs.locked()
        return (
            tuple(found) if len(found) <= MOST_LOCKED else most_of(found, self._names())
        )


def most_of(found: Iterable[Locked], known: Collection[str]) -> tuple[Locked, ...]:
    """Return as many as are reported, those first whom somebody may miss.

    Who guesses at many names, or at one from many addresses, must not push an
    attendee off the list who mistyped.

    Args:
        found: all who wait.
        known: names on the roster.
    """
    names = frozenset(known)
    times: dict[str, int] = {}
    ranked: list[tuple[tuple[int, bool, str], Locked]] = []
    for one in found:
        rank = times[one.name] = times.get(one.name, 0) + 1
        ranked.append(((rank, one.name not in names, one.name), one))
    ranked.sort(key=lambda pair: pair[0])
    kept = [one for _, one in ranked[:MOST_LOCKED]]
    return tuple(sorted(kept, key=lambda one: (one.name, one.address)))


def _who(locked: Iterable[Locked] | None) -> frozenset[tuple[str, str]] | None:
    if locked is None:
        return None
    return frozenset((one.name, one.address) for one in locked)
