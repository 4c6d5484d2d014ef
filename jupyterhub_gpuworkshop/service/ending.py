"""Ending a process that uses a GPU and is in no kernel, because an organiser says so.

Owns who may be ended, the course of it (SIGTERM, then SIGKILL), and what is said of
it afterwards. A kernel's processes are not ended here: its server restarts it.
"""

import asyncio
import functools
import logging
import os
import signal
import time
from collections.abc import Callable, Collection

from jupyterhub_gpuworkshop.core.errors import (
    ActForbidden,
    ActRefused,
    CallHangs,
    NothingThere,
)
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.snapshot import Holder, HolderKind, ProcessId
from jupyterhub_gpuworkshop.core.units import format_size
from jupyterhub_gpuworkshop.core.wire import Event, EventKind
from jupyterhub_gpuworkshop.machine.ending import HeldProcess
from jupyterhub_gpuworkshop.machine.processes import read_process

from .history import History
from .loops import OneThread
from .monitor import Monitor
from .web.auth import Viewer

_LOG = logging.getLogger(__name__)
_PATIENCE_SECONDS = 10.0
_KILLED_SECONDS = 10.0
"""How long a process may take to be gone that was killed."""
_TIMEOUT_SECONDS = 10.0
_COMMAND_CHARACTERS = 60
_MOST_NOTICE_CHARACTERS = 1000


