"""Parker: moves a process's GPU memory to host RAM, and back.

Owns the port and what is said of every implementation; each passes the same contract
suite (tests/machine). Who is parked and when is not decided here. What there must be
room for beforehand: `host_room`.
"""

from enum import Enum
from pathlib import Path
from typing import Protocol

from jupyterhub_gpuworkshop.core.devices import Device
from jupyterhub_gpuworkshop.core.errors import ParkError
from jupyterhub_gpuworkshop.core.snapshot import ProcessId

from .host_room import HostRoom


class ParkState(str, Enum):
    """How things stand with a process's GPU memory, as the driver says.

    A process whose memory did not fit when it was to come back is stuck for good and
    may still be called parked (cuda-checkpoint#44): only `ParkError.broken` tells.
    """

    RUNNING = "running"
    """On the GPU, and calls are let through."""
    LOCKED = "locked"
    """On the GPU, but calls wait: a move was begun and has not ended."""
    MOVING = "moving"
    """On its way just now. Only newer drivers tell."""
    PARKED = "parked"
    """In host RAM; calls wait."""
    FAILED = "failed"
    """Stuck for good."""
    GONE = "gone"
    """The process has ended."""


class Parker(Protocol):
    """Parks processes, one at a time for each.

    Blocking, for as long as the memory takes to copy: call it from a thread. Every call
    looks at the process's start time right before and after it touches the process, so
    that a later one of the same number is left alone. Calls may be repeated, and take
    up what a caller that was killed has left half done.
    """

    def unavailable(self) -> str:
        """Return why nothing can be parked here, for the organiser; empty if it can."""

    def cannot_park(self, device: Device) -> str:
        """Return why no memory on this device can be parked; empty where it can."""

    def room(self, process: ProcessId) -> HostRoom:
        """Return what room there is for a process's GPU memory."""

    def state(self, process: ProcessId) -> ParkState:
        """Return how things stand with a process.

        Raises:
            ParkError: the driver does not say.
        """

    def park(self, process: ProcessId, memory_bytes: int | None = None) -> None:
        """Move a process's GPU memory to host RAM; its CUDA calls wait from then on.

        Where that fails the process is let go again, if it can be.

        Args:
            process: that holds the memory; not its children, nor its parents.
            memory_bytes: how much it is, which says how long it may take; None where
                unknown.

        Raises:
            ParkError: it is not parked.
        """

    def unpark(self, process: ProcessId, memory_bytes: int | None = None) -> None:
        """Move it back, and let the process's calls through.

        The memory must be free: where it is not, the process is stuck for good.

        Raises:
            ParkError: it is not back; unless it is broken, call again.
        """


def open_parker(source: str, *, simulated_dir: Path | None = None) -> Parker:
    """Return the parker of a source; it touches nothing before its first call.

    Args:
        source: ``"nvml"`` or ``"simulated"``, as for `source.open_source`.
        simulated_dir: where the simulated GPUs live.

    Raises:
        ParkError: there is none for such a source, or it lacks its directory.
    """
    if source == "nvml":
        from .driver_parking import DriverParker

        return DriverParker()
    if source == "simulated":
        if simulated_dir is None:
            raise ParkError("Simulated GPUs need a directory to live in: name one.")
        from .simulated_parking import SimulatedParker

        return SimulatedParker(simulated_dir)
    raise ParkError(f"There are no GPUs called {source!r}: write nvml or simulated.")


def no_slices(device: Device) -> str:
    """Say that a device is a slice, which the driver does not park.

    It would run out of memory (cuda-checkpoint#42).
    """
    return (
        f"GPU {device.label} ({device.name}) is a MIG slice, whose memory the NVIDIA "
        "driver cannot park."
    )


def ended(process: ProcessId) -> ParkError:
    """Return the error that tells that a process is not there any more."""
    return ParkError(f"Process {process.pid} has ended.", broken=True)
