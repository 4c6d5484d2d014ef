"""One sample with all that is made of it: who uses which GPU, explained.

Against gpustat and nvitop, which name processes and explain none. All read the same
double of the driver, whose calls cost next to nothing: what is compared is the work of
the programs, not that of the driver. CPU time, not wall time.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.machine import nvml_double

from .report import Row, paired
from .samplers import is_installed
from .seats import GPU_BYTES, Room, seated

_AIM = 0.2
_MOST_LINES = 8192
_TIMES_DEVICES = 8
_END_SECONDS = 30.0
_UTILISATION_SAMPLES = 25
"""The driver keeps five a second, and five seconds lie between two of our samples."""

_OTHERS = {
    "gpustat": "gpustat",
    "nvitop": "nvitop's take_snapshots()",
    "nvitop-least": "nvitop, only what ours reads of a device",
}


def run(
    folder: Path,
    *,
    turns: int = 20,
    devices: int = 8,
    holders: int = 200,
    attendees: int = 100,
    times: int = 10,
) -> Iterator[Row]:
    """Compare.

    Args:
        folder: where the double is built.
        turns: pairs of turns for each row.
        devices: how many there are.
        holders: processes that hold memory.
        attendees: each with a server and a kernel.
        times: how many times as many holders and attendees the second room has, with
            up to eight times the devices; 1 leaves it out.
    """
    library = build_double(folder)
    small: list[Row] = []
    for row in _compare(folder, library, turns, devices, holders, attendees):
        small.append(row)
        yield row
    if times == 1:
        return
    devices *= min(times, _TIMES_DEVICES)
    large: list[Row] = []
    for row in _compare(
        folder, library, turns, devices, times * holders, times * attendees
    ):
        large.append(row)
        yield row
    for before, after in zip(small, large, strict=True):
        what = f"{times} times the holders"
        if before is small[0]:
            yield Row(what=f"ours, {what} / before", ours=after.ours, bare=before.ours)
        yield Row(
            what=f"{before.what.partition(' / ')[2]}, {what} / before",
            ours=after.bare,
            bare=before.bare,
        )


def build_double(folder: Path) -> Path:
    """Build the driver's double into a folder of its own; return the library."""
    at = folder / "driver"
    at.mkdir()
    flags = ("-O2", "-DSTEADY", f"-DMOST={_MOST_LINES}")
    return nvml_double.build(at, *flags, source="nvml_double_more.c")


def play(folder: Path, library: Path, room: Room) -> nvml_double.Scenario:
    """Let the double say what a room holds."""
    scenario = nvml_double.Scenario(folder, library)
    lines = [
        f"gpu {uuid} {number} {GPU_BYTES} {2**29} {GPU_BYTES // 2} 40 0"
        for number, uuid in enumerate(room.uuids)
    ]
    for uuid in room.uuids:
        lines += [f"busy {uuid} 1 40"] * _UTILISATION_SAMPLES
    for number, (uuid, holder) in enumerate(room.holders()):
        lines.append(f"process {uuid} {holder.pid} {2**30 + number} compute")
        if number % 2:
            lines.append(f"working {uuid} {holder.pid} 1 20")
    scenario.say(*lines)
    return scenario


class Sampler:
    """A program that takes a sample when it is told; a context manager ends it.

    Args:
        name: one of `samplers.SAMPLERS`.
        room: the file that the room is written to.
        scenario: what the driver says.
        count_calls: let the driver note every call, which costs time.
    """

    def __init__(
        self,
        name: str,
        room: Path,
        scenario: nvml_double.Scenario,
        *,
        count_calls: bool = False,
    ) -> None:
        self._name = name
        environment = os.environ | scenario.environment
        if not count_calls:
            del environment["NVML_DOUBLE_CALLS"]
        command = [sys.executable, "-m", "benchmarks.samplers", name, str(room)]
        self._process = subprocess.Popen(  # noqa: S603  # this Python, our own module
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )

    def __enter__(self) -> "Sampler":
        try:
            self._answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_END_SECONDS)
            finally:
                process.kill()

    def cpu_seconds(self, holders: int) -> float:
        """Take one sample, and return what it cost.

        Raises:
            AssertionError: it does not tell of so many processes.
        """
        assert self._process.stdin is not None
        self._process.stdin.write("sample\n")
        self._process.stdin.flush()
        answer = self._answer()
        if answer["holders"] != holders:
            raise AssertionError(
                f"{self._name} tells of {answer['holders']:.0f} processes, "
                f"not of {holders}"
            )
        return answer["cpu_seconds"]

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"{self._name} has ended; see above for why")
        answer: dict[str, float] = json.loads(line)
        return answer


def _compare(
    folder: Path, library: Path, turns: int, devices: int, holders: int, attendees: int
) -> Iterator[Row]:
    with seated(attendees, holders) as seats, contextlib.ExitStack() as stack:
        room = Room.of(seats, devices)
        file = folder / "room.json"
        room.write(file)
        start = partial(Sampler, room=file, scenario=play(folder, library, room))
        ours = stack.enter_context(start("ours"))
        for name, what in _OTHERS.items():
            if not is_installed(name):
                print(f"  {name} is not there: pip install -e '.[bench]'", flush=True)
                continue
            with start(name) as other:
                times = paired(
                    partial(ours.cpu_seconds, holders),
                    partial(other.cpu_seconds, holders),
                    turns,
                )
            yield Row(
                what=f"{devices} GPUs, {holders} holders, ours / {what}",
                ours=times[0],
                bare=times[1],
                aim=_AIM if name == "nvitop" else None,
            )
