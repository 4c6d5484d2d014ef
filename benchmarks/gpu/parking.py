"""Kernels that in turn hold three times the GPU's memory: `python -m ...gpu.parking`.

Each fills its memory with a pattern of its own, is parked, and comes back in turn, all
through `machine.parking`, as the service does it. After each return every byte is
compared. Seconds to park and to return stand against the same bytes over the bus, as a
copy between pinned memory and the GPU takes them in the same run.

It needs a GPU that nobody else uses, PyTorch with CUDA and cuda-core, and as much host
RAM as all kernels hold. With --simulated it needs none, and measures nothing real.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from jupyterhub_gpuworkshop.core.devices import Device, estimated_context_bytes
from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, ProcessId
from jupyterhub_gpuworkshop.core.units import GIB, MIB, format_size
from jupyterhub_gpuworkshop.machine.host_room import why_no_room
from jupyterhub_gpuworkshop.machine.nvml import NvmlSource
from jupyterhub_gpuworkshop.machine.parking import Parker, ParkState, open_parker
from jupyterhub_gpuworkshop.machine.processes import read_process
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from jupyterhub_gpuworkshop.machine.source import DeviceSource, open_source

from .kernels import SIMULATED, TORCH, Kernel, KernelError

_BUS_BYTES = GIB
_BUS_TIMES = 5
_MARGIN_BYTES = 512 * MIB
_KEEP_FREE_BYTES = 4 * GIB
_SMALLEST_BYTES = GIB
_GONE_WITHIN_SECONDS = 30


class TroubleError(Exception):
    """The benchmark cannot be run, or what it shows is wrong; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where it runs.

    Attributes:
        source: reads the GPU.
        parker: parks.
        device: the GPU.
        start: starts a kernel on it.
        bus: bytes a second to the host and from it; None where there is no bus.
    """

    source: DeviceSource
    parker: Parker
    device: Device
    start: Callable[[], Kernel]
    bus: tuple[float, float] | None

    def sample(self) -> DeviceSample:
        """Return what is on the GPU now."""
        for sample in self.source.sample():
            if sample.uuid == self.device.uuid:
                return sample
        raise TroubleError(f"GPU {self.device.label} does not answer.")

    def held_bytes(self, pid: int) -> int:
        """Return what a process holds of it."""
        processes = self.sample().processes or ()
        return sum(p.memory_bytes or 0 for p in processes if p.pid == pid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one kernel's parking and return took."""

    memory_bytes: int
    park_seconds: float
    return_seconds: float

    def against(self, bus: tuple[float, float]) -> tuple[float, float]:
        """Return both as multiples of what the bus takes for so much."""
        return (
            self.park_seconds * bus[0] / self.memory_bytes,
            self.return_seconds * bus[1] / self.memory_bytes,
        )


@contextlib.contextmanager
def real(label: str, python: str) -> Iterator[Bench]:
    """Prepare a real GPU.

    Raises:
        TroubleError: something is missing; the text says what.
    """
    parker = open_parker("nvml")
    problem = parker.unavailable()
    if problem:
        raise TroubleError(problem)
    # Which process holds what is asked anew each time: it is what this is about.
    source = NvmlSource(process_interval_seconds=0)
    device = next((d for d in source.inventory().devices if d.label == label), None)
    if device is None:
        raise TroubleError(f"There is no GPU {label}: see nvidia-smi -L.")
    problem = parker.cannot_park(device)
    if problem:
        raise TroubleError(problem)
    environment = {"CUDA_VISIBLE_DEVICES": device.uuid}
    check = [python, "-c", "import torch; assert torch.cuda.is_available()"]
    if subprocess.run(check, capture_output=True, check=False).returncode != 0:  # noqa: S603 - the Python that was named
        raise TroubleError(
            f"{python} has no PyTorch that sees a GPU: name one that has with --python."
        )
    with Kernel(python, TORCH, environment) as kernel:
        down, up = kernel.do("bus", size_bytes=_BUS_BYTES, times=_BUS_TIMES)
    yield Bench(
        source=source,
        parker=parker,
        device=device,
        start=lambda: Kernel(python, TORCH, environment),
        bus=(down, up),
    )


