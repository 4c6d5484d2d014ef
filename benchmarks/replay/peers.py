"""What others do about idle kernels and servers, on the same trace.

Owns two peers, with their usual settings and the timeout that ours has while memory is
needed: jupyter_server's own culling of kernels, with and without those that a page is
connected to, and jupyterhub-idle-culler, which stops whole servers. Both are the real
code; kernels, clock and hub are stand-ins.
"""

import asyncio
import contextlib
import datetime
import importlib
import json
import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

from jupyter_server.services.kernels import kernelmanager

from .edges import EPOCH_SECONDS
from .living import LiveKernel, LiveServer
from .room import Room

idle_culler: Any
try:
    idle_culler = importlib.import_module("jupyterhub_idle_culler")
except ImportError:
    idle_culler = None

_LOG = logging.getLogger(__name__)
_LOG.setLevel(logging.CRITICAL)
HOW_TO_INSTALL = "pip install jupyterhub-idle-culler"


def _moment(at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(EPOCH_SECONDS + at, tz=datetime.timezone.utc)


class _Clock:
    """Stands where the peers ask for the time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> datetime.datetime:
        return _moment(self.now)


class _CulledKernel:
    """A kernel as jupyter_server's culling looks at it."""

    kernel_name = "python3"
    kernel_spec = SimpleNamespace(metadata={})

    def __init__(self, kernel: LiveKernel, clock: _Clock) -> None:
        self._kernel = kernel
        self._clock = clock

    @property
    def last_activity(self) -> datetime.datetime:
        """When its server last saw it active."""
        return _moment(self._kernel.last_activity(self._clock.now))

    @property
    def execution_state(self) -> str:
        """What it does."""
        return "busy" if self._kernel.is_busy(self._clock.now) else "idle"


class _KernelManager(kernelmanager.AsyncMappingKernelManager):
    """One server's kernels; culling is inherited."""

    def watch(self, server: LiveServer, room: Room, clock: _Clock) -> None:
        """Take the kernels of a server that exist now, with their connections."""
        self._room, self._clock = room, clock
        self._kernels = {
            k.kernel.id: _CulledKernel(k, clock)
            for k in server.kernels
            if k.exists(clock.now)
        }
        shown = int(server.is_shown(clock.now))
        self._kernel_connections = dict.fromkeys(self._kernels, shown)

    async def shutdown_kernel(self, kernel_id: str, *args: Any, **more: Any) -> None:
        """End a kernel of the room."""
        self._room.take(kernel_id, self._clock.now, is_gone=True)


def cull_kernels(room: Room, timeout_seconds: float, *, connected: bool) -> None:
    """Let jupyter_server cull kernels until the workshop is over.

    Args:
        room: whose.
        timeout_seconds: its `cull_idle_timeout`.
        connected: its `cull_connected`.
    """
    clock = _Clock()
    managers = {}
    for server in room.servers:
        manager = managers[server.number] = _KernelManager()
        manager.log = _LOG
        manager.cull_idle_timeout = int(timeout_seconds)
        manager.cull_connected = connected
    every = kernelmanager.MappingKernelManager.cull_interval_default
    due = [(s.attendee.begin + every, s.number) for s in room.servers]
    turns = sorted(
        (at + every * turn, number)
        for at, number in due
        for turn in range(int(room.workshop.seconds / every) + 1)
    )
    with mock.patch.object(kernelmanager, "utcnow", clock):
        asyncio.run(_cull_in_turn(room, clock, managers, turns))


async def _cull_in_turn(
    room: Room,
    clock: _Clock,
    managers: dict[int, _KernelManager],
    turns: list[tuple[float, int]],
) -> None:
    for at, number in turns:
        if at >= room.workshop.seconds:
            return
        clock.now = at
        room.advance(at)
        manager = managers[number]
        manager.watch(room.servers[number], room, clock)
        await manager.cull_kernels()


class _Hub:
    """Stands where the idle culler calls the hub's API."""

    room: Room
    clock: _Clock

    def __init__(self, *args: Any, **settings: Any) -> None:
        """Take what an AsyncHTTPClient takes."""

    @classmethod
    def configure(cls, *args: Any, **settings: Any) -> None:
        """Take what an AsyncHTTPClient takes."""

    async def fetch(self, request: Any) -> Any:
        """Answer as the hub does: its version, its users, and a server's end."""
        at = self.clock.now
        if request.method == "DELETE":
            name = request.url.split("/")[-2]
            for server in self.room.servers:
                if server.attendee.name == name:
                    self.room.stop_server(server, at)
            return SimpleNamespace(code=204, body=b"")
        if "/users" not in request.url:
            return SimpleNamespace(code=200, body=b'{"version": "6.1.1"}')
        users = [_user_model(server, at) for server in self.room.running(at)]
        page = {"items": users, "_pagination": {"next": None}}
        return SimpleNamespace(code=200, body=json.dumps(page).encode())


def _user_model(server: LiveServer, at: float) -> dict[str, Any]:
    name = server.attendee.name
    model = {
        "name": "",
        "ready": True,
        "pending": None,
        "url": f"/user/{name}/",
        "started": _moment(server.main.born).isoformat(),
        "last_activity": _moment(server.last_activity(at)).isoformat(),
    }
    return {"name": name, "admin": False, "servers": {"": model}}


def cull_servers(room: Room, timeout_seconds: float) -> None:
    """Let jupyterhub-idle-culler stop servers until the workshop is over.

    Args:
        room: whose.
        timeout_seconds: its `timeout`; it looks twice in that time.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    if idle_culler is None:
        raise ModuleNotFoundError(HOW_TO_INSTALL)
    clock, every = _Clock(), timeout_seconds / 2
    hub = type("Hub", (_Hub,), {"room": room, "clock": clock})
    with (
        mock.patch.object(idle_culler, "utcnow", clock),
        mock.patch.object(idle_culler, "AsyncHTTPClient", hub),
    ):
        for turn in range(1, int(room.workshop.seconds / every) + 1):
            clock.now = turn * every
            room.advance(clock.now)
            asyncio.run(
                idle_culler.cull_idle("http://hub/api", "token", timeout_seconds, _LOG)
            )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let nobody log: a replay reclaims thousands of times."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
