"""Taking memory from one kernel: the last check, the act, and what came of it.

Owns every act upon a kernel, for whatever cause: two never overlap on one kernel, each
asks its server and Linux one last time, looks whether the memory is free, tells the
owner, and goes to the log and into the history with its readings.
"""

import asyncio
import datetime
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.errors import CallHangs, ServerError
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.core.snapshot import KernelState, ProcessId
from jupyterhub_gpuworkshop.core.units import format_size
from jupyterhub_gpuworkshop.core.wire import Event, EventKind, ServerInfo

from .history import History
from .host import Host
from .kernel_channel import is_at_rest
from .monitor import Monitor
from .servers import Servers
from .watching import Watched, subject_of

_LOG = logging.getLogger(__name__)
_ROUNDS_TO_SEE_IT = 3
"""How many snapshots the memory may take to be seen free."""
_MOST_AT_ONCE = 100
_MOST_AT_ONCE_OF_ONE_SERVER = 4
"""A server that never ends a restart must not keep the others from theirs."""
_FIRST_PAUSE_SECONDS = 30.0
_LONGEST_PAUSE_SECONDS = 1800.0

LeaveNote = Callable[[ServerInfo, str, str], None]
"""(server, kernel id, text): the first cell that is run there should print it."""

IsAtRest = Callable[[ServerInfo, str], Awaitable[bool]]
"""(server, kernel id) -> whether its main thread waits for something to do."""

