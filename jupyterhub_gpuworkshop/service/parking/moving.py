"""Moves GPU memory, one process at a time on each device.

Owns the threads in which a `Parker` blocks, and whose turn it is on a device: nobody
moves anything to or from a device on which another move is under way.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TypeVar

from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.machine.host_room import HostRoom
from jupyterhub_gpuworkshop.machine.parking import Parker, ParkState
from jupyterhub_gpuworkshop.service.loops import OneThread

T = TypeVar("T")
_MOVE_SECONDS = 30 * 60.0
"""A parker ends its own children in time; this is for one that does not."""
_ASK_SECONDS = 120.0


class Turn:
    """The right to move what is on some devices, while it lasts."""

    def __init__(self, parker: Parker, thread: OneThread) -> None:
        self._parker = parker
        self._thread = thread

    async def state(self, process: ProcessId) -> ParkState:
        """Return how things stand with a process.

        Raises:
            ParkError: the driver does not say.
            CallHangs: the call before this one has not come back.
        """
        return await self._thread.call(
            lambda: self._parker.state(process), _ASK_SECONDS
        )

    async def room(self, process: ProcessId) -> HostRoom:
        """Return what room there is for a process's GPU memory."""
        return await self._thread.call(lambda: self._parker.room(process), _ASK_SECONDS)

    async def park(self, process: ProcessId, memory_bytes: int) -> None:
        """Move a process's GPU memory to host RAM.

        Raises:
            ParkError: it is not parked.
            CallHangs: the call, or the one before it, has not come back.
        """
        await self._thread.call(
            lambda: self._parker.park(process, memory_bytes), _MOVE_SECONDS
        )

    async def unpark(self, process: ProcessId, memory_bytes: int) -> None:
        """Move it back; the memory must be free.

        Raises:
            ParkError: it is not back.
            CallHangs: the call, or the one before it, has not come back.
        """
        await self._thread.call(
            lambda: self._parker.unpark(process, memory_bytes), _MOVE_SECONDS
        )


class Mover:
    """Gives turns.

    Args:
        parker: of the devices' source.
    """

    def __init__(self, parker: Parker) -> None:
        self.parker = parker
        self._threads: dict[str, OneThread] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._asking = OneThread("What can be parked")

    @contextlib.asynccontextmanager
    async def turn(self, uuids: Iterable[str]) -> AsyncIterator[Turn]:
        """Wait for the right to move what is on these devices."""
        names = sorted(set(uuids)) or [""]
        async with contextlib.AsyncExitStack() as stack:
            # In order, so that no two wait for each other.
            for name in names:
                lock = self._locks.setdefault(name, asyncio.Lock())
                await stack.enter_async_context(lock)
            thread = self._threads.setdefault(names[0], OneThread("Parking"))
            yield Turn(self.parker, thread)

    def moving(self) -> frozenset[str]:
        """Return the devices on which something moves now."""
        return frozenset(name for name, lock in self._locks.items() if lock.locked())

    async def ask(self, what: Callable[[], T]) -> T:
        """Ask the parker something that moves nothing.

        Raises:
            CallHangs: it has not come back.
        """
        return await self._asking.call(what, _ASK_SECONDS)
