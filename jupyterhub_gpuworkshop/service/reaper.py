"""The loop that carries out reclaim decisions.

Owns acting on a kernel: everything is looked at anew right before, anything that has
changed keeps it, and what came of it goes to the log and into the history. Two
actions on one kernel never overlap.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.errors import CallHangs, ServerError
from jupyterhub_gpuworkshop.core.reclaim import DecisionKind
from jupyterhub_gpuworkshop.core.snapshot import KernelState, ProcessId
from jupyterhub_gpuworkshop.core.units import format_size
from jupyterhub_gpuworkshop.core.wire import Event, EventKind

from .history import History
from .host import Host
from .monitor import Monitor, Watched
from .rules import Rules
from .servers import Servers

_LOG = logging.getLogger(__name__)
_ROUNDS_TO_SEE_IT = 3
"""How many snapshots the memory may take to be seen free."""
_MOST_AT_ONCE = 100
_MOST_AT_ONCE_OF_ONE_SERVER = 4
"""A server that never ends a restart must not keep the others from theirs."""
_FIRST_PAUSE_SECONDS = 30.0
_LONGEST_PAUSE_SECONDS = 1800.0


@dataclass(slots=True)
class _Failures:
    """How often it failed on one kernel, and when it may be tried again."""

    count: int = 0
    retry_at: float = float("-inf")


class Reaper:
    """Carries out what `core.reclaim` decides.

    Args:
        monitor: where decisions come from.
        host: says whether a process lives.
        servers: attendees' servers.
        rules: the organiser's.
        history: takes the events.
        clock: monotonic seconds, the monitor's.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        monitor: Monitor,
        host: Host,
        servers: Servers,
        rules: Rules,
        history: History,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monitor = monitor
        self._host = host
        self._servers = servers
        self._rules = rules
        self._history = history
        self._clock = clock
        self._wall = wall
        self._seen_rounds = 0
        self._acting: dict[Owner, asyncio.Task[None]] = {}
        self._failures: dict[Owner, _Failures] = {}
        self._said: dict[Owner, float] = {}

    async def step(self) -> None:
        """Wait for the next snapshot, and carry out what follows from it."""
        await self._monitor.newer_than(self._seen_rounds)
        self._seen_rounds = self._monitor.rounds
        self._forget()
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
            if (
                owner in before
                and _is_same(before[owner], self._monitor.kernels[owner])
                and self._has_room(owner)
            ):
                self._act(owner, self._monitor.kernels[owner])

    async def close(self) -> None:
        """Let go of actions under way: a kernel is restarted, or it is not."""
        tasks = list(self._acting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _due(self) -> list[Owner]:
        now = self._clock()
        return [
            owner
            for owner in self._monitor.due()
            if owner not in self._acting
            and now >= self._failures.get(owner, _Failures()).retry_at
        ]

    def _has_room(self, owner: Owner) -> bool:
        """Say whether one more may begin; who may not is looked at anew next time."""
        of_its_server = sum(x.lease_id == owner.lease_id for x in self._acting)
        return (
            len(self._acting) < _MOST_AT_ONCE
            and of_its_server < _MOST_AT_ONCE_OF_ONE_SERVER
        )

    def _forget(self) -> None:
        """Keep nothing about kernels that are gone or idle spells that ended."""
        kernels = self._monitor.kernels
        self._failures = {k: v for k, v in self._failures.items() if k in kernels}
        self._said = {
            owner: since
            for owner, since in self._said.items()
            if owner in kernels and kernels[owner].watch.idle_since == since
        }

    async def _say(self, owner: Owner) -> None:
        """Say what would be done, once in an idle spell."""
        watched = self._monitor.kernels[owner]
        since = watched.watch.idle_since
        if since is None or owner in self._said:
            return
        self._said[owner] = since
        await self._record(EventKind.RECLAIM_WOULD, watched, watched.decision.reason)

    def _act(self, owner: Owner, watched: Watched) -> None:
        task = asyncio.ensure_future(self._reclaim(owner, watched))
        self._acting[owner] = task
        task.add_done_callback(lambda done: self._acted(owner, done))

    def _acted(self, owner: Owner, task: "asyncio.Task[None]") -> None:
        self._acting.pop(owner, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("Reclaiming from %s failed", owner, exc_info=error)
            self._failed(owner)

    async def _reclaim(self, owner: Owner, watched: Watched) -> None:
        change = await self._what_changed(owner, watched)
        if change:
            _LOG.info(
                "Kernel %s of %s is kept: %s", owner.kernel_id, owner.user, change
            )
            return
        try:
            if watched.decision.kind is DecisionKind.RESTART:
                await self._servers.restart(watched.server, owner.kernel_id)
            else:
                await self._servers.stop(watched.server, owner.kernel_id)
        except ServerError as error:
            await self._give_up(owner, watched, f"The server did not do it: {error}.")
            return
        held_bytes = await self._held_after(watched)
        if held_bytes is None:
            await self._give_up(
                owner,
                watched,
                "The server did it; whether the memory is free is unknown.",
            )
            return
        freed_bytes = max(0, watched.view.memory_bytes - held_bytes)
        if not freed_bytes:
            await self._give_up(
                owner, watched, "The server did it, yet the memory is still held."
            )
            return
        self._failures.pop(owner, None)
        await self._record(
            EventKind.KERNEL_RECLAIMED,
            watched,
            watched.decision.reason,
            freed_bytes=freed_bytes,
        )

    async def _what_changed(self, owner: Owner, watched: Watched) -> str:
        """Ask the server and Linux one last time; say what differs, or nothing."""
        reading = watched.watch.reading
        if reading is None or reading.process is None:
            return "its process is unknown"
        try:
            kernel = await self._servers.kernel(watched.server, owner.kernel_id)
            if not await self._host.lives(reading.process):
                return "its process has ended"
        except (ServerError, CallHangs) as error:
            return str(error)
        if kernel.state is not KernelState.IDLE:
            return f"it is {kernel.state.value}"
        if kernel.last_activity != reading.last_activity:
            return "it was active"
        return ""

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

    async def _give_up(self, owner: Owner, watched: Watched, why: str) -> None:
        pause_seconds = self._failed(owner)
        await self._record(
            EventKind.RECLAIM_FAILED,
            watched,
            f"{why} It is tried again in {pause_seconds:.0f} s, if it is idle then.",
        )

    def _failed(self, owner: Owner) -> float:
        failures = self._failures.setdefault(owner, _Failures())
        pause_seconds = min(
            _LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(failures.count, 16)
        )
        failures.count += 1
        failures.retry_at = self._clock() + pause_seconds
        return pause_seconds

    async def _record(
        self, kind: EventKind, watched: Watched, reason: str, *, freed_bytes: int = 0
    ) -> None:
        """Name attendee, device and reason, in the log and in the history."""
        view = watched.view
        devices = sorted({holder.device for holder in watched.holders})
        details: dict[str, str | int | float | bool | None] = {
            "kernel_id": view.kernel_id,
            "lease_id": view.lease_id,
            "notebook": view.notebook,
            "pid": view.process.pid if view.process else None,
            "action": watched.decision.kind.value,
            "memory_bytes": view.memory_bytes,
            "idle_seconds": round(view.idle_seconds or 0.0, 1),
            "needed": watched.is_needed,
        }
        if kind is EventKind.KERNEL_RECLAIMED:
            details["freed_bytes"] = freed_bytes
        _LOG.log(
            logging.WARNING if kind is EventKind.RECLAIM_FAILED else logging.INFO,
            "%s: kernel %s of %s on %s, %s held: %s",
            kind.value,
            view.kernel_id,
            view.user,
            ", ".join(devices) or "no device",
            format_size(view.memory_bytes),
            reason,
        )
        await self._history.add(
            Event(
                at=self._wall(),
                kind=kind,
                user=view.user,
                server=view.server,
                devices=tuple(devices),
                reason=reason,
                details=details,
            )
        )


def _is_same(before: Watched, after: Watched) -> bool:
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
