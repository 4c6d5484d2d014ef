"""What attendees feel of being looked at: requests, and time under the driver's lock.

Counts, and no times: the requests that an attendee's server answers, from the
service's own client to a server that counts them, while minutes pass on a clock of
ours; and how often each program makes the driver list processes, which holds its lock.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from tornado import web
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from jupyterhub_gpuworkshop.core.wire import Report, ServerInfo
from jupyterhub_gpuworkshop.service.kept import ParkedKernel
from jupyterhub_gpuworkshop.service.link import Link
from jupyterhub_gpuworkshop.service.parking.listening import Listening
from jupyterhub_gpuworkshop.service.servers import Servers

from .samplers import is_installed
from .sampling import Sampler, build_double, play
from .seats import Room, seated

_MINUTES = 10
_INTERVAL_SECONDS = 5
_COUNTED_SAMPLES = 3
_LAST_ACTIVITY = "2026-01-01T00:00:00.000000Z"
_KERNEL_ID = "00000000-0000-4000-8000-{:012d}"

_A_MINUTE = {
    "ours": ("ours, every 5 s", 12),
    "gpustat": ("gpustat -i, every second", 60),
    "nvitop": ("nvitop, every 2 s", 30),
}
"""Samples a minute, as each program is by default."""

_MS_EACH = {
    "one H200 (0.05 ms each)": 0.05,
    "as in MangoHud#2104 (4.5 ms each)": 4.5,
}
"""What one listing holds the driver's lock for: 0.04 to 0.06 ms on an H200 with driver
580, and what was reported of another GPU."""


def run(folder: Path, *, devices: int = 8, holders: int = 200) -> Iterator[str]:
    """Count.

    Args:
        folder: where the double is built.
        devices: how many there are.
        holders: processes that hold memory.
    """
    for what, new_kernels in (("one kernel that stays", 0), ("a new kernel", 1)):
        counted = asyncio.run(_requests(new_kernels))
        total = sum(counted.values()) / _MINUTES
        each = ", ".join(f"{k} {n / _MINUTES:g}" for k, n in sorted(counted.items()))
        when = " every minute" if new_kernels else ""
        yield f"requests per server and minute, {what}{when}: {total:.1f}  ({each})"
    parked = asyncio.run(_requests_while_parked())
    yield (
        "requests per server and minute, beside these while a kernel of it is parked: "
        f"{parked}"
    )
    yield from _listings(folder, devices, holders)


class _Counting(web.RequestHandler):
    """An attendee's server, as far as the service asks it anything."""

    def initialize(self, counted: Counter[str], kernels: list[str]) -> None:
        """Take what all requests share."""
        self._counted, self._kernels = counted, kernels

    def get(self, path: str) -> None:
        """Count a request, and answer it."""
        self._counted[path] += 1
        models = [
            {
                "id": kernel_id,
                "name": "python3",
                "execution_state": "idle",
                "last_activity": _LAST_ACTIVITY,
                "connections": 1,
            }
            for kernel_id in self._kernels
        ]
        if path == "api/sessions":
            models = [{"path": "a.ipynb", "kernel": model} for model in models]
        self.set_header("Content-Type", "application/json")
        self.write(json.dumps(models))


async def _requests(new_kernels: int) -> Counter[str]:
    """Return what some minutes bring, by path; those after the first, which has more.

    Args:
        new_kernels: how many start each minute.
    """
    kernels = [_KERNEL_ID.format(0)]
    now = 0.0
    async with _counting(kernels, lambda: now) as (counted, servers, server):
        for minute in range(_MINUTES + 1):
            if minute == 1:
                counted.clear()
            kernels += [_KERNEL_ID.format(len(kernels))] * new_kernels
            for _ in range(0, 60, _INTERVAL_SECONDS):
                (answer,) = (await servers.poll((server,))).values()
                if answer.problem:
                    raise AssertionError(answer.problem)
                now += _INTERVAL_SECONDS
    return counted


async def _requests_while_parked() -> int:
    """Return what listening to the owner of a parked kernel brings in a minute."""
    now = 0.0
    kernels = [_KERNEL_ID.format(0)]
    async with _counting(kernels, lambda: now) as (counted, servers, server):
        link = Link(5.0, lambda: now)
        record = ParkedKernel(
            lease_id=server.lease_id,
            user=server.user,
            server="",
            kernel_id=kernels[0],
            processes=(),
            boot_id="",
            memory_bytes={},
            parked_at=0.0,
            last_activity=_LAST_ACTIVITY,
        )
        listening = Listening(servers, link, clock=lambda: now)
        # The notebook's name is asked for by the first look, parked or not.
        await servers.poll((server,))
        await servers.poll((server,))
        counted.clear()
        for second in range(60):
            link.hear(Report(hub_id="hub", sent_at=now, servers=(server,)))
            if back := await listening.step((record,)):
                raise AssertionError(f"somebody came back after {second} s: {back}")
            now += 1.0
        await listening.close()
    return counted.total()


@asynccontextmanager
async def _counting(
    kernels: list[str], clock: Callable[[], float]
) -> AsyncIterator[tuple[Counter[str], Servers, ServerInfo]]:
    """Run a server that counts what it is asked, by path."""
    counted: Counter[str] = Counter()
    shared = {"counted": counted, "kernels": kernels}
    stub = HTTPServer(web.Application([(r"/(.*)", _Counting, shared)]))
    socket, port = bind_unused_port()
    stub.add_socket(socket)
    servers = Servers(timeout_seconds=5.0, clock=clock)
    server = ServerInfo(
        lease_id="lease",
        user="attendee",
        server="",
        url=f"http://127.0.0.1:{port}/",
        token="token",  # noqa: S106  # nobody asks for it
    )
    try:
        yield counted, servers, server
    finally:
        servers.close()
        stub.stop()
        await stub.close_all_connections()


def _listings(folder: Path, devices: int, holders: int) -> Iterator[str]:
    """Say how often each program has the driver list processes, and for how long."""
    library = build_double(folder)
    with seated(max(1, holders // 2), holders) as seats:
        room = Room.of(seats, devices)
        file = folder / "room.json"
        room.write(file)
        scenario = play(folder, library, room)
        listed = partial(_count_listings, file=scenario.calls_path)
        for name, (what, a_minute) in _A_MINUTE.items():
            if not is_installed(name):
                print(f"  {name} is not there: pip install -e '.[bench]'", flush=True)
                continue
            with Sampler(name, file, scenario, count_calls=True) as sampler:
                before = listed()
                for _ in range(_COUNTED_SAMPLES):
                    sampler.cpu_seconds(holders)
                calls = (listed() - before) * a_minute / _COUNTED_SAMPLES
            locked = "; ".join(
                f"{ms * calls:.0f} ms, {on}" for on, ms in _MS_EACH.items()
            )
            yield (
                f"calls a minute that list processes, {devices} GPUs, {what}: "
                f"{calls:.0f}  (under the driver's lock: {locked})"
            )


def _count_listings(file: Path) -> int:
    return file.read_text().count("RunningProcesses")