class Endings:
    """Ends processes.

    Args:
        monitor: knows who uses a GPU.
        history: takes the events.
        spared: pids that are never ended, the hub's among them.
        why_not_act: says why another service is to act, in a sentence.
        patience_seconds: from SIGTERM to SIGKILL.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        monitor: Monitor,
        history: History,
        *,
        spared: Collection[int] = (),
        why_not_act: Callable[[], str] = str,
        patience_seconds: float = _PATIENCE_SECONDS,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monitor = monitor
        self._history = history
        self._spared = frozenset({1, os.getpid(), os.getppid(), *spared})
        self._why_not_act = why_not_act
        self._patience_seconds = patience_seconds
        self._wall = wall
        self._thread = OneThread("/proc")
        self._under_way: dict[ProcessId, asyncio.Task[None]] = {}

    def find(self, process: ProcessId, viewer: Viewer) -> tuple[Holder, ...]:
        """Return what a process holds, where this viewer may end it.

        Raises:
            ActRefused: it may not be ended, or not by this viewer.
        """
        if not viewer.is_organiser:
            raise ActForbidden("Only an organiser may end a process.")
        holders = tuple(
            x for x in self._monitor.snapshot.holders if x.process == process
        )
        if not holders:
            raise NothingThere(
                f"No process {process.pid} with this start time uses a GPU now: it has "
                "ended, or freed its memory."
            )
        if holders[0].kind is HolderKind.KERNEL:
            raise ActRefused(
                f"Process {process.pid} belongs to a notebook's kernel: restart or "
                "stop that kernel instead."
            )
        if process.pid in self._spared:
            raise ActRefused(
                f"Process {process.pid} is the hub, this service or what started "
                "them: it is not ended here."
            )
        if process.pid in self._monitor.server_pids:
            raise ActRefused(
                f"Process {process.pid} is a server itself: stop that server instead."
            )
        if self._may_be_a_kernel(holders[0]):
            raise ActRefused(
                f"Process {process.pid} may be a notebook's kernel: its server does "
                "not say now which kernels it has. Try again, or stop that server."
            )
        return holders

    def _may_be_a_kernel(self, holder: Holder) -> bool:
        """Whether its server, outside any terminal, has not said what its kernels are.

        Those that it named before are known to be kernels still.
        """
        answer = self._monitor.answers.get((holder.user, holder.server))
        return (
            holder.kind is HolderKind.SERVER
            and answer is not None
            and answer.kernels is None
        )

    async def end(self, process: ProcessId, viewer: Viewer) -> str:
        """Ask a process to end, and see to it that it does.

        Returns:
            What has been done, in a sentence; the end itself is not waited for.

        Raises:
            ActRefused: it is not done.
        """
        holders = self.find(process, viewer)
        if why_not := self._why_not_act():
            raise ActRefused(why_not)
        if process in self._under_way:
            raise ActRefused(f"Process {process.pid} has been asked to end already.")
        held = await self._take_hold(process)
        # Nothing was awaited since: who asked at the same time asks one process once.
        if process in self._under_way:
            held.close()
            raise ActRefused(f"Process {process.pid} has been asked to end already.")
        try:
            is_there = held.send(signal.SIGTERM)
        except PermissionError:
            held.close()
            raise ActRefused(
                f"This service may not signal process {process.pid}, which is another "
                "user's: run the GPU service as root, or end it on the machine: "
                f"sudo kill {process.pid}"
            ) from None
        if not is_there:
            held.close()
            raise NothingThere(f"Process {process.pid} has ended already.")
        _LOG.info("%s ends process %s of %s", viewer.name, process.pid, _whose(holders))
        task = asyncio.ensure_future(self._see_it_end(held, holders, viewer.name))
        self._under_way[process] = task
        task.add_done_callback(lambda done: self._done(process, done))
        return (
            f"Process {process.pid} has been asked to end; if it has not in "
            f"{self._patience_seconds:.0f} s, it is killed."
        )

    async def close(self) -> None:
        """Let go of those that are under way: they have been asked to end."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_hold(self, process: ProcessId) -> HeldProcess:
        try:
            held = await self._thread.call(
                functools.partial(_take_hold, process), _TIMEOUT_SECONDS
            )
        except CallHangs as error:
            raise ActRefused(f"{error} Try again.") from None
        except OSError as error:
            raise ActRefused(
                f"Process {process.pid} cannot be held on to ({error.strerror}): end "
                f"it on the machine: sudo kill {process.pid}"
            ) from None
        if held is None:
            raise NothingThere(f"Process {process.pid} has ended already.")
        return held

    def _done(self, process: ProcessId, task: "asyncio.Task[None]") -> None:
        self._under_way.pop(process, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("Ending process %s failed", process.pid, exc_info=error)

    async def _see_it_end(
        self, held: HeldProcess, holders: tuple[Holder, ...], by: str
    ) -> None:
        try:
            has_ended = await held.ends_within(self._patience_seconds)
            how = "It ended when it was asked to (SIGTERM)."
            if not has_ended:
                how = f"It was killed after {self._patience_seconds:.0f} s (SIGKILL)."
                held.send(signal.SIGKILL)
                has_ended = await held.ends_within(_KILLED_SECONDS)
        finally:
            held.close()
        if not has_ended:
            how = "It was killed and has not ended: it hangs in a driver or on a disk."
        await self._record(has_ended, holders, by, how)
        if has_ended and holders[0].user:
            self._tell(holders)

    async def _record(
        self, has_ended: bool, holders: tuple[Holder, ...], by: str, how: str
    ) -> None:
        first = holders[0]
        reason = f"{by} ended {_describe(holders)}. {how}"
        _LOG.info("%s: %s", _whose(holders), reason)
        await self._history.add(
            Event(
                at=self._wall(),
                kind=EventKind.PROCESS_ENDED if has_ended else EventKind.END_FAILED,
                user=first.user,
                server=first.server,
                devices=tuple(sorted({x.device for x in holders})),
                reason=reason,
                details={
                    "by": by,
                    "pid": first.process.pid,
                    "lease_id": first.lease_id,
                    "memory_bytes": _memory_bytes(holders),
                },
            )
        )

    def _tell(self, holders: tuple[Holder, ...]) -> None:
        first = holders[0]
        text = f"An organiser has ended {_describe(holders)}, a process of yours."
        notices = self._monitor.notices
        subject = (NoticeKind.PROCESS_ENDED, first.user, first.server, "")
        before = notices.about(subject)
        if before is not None and before.seen_at is None:
            text = f"{before.text} {text}"[-_MOST_NOTICE_CHARACTERS:]
        notices.give(
            NoticeKind.PROCESS_ENDED, user=first.user, server=first.server, text=text
        )


def _take_hold(process: ProcessId) -> HeldProcess | None:
    facts = read_process(process.pid, with_details=False)
    if facts is not None and facts.parent == os.getpid():
        raise ActRefused(f"Process {process.pid} is this service's own.")
    return HeldProcess.open(process.pid, process.started)


def _memory_bytes(holders: tuple[Holder, ...]) -> int:
    return sum(holder.memory_bytes or 0 for holder in holders)


def _describe(holders: tuple[Holder, ...]) -> str:
    first = holders[0]
    return (
        f"process {first.process.pid} ({first.command[:_COMMAND_CHARACTERS]}), which "
        f"held {format_size(_memory_bytes(holders))} of GPU memory"
    )


def _whose(holders: tuple[Holder, ...]) -> str:
    return holders[0].user or "nobody known"
