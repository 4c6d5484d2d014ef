"""The GPUs as the service sees them, and how coarsely.

Owns the stand-in for the driver: what it tells, and what it does not.
"""

import random
from collections.abc import Callable

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.errors import SourceUnavailable
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, ProcessUse
from jupyterhub_gpuworkshop.core.units import GIB

from .living import LiveServer, Proc
from .room import Room

Clock = Callable[[], float]
"""Seconds since the workshop began."""

SEATS_PER_GPU = 10
GPU_BYTES = 80 * GIB
SHARE_BYTES = GPU_BYTES // SEATS_PER_GPU - GIB // 10
_SAMPLES_A_SECOND = 5
_MOST_SAMPLES = 72
"""So many does the driver keep."""


def uuid_of(number: int) -> str:
    """Return the GPU that a seat's share is on."""
    return f"GPU-{number // SEATS_PER_GPU:08x}"


class Driver:
    """The GPUs, as `service.sampler.Sampler` has them.

    Utilisation by process is as coarse as NVML's was found to be on an H200: five
    samples a second, each charged to one process, which is that of whoever computes
    at that instant, if anybody; no more than 72 are kept
    (docs/explanation/what-sampling-costs.md).

    Args:
        room: what is there.
        dice: decides what is not certain.
        clock: the replay's.
        fails_at: when it cannot be read, once.
    """

    def __init__(
        self, room: Room, dice: random.Random, clock: Clock, fails_at: float
    ) -> None:
        self._room = room
        self._dice = dice
        self._clock = clock
        self._fails_at = fails_at
        self._seen_until: int | None = None
        self._seen_at = 0.0
        self._used: dict[int, float] = {}
        self._utilisation: dict[str, float] = {}
        seats = len(room.servers)
        self._uuids = sorted({uuid_of(number) for number in range(seats)})

    async def inventory(self) -> Inventory:
        """Return what exists."""
        return Inventory(
            devices=tuple(
                Device(uuid=uuid, label=str(number), name="GPU", memory_bytes=GPU_BYTES)
                for number, uuid in enumerate(self._uuids)
            ),
            source="simulated",
        )

    async def sample(self) -> tuple[DeviceSample, ...]:
        """Return one reading of each device."""
        at = self._clock()
        if at >= self._fails_at:
            self._fails_at = float("inf")
            raise SourceUnavailable("the driver did not answer")
        drawn = self._samples_until(at)
        self._room.advance(at)
        by_gpu: dict[str, list[Proc]] = {uuid: [] for uuid in self._uuids}
        for server in self._room.servers:
            by_gpu[uuid_of(server.number)] += _holders(server, at)
        reading = tuple(
            self._sample(uuid, procs, at, drawn) for uuid, procs in by_gpu.items()
        )
        # Without a new one, the next are of the time since the last one.
        if drawn != 0:
            self._see(at)
        return reading

    async def close(self) -> None:
        """Let go of nothing."""

    def _samples_until(self, at: float) -> int | None:
        """Return how many samples the driver has taken; None at the first look."""
        if self._seen_until is None:
            return None
        drawn = int(at * _SAMPLES_A_SECOND) - self._seen_until
        if drawn > _MOST_SAMPLES:
            self._room.advance(at - _MOST_SAMPLES / _SAMPLES_A_SECOND)
            self._see(at - _MOST_SAMPLES / _SAMPLES_A_SECOND)
        return min(drawn, _MOST_SAMPLES)

    def _see(self, at: float) -> None:
        self._seen_until, self._seen_at = int(at * _SAMPLES_A_SECOND), at
        self._used = {p.pid: p.meter.gpu_seconds for p in self._room.procs()}

    def _sample(
        self, uuid: str, procs: list[Proc], at: float, drawn: int | None
    ) -> DeviceSample:
        parts = [
            (p.meter.gpu_seconds - self._used.get(p.pid, 0.0)) / (at - self._seen_at)
            if drawn
            else 0.0
            for p in procs
        ]
        hits = self._charge(parts, drawn or 0)
        if drawn:
            self._utilisation[uuid] = sum(hits) / drawn
        used_bytes = sum(p.memory_bytes for p in procs)
        return DeviceSample(
            uuid=uuid,
            memory_total_bytes=GPU_BYTES,
            memory_used_bytes=used_bytes,
            memory_free_bytes=GPU_BYTES - used_bytes,
            utilisation=None if drawn is None else self._utilisation.get(uuid),
            processes=tuple(
                ProcessUse(
                    pid=p.pid,
                    memory_bytes=p.memory_bytes,
                    utilisation=None if drawn is None else hit / max(drawn, 1),
                )
                for p, hit in zip(procs, hits, strict=True)
            ),
        )

    def _charge(self, parts: list[float], drawn: int) -> list[int]:
        """Return how many samples are charged to each, by the part it computes."""
        # Who computes beside others has the device for a part of the time only.
        wanted = max(1.0, sum(parts))
        hits = [0] * len(parts)
        for _ in range(drawn if any(parts) else 0):
            point = self._dice.random() * wanted
            for number, part in enumerate(parts):
                point -= part
                if point < 0:
                    hits[number] += 1
                    break
        return hits


def _holders(server: LiveServer, at: float) -> list[Proc]:
    """Return the processes of a server that hold GPU memory now."""
    found: list[Proc] = []
    for kernel in server.kernels:
        kernel.main.memory_bytes = kernel.own_bytes(at)
        found.append(kernel.main)
        found += [proc for procs in kernel.below.values() for proc in procs]
    found += [t.training for t in server.terminals if t.trains(at)]
    return [proc for proc in found if proc.memory_bytes]
