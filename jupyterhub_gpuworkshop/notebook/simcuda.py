"""Simulated GPUs, as a kernel sees them.

::

    from jupyterhub_gpuworkshop.notebook import simcuda

    weights = simcuda.allocate("2GiB")
    simcuda.compute(5)
    weights.free()

Owns what one process does with simulated GPUs: holding memory and being busy. It
behaves as CUDA and the frameworks do: it reads CUDA_VISIBLE_DEVICES and the cap
(GPUWORKSHOP_MEMORY_LIMIT_BYTES, for each device and this process alone; soft: who
unsets it is not held back) at the first call, memory is gone when the process is, and
a forked child holds none of it. While the process is parked its calls wait, and all
else goes on. Unlike a real GPU a CUDA context costs no memory.

How it is kept on disk: `simstate`.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import fcntl
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Iterator

from .simparked import Gate
from .simsizes import parse_size, say
from .simstate import (
    Device,
    OwnRecord,
    SimulationError,
    memory_bytes,
    others,
    read_devices,
    visible_devices,
)

__all__ = [
    "Buffer",
    "OutOfMemoryError",
    "SimulationError",
    "allocate",
    "compute",
    "device_count",
    "held_bytes",
    "memory_info",
]


class OutOfMemoryError(MemoryError):
    """The share or the device has no room for what was asked."""


class Buffer:
    """Memory on a simulated GPU: freed by `free`, `with`, or garbage collection.

    Attributes:
        size_bytes: what was asked for.
        device: the index of its device, as this process counts.
        device_uuid: the name of its device.
    """

    def __init__(self, context: _Context, device: int, uuid: str, size_bytes: int):
        self.size_bytes = size_bytes
        self.device = device
        self.device_uuid = uuid
        self._gate = context.gate
        self._finalizer = weakref.finalize(self, context.release, uuid, size_bytes)
        # The memory goes with the process: there is nothing to do at its end.
        self._finalizer.atexit = False

    def free(self) -> None:
        """Give the memory back; to do so twice does no harm."""
        self._gate.wait()
        self._finalizer()

    def __enter__(self) -> Buffer:
        """Hold the memory for the length of a `with` block."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Give the memory back."""
        self.free()

    def __repr__(self) -> str:
        """Say what and where it is, and whether it is there still."""
        state = "" if self._finalizer.alive else ", freed"
        return f"<simcuda.Buffer: {say(self.size_bytes)} on GPU {self.device}{state}>"


def allocate(size: int | str, device: int = 0) -> Buffer:
    """Take memory on a device.

    Args:
        size: bytes, or text such as ``"2GiB"``.
        device: its index, as this process counts.

    Raises:
        OutOfMemoryError: the share or the device has no room for it.
        SimulationError: there is no such device here.
        ValueError: the size cannot be read.
    """
    return _the_context().allocate(parse_size(size), device)


def compute(seconds: float, device: int = 0) -> None:
    """Keep a device busy, and wait without using the CPU.

    Raises:
        SimulationError: there is no such device here.
    """
    _the_context().compute(seconds, device)


def device_count() -> int:
    """Return how many devices this process sees."""
    if not os.environ.get("GPUWORKSHOP_SIMULATED_GPUS") and _context is None:
        return 0
    return len(_the_context().devices)


def memory_info(device: int = 0) -> tuple[int, int]:
    """Return the device's (free, total) memory in bytes, all processes counted.

    Raises:
        SimulationError: there is no such device here.
    """
    return _the_context().memory_info(device)


def held_bytes() -> int:
    """Return what this process holds, on all devices."""
    return 0 if _context is None else _context.held_bytes()


class _Use:
    """What this process does on one device."""

    def __init__(self) -> None:
        self.memory_bytes = 0
        self.busy_seconds = 0.0
        self.busy_since = 0.0
        self.computing = 0

    def as_json(self) -> dict[str, object]:
        return {
            "memory_bytes": self.memory_bytes,
            "busy_seconds": self.busy_seconds,
            "busy_since": self.busy_since if self.computing else None,
        }


