"""`python -m benchmarks.samplers NAME ROOM`: one program that samples, when it is told.

Each runs in a process of its own, which was started with the driver's double in its
LD_LIBRARY_PATH. For each line on stdin it takes one sample, and it answers with a line:
what that cost, in CPU seconds of this process and of those it lets work, and how many
processes using a GPU the sample tells of.
"""

import asyncio
import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jupyterhub_gpuworkshop.core.attribution import Attribution, attribute
from jupyterhub_gpuworkshop.core.snapshot import HolderKind
from jupyterhub_gpuworkshop.service.host import Gpus, Host
from jupyterhub_gpuworkshop.service.sampler import ChildSampler

from .seats import Room

_WARM_UP = 3
_EAGER = [
    sys.executable,
    "-c",
    "from functools import partial\n"
    "from jupyterhub_gpuworkshop.machine import nvml, sampler\n"
    "nvml.NvmlSource = partial(nvml.NvmlSource, process_interval_seconds=0.0)\n"
    "sampler.main(['--source', 'nvml'])\n",
]
"""The service's child, which lists processes each time it is asked."""


class Ours:
    """What the service's monitor does: sample, read processes, explain holders.

    The driver is read by the child that the service has for it, which lists processes
    in every sample, as is done every five seconds.

    Args:
        room: whose holders there are.
    """

    def __init__(self, room: Room) -> None:
        self._loop = asyncio.new_event_loop()
        self._child = ChildSampler(_EAGER)
        self._gpus = Gpus("nvml", self._child, pause_seconds=5.0)
        self._host = Host()
        self._servers, self._leases = room.servers(), room.leases()
        self._listed = room.listed()
        self._before = Attribution()

    @property
    def child(self) -> int:
        """The process that works for this one."""
        return self._child.pid

    def __call__(self) -> int:
        """Return how many processes are explained to be a kernel's."""
        return self._loop.run_until_complete(self._sample())

    async def _sample(self) -> int:
        samples = await self._gpus.sample()
        processes = await self._host.processes(samples, self._servers)
        self._before = attribute(
            samples,
            processes.facts,
            self._servers,
            self._leases,
            self._listed,
            self._before.owners,
        )
        return sum(x.kind is HolderKind.KERNEL for x in self._before.holders)


def gpustat(room: Room) -> Callable[[], int]:
    """Do what `gpustat` does for each of its pictures; it tells no utilisation."""
    from gpustat import GPUStatCollection

    def sample() -> int:
        return sum(len(gpu.processes) for gpu in GPUStatCollection.new_query().gpus)

    return sample


def nvitop(room: Room) -> Callable[[], int]:
    """Take nvitop's own snapshots of all devices and of all that use them."""
    from nvitop import take_snapshots

    return lambda: len(take_snapshots().gpu_processes)


def nvitop_least(room: Room) -> Callable[[], int]:
    """Let nvitop read no more of a device than ours reads, and all of the processes."""
    from nvitop import Device, GpuProcess

    devices = Device.all()

    def sample() -> int:
        processes: list[Any] = []
        for device in devices:
            with device.oneshot():
                device.memory_info()
                device.gpu_utilization()
                device.temperature()
                device.power_usage()
            processes += device.processes().values()
        return len(GpuProcess.take_snapshots(processes, failsafe=True))

    return sample


SAMPLERS: dict[str, Callable[[Room], Callable[[], int]]] = {
    "ours": Ours,
    "gpustat": gpustat,
    "nvitop": nvitop,
    "nvitop-least": nvitop_least,
}


def is_installed(name: str) -> bool:
    """Tell whether there is such a sampler here; ours is always."""
    return name == "ours" or bool(importlib.util.find_spec(name.partition("-")[0]))


def _cpu_seconds(helpers: list[int]) -> float:
    """Return the CPU time so far of this process and of those it lets work."""
    # A process's clock, as clock_getcpuclockid(3) makes it of a pid.
    clocks = [(~pid << 3) | 2 for pid in helpers]
    return time.process_time() + sum(time.clock_gettime(clock) for clock in clocks)


def _main(name: str, room: str) -> None:
    sample = SAMPLERS[name](Room.read(Path(room)))
    for _ in range(_WARM_UP):
        sample()
    helpers = [sample.child] if isinstance(sample, Ours) else []
    print(json.dumps({"ready": name}), flush=True)
    for _ in sys.stdin:
        begun = _cpu_seconds(helpers)
        found = sample()
        cost = _cpu_seconds(helpers) - begun
        print(json.dumps({"cpu_seconds": cost, "holders": found}), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
