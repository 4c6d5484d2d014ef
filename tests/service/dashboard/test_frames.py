"""What goes over a viewer's socket, as a client reads it."""

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application
from tornado.websocket import WebSocketHandler, websocket_connect

from jupyterhub_gpuworkshop.service.dashboard.live import LiveHandler


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, 200_000])
async def test_a_message_of_any_size_arrives_whole_and_later_ones_behind_it(size):
    text = ("ü" * (size // 2)).ljust(size - size // 2, "x")
    assert len(text.encode()) == size
    sent, sockets = [], []

    class Says(WebSocketHandler):
        def open(self):
            sockets.append(self)
            LiveHandler.send(self, text.encode(), lambda: sent.append("first"))
            LiveHandler.send(self, b"next")
            self.write_message("tornado's own")

    listening, port = bind_unused_port("127.0.0.1")
    server = HTTPServer(Application([("/", Says)]))
    server.add_sockets([listening])
    url = f"ws://127.0.0.1:{port}/"
    viewer = await websocket_connect(url, max_message_size=2**20)
    heard = [await viewer.read_message() for _ in range(3)]
    assert heard == [text, "next", "tornado's own"]
    assert sent == ["first"]
    viewer.close()
    assert await viewer.read_message() is None
    LiveHandler.send(sockets[0], b"too late", lambda: sent.append("too late"))
    assert sent == ["first"]
    server.stop()
    await server.close_all_connections()
