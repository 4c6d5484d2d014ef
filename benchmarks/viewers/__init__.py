"""What it costs to be looked at: viewers who see the devices once a second.

Our service's pages against a Bokeh server's sessions and jupyterlab-nvdashboard's
server extension, each as one process that many look at from another one, through no
proxy, over one double of the driver.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks import machine
from benchmarks.report import Row
from benchmarks.sampling import build_double, play
from benchmarks.seats import Room, seated

from . import sides
from .sides import Served

_AIM_PERCENT = 5.0
_AIM_RATIO = 1 / 3
_SETTLE_SECONDS = 5.0
_MIB = 2**20

_NAMES = {
    "ours": "ours",
    "bokeh": "Bokeh server sessions",
    "nvdashboard": "jupyterlab-nvdashboard",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one side took in one turn.

    Attributes:
        alone: the share of a core of its process while nobody looks.
        with_all: the same while everybody does.
        helpers: that of the processes that work for it, meanwhile.
        opening_seconds: CPU of the process for each viewer who came.
        alone_bytes: its memory (PSS) before, without those of its helpers.
        with_all_bytes: the same while everybody looks.
        seen: what the viewers tell.
    """

    alone: float
    with_all: float
    helpers: float
    opening_seconds: float
    alone_bytes: int
    with_all_bytes: int
    seen: dict[str, float]

    @property
    def added(self) -> float:
        """What all viewers add, in shares of a core."""
        return self.with_all - self.alone

    @property
    def tick_seconds(self) -> float:
        """The CPU time of one tick to all; a side that is late sends fewer of them."""
        return self.added / self.seen["ticks_per_second"]


def run(
    folder: Path,
    *,
    turns: int = 3,
    viewers: int = 200,
    seconds: float = 30.0,
    devices: int = 8,
    attendees: int = 40,
) -> Iterator[Row | str]:
    """Compare.

    Args:
        folder: where the double is built and everything is written.
        turns: how often each side is started, in turn.
        viewers: how many look.
        seconds: for how long each is measured, without viewers and with them.
        devices: how many there are.
        attendees: with a server and a kernel each, that our service looks after.
    """
    library = build_double(folder)
    with seated(attendees, attendees) as seats:
        room = Room.of(seats, devices)
        file = folder / "room.json"
        room.write(file)
        driver = dict(play(folder, library, room).environment)
        # Noting every call costs time.
        del driver["NVML_DOUBLE_CALLS"]
        starts = sides.starts(file, driver)
        if "nvdashboard" not in starts:
            print(
                "  jupyterlab-nvdashboard is not there: pip install -e '.[bench]'",
                flush=True,
            )
        found: dict[str, list[Turn]] = {name: [] for name in starts}
        for turn in range(turns):
            for name in list(starts)[:: -1 if turn % 2 else 1]:
                at = folder / f"{name}-{turn}"
                at.mkdir()
                counts = [str(x) for x in (viewers, devices, attendees)]
                with starts[name](at) as served:
                    found[name].append(_measure(name, served, seconds, counts))
    for name, those in found.items():
        yield from _tell(name, those, viewers)
    for name in list(found)[1:]:
        yield Row(
            what=f"a tick of one viewer, ours / {_NAMES[name]}",
            ours=tuple(x.tick_seconds / viewers for x in found["ours"]),
            bare=tuple(x.tick_seconds / viewers for x in found[name]),
            aim=round(_AIM_RATIO, 3),
        )


def _measure(name: str, served: Served, seconds: float, counts: list[str]) -> Turn:
    """Take a turn: nobody looks, all come, all look."""
    time.sleep(min(_SETTLE_SECONDS, seconds))
    with _Shares(served) as alone:
        time.sleep(seconds)
    alone_bytes = _bytes(served)
    command = ["-m", "benchmarks.viewers.clients", name, served.address, *counts]
    with sides.talking(command) as clients:
        before = machine.cpu_seconds(served.pid)
        sides.ask(clients, "0")
        opening_seconds = machine.cpu_seconds(served.pid) - before
        time.sleep(min(_SETTLE_SECONDS, seconds))
        with _Shares(served) as looked_at:
            seen = sides.ask(clients, str(seconds))
        with_all_bytes = _bytes(served)
    return Turn(
        alone=alone.own,
        with_all=looked_at.own,
        helpers=looked_at.helpers,
        opening_seconds=opening_seconds / int(counts[0]),
        alone_bytes=alone_bytes,
        with_all_bytes=with_all_bytes,
        seen=seen,
    )


class _Shares:
    """The shares of a core that a program and its helpers take within a block.

    Attributes:
        own: of its process.
        helpers: of those that work for it, as far as they live all the while.
    """

    def __init__(self, served: Served) -> None:
        self._pids = [served.pid, *served.helpers]

    def __enter__(self) -> "_Shares":
        self._begin = time.monotonic(), [machine.cpu_seconds(x) for x in self._pids]
        return self

    def __exit__(self, *error: object) -> None:
        begin, before = self._begin
        passed = time.monotonic() - begin
        shares = [
            (machine.cpu_seconds(pid) - then) / passed
            for pid, then in zip(self._pids, before, strict=True)
            if psutil.pid_exists(pid)
        ]
        self.own, self.helpers = shares[0], sum(shares[1:])


def _bytes(served: Served) -> int:
    return int(psutil.Process(served.pid).memory_full_info().pss)


def _tell(name: str, turns: list[Turn], viewers: int) -> Iterator[str]:
    """Say what one side took, in the median of its turns."""

    def middle(of: Callable[[Turn], float]) -> float:
        return statistics.median(of(turn) for turn in turns)

    added = [100 * turn.added for turn in turns]
    with_all = 100 * middle(lambda turn: turn.with_all)
    alone = 100 * middle(lambda turn: turn.alone)
    helpers = 100 * middle(lambda turn: turn.helpers)
    outcome = ""
    if name == "ours":
        met = "met" if with_all <= _AIM_PERCENT else "missed"
        outcome = f"  aim: at most {_AIM_PERCENT:g} % with them, {met}"
    yield (
        f"{_NAMES[name]}, {viewers} viewers: "
        f"{statistics.median(added):.1f} % of a core "
        f"({min(added):.1f} to {max(added):.1f}, {len(turns)} turns): "
        f"{with_all:.1f} % with them, {alone:.1f} % without; "
        f"its children {helpers:.1f} %{outcome}"
    )
    opening = 1000 * middle(lambda turn: turn.opening_seconds)
    before = middle(lambda turn: turn.alone_bytes) / _MIB
    after = middle(lambda turn: turn.with_all_bytes) / _MIB
    seen = {key: middle(lambda turn, key=key: turn.seen[key]) for key in turns[0].seen}
    yield (
        f"  a viewer: {opening:.1f} ms of CPU to come, "
        f"{1024 * (after - before) / viewers:.0f} KiB "
        f"(PSS {before:.0f} MiB without them, {after:.0f} MiB with), "
        f"{seen['bytes_per_second'] / 1000:.2f} kB/s"
    )
    yield (
        f"  {seen['ticks_per_second']:.3f} ticks a second; 99 of 100 came within "
        f"{1000 * seen['delay_seconds']:.0f} ms of their reading "
        f"(all within {1000 * seen['longest_delay_seconds']:.0f} ms), and within "
        f"{seen['gap_seconds']:.2f} s of the one before "
        f"({seen['longest_gap_seconds']:.2f} s); the viewers' own process "
        f"{100 * seen['cpu']:.0f} %"
    )