@contextlib.contextmanager
def simulated() -> Iterator[Bench]:
    """Prepare a simulated GPU of 16 GiB."""
    with tempfile.TemporaryDirectory(prefix="gpuworkshop-bench-") as at:
        (device,) = create_devices(Path(at), 1, 16 * GIB)
        environment = {"GPUWORKSHOP_SIMULATED_GPUS": at}
        yield Bench(
            source=open_source("simulated", simulated_dir=Path(at)),
            parker=open_parker("simulated", simulated_dir=Path(at)),
            device=device,
            start=lambda: Kernel(sys.executable, SIMULATED, environment),
            bus=None,
        )


def plan(bench: Bench, kernels: int, times: float) -> int:
    """Return how much each kernel is to hold, its CUDA context included.

    Less than was asked for where the host's RAM has no room for all of them.

    Raises:
        TroubleError: one kernel would not fit on the GPU, or hardly anything in RAM.
    """
    sample = bench.sample()
    each = round(sample.memory_total_bytes * times / kernels)
    if each > sample.memory_free_bytes - _MARGIN_BYTES:
        raise TroubleError(
            f"{format_size(each)} for each kernel do not fit on the GPU, which has "
            f"{format_size(sample.memory_free_bytes)} free: take more --kernels, and "
            "a GPU that nobody else uses."
        )
    # The kernels are in the cgroup of this process.
    room = bench.parker.room(id_of(os.getpid()))
    reason = why_no_room(each * kernels, room, _KEEP_FREE_BYTES)
    if not reason:
        return each
    if room.available_bytes is None or room.problem:
        raise TroubleError(reason)
    most = room.available_bytes - _KEEP_FREE_BYTES
    if room.limit_room_bytes is not None:
        most = min(most, room.limit_room_bytes)
    if most // kernels < _SMALLEST_BYTES:
        raise TroubleError(reason)
    print(f"{reason} So each kernel holds less.")
    return most // kernels


def play(bench: Bench, kernels: int, times: float, rounds: int) -> list[Turn]:
    """Have the kernels hold the GPU's memory in turn, and print each turn.

    Raises:
        TroubleError: memory did not go, or did not come back as it was.
    """
    each = plan(bench, kernels, times)
    device = bench.device
    together = each * kernels / device.memory_bytes
    print(
        f"{kernels} kernels of {format_size(each)}: together {together:.2f} times the "
        "GPU's memory.",
        flush=True,
    )
    context = estimated_context_bytes(device.memory_bytes) if bench.bus else 0
    turns = []
    with contextlib.ExitStack() as stack:
        parked: list[tuple[Kernel, int, float]] = []
        for seed in range(kernels):
            kernel = stack.enter_context(bench.start())
            kernel.do("hold", size_bytes=each - context)
            kernel.do("fill", with_seed=seed)
            parked.append((kernel, *_park(bench, kernel)))
        for number in range(rounds * kernels):
            kernel, memory_bytes, park_seconds = parked[number % kernels]
            turn = Turn(
                memory_bytes=memory_bytes,
                park_seconds=park_seconds,
                return_seconds=_bring_back(bench, kernel, memory_bytes),
            )
            if kernel.do("verify") is not True:
                raise TroubleError(f"Kernel {kernel.pid} came back with other content.")
            turns.append(turn)
            print(f"  {number + 1:3}  {_say(turn, bench.bus)}, intact", flush=True)
            # Other content than before: an old copy would not pass for it.
            kernel.do("fill", with_seed=kernels + number)
            parked[number % kernels] = (kernel, *_park(bench, kernel))
    return turns


