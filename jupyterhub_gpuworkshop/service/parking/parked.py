"""Parking: which kernels are parked, and how one becomes it.

Owns the record of every parked kernel, on disk before anything moves: who takes the
service up again after a kill must know whom to bring back. Who is to be parked is
`core.reclaim`'s to say, and who comes back and when is `returning`'s.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace

from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.devices import Inventory
from jupyterhub_gpuworkshop.core.errors import CallHangs, ParkError
from jupyterhub_gpuworkshop.core.snapshot import Holder, ProcessId
from jupyterhub_gpuworkshop.machine.host_room import HostRoom, why_no_room
from jupyterhub_gpuworkshop.machine.parking import ParkState
from jupyterhub_gpuworkshop.machine.processes import boot_id
from jupyterhub_gpuworkshop.machine.timeouts import timeout
from jupyterhub_gpuworkshop.service.kept import Kept, KeptState, ParkedKernel
from jupyterhub_gpuworkshop.service.rules import Rules
from jupyterhub_gpuworkshop.service.taking import Check, Parked, Taking

from .moving import Mover, Turn

_LOG = logging.getLogger(__name__)
_ASK_AGAIN_SECONDS = 60.0
_ASK_IDLY_SECONDS = 10 * 60.0
"""... where only a person may want it."""

_STILL_SECONDS = 60.0

Key = tuple[str, str]
"""(lease id, kernel id) of a parked kernel."""


def key_of(kernel: ParkedKernel) -> Key:
    """Return what a record is known by."""
    return (kernel.lease_id, kernel.kernel_id)


class Parking:
    """Parks kernels, and knows which are parked.

    Args:
        mover: moves the memory.
        kept: where the records are.
        rules: the organiser's.
        inventory: what devices exist.
        clock: monotonic seconds.
        wall: seconds since the epoch.

    Attributes:
        give_way_on: devices on which somebody could come back now, and comes first.
    """

    def __init__(
        self,
        mover: Mover,
        kept: Kept,
        rules: Rules,
        inventory: Callable[[], Inventory | None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.give_way_on: frozenset[str] = frozenset()
        self._mover = mover
        self._kept = kept
        self._rules = rules
        self._inventory = inventory
        self._clock = clock
        self._wall = wall
        self._unavailable = ""
        self._is_asked = False
        self._asked_at = float("-inf")
        self._unparkable: Mapping[str, str] = {}
        self._on_the_way: dict[Owner, int] = {}
        self._known: set[Key] = set()
        self._still: set[Key] = set()

    @property
    def parked(self) -> tuple[ParkedKernel, ...]:
        """All records, of kernels on their way too."""
        return self._kept.state.parked

    def of(self, owner: Owner) -> ParkedKernel | None:
        """Return the record of a kernel, or None."""
        key = (owner.lease_id, owner.kernel_id)
        return next((x for x in self.parked if key_of(x) == key), None)

    def why_not(self, owner: Owner, holders: tuple[Holder, ...]) -> str:
        """Return why a kernel cannot be parked, in a sentence; empty if it can.

        So it is where that is not known yet, for nobody is restarted over that. Room in
        host RAM is looked at right before it is done.
        """
        if self._unavailable:
            return self._unavailable
        for holder in holders:
            if why := self._unparkable.get(holder.device, ""):
                return why
        if any(holder.memory_bytes is None for holder in holders):
            return "how much memory its processes hold is not known."
        return ""

    async def refresh(self) -> None:
        """Ask what can be parked, now and then."""
        idle = self._rules.idle()
        is_wanted = self.parked or idle.may_park
        every_seconds = _ASK_AGAIN_SECONDS if is_wanted else _ASK_IDLY_SECONDS
        if self._clock() - self._asked_at < every_seconds:
            return
        self._asked_at = self._clock()
        inventory = self._inventory() or Inventory()
        parker, before = self._mover.parker, self._unavailable
        try:
            self._unavailable = await self._mover.ask(parker.unavailable)
            if not self._unavailable:
                self._unparkable = await self._mover.ask(
                    lambda: {x.uuid: parker.cannot_park(x) for x in inventory.devices}
                )
        except CallHangs as error:
            self._unavailable = str(error)
        self._is_asked = True
        if self._unavailable and self._unavailable != before and idle.may_park:
            _LOG.warning(
                "Nothing can be parked; idle kernels are restarted instead: %s",
                self._unavailable,
            )

    async def park(self, taking: Taking, check: Check) -> Parked:
        """Park a kernel, looking at it one last time right before.

        Args:
            taking: the kernel.
            check: the last look.
        """
        held = held_by_process(taking.watched.holders)
        devices = {holder.device for holder in taking.watched.holders}
        if why_not := self.why_not(taking.owner, taking.watched.holders):
            return Parked(why_not=why_not)
        if not self._is_asked:
            return Parked(change="whether anything can be parked is not known yet")
        async with self._mover.turn(devices) as turn:
            if self.of(taking.owner) is not None:
                # Its record would be written over, and what is away never come back.
                return Parked(change="it is paused already")
            if devices & self.give_way_on:
                return Parked(change="a paused kernel comes back first")
            try:
                rooms = [await turn.room(process) for process in held]
                if why_not := self._why_no_room(taking, rooms):
                    return Parked(why_not=why_not)
                # From here on what it takes is nobody else's, without an await between.
                self._on_the_way[taking.owner] = taking.watched.memory_on()
                return await self._park(turn, taking, held, check)
            except CallHangs as error:
                # What has begun may go on: whoever brings kernels back looks at it.
                self.doubt((taking.owner.lease_id, taking.owner.kernel_id))
                return Parked(change=str(error))
            except Exception:
                self.doubt((taking.owner.lease_id, taking.owner.kernel_id))
                raise
            finally:
                self._on_the_way.pop(taking.owner, None)

    async def _park(
        self, turn: Turn, taking: Taking, held: Mapping[ProcessId, int], check: Check
    ) -> Parked:
        """Look at it, write it down and move it."""
        checked = await check()
        if checked.change:
            return Parked(change=checked.change)
        record = self._record(taking, held, checked.last_activity)
        if record is None:
            return Parked(change="its last reading is gone")
        self.know(key_of(record))
        if not await self._kept.change(lambda state: _with(state, record)):
            await self.drop(key_of(record))
            return Parked(
                why_not="what is parked could not be written down, and would be lost "
                f"with this service. {self._kept.problem}".strip()
            )
        window_seconds = checked.window_seconds()
        result = await self._move(turn, record, held)
        return replace(result, window_seconds=window_seconds)

    @contextlib.asynccontextmanager
    async def stand_still(self, owner: Owner) -> AsyncIterator[None]:
        """Let nobody bring a parked kernel back while it is ended.

        What moves it already is waited for.

        Raises:
            CallHangs: that has not come back.
        """
        key, record = (owner.lease_id, owner.kernel_id), self.of(owner)
        self._still.add(key)
        try:
            if record is not None:
                async with timeout(_STILL_SECONDS):
                    await self._have_a_turn(record.memory_bytes)
            yield
        except asyncio.TimeoutError:
            raise CallHangs("What moves memory on its GPU has not come back.") from None
        finally:
            self._still.discard(key)

    async def _have_a_turn(self, uuids: Iterable[str]) -> None:
        async with self._mover.turn(uuids):
            pass

    def stands_still(self, key: Key) -> bool:
        """Say whether a parked kernel is being ended."""
        return key in self._still

    def is_known(self, key: Key) -> bool:
        """Say whether its record holds; else the driver must be asked first.

        It must for what another life of the service has parked, and after a move that
        did not end as it should.
        """
        return key in self._known

    def know(self, key: Key) -> None:
        """Note that the driver was asked, and the record holds."""
        self._known.add(key)

    def doubt(self, *keys: Key) -> None:
        """Note that these records may not hold; without any, that none may."""
        self._known -= set(keys) if keys else set(self._known)

    async def put(self, record: ParkedKernel) -> None:
        """Write a record down, in place of an earlier one."""
        await self._kept.change(lambda state: _with(state, record))

    async def drop(self, key: Key) -> None:
        """Forget a record: the kernel runs, or it has ended."""
        await self._kept.change(lambda state: _without(state, key))
        self._known.discard(key)

    def _why_no_room(self, taking: Taking, rooms: Iterable[HostRoom]) -> str:
        needed_bytes = taking.watched.memory_on()
        keep_free_bytes = self._rules.parking().keep_free_host_bytes
        # What others on their way will take is still said to be available.
        on_the_way = sum(self._on_the_way.values())
        of_its_server = sum(
            size
            for owner, size in self._on_the_way.items()
            if owner.lease_id == taking.owner.lease_id
        )
        for room in rooms:
            if room.limit_room_bytes is not None:
                left_bytes = max(0, room.limit_room_bytes - of_its_server)
                room = replace(room, limit_room_bytes=left_bytes)
            why = why_no_room(needed_bytes, room, keep_free_bytes + on_the_way)
            if why:
                return why
        return ""

    def _record(
        self, taking: Taking, held: Mapping[ProcessId, int], last_activity: str
    ) -> ParkedKernel | None:
        reading, owner = taking.watched.watch.reading, taking.owner
        if reading is None:
            return None
        by_device: dict[str, int] = {}
        by_process: dict[ProcessId, dict[str, int]] = {x: {} for x in held}
        for holder in taking.watched.holders:
            for sums in (by_device, by_process[holder.process]):
                before = sums.get(holder.device, 0)
                sums[holder.device] = before + (holder.memory_bytes or 0)
        return ParkedKernel(
            lease_id=owner.lease_id,
            user=owner.user,
            server=owner.server,
            kernel_id=owner.kernel_id,
            notebook=taking.watched.view.notebook,
            processes=tuple(held),
            boot_id=boot_id(),
            memory_bytes=by_device,
            parked_at=self._wall(),
            last_activity=last_activity or reading.last_activity,
            by_process=tuple(by_process.values()),
            main=reading.process,
        )

    async def _move(
        self, turn: Turn, record: ParkedKernel, held: Mapping[ProcessId, int]
    ) -> Parked:
        """Park one process after the other, or none of them."""
        moved = []
        try:
            for process, memory_bytes in held.items():
                if await self._is_parked(turn, record, process, memory_bytes):
                    moved.append(process)
        except ParkError as error:
            if error.broken:
                await self.put(replace(record, is_broken=True))
                return Parked(change=f"it is stuck, and is restarted: {error}")
            if await self._is_undone(turn, held):
                await self.drop(key_of(record))
                return Parked(why_not=str(error))
            # At once, and in its turn: no activity is the same as none.
            await self.put(replace(record, last_activity=""))
            self.doubt(key_of(record))
            return Parked(change=f"it was parked by half, and is brought back: {error}")
        if not moved:
            await self.drop(key_of(record))
            return Parked(change="what held its memory has ended")
        if len(moved) < len(held):
            await self.put(record.only(moved))
        return Parked()

    @staticmethod
    async def _is_parked(
        turn: Turn, record: ParkedKernel, process: ProcessId, memory_bytes: int
    ) -> bool:
        """Park one process; False for a child that has ended meanwhile.

        Raises:
            ParkError: it is not parked, or it was the kernel itself that has ended.
        """
        try:
            await turn.park(process, memory_bytes)
        except ParkError as error:
            if not error.broken or process == record.main:
                raise
            if await turn.state(process) is not ParkState.GONE:
                raise error from None
            return False
        return True

    async def _is_undone(self, turn: Turn, held: Mapping[ProcessId, int]) -> bool:
        """Bring back what was parked; its memory was free a moment ago."""
        try:
            for process, memory_bytes in held.items():
                if await turn.state(process) is not ParkState.RUNNING:
                    await turn.unpark(process, memory_bytes)
        except ParkError as error:
            _LOG.error("A kernel that was parked by half did not come back: %s", error)
            return False
        return True


def held_by_process(holders: tuple[Holder, ...]) -> dict[ProcessId, int]:
    """Return what each process holds, on all devices together."""
    held: dict[ProcessId, int] = {}
    for holder in holders:
        held[holder.process] = held.get(holder.process, 0) + (holder.memory_bytes or 0)
    return held


def _with(state: KeptState, record: ParkedKernel) -> KeptState:
    others = _without(state, key_of(record)).parked
    return replace(state, parked=(*others, record))


def _without(state: KeptState, key: Key) -> KeptState:
    parked = tuple(x for x in state.parked if key_of(x) != key)
    return replace(state, parked=parked)