_DONE = {
    Action.PARK: "paused; its variables are kept, and its GPU memory comes back when "
    "you run a cell",
    Action.RESTART: "restarted, and its variables are gone",
    Action.STOP_KERNEL: "stopped, and its variables are gone",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Taking:
    """One kernel whose memory is to be taken.

    Attributes:
        owner: the kernel.
        watched: what was known of it when that was decided.
        action: what is done.
        reason: why, in a sentence for the log, the history and the owner.
        must_be_idle: False only where the largest busy kernel of a lease that exceeds
            its share is restarted.
    """

    owner: Owner
    watched: Watched
    action: Action
    reason: str
    must_be_idle: bool = True


@dataclass(slots=True)
class _Failures:
    """How often it failed on one kernel, and when it may be tried again."""

    count: int = 0
    retry_at: float = float("-inf")


class Parks(Protocol):
    """Who parks kernels."""

    async def park(self, taking: Taking) -> str:
        """Park a kernel; return why it was not, in a sentence, or nothing."""


def _no_note(server: ServerInfo, kernel_id: str, text: str) -> None:
    return


class Actor:
    """Takes memory from kernels.

    Args:
        monitor: shows what came of it.
        host: says whether a process lives.
        servers: attendees' servers.
        history: takes the events.
        leave_note: tells the owner in the notebook itself.
        is_at_rest: asks a kernel whether it works just now.
        clock: monotonic seconds, the monitor's.
        wall: seconds since the epoch.

    Attributes:
        parks: who parks kernels; None where nobody does.
    """

    def __init__(
        self,
        monitor: Monitor,
        host: Host,
        servers: Servers,
        history: History,
        *,
        leave_note: LeaveNote = _no_note,
        is_at_rest: IsAtRest = is_at_rest,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.parks: Parks | None = None
        self._monitor = monitor
        self._host = host
        self._servers = servers
        self._history = history
        self._leave_note = leave_note
        self._is_at_rest = is_at_rest
        self._clock = clock
        self._wall = wall
        self._acting: dict[Owner, asyncio.Task[None]] = {}
        self._failures: dict[Owner, _Failures] = {}

    def may_act_on(self, owner: Owner) -> bool:
        """Say whether an act upon a kernel may begin now.

        Who may not is looked at anew next time.
        """
        if owner in self._acting or len(self._acting) >= _MOST_AT_ONCE:
            return False
        of_its_server = sum(x.lease_id == owner.lease_id for x in self._acting)
        failures = self._failures.get(owner, _Failures())
        return (
            of_its_server < _MOST_AT_ONCE_OF_ONE_SERVER
            and self._clock() >= failures.retry_at
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
        self._failures = {k: v for k, v in self._failures.items() if k in kernels}

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
        owner, watched = taking.owner, taking.watched
        change = await self._what_changed(taking)
        if change:
            _LOG.info(
                "Kernel %s of %s is kept: %s", owner.kernel_id, owner.user, change
            )
            return
        checked_at = time.monotonic()
        action, instead = taking.action, ""
        try:
            if action is Action.PARK:
                why_not = await self._park(taking)
                if why_not:
                    action, instead = Action.RESTART, f" Not paused: {why_not}"
                    # Parking takes a while: its owner may have come back meanwhile.
                    if change := await self._what_changed(taking):
                        await self._give_up(taking, f"{why_not} And then: {change}.")
                        return
                    checked_at = time.monotonic()
            window_seconds = time.monotonic() - checked_at
            if action is Action.RESTART:
                await self._servers.restart(watched.server, owner.kernel_id)
            elif action is Action.STOP_KERNEL:
                await self._servers.stop(watched.server, owner.kernel_id)
        except ServerError as error:
            await self._give_up(taking, f"The server did not do it: {error}.")
            return
        held_bytes = await self._held_after(watched)
        if held_bytes is None:
            await self._give_up(
                taking, "The server did it; whether the memory is free is unknown."
            )
            return
        freed_bytes = max(0, watched.memory_on() - held_bytes)
        if not freed_bytes:
            await self._give_up(
                taking, "The server did it, yet the memory is still held."
            )
            return
        self._failures.pop(owner, None)
        await self._tell(taking, action, instead, freed_bytes, window_seconds)

    async def _park(self, taking: Taking) -> str:
        if self.parks is None:
            return "parking is not set up."
        return await self.parks.park(taking)

    async def _what_changed(self, taking: Taking) -> str:
        """Ask the server and Linux one last time; say what differs, or nothing."""
        owner, watched = taking.owner, taking.watched
        reading = watched.watch.reading
        if reading is None or reading.process is None:
            return "its process is unknown"
        try:
            kernel = await self._servers.kernel(watched.server, owner.kernel_id)
            if not await self._host.lives(reading.process):
                return "its process has ended"
        except (ServerError, CallHangs) as error:
            return str(error)
        if not taking.must_be_idle:
            return ""
        if kernel.state is not KernelState.IDLE:
            return f"it is {kernel.state.value}"
        if kernel.last_activity != reading.last_activity:
            return "it was active"
        if self._monitor.pins.of(owner) is not None:
            return "it has been pinned"
        if kernel.connections == 0:
            return ""
        # A widget's callback moves neither state nor activity: ask the kernel itself.
        try:
            at_rest = await self._is_at_rest(watched.server, owner.kernel_id)
        except ServerError as error:
            return str(error)
        return "" if at_rest else "it works just now"

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
        await self.record(
            EventKind.RECLAIM_FAILED,
            taking,
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

    async def _tell(
        self,
        taking: Taking,
        action: Action,
        instead: str,
        freed_bytes: int,
        window_seconds: float,
    ) -> None:
        """Say what was done: to the log, the history, the owner and the notebook."""
        await self.record(
            EventKind.KERNEL_RECLAIMED,
            taking,
            f"{taking.reason}{instead}",
            done=action.value,
            freed_bytes=freed_bytes,
            window_ms=round(1000 * window_seconds, 1),
        )
        self._monitor.notices.withdraw(subject_of(taking.owner))
        owner, watched = taking.owner, taking.watched
        name = watched.view.notebook or "A notebook without a name"
        at = datetime.datetime.fromtimestamp(self._wall(), tz=datetime.timezone.utc)
        text = (
            f"{name}: at {at.astimezone():%H:%M} its kernel was {_DONE[action]}. "
            f"{taking.reason}"
        )
        self._monitor.notices.give(
            NoticeKind.KERNEL_TAKEN,
            user=owner.user,
            server=owner.server,
            kernel_id=owner.kernel_id,
            text=text,
        )
        if action is Action.RESTART:
            self._leave_note(watched.server, owner.kernel_id, text)

    async def record(
        self,
        kind: EventKind,
        taking: Taking,
        reason: str,
        **more: str | int | float | bool | None,
    ) -> None:
        """Name attendee, device, readings and reason, in the log and in the history."""
        view, reading = taking.watched.view, taking.watched.watch.reading
        devices = sorted({holder.device for holder in taking.watched.holders})
        notice = self._monitor.notices.about(subject_of(taking.owner))
        memory_bytes = taking.watched.memory_on()
        _LOG.log(
            logging.WARNING if kind is EventKind.RECLAIM_FAILED else logging.INFO,
            "%s: kernel %s of %s on %s, %s held: %s",
            kind.value,
            view.kernel_id,
            view.user,
            ", ".join(devices) or "no device",
            format_size(memory_bytes),
            reason,
        )
        details: dict[str, str | int | float | bool | None] = {
            "kernel_id": view.kernel_id,
            "lease_id": view.lease_id,
            "notebook": view.notebook,
            "pid": view.process.pid if view.process else None,
            "action": taking.action.value,
            "memory_bytes": memory_bytes,
            "idle_seconds": round(view.idle_seconds or 0.0, 1),
            "needed": taking.watched.is_needed,
            "state": view.state.value,
            "last_activity": view.last_activity,
            "gpu_utilisation": view.gpu_utilisation,
            "device_utilisation": view.device_utilisation,
            "cpu": round(taking.watched.watch.cpu, 4),
            "connections": reading.connections if reading else None,
            "age_seconds": round(view.age_seconds) if view.age_seconds else None,
            "notice_at": notice.given_at if notice else None,
            "notice_seen_at": notice.seen_at if notice else None,
            **more,
        }
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
