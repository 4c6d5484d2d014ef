"""A viewer whose socket nobody reads: real sockets, counted in bytes and messages."""

import asyncio
import json
import socket
from dataclasses import replace

import pytest
from jupyterhub.services.auth import HubOAuth
from tornado.httpclient import HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application
from tornado.websocket import websocket_connect

from jupyterhub_gpuworkshop.service.dashboard.live import LiveHandler
from tests.service.stub_hub import StubHub

from .big_room import BigRoom, picture
from .live_site import Viewer

_SMALL_BYTES = 4096
_HANDSHAKE = (
    "GET /live?view=organiser HTTP/1.1\r\nHost: hub\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Authorization: token organiser-token\r\n\r\n"
)


class Served(BigRoom):
    """A big room behind a real server."""

    async def serve(self, hub_port):
        """Listen."""
        await self.history.open()
        HubOAuth.clear_instance()
        auth = HubOAuth.instance(
            api_token="own",
            api_url=f"http://127.0.0.1:{hub_port}/hub/api",
            base_url="/",
            oauth_client_id="service-gpuworkshop",
        )
        given = {"auth": auth, "feed": self.feed}
        listening, self.port = bind_unused_port("127.0.0.1")
        self.server = HTTPServer(
            Application([("/live", LiveHandler, given)], cookie_secret="x")
        )
        self.server.add_sockets([listening])

    async def close(self):
        """Listen no more."""
        await super().close()
        self.server.stop()
        await self.server.close_all_connections()
        HubOAuth.clear_instance()

    async def busy_tick(self, number):
        """Let a second pass in which everybody's kernels do something."""
        snapshot = self.monitor.snapshot
        kernels = tuple(replace(x, memory_bytes=number) for x in snapshot.kernels)
        self.see(replace(snapshot, kernels=kernels))
        await self.tick()


@pytest.fixture
async def room():
    hub = StubHub()
    made = Served(picture(attendees=20, devices=2))
    await made.serve(hub.port)
    yield made
    await made.close()
    await hub.stop()


async def open_unread(room):
    """Open a socket that takes little, and read no further than its handshake."""
    unread = socket.socket()
    unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BYTES)
    unread.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(unread, ("127.0.0.1", room.port))
    await loop.sock_sendall(unread, _HANDSHAKE.encode())
    assert await loop.sock_recv(unread, 12) == b"HTTP/1.1 101"
    (seat,) = room.feed._seats
    stream = seat.outlet.ws_connection.stream
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL_BYTES)
    return unread, stream


async def read_all(unread):
    """Return the messages that lie in a socket, in their order."""
    reader, writer = await asyncio.open_connection(sock=unread)
    await reader.readuntil(b"\r\n\r\n")
    try:
        while True:
            _, length = await reader.readexactly(2)
            if length == 126:
                length = int.from_bytes(await reader.readexactly(2), "big")
            elif length == 127:
                length = int.from_bytes(await reader.readexactly(8), "big")
            yield json.loads(await reader.readexactly(length))
    finally:
        writer.close()
        await writer.wait_closed()


async def test_who_does_not_read_costs_no_memory_and_nobody_elses_time(room):
    unread, stream = await open_unread(room)
    request = HTTPRequest(
        f"ws://127.0.0.1:{room.port}/live?view=organiser",
        headers={"Authorization": "token admin-token"},
    )
    other = Viewer(await websocket_connect(request))
    full = len((await other.first(), max(other.texts, key=len))[1])
    waiting = []
    for number in range(1, 51):
        await room.busy_tick(number)
        await other.until("tick")
        waiting.append(len(stream._write_buffer))
    assert len(other.texts) == 4 + 50 * 2
    # From some point on nothing more was handed to it, and that is one picture.
    assert waiting[-1] == waiting[30] > 0
    assert max(waiting) < full + 10_000

    versions, caught_up = [], None
    async for message in read_all(unread):
        if message["type"] == "room":
            versions.append(message["version"])
            caught_up = message
        if not stream.writing():
            # All that lay in it is read: the next second brings what is current.
            await room.tick()
            if caught_up["kernels"].popitem()[1]["memory_bytes"] == 50:
                break
    assert versions == sorted(versions)
    assert len(versions) < 50
    assert caught_up["base"] is None
    other.socket.close()
    await other.end()


async def test_who_reads_nothing_for_a_minute_is_cut_off(room):
    unread, stream = await open_unread(room)
    for number in range(1, 200):
        await room.busy_tick(number)
        if not room.feed.viewers:
            break
    assert room.feed.viewers == 0
    assert not room.feed._taken
    stream.close()
    unread.close()
