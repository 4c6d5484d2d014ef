"""What exists: devices and the inventory of a machine.

Owns the identity of a device, its UUID. It does not know how devices are found.
"""

from dataclasses import dataclass

from .units import GIB, MIB

_LARGE_BYTES = 64 * GIB


def estimated_context_bytes(memory_bytes: int) -> int:
    """Return what a CUDA context is taken to cost on a device of this size.

    NVML cannot say it before a process has one, and it differs with GPU, driver and
    libraries. On an H200 with driver 580 PyTorch's took 610 MiB, and 676 to 680 MiB
    once cuBLAS was loaded; smaller devices have smaller ones, which nobody here has
    measured.
    """
    return 704 * MIB if memory_bytes > _LARGE_BYTES else 512 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU or a MIG slice.

    Attributes:
        uuid: the name by which everything refers to it.
        label: the index as people know it, ``"0"`` or ``"0:1"`` for a MIG slice;
            never used to identify a device.
        name: the product name.
        memory_bytes: all of its memory, as the driver states it.
        reserved_bytes: what the driver keeps for itself (NVML memory info v2).
        context_bytes: what one process's CUDA context takes before its first
            tensor; frameworks do not count it, so caps subtract it.
        minor: the number N of /dev/nvidiaN, where there is one; a MIG slice's is its
            GPU's.
        parent_uuid: the GPU that a MIG slice is cut from.
        gpu_instance: the number of a MIG slice's GPU instance.
        compute_instance: the number of its compute instance within that.
        lost: the driver has lost it: it gets no new lease.
    """

    uuid: str
    label: str
    name: str
    memory_bytes: int
    reserved_bytes: int = 0
    context_bytes: int = 0
    minor: int | None = None
    parent_uuid: str | None = None
    gpu_instance: int | None = None
    compute_instance: int | None = None
    lost: bool = False

    def shareable_bytes(self, keep_free_bytes: int) -> int:
        """Return the memory that shares are cut from.

        What the driver reserves is part of what is kept free, not beside it.
        """
        return max(0, self.memory_bytes - max(keep_free_bytes, self.reserved_bytes))

    def capacity_bytes(self, keep_free_bytes: int, oversubscribe: float) -> int:
        """Return what may be promised: the shareable memory, so many times."""
        # Rounded, for 1.13 times 10 GB is a byte short of 11.3 GB in floating point.
        return round(self.shareable_bytes(keep_free_bytes) * oversubscribe)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All devices of a machine, as seen at one instant.

    Attributes:
        devices: in the driver's order, which is the order of round-robin.
        taken_at: wall-clock seconds since the epoch.
        source: ``"nvml"``, ``"simulated"`` or ``"none"`` where nobody has looked yet.
        problem: why there are no devices, in a sentence for organisers; else empty.
    """

    devices: tuple[Device, ...] = ()
    taken_at: float = 0.0
    source: str = "none"
    problem: str = ""

    def find(self, uuid: str) -> Device | None:
        """Return the device of this UUID, or None."""
        return next((d for d in self.devices if d.uuid == uuid), None)
