"""Taking memory from one kernel: the last check, the act, and what came of it.

Owns every act upon a kernel, for whatever cause: two never overlap on one kernel, each
asks its server and Linux one last time, looks whether the memory is free, tells the
owner, and goes to the log and into the history with its readings.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable

from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.errors import ServerError
from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.core.wire import EventKind

from .host import Host
from .kernel_channel import is_at_rest
from .last_check import Checked, IsAtRest, LastCheck
from .monitor import Monitor
from .pause import Pause
from .rules import Rules
from .servers import Servers
from .taking import Done, Parked, Parks, Taking
from .telling import Teller
from .watching import Watched

_LOG = logging.getLogger(__name__)
_ROUNDS_TO_SEE_IT = 3
"""How many snapshots the memory may take to be seen free."""
_MOST_AT_ONCE = 100
_MOST_AT_ONCE_OF_ONE_SERVER = 4
"""A server that never ends a restart must not keep the others from theirs."""


class Actor:
    """Takes memory from kernels.

    Args:
        monitor: shows what came of it.
        host: says whether a process lives.
        servers: attendees' servers.
        teller: says what was done.
        rules: the organiser's.
        is_at_rest: asks a kernel whether it works just now.
        clock: monotonic seconds, the monitor's.

    Attributes:
        teller: says what was done.
        parks: who parks kernels; None where nobody does.
    """

    def __init__(
        self,
        monitor: Monitor,
        host: Host,
        servers: Servers,
        teller: Teller,
        rules: Rules,
        *,
        is_at_rest: IsAtRest = is_at_rest,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.teller = teller
        self.parks: Parks | None = None
        self._monitor = monitor
        self._servers = servers
        self._last_check = LastCheck(
            servers,
            host,
            monitor.pins,
            rules,
            is_at_rest=is_at_rest,
            clock=clock,
        )
        self._clock = clock
        self._acting: dict[Owner, asyncio.Task[None]] = {}
        self._pauses: dict[Owner, Pause] = {}

    def may_act_on(self, owner: Owner) -> bool:
        """Say whether an act upon a kernel may begin now.

        Who may not is looked at anew next time.
        """
        if owner in self._acting or len(self._acting) >= _MOST_AT_ONCE:
            return False
        of_its_server = sum(x.lease_id == owner.lease_id for x in self._acting)
        pause = self._pauses.get(owner, Pause())
        return (
            of_its_server < _MOST_AT_ONCE_OF_ONE_SERVER and self._clock() >= pause.until
        )

    def is_acting_on(self, owner: Owner) -> bool:
        """Say whether an act upon a kernel is under way."""
        return owner in self._acting

    def begin(self, taking: Taking) -> None:
        """Begin an act, and do not wait for it."""
        task = asyncio.ensure_future(self._take(taking))
        self._acting[taking.owner] = task
        task.add_done_callback(lambda done: self._ended(taking.owner, done))

    def forget(self) -> None:
        """Keep nothing about kernels that are gone."""
        kernels = self._monitor.kernels
        self._pauses = {k: v for k, v in self._pauses.items() if k in kernels}

    async def close(self) -> None:
        """Let go of acts under way: a kernel is restarted, or it is not."""
        tasks = list(self._acting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, owner: Owner, task: "asyncio.Task[None]") -> None:
        self._acting.pop(owner, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("Reclaiming from %s failed", owner, exc_info=error)
            self._failed(owner)

    async def _take(self, taking: Taking) -> None:
        try:
            done = await self._do(taking)
        except ServerError as error:
            await self._give_up(taking, f"The server did not do it: {error}.")
            return
        if done is None:
            return
        if done.action is Action.PARK:
            # The driver has said so, and its owner may have it back any moment.
            self._pauses.pop(taking.owner, None)
            await self.teller.taken(taking, done, taking.watched.memory_on())
            return
        held_bytes = await self._held_after(taking.watched)
        if held_bytes is None:
            await self._give_up(
                taking, "It was done; whether the memory is free is unknown."
            )
            return
        freed_bytes = max(0, taking.watched.memory_on() - held_bytes)
        if not freed_bytes:
            await self._give_up(taking, "It was done, yet the memory is still held.")
            return
        self._pauses.pop(taking.owner, None)
        await self.teller.taken(taking, done, freed_bytes)

    async def _do(self, taking: Taking) -> "Done | None":
        """Look one last time, and act; return what was done, or None.

        Raises:
            ServerError: the server did not do it.
        """
        action, instead = taking.action, ""
        if action is Action.PARK:
            parked = await self._park(taking)
            if parked.change:
                self._keep(taking, parked.change)
                return None
            if not parked.why_not:
                return Done(action=action, window_seconds=parked.window_seconds)
            action, instead = Action.RESTART, f" Not paused: {parked.why_not}"
            if not taking.or_restart:
                await self._give_up(taking, instead.strip())
                return None
        # Parking takes a while: its owner may have come back meanwhile.
        checked = await self._check(taking)
        if checked.change:
            if instead:
                why = f"{instead.strip()} And then: {checked.change}."
                await self._give_up(taking, why)
            else:
                self._keep(taking, checked.change)
            return None
        window_seconds = checked.window_seconds()
        server, kernel_id = taking.watched.server, taking.owner.kernel_id
        if action is Action.RESTART:
            await self._servers.restart(server, kernel_id)
        else:
            await self._servers.stop(server, kernel_id)
        return Done(action=action, instead=instead, window_seconds=window_seconds)

    async def _park(self, taking: Taking) -> Parked:
        if self.parks is None:
            return Parked(why_not="parking is not set up.")
        return await self.parks.park(taking, functools.partial(self._check, taking))

    async def _check(self, taking: Taking) -> Checked:
        return await self._last_check.look(
            taking.owner, taking.watched, must_be_idle=taking.must_be_idle
        )

    @staticmethod
    def _keep(taking: Taking, change: str) -> None:
        owner = taking.owner
        _LOG.info("Kernel %s of %s is kept: %s", owner.kernel_id, owner.user, change)

    async def _held_after(self, watched: Watched) -> int | None:
        """Return what the kernel's old processes still hold; None where unknown."""
        old = {holder.process for holder in watched.holders}
        devices = {holder.device for holder in watched.holders}
        held_bytes = None
        for _ in range(_ROUNDS_TO_SEE_IT):
            await self._monitor.tick()
            if devices <= self._monitor.listed:
                held_bytes = self._held_by(old)
            if held_bytes == 0:
                break
            await self._monitor.newer_than(self._monitor.rounds)
        return held_bytes

    def _held_by(self, processes: set[ProcessId]) -> int:
        return sum(
            holder.memory_bytes or 0
            for holder in self._monitor.snapshot.holders
            if holder.process in processes
        )

    async def _give_up(self, taking: Taking, why: str) -> None:
        pause_seconds = self._failed(taking.owner)
        await self.teller.record(
            EventKind.RECLAIM_FAILED,
            taking,
            f"{why} It is tried again in {pause_seconds:.0f} s, if it is idle then.",
        )

    def _failed(self, owner: Owner) -> float:
        return self._pauses.setdefault(owner, Pause()).lengthen(self._clock())
