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
from jupyterhub_gpuworkshop.machine.nvml import NvmlSource
from jupyterhub_gpuworkshop.service.host import Gpus, Host

from .seats import Room

_WARM_UP = 3


def ours(room: Room) -> Callable[[], int]:
    """Do what the service's monitor does: sample, read processes, explain holders.

    Processes are listed in every sample, as they are every five seconds.
    """
    loop = asyncio.new_event_loop()
    gpus = Gpus(
        "nvml", lambda: NvmlSource(process_interval_seconds=0.0), pause_seconds=5.0
    )
    host = Host()
    servers, leases, listed = room.servers(), room.leases(), room.listed()
    before = Attribution()

    async def sample() -> int:
        nonlocal before
        samples = await gpus.sample()
        processes = await host.processes(samples, servers)
        before = attribute(
            samples, processes.facts, servers, leases, listed, before.owners
        )
        return sum(x.kind is HolderKind.KERNEL for x in before.holders)

    return lambda: loop.run_until_complete(sample())


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


SAMPLERS = {
    "ours": ours,
    "gpustat": gpustat,
    "nvitop": nvitop,
    "nvitop-least": nvitop_least,
}


def is_installed(name: str) -> bool:
    """Tell whether there is such a sampler here; ours is always."""
    return name == "ours" or bool(importlib.util.find_spec(name.partition("-")[0]))


def _main(name: str, room: str) -> None:
    sample = SAMPLERS[name](Room.read(Path(room)))
    for _ in range(_WARM_UP):
        sample()
    print(json.dumps({"ready": name}), flush=True)
    for _ in sys.stdin:
        begun = time.process_time()
        found = sample()
        cost = time.process_time() - begun
        print(json.dumps({"cpu_seconds": cost, "holders": found}), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
