"""What happened: events, and the most memory that leases and kernels ever held.

Owns the history and is its only writer. It is kept in memory, bounded, and in a file
as far as the disk goes along: a disk that is broken or full costs the history of the
time before a restart, never the service. The usage of devices, which is `Usage`'s, goes
through it into the same file.
"""

import asyncio
import functools
import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from jupyterhub_gpuworkshop.core.errors import CallHangs, GpuWorkshopError
from jupyterhub_gpuworkshop.core.forgetting import (
    Forgetting,
    choose_numbers,
    number_of,
    servers_of,
)
from jupyterhub_gpuworkshop.core.wire import Event

from .leaps import Leaps
from .loops import OneThread
from .store import Peak, Recorded, Store
from .tally import Tally
from .usage_store import UsageRow

_LOG = logging.getLogger(__name__)
_KEEP = 10_000
_KEEP_SECONDS = 14 * 86_400.0
_TIMEOUT_SECONDS = 3.0
_FORGET_SECONDS = 20.0
"""The file is written anew, all of it."""
_LOAD_USAGE_SECONDS = 20.0
"""Of 64 devices it is 100,000 rows; nobody waits for them but who remembers usage."""
_SERVICE = "service"
_MOST_HUBS = 1000

T = TypeVar("T")
PeakKey = tuple[str, str]
"""(lease id, kernel id): the lease as a whole has no kernel id."""


