"""The loop that brings parked kernels back when their owners do.

Owns the queue at each device (`core.returns` has its law), and what becomes of kernels
that an earlier life of this service parked, or that do not come back. Who is back is
`listening`'s to say, and who makes room `making_room`'s.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.errors import (
    CallHangs,
    ParkError,
    ServerError,
    SourceError,
)
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.returns import (
    Waiting,
    who_returns,
)
from jupyterhub_gpuworkshop.core.units import format_size
from jupyterhub_gpuworkshop.core.wire import EventKind, ServerInfo
from jupyterhub_gpuworkshop.service.acting import Actor
from jupyterhub_gpuworkshop.service.host import Gpus, Host
from jupyterhub_gpuworkshop.service.kept import ParkedKernel
from jupyterhub_gpuworkshop.service.link import Link
from jupyterhub_gpuworkshop.service.monitor import Monitor
from jupyterhub_gpuworkshop.service.rules import Rules
from jupyterhub_gpuworkshop.service.servers import Servers

from .listening import Listening
from .making_room import RoomMaker
from .moving import Mover
from .parked import Key, Parking, key_of
from .settling import BETWEEN, bring_back, left_of, let_go, states_of

_LOG = logging.getLogger(__name__)
_TOLD_AFTER_SECONDS = 2.0
_SETTLES_WITHIN_STEPS = 10
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(slots=True)
class _Back:
    """A parked kernel that is to come back.

    Attributes:
        since: monotonic seconds.
        why: in a sentence.
        told: its owner knows that it waits.
        failures: how often it has not come back.
        retry_at: not before.
    """

    since: float
    why: str
    told: bool = False
    failures: int = 0
    retry_at: float = float("-inf")


class Returns:
    """Brings parked kernels back.

    Args:
        parking: knows which are parked.
        mover: moves the memory.
        monitor: shows who is idle.
        actor: parks kernels to make room.
        servers: attendees' servers.
        gpus: the devices.
        host: the processes.
        link: what the hub said last.
        rules: the organiser's.
        why_not_act: says why another is to act, in a sentence; empty where we may.
        clock: monotonic seconds, the monitor's.
    """

    def __init__(
        self,
        parking: Parking,
        mover: Mover,
        monitor: Monitor,
        actor: Actor,
        servers: Servers,
        gpus: Gpus,
        host: Host,
        link: Link,
        rules: Rules,
        *,
        why_not_act: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parking = parking
        self._mover = mover
        self._monitor = monitor
        self._actor = actor
        self._servers = servers
        self._room = RoomMaker(parking, monitor, actor, rules, clock=clock)
        self._listening = Listening(servers, link, clock=clock)
        self._gpus = gpus
        self._host = host
        self._link = link
        self._rules = rules
        self._why_not_act = why_not_act
        self._clock = clock
        self._asked: dict[Key, int] = {}
        self._back: dict[Key, _Back] = {}
        self._moving: dict[Key, asyncio.Task[None]] = {}

    async def step(self) -> None:
        """Listen to the owners of parked kernels, and see to those who are back."""
        await self._parking.refresh()
        if self._why_not_act():
            self._parking.doubt()  # whoever acts meanwhile may move them
            return
        self._forget()
        for record in self._parking.parked:
            key = key_of(record)
            if key in self._moving or self._parking.stands_still(key):
                continue
            if not self._parking.is_known(key):
                # A driver that does not answer for one holds up nobody else.
                self._begin(key, self._settle(record))
            elif not await self._lives(record):
                await self._drop_ended(record)
        found = await self._listening.step(self._settled())
        for key, why in found.items():
            self._back.setdefault(key, _Back(since=self._clock(), why=why))
        self._mend()
        await self._bring_back()

    async def close(self) -> None:
        """Let go: what moves goes on by itself, and the next service takes it up."""
        tasks = list(self._moving.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._listening.close()

    def _settled(self) -> list[ParkedKernel]:
        parking = self._parking
        return [
            record
            for record in parking.parked
            if parking.is_known(key_of(record))
            and not parking.stands_still(key_of(record))
        ]

    def _forget(self) -> None:
        """Keep nothing about kernels that are not parked any more."""
        keys = set(map(key_of, self._parking.parked))
        self._asked = {k: n for k, n in self._asked.items() if k in keys}
        self._back = {k: back for k, back in self._back.items() if k in keys}
        self._monitor.notices.keep_only(
            NoticeKind.RETURN_WAITS,
            {_waits(x) for x in self._parking.parked if key_of(x) in self._back},
        )

    async def _settle(self, record: ParkedKernel) -> None:
        """Find out how things stand with what an earlier service has parked."""
        key = key_of(record)
        asked = self._asked[key] = self._asked.get(key, 0) + 1
        try:
            async with self._mover.turn(record.memory_bytes) as turn:
                states = await states_of(turn, record)
                if BETWEEN & set(states.values()) and asked < _SETTLES_WITHIN_STEPS:
                    return
                await let_go(turn, record, states)
        except (ParkError, CallHangs) as error:
            if asked == 1:
                _LOG.warning(
                    "How things stand with the paused kernel %s of %s is not known, "
                    "and is asked again: %s",
                    record.kernel_id,
                    record.user,
                    error,
                )
            return
        left = left_of(record, states)
        if left is None and record.is_broken and not await self._lives(record):
            await self._drop_ended(record)
        elif left is None:
            await self._parking.drop(key)
        elif left != record:
            await self._parking.put(left)
        self._parking.know(key)
        self._asked.pop(key, None)

    async def _lives(self, record: ParkedKernel) -> bool:
        """Tell whether any process of a record does; unknown is yes."""
        try:
            for process in record.processes:
                if await self._host.lives(process):
                    return True
        except CallHangs:
            return True
        return False

    async def _bring_back(self) -> None:
        now = self._clock()
        records = {key_of(x): x for x in self._settled() if not x.is_broken}
        waiting = [
            Waiting(key=key, needs_bytes=records[key].memory_bytes, since=back.since)
            for key, back in self._back.items()
            if key in records and key not in self._moving and now >= back.retry_at
        ]
        if not waiting:
            self._parking.give_way_on = frozenset()
            return
        free_bytes = await self._free_bytes()
        margin_bytes = self._rules.parking().margin_bytes
        busy = self._mover.moving()
        ready = who_returns(waiting, free_bytes, busy, margin_bytes)
        # Of many who are parked at one time, nobody is parked before them.
        fit = who_returns(waiting, free_bytes, (), margin_bytes)
        self._parking.give_way_on = frozenset().union(*(x.needs_bytes for x in fit))
        for each in ready:
            self._begin(each.key, self._return(records[each.key]))
        left = [each for each in waiting if each not in ready]
        taken = busy.union(*(each.needs_bytes for each in ready))
        self._room.make(left, free_bytes, taken)
        for each in left:
            await self._tell_that_it_waits(records[each.key], self._back[each.key])

    async def _free_bytes(self) -> Mapping[str, int]:
        try:
            return await self._gpus.free_bytes()
        except (SourceError, CallHangs) as error:
            _LOG.debug("Nobody comes back while nobody knows what is free: %s", error)
            return {}

    def _begin(self, key: Key, act: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(act)
        self._moving[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))

    def _ended(self, key: Key, task: "asyncio.Task[None]") -> None:
        self._moving.pop(key, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("Bringing kernel %s back failed", key[1], exc_info=error)
            self._pause(key)

    def _pause(self, key: Key) -> None:
        back = self._back.setdefault(key, _Back(since=self._clock(), why=""))
        back.retry_at = self._clock() + min(_LONGEST_PAUSE_SECONDS, 2**back.failures)
        back.failures = min(back.failures + 1, 16)

    def _try_again(self, key: Key) -> None:
        """Do so later, and ask the driver first: some of it may be back."""
        self._pause(key)
        self._parking.doubt(key)

    async def _return(self, record: ParkedKernel) -> None:
        key = key_of(record)
        back = self._back[key]
        need = Waiting(key=key, needs_bytes=record.memory_bytes, since=back.since)
        began = self._clock()
        async with self._mover.turn(record.memory_bytes) as turn:
            if self._parking.stands_still(key):
                return
            # It may have been taken while another had the turn.
            margin_bytes = self._rules.parking().margin_bytes
            if not who_returns([need], await self._free_bytes(), (), margin_bytes):
                return
            try:
                await bring_back(turn, record)
            except ParkError as error:
                _LOG.warning(
                    "Kernel %s of %s has not come back: %s",
                    record.kernel_id,
                    record.user,
                    error,
                )
                if error.broken:
                    await self._parking.put(replace(record, is_broken=True))
                else:
                    self._try_again(key)
                return
            except CallHangs:
                self._try_again(key)
                return
            if not await self._lives(record):
                await self._drop_ended(record)
                return
            await self._parking.drop(key)
        self._monitor.notices.withdraw(_waits(record))
        self._monitor.notices.withdraw(_taken(record))
        await self._actor.teller.record_parked(
            EventKind.KERNEL_RETURNED,
            record,
            f"{back.why} {format_size(sum(record.memory_bytes.values()))} are back on "
            "the GPU.",
            waited_seconds=round(began - back.since, 3),
            moved_seconds=round(self._clock() - began, 3),
        )

    async def _tell_that_it_waits(self, record: ParkedKernel, back: _Back) -> None:
        if back.told or self._clock() - back.since < _TOLD_AFTER_SECONDS:
            return
        back.told = True
        need = format_size(sum(record.memory_bytes.values()))
        name = record.notebook or "A notebook without a name"
        self._monitor.notices.give(
            NoticeKind.RETURN_WAITS,
            user=record.user,
            server=record.server,
            kernel_id=record.kernel_id,
            text=f"{name} is paused and waits for {need} of GPU memory, which others "
            "use just now. It goes on by itself as soon as that is free.",
        )
        await self._actor.teller.record_parked(
            EventKind.RETURN_WAITS, record, f"{back.why} {need} are not free yet."
        )

    def _mend(self) -> None:
        """Restart what is stuck for good."""
        for record in self._settled():
            key = key_of(record)
            back = self._back.get(key)
            is_due = back is None or self._clock() >= back.retry_at
            if record.is_broken and is_due and key not in self._moving:
                self._begin(key, self._restart(record))

    async def _restart(self, record: ParkedKernel) -> None:
        key = key_of(record)
        kernel = replace(record, processes=(record.main,)) if record.main else record
        if not await self._lives(kernel):
            await self._drop_ended(record)  # what its kernel is now is another process
            return
        server = self._server_of(record)
        if server is None:
            self._pause(key)  # a server that stops takes its kernels with it
            return
        try:
            await self._servers.restart(server, record.kernel_id)
        except ServerError as error:
            _LOG.warning(
                "Kernel %s of %s is stuck, and could not be restarted: %s",
                record.kernel_id,
                record.user,
                error,
            )
            self._pause(key)
            return
        await self._parking.drop(key)
        await self._tell_that_it_is_lost(record, "was restarted")

    async def _drop_ended(self, record: ParkedKernel) -> None:
        """Forget what has ended, and say so where a move has cost it its life."""
        await self._parking.drop(key_of(record))
        if record.is_broken:
            await self._tell_that_it_is_lost(record, "has ended")

    async def _tell_that_it_is_lost(self, record: ParkedKernel, what: str) -> None:
        teller = self._actor.teller
        self._monitor.notices.withdraw(_waits(record))
        owner = Owner(
            lease_id=record.lease_id,
            user=record.user,
            server=record.server,
            kernel_id=record.kernel_id,
        )
        why = "Its GPU memory could not be moved between the GPU and host memory."
        text = teller.tell_owner(
            owner, record.notebook, f"{what}, and its variables are gone. {why}"
        )
        if (server := self._server_of(record)) is not None:
            teller.leave_note(server, record.kernel_id, text)
        await teller.record_parked(EventKind.KERNEL_LOST, record, why)

    def _server_of(self, record: ParkedKernel) -> ServerInfo | None:
        servers = self._link.report.servers
        return next((x for x in servers if x.lease_id == record.lease_id), None)


def _waits(record: ParkedKernel) -> tuple[NoticeKind, str, str, str]:
    return (NoticeKind.RETURN_WAITS, record.user, record.server, record.kernel_id)


def _taken(record: ParkedKernel) -> tuple[NoticeKind, str, str, str]:
    return (NoticeKind.KERNEL_TAKEN, record.user, record.server, record.kernel_id)
