"""Calls attendees' servers: which kernels they have, restart one, stop one.

The only code that does so, directly and never through the proxy, with each server's
own token, and without a trace in its activity (facts/jupyterhub.md 34, 35). A server
runs as its attendee: whatever it answers is hostile until it fits, and what it is
sent is good nowhere else. One that does not answer as it should is unknown.
"""

import asyncio
import json
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.netutil import DefaultLoopResolver, is_valid_ip

from jupyterhub_gpuworkshop.core.errors import ServerError
from jupyterhub_gpuworkshop.core.leases import Key
from jupyterhub_gpuworkshop.core.wire import ServerInfo

from .server_answers import (
    Answer,
    KernelInfo,
    ServerStatus,
    cut,
    read_kernel,
    read_kernels,
    read_notebooks,
    read_status,
    read_terminals,
)

__all__ = ["Answer", "KernelInfo", "Resolver", "ServerStatus", "Servers", "headers_for"]

_MAX_BODY_BYTES = 512 * 1024
_CONCURRENCY = 200
_SESSIONS_EVERY_SECONDS = 60.0
_RESTART_TIMEOUT_SECONDS = 75.0
"""A server waits for a kernel to end (5 s) and for the new one to answer (60 s)."""


@dataclass(slots=True)
class _Names:
    """The notebooks of one server, and when to ask for them again."""

    notebooks: dict[str, str] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()
    asks: int = 0
    asked_at: float = float("-inf")


class Resolver(DefaultLoopResolver):
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
        clock: monotonic seconds.
    """

    def __init__(
        self, timeout_seconds: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._client = AsyncHTTPClient(
            force_instance=True,
            max_clients=2 * _CONCURRENCY,
            max_body_size=_MAX_BODY_BYTES,
            max_buffer_size=2 * _MAX_BODY_BYTES,
            resolver=Resolver(),
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
        answers = await asyncio.gather(*(self.ask(server) for server in servers))
        return {
            (server.user, server.server): answer
            for server, answer in zip(servers, answers, strict=True)
        }

    async def ask(self, server: ServerInfo) -> Answer:
        """Ask one server for its kernels."""
        names = self._names.setdefault(server.lease_id, _Names())
        try:
            kernels = read_kernels(await self._get(server, "api/kernels"))
        except ServerError as error:
            return Answer(notebooks=names.notebooks, problem=str(error))
        if self._names_are_due(names, frozenset(kernels)):
            try:
                sessions = await self._get(server, "api/sessions")
                names.notebooks = read_notebooks(sessions)
            except ServerError:
                pass  # a name is missing: nothing hangs on it
        return Answer(kernels=kernels, notebooks=names.notebooks)

    async def kernel(self, server: ServerInfo, kernel_id: str) -> KernelInfo:
        """Read one kernel again.

        Raises:
            ServerError: the server, or the kernel, is unknown.
        """
        kernel = read_kernel(await self._get(server, f"api/kernels/{kernel_id}"))
        if kernel.kernel_id != kernel_id:
            raise ServerError("it answers for another kernel than was asked for")
        return kernel

    async def restart(self, server: ServerInfo, kernel_id: str) -> None:
        """Restart a kernel: the id stays, its variables go.

        Raises:
            ServerError: the server refused, or does not answer.
        """
        await self._act(server, f"api/kernels/{kernel_id}/restart", "POST")

    async def stop(self, server: ServerInfo, kernel_id: str) -> None:
        """Stop a kernel.

        Raises:
            ServerError: the server refused, or does not answer.
        """
        await self._act(server, f"api/kernels/{kernel_id}", "DELETE")

    async def status(self, server: ServerInfo) -> ServerStatus:
        """Read what a server says of itself, its terminals included.

        Raises:
            ServerError: it is unknown.
        """
        said = await self._get(server, "api/status")
        return read_status(said, await self._count_terminals(server))

    async def _count_terminals(self, server: ServerInfo) -> int | None:
        """Count a server's terminals; None where it is unknown."""
        try:
            response = await self._call(server, "api/terminals", "GET")
            if response.code == 404:
                return 0  # it has no terminals
            return read_terminals(_read_json(_body_of(response)))
        except ServerError:
            return None

    def _names_are_due(self, names: _Names, kernels: frozenset[str]) -> bool:
        """Say whether to ask for sessions: for a new kernel, and now and then.

        A session is there a moment after its kernel: ask twice for a new one.
        """
        if kernels - names.seen:
            names.asks = 2
        names.seen = kernels
        now = self._clock()
        if not kernels or (
            names.asks == 0 and now - names.asked_at < _SESSIONS_EVERY_SECONDS
        ):
            return False
        names.asks = max(0, names.asks - 1)
        names.asked_at = now
        return True

    async def _get(self, server: ServerInfo, path: str) -> Any:
        return _read_json(_body_of(await self._call(server, path, "GET")))

    async def _act(self, server: ServerInfo, path: str, method: str) -> None:
        _body_of(await self._call(server, path, method, _RESTART_TIMEOUT_SECONDS))

    async def _call(
        self,
        server: ServerInfo,
        path: str,
        method: str,
        timeout_seconds: float | None = None,
    ) -> HTTPResponse:
        """Call a server; whatever status it answers with is returned."""
        request = HTTPRequest(
            f"{server.url}{path}?no_track_activity=1",
            method=method,
            headers=headers_for(server),
            body=b"" if method == "POST" else None,
            connect_timeout=self._timeout_seconds,
            request_timeout=timeout_seconds or self._timeout_seconds,
            follow_redirects=False,
            decompress_response=False,
        )
        # A restart may take long, and nobody's poll may wait for it; nor may it wait
        # for them, for what was read right before would be old. The reaper counts them.
        async with self._turns if method == "GET" else nullcontext():
            try:
                return await self._client.fetch(request, raise_error=False)
            except Exception as error:
                # Whatever nonsense comes back, and however the client takes it.
                what = cut(str(error) or type(error).__name__)
                raise ServerError(f"it does not answer ({what})") from None


def headers_for(server: ServerInfo) -> dict[str, str]:
    """Return what a call to a server says of us: nothing that is good elsewhere."""
    return {
        "Authorization": f"token {server.token}",
        "Accept": "application/json",
        "User-Agent": "jupyterhub-gpuworkshop",
    }


def _body_of(response: HTTPResponse) -> bytes:
    if not 200 <= response.code < 300:
        raise ServerError(f"it answers with status {response.code}")
    return response.body or b""


def _read_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ServerError("its answer is no JSON") from None