def _park(bench: Bench, kernel: Kernel) -> tuple[int, float]:
    """Park a kernel; return what it held and the seconds."""
    memory_bytes = bench.held_bytes(kernel.pid)
    if not memory_bytes:
        raise TroubleError(f"Kernel {kernel.pid} holds nothing on the GPU.")
    begin = time.perf_counter()
    bench.parker.park(id_of(kernel.pid), memory_bytes)
    seconds = time.perf_counter() - begin
    end = time.monotonic() + _GONE_WITHIN_SECONDS
    while left := bench.held_bytes(kernel.pid):
        if time.monotonic() > end:
            raise TroubleError(
                f"Kernel {kernel.pid} is parked, but holds {format_size(left)} still."
            )
        time.sleep(0.1)
    return memory_bytes, seconds


def _bring_back(bench: Bench, kernel: Kernel, memory_bytes: int) -> float:
    """Bring a kernel back; return the seconds."""
    free_bytes = bench.sample().memory_free_bytes
    if free_bytes < memory_bytes + _MARGIN_BYTES:
        raise TroubleError(
            f"{format_size(free_bytes)} are free on the GPU, too little for kernel "
            f"{kernel.pid} to come back: does somebody else use it?"
        )
    begin = time.perf_counter()
    bench.parker.unpark(id_of(kernel.pid), memory_bytes)
    seconds = time.perf_counter() - begin
    state = bench.parker.state(id_of(kernel.pid))
    if state is not ParkState.RUNNING:
        raise TroubleError(f"Kernel {kernel.pid} was brought back, but is {state}.")
    return seconds


def _say(turn: Turn, bus: tuple[float, float] | None) -> str:
    text = (
        f"{format_size(turn.memory_bytes)} parked in {turn.park_seconds:.2f} s, back "
        f"in {turn.return_seconds:.2f} s"
    )
    if bus is None:
        return text
    park, back = turn.against(bus)
    return f"{text} ({park:.2f} and {back:.2f} times the bus)"


def _sum_up(turns: list[Turn], bus: tuple[float, float] | None) -> str:
    lines = [f"All memory was intact after {len(turns)} returns."]
    if bus is None:
        lines.append("Simulated: the seconds say nothing of a real GPU.")
        return "\n".join(lines)
    ratios = list(zip(*(turn.against(bus) for turn in turns), strict=True))
    for what, values in zip(("To park", "To return"), ratios, strict=True):
        lines.append(
            f"{what}: {statistics.median(values):.2f} times the same bytes over the "
            f"bus ({min(values):.2f} to {max(values):.2f} of {len(values)})"
        )
    return "\n".join(lines)


def id_of(pid: int) -> ProcessId:
    """Return the identity of a process."""
    facts = read_process(pid, with_details=False)
    if facts is None:
        raise TroubleError(f"Process {pid} has ended.")
    return ProcessId(pid=pid, started=facts.started)


@click.command()
@click.option("--kernels", type=click.IntRange(2), default=6, show_default=True)
@click.option(
    "--times",
    type=click.FloatRange(0.1),
    default=3.0,
    show_default=True,
    help="What all hold together, in GPUs.",
)
@click.option("--rounds", type=click.IntRange(1), default=2, show_default=True)
@click.option("--gpu", default="0", show_default=True, help="Its index.")
@click.option("--python", default=sys.executable, help="One that has PyTorch.")
@click.option("--simulated", "simulate", is_flag=True, help="Try it without a GPU.")
def main(
    kernels: int, times: float, rounds: int, gpu: str, python: str, simulate: bool
) -> None:
    """Let kernels hold more than the GPU's memory in turn, and compare every byte."""
    try:
        with simulated() if simulate else real(gpu, python) as bench:
            device = bench.device
            print(
                f"GPU {device.label}, {device.name}: {format_size(device.memory_bytes)}"
            )
            if bench.bus is not None:
                down, up = (rate / 1e9 for rate in bench.bus)
                print(f"Bus: {down:.1f} GB/s to the host, {up:.1f} GB/s from it.")
            print(_sum_up(play(bench, kernels, times, rounds), bench.bus))
    except (TroubleError, KernelError, GpuWorkshopError) as error:
        print(f"{error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
