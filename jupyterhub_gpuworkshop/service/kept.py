"""What outlives the service: pins, drained devices, parked kernels, announcements.

Owns one small file in the folder of the history. What cannot be written is in force
all the same and said to be in memory only; who must not go on without it, as parking,
asks whether it is on disk.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from jupyterhub_gpuworkshop.core.announcements import Announcement
from jupyterhub_gpuworkshop.core.errors import CallHangs
from jupyterhub_gpuworkshop.core.roster import joining_name
from jupyterhub_gpuworkshop.core.snapshot import ProcessId

from .loops import OneThread

_LOG = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 3.0
_VERSION = 1
STATE_FILE = "gpuworkshop-state.json"
_UNUSABLE = ".unusable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A kernel that is not reclaimed for idleness.

    Attributes:
        lease_id: the lease of its server.
        kernel_id: the Jupyter kernel id.
        user: whose kernel it is.
        by: who pinned it.
        until: wall-clock seconds since the epoch; None for a pin without end.
    """

    lease_id: str
    kernel_id: str
    user: str
    by: str
    until: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedKernel:
    """A kernel whose GPU memory is, or is about to be, in host memory.

    Attributes:
        lease_id: the lease of its server.
        user: the attendee.
        server: the server's name.
        kernel_id: the Jupyter kernel id.
        notebook: the notebook's path, for people.
        processes: those of its processes that were parked.
        boot_id: the boot of the machine under which they run.
        memory_bytes: what they held, by device UUID.
        parked_at: wall-clock seconds since the epoch.
        last_activity: in its server's words: another one says that its owner is back.
        is_broken: it is stuck for good, which the driver does not say (it calls such a
            process parked), and is to be restarted.
        by_process: what each process held, by device UUID, in their order; empty where
            that is not known.
        main: the kernel's own process; None where it is not known.
    """

    lease_id: str
    user: str
    server: str
    kernel_id: str
    notebook: str = ""
    processes: tuple[ProcessId, ...]
    boot_id: str
    memory_bytes: Mapping[str, int]
    parked_at: float
    last_activity: str
    is_broken: bool = False
    by_process: tuple[Mapping[str, int], ...] = ()
    main: ProcessId | None = None

    def only(self, processes: Collection[ProcessId]) -> "ParkedKernel":
        """Return the record of these of its processes, and of what they held."""
        if len(self.by_process) != len(self.processes):
            left = tuple(x for x in self.processes if x in processes)
            return replace(self, processes=left)
        pairs = zip(self.processes, self.by_process, strict=True)
        kept = [(process, held) for process, held in pairs if process in processes]
        memory_bytes: dict[str, int] = {}
        for _, held in kept:
            for uuid, size in held.items():
                memory_bytes[uuid] = memory_bytes.get(uuid, 0) + size
        return replace(
            self,
            processes=tuple(process for process, _ in kept),
            by_process=tuple(held for _, held in kept),
            memory_bytes=memory_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockOrder:
    """Somebody whom the hub is to let in again after wrong codes.

    Attributes:
        id: of the order.
        name: who.
        by: the organiser who asks.
        at: when, in wall-clock seconds since the epoch.
    """

    id: str
    name: str
    by: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptState:
    """All that outlives the service.

    What is added has a default: the file of an earlier version is read, and an earlier
    version reads this one's, and parked kernels are brought back whichever runs.

    Attributes:
        pins: those that were set and not lifted; some may be over.
        drained: devices that an organiser has taken out of service, by UUID.
        parked: kernels that are parked, or were about to be.
        for_everybody: what is announced; it may be over.
        unlocks: orders that the hub has not carried out.
    """

    pins: tuple[Pin, ...] = ()
    drained: tuple[str, ...] = ()
    parked: tuple[ParkedKernel, ...] = ()
    for_everybody: Announcement | None = None
    unlocks: tuple[UnlockOrder, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    version: int = _VERSION
    state: KeptState = field(default_factory=KeptState)


_FILE = TypeAdapter(_File)
Change = Callable[[KeptState], KeptState]


class Kept:
    """The file, and what is in force.

    Args:
        path: the file; None keeps nothing beyond this process.

    Attributes:
        state: what is in force.
        problem: why it is not on disk, in a sentence; else empty.
        is_read: whether what earlier lives wrote is known.
    """

    def __init__(self, path: Path | None) -> None:
        self.state = KeptState()
        self.problem = ""
        self._path = path
        self._thread = OneThread("The disk of the service's state")
        self._turn = asyncio.Lock()
        self.is_read = path is None
        self._not_in_file: list[Change] = []

    @property
    def why_hub_waits(self) -> str:
        """Why the hub is not told what is in force, in a sentence; empty where it is.

        What it heard before stands: of what that was, nothing is known here.
        """
        return (
            ""
            if self.is_read
            else f"The hub is not told before this ends: {self.problem}"
        )

    async def open(self) -> None:
        """Read what earlier lives of the service wrote, or another one by now."""
        async with self._turn:
            # Until it is read again, what is there is not to be written over.
            self.is_read = self._path is None
            await self._read_in()

    async def change(self, change: Change) -> bool:
        """Put a change in force, and write it down.

        Returns:
            Whether it is on disk.
        """
        async with self._turn:
            # What is in a file that could not be read is not to be written over.
            if not self.is_read:
                await self._read_in()
            self.state = change(self.state)
            if self._path is None:
                return False
            if not self.is_read:
                self._not_in_file.append(change)
                return False
            path, state = self._path, self.state
            try:
                await self._thread.call(lambda: _write(path, state), _TIMEOUT_SECONDS)
            except (CallHangs, OSError) as error:
                self._complain(
                    "Pins, drained GPUs, paused kernels and announcements are in "
                    f"memory only: {error}"
                )
                return False
            self.problem = ""
            return True

    async def forget(self, names: Collection[str]) -> bool:
        """Drop what some people did or have, and a file left beside that names them.

        Parked kernels stay: they are to be brought back, whoever asks for what.

        Returns:
            Whether that is on disk.
        """
        done = await self.change(lambda state: _without(state, names))
        path = self._path
        if path is None or not done:
            return done
        try:
            await self._thread.call(
                lambda: _remove_if_it_names(_aside(path), names), _TIMEOUT_SECONDS
            )
        except (CallHangs, OSError) as error:
            self._complain(f"{_aside(path)} may name attendees who are gone: {error}")
            return False
        return True

    async def _read_in(self) -> None:
        """Take in the file, and what has been changed while it could not be read."""
        path = self._path
        if path is None:
            self.is_read = True
            return
        try:
            state = await self._thread.call(lambda: _take(path), _TIMEOUT_SECONDS)
        except (CallHangs, OSError) as error:
            self._complain(
                f"{path} cannot be read, and pins, drained GPUs and paused kernels of "
                f"before are unknown: {error}"
            )
            return
        except ValueError as error:
            self._complain(
                f"{path} cannot be used, and is left beside as {_aside(path).name}: "
                f"{error}. Pins, drained GPUs and paused kernels of before are unknown."
            )
            state = KeptState()
        else:
            self.problem = ""
        for change in self._not_in_file:
            state = change(state)
        self._not_in_file = []
        self.state, self.is_read = state, True

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            _LOG.error("%s", problem)
        self.problem = problem


def _without(state: KeptState, names: Collection[str]) -> KeptState:
    """Return it without what these people did, and what was done for them."""
    announced = state.for_everybody
    locked = {*names, *map(joining_name, names)}
    return replace(
        state,
        pins=tuple(x for x in state.pins if x.user not in names and x.by not in names),
        for_everybody=None if announced and announced.by in names else announced,
        unlocks=tuple(
            x for x in state.unlocks if x.name not in locked and x.by not in names
        ),
    )


def _aside(path: Path) -> Path:
    return path.with_name(path.name + _UNUSABLE)


def _remove_if_it_names(path: Path, names: Collection[str]) -> None:
    """Remove a file that nobody can read but that may say who was here."""
    with contextlib.suppress(FileNotFoundError):
        content = path.read_bytes()
        if any(name.encode() in content for name in names):
            path.unlink()


def _take(path: Path) -> KeptState:
    """Return what is in the file; one that is of no use is left beside."""
    try:
        return read(path)
    except ValueError:
        path.replace(_aside(path))
        raise


def read(path: Path) -> KeptState:
    """Return what is in the file; nothing where there is none.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds what this version does not know.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return KeptState()
    try:
        file = _FILE.validate_json(text)
    except ValidationError as error:
        raise ValueError(f"it is no state of this service ({error})") from None
    if file.version > _VERSION:
        raise ValueError(
            f"it was written by a newer version of this package ({file.version}, this "
            f"one knows {_VERSION})"
        )
    return file.state


def _write(path: Path, state: KeptState) -> None:
    """Write beside and rename: a crash leaves the old or the new, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
        file.write(_FILE.dump_json(_File(state=state)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
