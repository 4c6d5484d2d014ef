"""A room of attendees whose servers and kernels are real processes that only wait."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from jupyterhub_gpuworkshop.core.leases import Key, Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.snapshot import ProcessFacts
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import ServerInfo
from jupyterhub_gpuworkshop.machine.processes import is_alive, read_process

_END_SECONDS = 10.0
GPU_BYTES = 80 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """The processes of one attendee.

    Attributes:
        server: the server's.
        kernel_id: of its one kernel.
        holders: the kernel's main process, and what runs below it.
    """

    server: ProcessFacts
    kernel_id: str
    holders: tuple[ProcessFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Attendees and the devices that they share: seat after seat takes the next one.

    Attributes:
        seats: the processes.
        uuids: of the devices.
    """

    seats: tuple[Seat, ...]
    uuids: tuple[str, ...]

    @classmethod
    def of(cls, seats: tuple[Seat, ...], devices: int) -> "Room":
        """Return a room with so many devices."""
        uuids = tuple(f"GPU-{number:02x}" for number in range(devices))
        return cls(seats=seats, uuids=uuids)

    @classmethod
    def read(cls, path: Path) -> "Room":
        """Read what another process has written."""
        return _ROOM.validate_json(path.read_bytes())

    def write(self, path: Path) -> None:
        """Write it for another process."""
        path.write_bytes(_ROOM.dump_json(self))

    def device_of(self, number: int) -> str:
        """Return the device of a seat."""
        return self.uuids[number % len(self.uuids)]

    def servers(self) -> tuple[ServerInfo, ...]:
        """Return the servers as the hub reports them."""
        return tuple(
            ServerInfo(
                lease_id=f"lease{number}",
                user=f"attendee{number:03d}",
                server="",
                url="http://127.0.0.1/",
                token="",
                pid=seat.server.pid,
                started=seat.server.started,
            )
            for number, seat in enumerate(self.seats)
        )

    def leases(self) -> tuple[Lease, ...]:
        """Return the servers' leases."""
        return tuple(
            _lease(number, self.device_of(number)) for number in range(len(self.seats))
        )

    def listed(self) -> Mapping[Key, frozenset[str]]:
        """Return the kernels that each server lists."""
        return {
            (server.user, server.server): frozenset([seat.kernel_id])
            for server, seat in zip(self.servers(), self.seats, strict=True)
        }

    def holders(self) -> Iterator[tuple[str, ProcessFacts]]:
        """Return every holder with its device."""
        for number, seat in enumerate(self.seats):
            for holder in seat.holders:
                yield self.device_of(number), holder


_ROOM = TypeAdapter(Room)


def _lease(number: int, uuid: str) -> Lease:
    return Lease(
        id=f"lease{number}",
        user=f"attendee{number:03d}",
        server="",
        share="1/20",
        devices=(
            LeasedDevice(
                uuid=uuid, label=uuid, memory_bytes=4 * GIB, total_bytes=GPU_BYTES
            ),
        ),
        granted_at=0.0,
    )


@contextlib.contextmanager
def seated(attendees: int, holders: int) -> Iterator[tuple[Seat, ...]]:
    """Start a server with a kernel for each attendee; end them all afterwards.

    Args:
        attendees: how many.
        holders: how many processes the kernels have together, workers included.
    """
    script = str(Path(__file__).with_name("process_tree.py"))
    command = [sys.executable, "-S", "-E", script, str(attendees), str(holders)]
    tree = subprocess.Popen(  # noqa: S603  # our own script
        command, stdout=subprocess.PIPE, start_new_session=True
    )
    facts: dict[int, ProcessFacts] = {}
    try:
        assert tree.stdout is not None
        lines = [json.loads(tree.stdout.readline()) for _ in range(attendees + holders)]
        for line in lines:
            found = read_process(line["pid"])
            assert found is not None, "a process of the room has ended"
            facts[found.pid] = found
        yield tuple(
            Seat(
                server=facts[server["pid"]],
                kernel_id=server["kernel_id"],
                holders=tuple(
                    facts[line["pid"]]
                    for line in lines
                    if line["role"] == "holder" and line["seat"] == server["seat"]
                ),
            )
            for server in lines
            if server["role"] == "server"
        )
    finally:
        tree.kill()
        tree.communicate()
        end = time.monotonic() + _END_SECONDS
        while any(is_alive(x.pid, x.started) for x in facts.values()):
            if time.monotonic() > end:
                raise AssertionError("a process of the room does not end")
            time.sleep(0.01)
