"""Parks the memory of processes on simulated GPUs, as a driver would.

Owns the simulation's rules: a parked process's memory is on no device and free for
others, its calls wait, all else of it goes on; it comes back where its memory is free
again, and is stuck for good where it is not (cuda-checkpoint#44). The files between
this and the processes: `simulated_controls`.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jupyterhub_gpuworkshop.core.devices import Device
from jupyterhub_gpuworkshop.core.errors import ParkError, SourceUnavailable
from jupyterhub_gpuworkshop.core.snapshot import ProcessId

from .host_room import HostRoom
from .parking import ParkState, ended, no_slices
from .processes import is_alive
from .simulated import read_devices, read_unparkable
from .simulated_controls import (
    Control,
    controlled,
    read_control,
    remove_control,
    take_fail_next,
    write_control,
)
from .simulated_records import Record, read_records

_LOOK_SECONDS = 0.02
_LOCK_SECONDS = 10.0


class SimulatedParker:
    """The `Parker` of simulated GPUs. Only the owner of their folder may park.

    Args:
        state_dir: the folder that `simulated.create_devices` made.
        lock_seconds: how long a process may take to come to rest.
        room_bytes: the host RAM that there is said to be: simulated memory takes none.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        lock_seconds: float = _LOCK_SECONDS,
        room_bytes: int = 2**60,
    ) -> None:
        self._state_dir = state_dir
        self._lock_seconds = lock_seconds
        self._room_bytes = room_bytes

    def unavailable(self) -> str:
        """Return why nothing can be parked here; empty where it can."""
        try:
            owner = self._state_dir.stat().st_uid
        except OSError as error:
            return f"Cannot find the simulated GPUs in {self._state_dir}: {error}"
        if owner != os.geteuid():
            return (
                f"{self._state_dir} belongs to another user, who alone can park what "
                "is on its simulated GPUs."
            )
        return ""

    def cannot_park(self, device: Device) -> str:
        """Return why no memory on this device can be parked; empty where it can."""
        try:
            if device.uuid in read_unparkable(self._state_dir):
                return no_slices(device)
        except SourceUnavailable as error:
            return str(error)
        return no_slices(device) if device.parent_uuid is not None else ""

    def room(self, process: ProcessId) -> HostRoom:
        """Return the host RAM that there is said to be."""
        return HostRoom(available_bytes=self._room_bytes)

    def state(self, process: ProcessId) -> ParkState:
        """Return how things stand with a process."""
        if not is_alive(process.pid, process.started):
            return ParkState.GONE
        control = read_control(self._state_dir, process)
        if control is None or not any(
            (self._state_dir / record).exists() for record in control.records
        ):
            return ParkState.RUNNING  # also as a new program, which holds nothing
        return ParkState(control.state)

    def park(self, process: ProcessId, memory_bytes: int | None = None) -> None:
        """Move a process's memory away; see `Parker.park`."""
        self._begin(process)
        state = self._state_to_move(process)
        if state is ParkState.PARKED:
            return
        with self._folder_lock():
            records = self._records_of(process)
            if not records:
                raise ParkError(f"Process {process.pid} uses no simulated GPU.")
            self._say(process, ParkState.LOCKED, records)
        try:
            self._wait_for_rest(process)
            self._checkpoint(process, records)
        except ParkError as error:
            if not error.broken:
                remove_control(self._state_dir, process)
            raise

    def unpark(self, process: ProcessId, memory_bytes: int | None = None) -> None:
        """Bring a process's memory back; see `Parker.unpark`."""
        self._begin(process)
        if self._state_to_move(process) is ParkState.PARKED:
            with self._folder_lock():
                self._restore(process)
        remove_control(self._state_dir, process)

    def _begin(self, process: ProcessId) -> None:
        problem = self.unavailable()
        if problem:
            raise ParkError(problem)
        for one in controlled(self._state_dir):
            if not is_alive(one.pid, one.started):
                remove_control(self._state_dir, one)

    def _state_to_move(self, process: ProcessId) -> ParkState:
        state = self.state(process)
        if state is ParkState.GONE:
            raise ended(process)
        if state is ParkState.FAILED:
            raise ParkError(
                f"Process {process.pid} is stuck since an earlier move failed.",
                broken=True,
            )
        return state

    def _wait_for_rest(self, process: ProcessId) -> None:
        """Let what is computed come to its end; nothing new begins meanwhile."""
        end = time.monotonic() + self._lock_seconds
        while any(
            record.is_busy(device)
            for record in self._records_of(process)
            for device in record.uses
        ):
            if time.monotonic() > end:
                raise ParkError(
                    f"Process {process.pid} computed on, and could not be locked "
                    f"within {self._lock_seconds:g} s."
                )
            time.sleep(_LOOK_SECONDS)

    def _checkpoint(self, process: ProcessId, records: list[Record]) -> None:
        how = take_fail_next(self._state_dir, "park")
        if how == "park broken":
            self._say(process, ParkState.FAILED, records)
            raise ParkError(
                f"The checkpoint of process {process.pid} failed, as it was told to, "
                "and left it stuck.",
                broken=True,
            )
        if how:
            raise ParkError(
                f"The checkpoint of process {process.pid} failed, as it was told to."
            )
        for device in self._devices():
            if any(record.needs_bytes(device.uuid) for record in records):
                problem = self.cannot_park(device)
                if problem:
                    raise ParkError(problem)
        with self._folder_lock():
            if not is_alive(process.pid, process.started):
                raise ended(process)
            self._say(process, ParkState.PARKED, records, on_device=False)

    def _restore(self, process: ProcessId) -> None:
        """Take the memory again, which must be free. The folder's lock is held."""
        records = self._records()
        own = [r for r in records if _is_of(process, r)]
        short = take_fail_next(self._state_dir, "unpark") != ""
        for device in self._devices():
            used = sum(r.memory_bytes(device.uuid) for r in records)
            need = sum(r.needs_bytes(device.uuid) for r in own)
            short |= used + need > device.memory_bytes - device.reserved_bytes
        if short:
            self._say(process, ParkState.FAILED, own, on_device=False)
            raise ParkError(
                f"The memory of process {process.pid} was not free when it was to come "
                "back: the process is stuck for good.",
                broken=True,
            )

    def _say(
        self,
        process: ProcessId,
        state: ParkState,
        records: list[Record],
        *,
        on_device: bool = True,
    ) -> None:
        control = Control(
            state=state.value,
            on_device=on_device,
            records=tuple(record.name for record in records),
        )
        write_control(self._state_dir, process, control)

    def _records_of(self, process: ProcessId) -> list[Record]:
        return [record for record in self._records() if _is_of(process, record)]

    def _records(self) -> list[Record]:
        try:
            return list(read_records(self._state_dir))
        except OSError as error:
            raise ParkError(
                f"Cannot read the simulated GPUs in {self._state_dir}: {error}"
            ) from error

    def _devices(self) -> tuple[Device, ...]:
        try:
            return read_devices(self._state_dir)
        except SourceUnavailable as error:
            raise ParkError(str(error)) from error

    @contextmanager
    def _folder_lock(self) -> Iterator[None]:
        """Keep all processes from taking memory; any of them may keep us waiting."""
        try:
            descriptor = os.open(self._state_dir / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ParkError(
                f"Cannot open the lock of the simulated GPUs: {error}"
            ) from error
        try:
            if not _within(self._lock_seconds, lambda: _try_lock(descriptor)):
                raise ParkError(
                    "Some process keeps the lock of the simulated GPUs in "
                    f"{self._state_dir}."
                )
            yield
        finally:
            os.close(descriptor)


def _is_of(process: ProcessId, record: Record) -> bool:
    return (record.pid, record.started) == (process.pid, process.started)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _within(seconds: float, succeeds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while not succeeds():
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_SECONDS)
    return True
