"""Calls attendees' servers: which kernels they have, restart one, stop one.

The only code that does so, directly and never through the proxy, with each server's
own token, and without a trace in its activity (facts/jupyterhub.md 34, 35). A server
runs as its attendee: whatever it answers is hostile until it fits, and what it is
sent is good nowhere else. One that does not answer as it should is unknown.
"""

import asyncio
import json
import re
import socket
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.netutil import DefaultLoopResolver, is_valid_ip

from jupyterhub_gpuworkshop.core.errors import ServerError
from jupyterhub_gpuworkshop.core.leases import Key
from jupyterhub_gpuworkshop.core.snapshot import KernelState
from jupyterhub_gpuworkshop.core.wire import ServerInfo

_MAX_BODY_BYTES = 512 * 1024
_MAX_KERNELS = 200
_MAX_TEXT = 300
_CONCURRENCY = 200
_SESSIONS_EVERY_SECONDS = 60.0
_RESTART_TIMEOUT_SECONDS = 75.0
"""A server waits for a kernel to end (5 s) and for the new one to answer (60 s)."""

_KERNEL_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TIME = re.compile(r"[0-9TZ:.+-]{1,40}")
_STATES = {
    "idle": KernelState.IDLE,
    "busy": KernelState.BUSY,
    "starting": KernelState.STARTING,
    "restarting": KernelState.STARTING,
    "autorestarting": KernelState.STARTING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelInfo:
    """What a server says of one kernel.

    Attributes:
        kernel_id: the Jupyter kernel id.
        state: what it does.
        last_activity: in the server's own words.
        connections: open websockets; None where it does not say.
    """

    kernel_id: str
    state: KernelState
    last_activity: str
    connections: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server says of its kernels.

    Attributes:
        kernels: by kernel id; None where the server is unknown.
        notebooks: the notebook's path by kernel id, as last heard.
        problem: why it is unknown, in a sentence; else empty.
    """

    kernels: Mapping[str, KernelInfo] | None = None
    notebooks: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


@dataclass(slots=True)
class _Names:
    """The notebooks of one server, and when to ask for them again."""

    notebooks: dict[str, str] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()
    asks: int = 0
    asked_at: float = float("-inf")


class _Resolver(DefaultLoopResolver):
    """Takes addresses as they are, so that a name server that hangs hurts names only.

    The loop's own way goes through a few threads that all servers would share.
    """

    async def resolve(
        self,
        host: str,
        port: int,
        family: socket.AddressFamily = socket.AF_UNSPEC,
    ) -> list[tuple[int, Any]]:
        """Return the family and address to connect to."""
        if not is_valid_ip(host):
            return await super().resolve(host, port, family)
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=flags)
        return [(info[0], info[4]) for info in found]


class Servers:
    """Every attendee's server, as far as it answers.

    Args:
        timeout_seconds: how long one call may take.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._client = AsyncHTTPClient(
            force_instance=True,
            max_clients=2 * _CONCURRENCY,
            max_body_size=_MAX_BODY_BYTES,
            max_buffer_size=2 * _MAX_BODY_BYTES,
            resolver=_Resolver(),
        )
        self._turns = asyncio.Semaphore(_CONCURRENCY)
        self._names: dict[str, _Names] = {}

    def close(self) -> None:
        """Let go of what the client holds."""
        self._client.close()

    async def poll(self, servers: tuple[ServerInfo, ...]) -> dict[Key, Answer]:
        """Ask all servers for their kernels, at once."""
        running = {server.lease_id for server in servers}
        self._names = {k: v for k, v in self._names.items() if k in running}
        answers = await asyncio.gather(*(self._ask(server) for server in servers))
        return {
            (server.user, server.server): answer
            for server, answer in zip(servers, answers, strict=True)
        }

    async def kernel(self, server: ServerInfo, kernel_id: str) -> KernelInfo:
        """Read one kernel again.

        Raises:
            ServerError: the server, or the kernel, is unknown.
        """
        kernel = _read_kernel(await self._get(server, f"api/kernels/{kernel_id}"))
        if kernel.kernel_id != kernel_id:
            raise ServerError("it answers for another kernel than was asked for")
        return kernel

    async def restart(self, server: ServerInfo, kernel_id: str) -> None:
        """Restart a kernel: the id stays, its variables go.

        Raises:
            ServerError: the server refused, or does not answer.
        """
        await self._fetch(
            server,
            f"api/kernels/{kernel_id}/restart",
            method="POST",
            timeout_seconds=_RESTART_TIMEOUT_SECONDS,
        )

    async def stop(self, server: ServerInfo, kernel_id: str) -> None:
        """Stop a kernel.

        Raises:
            ServerError: the server refused, or does not answer.
        """
        await self._fetch(
            server,
            f"api/kernels/{kernel_id}",
            method="DELETE",
            timeout_seconds=_RESTART_TIMEOUT_SECONDS,
        )

    async def _ask(self, server: ServerInfo) -> Answer:
        names = self._names.setdefault(server.lease_id, _Names())
        try:
            kernels = _read_kernels(await self._get(server, "api/kernels"))
        except ServerError as error:
            return Answer(notebooks=names.notebooks, problem=str(error))
        if self._names_are_due(names, frozenset(kernels)):
            try:
                sessions = await self._get(server, "api/sessions")
                names.notebooks = _read_notebooks(sessions)
            except ServerError:
                pass  # a name is missing: nothing hangs on it
        return Answer(kernels=kernels, notebooks=names.notebooks)

    @staticmethod
    def _names_are_due(names: _Names, kernels: frozenset[str]) -> bool:
        """Say whether to ask for sessions: for a new kernel, and now and then.

        A session is there a moment after its kernel: ask twice for a new one.
        """
        if kernels - names.seen:
            names.asks = 2
        names.seen = kernels
        now = time.monotonic()
        if not kernels or (
            names.asks == 0 and now - names.asked_at < _SESSIONS_EVERY_SECONDS
        ):
            return False
        names.asks = max(0, names.asks - 1)
        names.asked_at = now
        return True

    async def _get(self, server: ServerInfo, path: str) -> Any:
        body = await self._fetch(
            server, path, method="GET", timeout_seconds=self._timeout_seconds
        )
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise ServerError("its answer is no JSON") from None

    async def _fetch(
        self, server: ServerInfo, path: str, *, method: str, timeout_seconds: float
    ) -> bytes:
        request = HTTPRequest(
            f"{server.url}{path}?no_track_activity=1",
            method=method,
            headers={
                "Authorization": f"token {server.token}",
                "Accept": "application/json",
                "User-Agent": "jupyterhub-gpuworkshop",
            },
            body=b"" if method == "POST" else None,
            connect_timeout=min(timeout_seconds, self._timeout_seconds),
            request_timeout=timeout_seconds,
            follow_redirects=False,
            decompress_response=False,
        )
        # A restart may take long, and nobody's poll may wait for it; nor may it wait
        # for them, for what was read right before would be old. The reaper counts them.
        async with self._turns if method == "GET" else nullcontext():
            try:
                response = await self._client.fetch(request, raise_error=False)
            except Exception as error:
                # Whatever nonsense comes back, and however the client takes it.
                what = _cut(str(error) or type(error).__name__)
                raise ServerError(f"it does not answer ({what})") from None
        if not 200 <= response.code < 300:
            raise ServerError(f"it answers with status {response.code}")
        return response.body or b""


def _read_kernels(answer: Any) -> dict[str, KernelInfo]:
    """Read the answer of api/kernels: all of it fits, or nothing counts."""
    if not isinstance(answer, list) or len(answer) > _MAX_KERNELS:
        raise ServerError("its answer is no list of kernels")
    kernels = [_read_kernel(item) for item in answer]
    by_id = {kernel.kernel_id: kernel for kernel in kernels}
    if len(by_id) != len(kernels):
        raise ServerError("it lists one kernel twice")
    return by_id


def _read_kernel(item: Any) -> KernelInfo:
    if not isinstance(item, dict):
        raise ServerError("its answer is no kernel")
    kernel_id, state = item.get("id"), item.get("execution_state")
    last_activity, connections = item.get("last_activity"), item.get("connections")
    if not (
        isinstance(kernel_id, str)
        and _KERNEL_ID.fullmatch(kernel_id)
        and isinstance(state, str)
        and isinstance(last_activity, str)
        and _TIME.fullmatch(last_activity)
    ):
        raise ServerError("its answer is no kernel")
    is_count = type(connections) is int and 0 <= connections <= 1_000_000
    return KernelInfo(
        kernel_id=kernel_id,
        state=_STATES.get(state, KernelState.UNKNOWN),
        last_activity=last_activity,
        connections=connections if is_count else None,
    )


def _read_notebooks(answer: Any) -> dict[str, str]:
    """Read the answer of api/sessions, as far as it fits."""
    notebooks: dict[str, str] = {}
    for item in answer[:_MAX_KERNELS] if isinstance(answer, list) else ():
        kernel = item.get("kernel") if isinstance(item, dict) else None
        kernel_id = kernel.get("id") if isinstance(kernel, dict) else None
        path = item.get("path") if isinstance(item, dict) else None
        if isinstance(kernel_id, str) and _KERNEL_ID.fullmatch(kernel_id):
            notebooks[kernel_id] = _cut(path) if isinstance(path, str) else ""
    return notebooks


def _cut(text: str) -> str:
    """Make text of an attendee's fit for a page and a log."""
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_TEXT])
