"""Taking memory from one kernel: the last check, the act, and what came of it.

Owns every act upon a kernel, for whatever cause: two never overlap on one kernel, each
asks its server and Linux one last time, looks whether the memory is free, tells the
owner, and goes to the log and into the history with its readings.
"""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.errors import CallHangs, ServerError
from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.core.snapshot import ProcessId, memory_held_by
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
        self._host = host
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
        pause = self._pauses.get(owner, Pause())
        return not self.why_not_begin(owner) and self._clock() >= pause.until

    def why_not_begin(self, owner: Owner) -> str:
        """Say why an act upon a kernel may not begin now that a person asks for.

        A person need not wait until what has failed is tried again.
        """
        if owner in self._acting:
            return "Something is being done to it already: wait for what comes of it."
        of_its_server = sum(x.lease_id == owner.lease_id for x in self._acting)
        if (
            len(self._acting) >= _MOST_AT_ONCE
            or of_its_server >= _MOST_AT_ONCE_OF_ONE_SERVER
        ):
            return "Too much is being done at once: try again in a minute."
        return ""

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
        if taking.asked is not None:
            seen = await self._seen_anew(taking)
            if seen is None:
                await self._give_up(taking, "It has ended, or is another one by now.")
                return
            taking = seen
        try:
            done = await self._do(taking)
        except ServerError as error:
            await self._give_up(taking, f"The server did not do it: {error}.")
            return
        except CallHangs as error:
            await self._give_up(taking, str(error))
            return
        if done is None:
            return
        if done.action is Action.PARK:
            # The driver has said so, and its owner may have it back any moment.
            self._pauses.pop(taking.owner, None)
            await self.teller.taken(taking, done, taking.watched.memory_on())
            return
        why_not, freed_bytes = await self._what_came_of(taking)
        if why_not:
            await self._give_up(taking, why_not)
            await self._tell_all_the_same(taking, done)
            return
        self._pauses.pop(taking.owner, None)
        await self.teller.taken(taking, done, freed_bytes)

    async def _seen_anew(self, taking: Taking) -> Taking | None:
        """Return what a person asks for, as of now; None where it is not that kernel.

        What they saw is some seconds old.
        """
        await self._monitor.tick()
        now = self._monitor.kernels.get(taking.owner)
        if now is None or _process_of(now) != _process_of(taking.watched):
            return None
        return replace(taking, watched=now)

    async def _what_came_of(self, taking: Taking) -> tuple[str, int]:
        """Return why it is no success, in a sentence, and how many bytes are free."""
        held_before = taking.watched.memory_on()
        if taking.asked is not None and not held_before:
            return "", 0
        held_bytes = await self._held_after(taking.watched)
        if held_bytes is None:
            return "It was done; whether the memory is free is unknown.", 0
        freed_bytes = max(0, held_before - held_bytes)
        if not freed_bytes:
            return "It was done, yet the memory is still held.", 0
        return "", freed_bytes

    async def _tell_all_the_same(self, taking: Taking, done: Done) -> None:
        """Tell the owner of a kernel that has ended, whatever became of its memory."""
        process = _process_of(taking.watched)
        if taking.asked is None or process is None:
            return
        try:
            has_ended = not await self._host.lives(process)
        except CallHangs:
            return
        if has_ended:
            self.teller.tell_what_was_done(taking, done)

    async def _do(self, taking: Taking) -> "Done | None":
        """Look one last time, and act; return what was done, or None.

        Raises:
            ServerError: the server did not do it.
        """
        action, instead = taking.action, ""
        if action is Action.PARK:
            parked = await self._park(taking)
            if parked.change:
                await self._keep(taking, parked.change)
                return None
            if not parked.why_not:
                return Done(action=action, window_seconds=parked.window_seconds)
            action, instead = Action.RESTART, f" Not paused: {parked.why_not}"
            if not taking.or_restart:
                await self._give_up(taking, instead.strip())
                return None
        async with self._standing_still(taking):
            # Parking takes a while: its owner may have come back meanwhile.
            checked = await self._check(taking)
            if not checked.change:
                window_seconds = checked.window_seconds()
                await self._end(taking, action)
                return Done(
                    action=action, instead=instead, window_seconds=window_seconds
                )
        if instead:
            why = f"{instead.strip()} And then: {checked.change}."
            await self._give_up(taking, why)
        else:
            await self._keep(taking, checked.change)
        return None

    async def _end(self, taking: Taking, action: Action) -> None:
        server, kernel_id = taking.watched.server, taking.owner.kernel_id
        if action is Action.RESTART:
            await self._servers.restart(server, kernel_id)
        else:
            await self._servers.stop(server, kernel_id)

    def _standing_still(
        self, taking: Taking
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Have what is parked stay so while it is ended, at a person's word."""
        if self.parks is None or taking.asked is None:
            return contextlib.nullcontext()
        return self.parks.stand_still(taking.owner)

    async def _park(self, taking: Taking) -> Parked:
        if self.parks is None:
            return Parked(why_not="parking is not set up.")
        return await self.parks.park(taking, functools.partial(self._check, taking))

    async def _check(self, taking: Taking) -> Checked:
        return await self._last_check.look(taking.owner, taking.watched, taking.must)

    async def _keep(self, taking: Taking, change: str) -> None:
        """Leave a kernel alone; who asked for something is told so."""
        owner = taking.owner
        if taking.asked is not None:
            await self.teller.record(
                EventKind.RECLAIM_FAILED,
                taking,
                f"{taking.asked.wanted(taking.action)} It was left alone: {change}.",
            )
            return
        _LOG.info("Kernel %s of %s is kept: %s", owner.kernel_id, owner.user, change)

    async def _held_after(self, watched: Watched) -> int | None:
        """Return what the kernel's old processes still hold; None where unknown."""
        old = {holder.process for holder in watched.holders}
        devices = {holder.device for holder in watched.holders}
        held_bytes = None
        for _ in range(_ROUNDS_TO_SEE_IT):
            await self._monitor.tick()
            if devices <= self._monitor.snapshot.listed:
                held_bytes = self._held_by(old)
            if held_bytes == 0:
                break
            await self._monitor.newer_than(self._monitor.rounds)
        return held_bytes

    def _held_by(self, processes: set[ProcessId]) -> int | None:
        holders = self._monitor.snapshot.holders
        return memory_held_by(x for x in holders if x.process in processes)

    async def _give_up(self, taking: Taking, why: str) -> None:
        pause_seconds = self._failed(taking.owner)
        if taking.asked is not None:
            reason = f"{taking.asked.wanted(taking.action)} {why}"
        else:
            again = f"It is tried again in {pause_seconds:.0f} s, if it is idle then."
            reason = f"{why} {again}"
        await self.teller.record(EventKind.RECLAIM_FAILED, taking, reason)

    def _failed(self, owner: Owner) -> float:
        return self._pauses.setdefault(owner, Pause()).lengthen(self._clock())


def _process_of(watched: Watched) -> ProcessId | None:
    reading = watched.watch.reading
    return reading.process if reading is not None else None
