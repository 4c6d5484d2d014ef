"""One pass of attribution: read the processes, explain every holder.

Against one bare pass over /proc that reads the stat of every process and makes
nothing of it. What runs is what the service's monitor runs.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from jupyterhub_gpuworkshop.core.attribution import Attribution, attribute
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, HolderKind, ProcessUse
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.service.host import Host, Processes

from .report import Row, paired, seconds
from .seats import GPU_BYTES, Room, Seat, seated


def run(
    folder: Path,
    *,
    turns: int = 40,
    devices: int = 8,
    holders: int = 200,
    attendees: int = 100,
) -> Iterator[Row]:
    """Compare.

    Args:
        folder: not used: nothing is written.
        turns: pairs of turns for each row.
        devices: how many there are.
        holders: processes that hold memory: kernels and what runs below them.
        attendees: each with a server and a kernel.
    """
    with (
        seated(attendees, holders) as seats,
        contextlib.closing(asyncio.new_event_loop()) as loop,
    ):
        passes = Pass(seats, devices, loop)
        explained = passes.whole()
        kinds = [holder.kind for holder in explained.holders]
        if kinds != [HolderKind.KERNEL] * holders:
            raise AssertionError(f"not every holder is a kernel's: {set(kinds)}")
        size = f"{devices} devices, {holders} holders, {attendees} attendees"
        ours, bare = paired(
            lambda: seconds(passes.whole), lambda: seconds(read_every_stat), turns
        )
        yield Row(what=f"attribution, {size} / bare pass", ours=ours, bare=bare)
        ours, bare = paired(
            lambda: seconds(passes.explain), lambda: seconds(read_every_stat), turns
        )
        yield Row(what="of that, explaining / bare pass", ours=ours, bare=bare)


def read_every_stat() -> None:
    """Make one bare pass over /proc."""
    with os.scandir("/proc") as entries:
        for entry in entries:
            if not entry.name.isdigit():
                continue
            try:
                descriptor = os.open(f"/proc/{entry.name}/stat", os.O_RDONLY)
            except OSError:
                continue
            with contextlib.suppress(OSError):  # it has ended since
                os.read(descriptor, 4096)
            os.close(descriptor)


class Pass:
    """What a round of the monitor does with processes and holders.

    Args:
        seats: the processes.
        devices: how many devices the seats are spread over.
        loop: that the service's reads run on.
    """

    def __init__(
        self, seats: tuple[Seat, ...], devices: int, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._loop = loop
        self._host = Host()
        room = Room.of(seats, devices)
        self._servers = room.servers()
        self._leases = room.leases()
        self._listed = room.listed()
        uses: dict[str, list[ProcessUse]] = {uuid: [] for uuid in room.uuids}
        for uuid, holder in room.holders():
            uses[uuid].append(ProcessUse(pid=holder.pid, memory_bytes=GIB))
        self._samples = tuple(
            DeviceSample(
                uuid=uuid,
                memory_total_bytes=GPU_BYTES,
                memory_used_bytes=0,
                memory_free_bytes=GPU_BYTES,
                processes=tuple(found),
            )
            for uuid, found in uses.items()
        )
        self._facts = self._read()
        self._before = Attribution()

    def whole(self) -> Attribution:
        """Read the processes and explain the holders."""
        self._facts = self._read()
        return self.explain()

    def explain(self) -> Attribution:
        """Explain the holders by what was read last."""
        self._before = attribute(
            self._samples,
            self._facts.facts,
            self._servers,
            self._leases,
            self._listed,
            self._before.owners,
        )
        return self._before

    def _read(self) -> Processes:
        return self._loop.run_until_complete(
            self._host.processes(self._samples, self._servers)
        )
