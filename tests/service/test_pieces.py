"""Large answers to who reads them, and to who does not: real sockets, in bytes."""

import asyncio
import socket

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from jupyterhub_gpuworkshop.service.web import pieces
from jupyterhub_gpuworkshop.service.web.pieces import finish_in_pieces

BODY = bytes(range(256)) * 8 * 1024
_SMALL_BYTES = 4096
_READERS = 5


class Large(RequestHandler):
    def initialize(self, begun):
        self.begun = begun

    async def get(self):
        stream = self.request.connection.stream
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL_BYTES)
        self.begun.append(stream)
        await finish_in_pieces(self, BODY)


class Site:
    """A server of one large answer."""

    def __init__(self):
        self.begun = []
        listening, self.port = bind_unused_port("127.0.0.1")
        self.server = HTTPServer(Application([("/", Large, {"begun": self.begun})]))
        self.server.add_sockets([listening])

    async def ask_and_read_nothing(self):
        """Return the socket of somebody who asks and does no more."""
        unread = socket.socket()
        unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BYTES)
        unread.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(unread, ("127.0.0.1", self.port))
        await loop.sock_sendall(unread, b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n")
        assert await loop.sock_recv(unread, 12) == b"HTTP/1.1 200"
        return unread

    async def close(self):
        self.server.stop()
        await self.server.close_all_connections()


@pytest.fixture
async def site():
    made = Site()
    yield made
    await made.close()


async def read(site):
    client = AsyncHTTPClient(force_instance=True)
    try:
        return await client.fetch(f"http://127.0.0.1:{site.port}/")
    finally:
        client.close()


async def test_who_reads_gets_all_of_it(site):
    answer = await read(site)
    assert answer.body == BODY
    assert answer.headers["Content-Length"] == str(len(BODY))


async def test_who_reads_nothing_costs_one_piece_each(site):
    unread = [await site.ask_and_read_nothing() for _ in range(_READERS)]
    assert (await read(site)).body == BODY
    waiting = [len(stream._write_buffer) for stream in site.begun[:_READERS]]
    assert 0 < max(waiting) < 128 * 1024
    for each in unread:
        each.close()


async def test_who_reads_nothing_for_long_is_cut_off(site, monkeypatch):
    monkeypatch.setattr(pieces, "_STALL_SECONDS", 0.01)
    unread = await site.ask_and_read_nothing()
    (stream,) = site.begun
    closed = asyncio.Event()
    stream.set_close_callback(closed.set)
    await asyncio.wait_for(closed.wait(), 30)
    unread.close()
