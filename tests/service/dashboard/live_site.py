"""The live feed behind a real server, around a simulated world; and its viewers."""

import asyncio
import json
import re
from dataclasses import replace

from jupyterhub.services.auth import HubOAuth
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.websocket import websocket_connect

from jupyterhub_gpuworkshop.service.dashboard.feed import Feed
from jupyterhub_gpuworkshop.service.dashboard.messages import Messages
from jupyterhub_gpuworkshop.service.pulse import Pulses
from jupyterhub_gpuworkshop.service.web.routes import web_application
from tests.service.service_process import PREFIX
from tests.service.site import SERVICE, parts_of

_PATIENCE_SECONDS = 30.0
HOLD = 'held.append(simcuda.allocate("2GiB"))'


class LiveSite:
    """The service's web side with one kernel of ada's, and nothing that goes on alone.

    Attributes:
        now: the feed's own clock, monotonic seconds.
    """

    def __init__(self, world, hub):
        self.world, self.hub, self.now = world, hub, 1000.0
        HubOAuth.clear_instance()
        HubOAuth.instance(
            api_token="the-services-own",
            api_url=f"http://127.0.0.1:{hub.port}/hub/api",
            base_url=PREFIX,
            oauth_client_id="service-gpuworkshop",
        )
        self.pulses = Pulses(world.gpus)
        self.messages = Messages(world.monitor, self.pulses, world.history, world.rules)
        self.feed = Feed(
            self.messages, world.monitor, self.pulses, clock=lambda: self.now
        )
        application = web_application(SERVICE, parts_of(world, feed=self.feed))
        socket, self.port = bind_unused_port("127.0.0.1")
        self.host = f"127.0.0.1:{self.port}"
        self.server = HTTPServer(application, xheaders=True)
        self.server.add_sockets([socket])
        self.client = AsyncHTTPClient(force_instance=True)
        self.viewers = []

    async def open(self):
        """Have something to show."""
        self.kernel_id = self.world.attendee.start_kernel()
        self.world.attendee.sessions.append(
            {"path": "<b>thesis</b>.ipynb", "kernel": {"id": self.kernel_id}}
        )
        self.world.attendee.kernels[self.kernel_id].run(HOLD)
        bobs = self.world.lease("bob", device=1)
        report = self.world.report
        self.world.report = replace(report, leases=(*report.leases, bobs))
        await self.world.look()
        await self.pulses.step()
        return self

    async def ask(self, path, headers=()):
        """Return the answer to a plain request."""
        return await self.client.fetch(
            f"http://{self.host}{PREFIX}{path}",
            headers=dict(headers),
            raise_error=False,
            follow_redirects=False,
        )

    async def cookies(self, token):
        """Return the headers of a browser with this login, and its XSRF token."""
        asked = await self.ask("work")
        state = re.search(r"[?&]state=([^&]+)", asked.headers["Location"])[1]
        cookie = asked.headers["Set-Cookie"].split(";")[0]
        back = await self.ask(
            f"oauth_callback?code={token}&state={state}", {"Cookie": cookie}
        )
        kept = {}
        for line in back.headers.get_list("Set-Cookie"):
            name, _, value = line.split(";")[0].partition("=")
            if value.strip('"'):
                kept[name] = value
        cookies = {name: kept[name] for name in ("service-gpuworkshop", "_xsrf")}
        text = "; ".join(f"{name}={value}" for name, value in cookies.items())
        return {"Cookie": text, "Origin": f"http://{self.host}"}, kept["_xsrf"]

    async def connect(self, query, token="", headers=()):
        """Return a viewer.

        Raises:
            HTTPClientError: the handshake is refused.
        """
        given = {"Sec-Fetch-Mode": "websocket", **dict(headers)}
        if token:
            given["Authorization"] = f"token {token}"
        request = HTTPRequest(f"ws://{self.host}{PREFIX}live{query}", headers=given)
        viewer = Viewer(await websocket_connect(request))
        self.viewers.append(viewer)
        return viewer

    async def pulse(self):
        """Let a second pass."""
        await self.pulses.step()

    async def close(self):
        """Listen no more."""
        await self.feed.close()
        for viewer in self.viewers:
            viewer.socket.close()
            await viewer.end()
        await self.pulses.close()
        self.client.close()
        self.server.stop()
        await self.server.close_all_connections()
        HubOAuth.clear_instance()


class Viewer:
    """The client's end of a websocket."""

    def __init__(self, socket):
        self.socket = socket
        self.texts = []
        self.is_closed = False

    async def next(self):
        """Return the next message; None where the socket is closed."""
        text = None
        if not self.is_closed:
            # What does not come fails the test, and does not hold it up for ever.
            message = self.socket.read_message()
            text = await asyncio.wait_for(message, _PATIENCE_SECONDS)
        if text is None:
            self.is_closed = True
            return None
        self.texts.append(text)
        return json.loads(text)

    async def until(self, kind):
        """Return the next message of this type."""
        while (message := await self.next()) is not None:
            if message["type"] == kind:
                return message
        raise AssertionError(f"closed: {self.socket.close_code}")

    async def first(self):
        """Return what comes until the first readings, by type."""
        found = {}
        while "tick" not in found:
            message = await self.next()
            assert message is not None, self.socket.close_code
            found[message["type"]] = message
        return found

    async def end(self):
        """Read on until it is closed; return the code and what was said last."""
        last = None
        while (message := await self.next()) is not None:
            last = message
        return self.socket.close_code, last