class _Context:
    """This process's part in the simulation, from its first call on."""

    def __init__(self) -> None:
        folder = os.environ.get("GPUWORKSHOP_SIMULATED_GPUS", "")
        if not folder:
            raise SimulationError(
                "There are no simulated GPUs here: GPUWORKSHOP_SIMULATED_GPUS is not "
                "set."
            )
        self._folder = Path(folder).absolute()
        self.visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.devices = visible_devices(read_devices(self._folder), self.visible)
        self._limit_bytes = _read_limit()
        self.pid = os.getpid()
        self._record = OwnRecord(self._folder)
        self.gate = Gate(self._folder, self._record.name)
        self._uses: dict[str, _Use] = {}
        self._lock = threading.Lock()
        self._released: collections.deque[tuple[str, int]] = collections.deque()
        self.lock_descriptor = -1

    def allocate(self, size_bytes: int, index: int) -> Buffer:
        device = self._device(index)
        with self._admission():
            use = self._uses.setdefault(device.uuid, _Use())
            free_bytes = self._free_bytes(device)
            limit = self._limit_bytes
            too_much = limit is not None and use.memory_bytes + size_bytes > limit
            if too_much or size_bytes > free_bytes:
                share = "none is set" if limit is None else say(limit)
                raise OutOfMemoryError(
                    f"Out of memory on GPU {index}: asked for {say(size_bytes)}; your "
                    f"share: {share}; this process holds {say(use.memory_bytes)}; "
                    f"free on the device: {say(free_bytes)}."
                )
            use.memory_bytes += size_bytes
            try:
                self._write(create=True)
                return Buffer(self, index, device.uuid, size_bytes)
            except BaseException:
                use.memory_bytes -= size_bytes
                raise

    def release(self, uuid: str, size_bytes: int) -> None:
        """Note that memory was given back; called by the garbage collector too.

        The collector may call in the middle of anything, so nothing here waits:
        where the lock is taken, its holder does the work when it lets go; and what
        is given back while the process is parked need not come back.
        """
        if self.pid != os.getpid():
            return  # a forked child: its parent's memory was never its own
        self._released.append((uuid, size_bytes))
        self._catch_up()

    def compute(self, seconds: float, index: int) -> None:
        device = self._device(index)
        self._set_busy(device)
        try:
            time.sleep(seconds)
        finally:
            self._set_done(device)

    def _set_busy(self, device: Device) -> None:
        while True:
            self.gate.wait()
            self._write_busy(device)
            # Who parks closes the gate, then looks who is busy: one sees the other.
            if not self.gate.is_closed():
                return
            self._set_done(device)

    def _write_busy(self, device: Device) -> None:
        with self._alone():
            use = self._uses.setdefault(device.uuid, _Use())
            if not use.computing:
                use.busy_since = time.monotonic()
            use.computing += 1
            try:
                with self._meaning("be busy"):
                    self._write(create=True)
            except BaseException:
                use.computing -= 1
                raise

    def _set_done(self, device: Device) -> None:
        with self._alone():
            use = self._uses[device.uuid]
            use.computing -= 1
            if not use.computing:
                use.busy_seconds += time.monotonic() - use.busy_since
            with contextlib.suppress(OSError):  # the simulation may be over
                self._write()

    def memory_info(self, index: int) -> tuple[int, int]:
        device = self._device(index)
        self.gate.wait()
        with self._alone(), self._meaning("count the memory"):
            return self._free_bytes(device), device.total_bytes

    def held_bytes(self) -> int:
        with self._alone():
            return sum(use.memory_bytes for use in self._uses.values())

    def remove_record(self) -> None:
        if self.pid == os.getpid():
            self._record.remove()

    def _device(self, index: int) -> Device:
        if not 0 <= index < len(self.devices):
            raise SimulationError(
                f"There is no GPU {index} here: this process sees {len(self.devices)} "
                + (
                    "(CUDA_VISIBLE_DEVICES is not set)."
                    if self.visible is None
                    else f"(CUDA_VISIBLE_DEVICES is {self.visible!r})."
                )
            )
        return self.devices[index]

    def _free_bytes(self, device: Device) -> int:
        used = self._uses[device.uuid].memory_bytes if device.uuid in self._uses else 0
        for uses in others(self._folder, self._record.name):
            used += memory_bytes(uses.get(device.uuid))
        return max(0, device.usable_bytes - used)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep the other threads of this process out."""
        try:
            with self._lock:
                self._settle()
                yield
        finally:
            self._catch_up()

    def _catch_up(self) -> None:
        while self._released and self._lock.acquire(blocking=False):
            try:
                self._settle()
            finally:
                self._lock.release()

    def _settle(self) -> None:
        """Account for what was given back. The lock is held."""
        settled = False
        while self._released:
            uuid, size_bytes = self._released.popleft()
            self._uses[uuid].memory_bytes -= size_bytes
            settled = True
        if settled:
            with contextlib.suppress(OSError):  # the simulation may be over
                self._write()

    @contextlib.contextmanager
    def _admission(self) -> Iterator[None]:
        """Keep all others from taking memory, at a time when this is not parked."""
        while True:
            self.gate.wait()
            with self._alone(), self._meaning("take memory"), self._folder_lock():
                # Nobody is parked or brought back but under this lock.
                if not self.gate.is_closed():
                    yield
                    return

    @contextlib.contextmanager
    def _folder_lock(self) -> Iterator[None]:
        descriptor = os.open(self._folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
        self.lock_descriptor = descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            self.lock_descriptor = -1
            # Unlocked by name: a child forked meanwhile may have a copy of it.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    @contextlib.contextmanager
    def _meaning(self, purpose: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SimulationError(
                f"Cannot {purpose} on the simulated GPUs in {self._folder}: {error}"
            ) from error

    def _write(self, *, create: bool = False) -> None:
        uses = {uuid: use.as_json() for uuid, use in self._uses.items()}
        self._record.write(uses, create=create)


def _read_limit() -> int | None:
    text = os.environ.get("GPUWORKSHOP_MEMORY_LIMIT_BYTES", "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit()):
        raise SimulationError(
            f"GPUWORKSHOP_MEMORY_LIMIT_BYTES is {text!r}: write a number of bytes."
        )
    return int(text)


_context: _Context | None = None
_context_lock = threading.Lock()


def _the_context() -> _Context:
    global _context
    if _context is None:
        with _context_lock:
            if _context is None:
                _context = _Context()
    return _context


def _leave() -> None:
    if _context is not None:
        _context.remove_record()


def _begin_child() -> None:
    """Start anew in a forked child: a CUDA context does not survive a fork."""
    global _context, _context_lock
    if _context is not None and _context.lock_descriptor >= 0:
        os.close(_context.lock_descriptor)  # another thread was taking memory
    _context, _context_lock = None, threading.Lock()


atexit.register(_leave)
os.register_at_fork(after_in_child=_begin_child)