class History:
    """Events in the order in which they arrived, and peaks.

    Args:
        path: the file; None keeps nothing beyond this process.
        keep: how many events are kept, and as many peaks.
        keep_seconds: how long they are kept, and the usage of devices.
        timeout_seconds: how long the disk may take.
        clock: monotonic seconds.

    Attributes:
        keep_seconds: how long events, peaks and usage are kept.
        problem: why what happens is not on disk, in a sentence; else empty.
        tally: what happened since this process began.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        keep: int = _KEEP,
        keep_seconds: float = _KEEP_SECONDS,
        timeout_seconds: float = _TIMEOUT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.problem = ""
        self.keep_seconds = keep_seconds
        self.tally = Tally()
        self._keep = keep
        self._timeout_seconds = timeout_seconds
        self._store = Store(path, keep) if path is not None else None
        self._thread = OneThread("The disk of the history")
        self._events: deque[Recorded] = deque()
        self._by_user: dict[str, deque[Recorded]] = {}
        self._heard: dict[str, int] = {}
        self._last_id = 0
        self._peaks: dict[PeakKey, Peak] = {}
        self._unwritten: deque[Recorded] = deque(maxlen=keep)
        self._unwritten_peaks: set[PeakKey] = set()
        # In memory alone, or the file would say who is who. What a hub tells late,
        # of before they were forgotten, gets their numbers too.
        self._numbers: dict[str, int] = {}
        self._forgotten_at: dict[str, float] = {}
        self._leaps = Leaps(clock)
        self._turn = asyncio.Lock()
        self._is_open = asyncio.Event()

    async def open(self) -> None:
        """Read what earlier lives of the service wrote."""
        if self._store is not None:
            loaded = await self._try(self._store.load)
            if loaded is not None:
                events, peaks, self._last_id = loaded
                for recorded in events:
                    self._remember(recorded)
                    self._hear(recorded.origin, recorded.event.sequence)
                self._peaks = {(p.lease_id, p.kernel_id): p for p in peaks}
            else:
                # Beyond all that may be in the file, for when it can be written.
                self._last_id = time.time_ns() // 1_000_000
        self._is_open.set()

    async def take(self, hub_id: str, events: Iterable[Event]) -> int:
        """Record a hub's events, those that it sends again only once.

        Returns:
            The highest sequence of this hub that is in the history.
        """
        await self._is_open.wait()
        for event in sorted(events, key=lambda event: event.sequence):
            if event.sequence > self._heard.get(hub_id, 0):
                self._append(hub_id, event)
        await self.flush()
        return self._heard.get(hub_id, 0)

    async def add(self, event: Event) -> None:
        """Record an event of the service's own."""
        await self._is_open.wait()
        self._append(_SERVICE, replace(event, sequence=self._last_id + 1))
        await self.flush()

    def after(self, event_id: int, limit: int, user: str | None) -> list[Recorded]:
        """Return events, oldest first.

        Args:
            event_id: only those after this one.
            limit: at most so many.
            user: only this attendee's; None for everybody's.
        """
        events = self._of(user)
        found = takewhile(lambda recorded: recorded.id > event_id, reversed(events))
        return list(islice(reversed(list(found)), limit))

    def latest(self, limit: int, user: str | None) -> list[Recorded]:
        """Return the last events, newest first."""
        return list(islice(reversed(self._of(user)), limit))

    def peak_bytes(self, lease_id: str, kernel_id: str = "") -> int:
        """Return the most memory that a lease, or one kernel of it, ever held."""
        peak = self._peaks.get((lease_id, kernel_id))
        return peak.memory_bytes if peak is not None else 0

    def raise_peak(self, peak: Peak) -> None:
        """Take a peak in, where it is one. The next `flush` writes it."""
        key = (peak.lease_id, peak.kernel_id)
        if peak.memory_bytes <= self.peak_bytes(*key):
            return
        self._peaks.pop(key, None)
        self._peaks[key] = peak
        self._unwritten_peaks.add(key)
        while len(self._peaks) > self._keep:
            oldest = next(iter(self._peaks))
            del self._peaks[oldest]
            self._unwritten_peaks.discard(oldest)

    async def flush(self) -> None:
        """Write what is not written yet; what cannot be is tried again next time."""
        store = self._store
        async with self._turn:
            events, keys = list(self._unwritten), set(self._unwritten_peaks)
            if store is None or not (events or keys):
                return
            peaks = [self._peaks[key] for key in keys]
            write = functools.partial(store.write, events, peaks)
            if await self._try(lambda: write() or True) is None:
                return
            written = {recorded.id for recorded in events}
            self._unwritten = deque(
                (r for r in self._unwritten if r.id not in written), self._keep
            )
            current = {(p.lease_id, p.kernel_id): p for p in peaks}
            self._unwritten_peaks = {
                key
                for key in self._unwritten_peaks
                if self._peaks.get(key) != current.get(key)
            }

    async def load_usage(self, now: float) -> list[UsageRow]:
        """Return the usage of devices that earlier lives wrote, oldest first."""
        await self._is_open.wait()
        store = self._store
        if store is None:
            return []
        load = functools.partial(store.load_usage, now)
        return await self._try(load, _LOAD_USAGE_SECONDS) or []

    async def write_usage(self, rows: Sequence[UsageRow], now: float) -> bool:
        """Write the usage of devices, and let go of all that is older than is kept.

        Returns:
            Whether it is on disk.
        """
        await self._is_open.wait()
        # Without end while the clock is in doubt: what is deleted stays deleted.
        keep_seconds = math.inf if self._leaps.has_leapt(now) else self.keep_seconds
        self._let_go_before(now - keep_seconds)
        store = self._store
        if store is None:
            return False
        write = functools.partial(store.write_usage, rows, now, keep_seconds)
        return await self._try(lambda: write() or True) is not None

    def _let_go_before(self, at: float) -> None:
        while self._events and self._events[0].event.at < at:
            self._drop_oldest()
        while self._peaks:
            key, peak = next(iter(self._peaks.items()))
            if peak.at >= at:
                break
            del self._peaks[key]
            self._unwritten_peaks.discard(key)

    async def forget(self, names: Collection[str], now: float) -> bool:
        """Let numbers stand for names, in all that is in the history until now.

        The usage of devices names nobody, and stays as it is.

        Args:
            names: whose.
            now: wall-clock seconds since the epoch: what happens later to somebody of
                that name happens to another.

        Returns:
            Whether it is on disk: what is not would come back with a restart.
        """
        await self._is_open.wait()
        async with self._turn:
            self._number(names, now)
            forgetting = self._forgetting(names)
            events = [
                replace(recorded, event=forgetting.event(recorded.event))
                for recorded in self._events
            ]
            self._events.clear()
            self._by_user.clear()
            for recorded in events:
                self._remember(recorded)

            def peak_of(peak: Peak) -> Peak:
                return replace(
                    peak,
                    user=forgetting.user(peak.user),
                    server=forgetting.server(peak.user, peak.server),
                )

            self._peaks = {key: peak_of(peak) for key, peak in self._peaks.items()}
            self._unwritten = deque(
                (
                    replace(recorded, event=forgetting.event(recorded.event))
                    for recorded in self._unwritten
                ),
                self._keep,
            )
            store = self._store
            if store is None:
                return False
            rewrite = functools.partial(store.rewrite, forgetting.event, peak_of)
            is_done = await self._try(lambda: rewrite() or True, _FORGET_SECONDS)
        await self.flush()
        return is_done is not None and not self.problem

    def _number(self, names: Collection[str], now: float) -> None:
        """Give each name a number; whoever has had one keeps it.

        A name in the history whose number is known is of another person, who got the
        name after the first was forgotten.
        """
        users = {*self._by_user, *(peak.user for peak in self._peaks.values())}
        taken = {number for user in users if (number := number_of(user)) is not None}
        taken |= set(self._numbers.values())
        new = [name for name in names if name not in self._numbers or name in users]
        self._numbers |= choose_numbers(new, taken, secrets.randbelow)
        self._forgotten_at |= dict.fromkeys(names, now)

    def _forgetting(self, names: Collection[str]) -> Forgetting:
        pairs = [
            *((x.event.user, x.event.server) for x in self._events),
            *((peak.user, peak.server) for peak in self._peaks.values()),
        ]
        return Forgetting(
            numbers={name: self._numbers[name] for name in names},
            servers=servers_of(pairs, names),
            others=frozenset(self._by_user),
        )

    def _told_late(self, event: Event) -> Event:
        """Return an event without names that were forgotten after it happened."""
        names = [name for name, at in self._forgotten_at.items() if event.at <= at]
        return self._forgetting(names).event(event) if names else event

    def _append(self, origin: str, event: Event) -> None:
        event = self._told_late(event)
        self._last_id += 1
        recorded = Recorded(id=self._last_id, origin=origin, event=event)
        self._remember(recorded)
        self.tally.count(event)
        if self._store is not None:
            self._unwritten.append(recorded)
        self._hear(origin, event.sequence)

    def _of(self, user: str | None) -> deque[Recorded]:
        """Return an attendee's events, or everybody's; oldest first."""
        if user is None:
            return self._events
        # What is nobody's is not theirs who have no name.
        return self._by_user.get(user, deque()) if user else deque()

    def _remember(self, recorded: Recorded) -> None:
        self._events.append(recorded)
        self._by_user.setdefault(recorded.event.user, deque()).append(recorded)
        if len(self._events) > self._keep:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        user = self._events.popleft().event.user
        # The oldest of all is the oldest of its user's.
        self._by_user[user].popleft()
        if not self._by_user[user]:
            del self._by_user[user]

    def _hear(self, origin: str, sequence: int) -> None:
        highest = max(sequence, self._heard.pop(origin, 0))
        self._heard[origin] = highest
        while len(self._heard) > _MOST_HUBS:
            del self._heard[next(iter(self._heard))]

    async def _try(
        self, function: Callable[[], T], timeout_seconds: float = 0.0
    ) -> T | None:
        """Call the store; None, and a problem, where it fails."""
        seconds = max(timeout_seconds, self._timeout_seconds)
        try:
            result = await self._thread.call(function, seconds)
        except (
            CallHangs,
            GpuWorkshopError,
            OSError,
            SQLAlchemyError,
            ValidationError,
        ) as error:
            problem = f"The history is not on disk, only in memory: {_first(error)}"
            if problem != self.problem:
                _LOG.error("%s", problem)
            self.problem = problem
            return None
        if self.problem:
            _LOG.info("The history is on disk again")
        self.problem = ""
        return result


def _first(error: Exception) -> str:
    """Return what matters of an error; SQLAlchemy's go on with the statement."""
    original = getattr(error, "orig", None) or error
    return str(original).splitlines()[0] if str(original) else repr(original)
