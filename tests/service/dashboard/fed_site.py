"""The web side with a feed that a test writes, and a browser that looks at it.

Pages, scripts and plots are the service's own; what comes over the websocket, the past
and the answers to what is asked for are the test's.
"""

import asyncio
import contextlib
import json
import logging
from types import SimpleNamespace

from jupyterhub.services.auth import HubOAuth
from playwright.async_api import expect
from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback
from tornado.testing import bind_unused_port
from tornado.web import Application, FallbackHandler, RequestHandler
from tornado.websocket import WebSocketHandler

from jupyterhub_gpuworkshop.service.web.routes import web_application
from jupyterhub_gpuworkshop.workshop import Workshop
from tests.service.service_process import PREFIX
from tests.service.site import SERVICE, no_parts
from tests.service.stub_hub import StubHub

# A machine that does much else takes its time.
expect.set_options(timeout=30_000)

# Before any script of the page: what its policy refused, and what it threw.
WATCH = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.refused.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


class FedSite:
    """The service's web side around the test's own feed.

    Attributes:
        first: messages that a new viewer gets.
        asked: what was asked for, as (method, path below api/v1, body).
        answers: what is answered, by (method, path): (status, message).
        past: what `api/v1/usage` answers; None for a failure.
        pasts: how often it was asked for, by span.
        viewers: who listens now.
    """

    def __init__(self, hub, **parts):
        HubOAuth.clear_instance()
        HubOAuth.instance(
            api_token="the-services-own",
            api_url=f"http://127.0.0.1:{hub.port}/hub/api",
            base_url=PREFIX,
            oauth_client_id="service-gpuworkshop",
        )
        self.viewers = []
        self.forget()
        workshop = Workshop.load({})
        service = SimpleNamespace(
            **{**vars(SERVICE), "log": logging.getLogger("test.fed")}
        )
        real = web_application(
            service, no_parts(rules=SimpleNamespace(workshop=workshop), **parts)
        )
        own = {"site": self}
        application = Application(
            [
                (f"{PREFIX}live", _Live, own),
                (f"{PREFIX}api/v1/usage", _Usage, own),
                (f"{PREFIX}api/v1/(.*)", _Api, own),
                (r"/hub/logo", _Logo),
                (r".*", FallbackHandler, {"fallback": real}),
            ],
            log_function=lambda handler: None,
        )
        socket, self.port = bind_unused_port("127.0.0.1")
        self.address = f"http://127.0.0.1:{self.port}"
        self.server = HTTPServer(application)
        self.server.add_sockets([socket])
        # A page that hears nothing for long takes the line for dead.
        self.beat = PeriodicCallback(lambda: self.tell({"type": "still"}), 2000)
        self.beat.start()

    def forget(self):
        """Begin anew, as a test does."""
        self.first, self.asked, self.answers = [], [], {}
        self.past, self.pasts = None, []

    def tell(self, *messages):
        """Send messages to all who listen."""
        for message in messages:
            for viewer in self.viewers:
                viewer.write_message(json.dumps(message))

    def hang_up(self, code=1001):
        """Close the websockets."""
        for viewer in list(self.viewers):
            viewer.close(code)

    async def close(self):
        """Listen no more."""
        self.beat.stop()
        self.hang_up()
        self.server.stop()
        await self.server.close_all_connections()
        HubOAuth.clear_instance()


class _Live(WebSocketHandler):
    def initialize(self, site):
        self.site = site

    def open(self):
        self.site.viewers.append(self)
        for message in self.site.first:
            self.write_message(json.dumps(message))

    def on_message(self, message):
        """Hear that a page of ours asks; whether it does is for the tests of `live`."""

    def on_close(self):
        if self in self.site.viewers:
            self.site.viewers.remove(self)


class _Usage(RequestHandler):
    def initialize(self, site):
        self.site = site

    def get(self):
        self.site.pasts.append(self.get_argument("span"))
        if self.site.past is None:
            self.send_error(500)
        else:
            self.finish(json.dumps(self.site.past))


class _Api(RequestHandler):
    def initialize(self, site):
        self.site = site

    def _answer(self, path):
        body = json.loads(self.request.body) if self.request.body else None
        assert self.request.headers["X-XSRFToken"]
        method = self.request.method
        query = f"?{self.request.query}" if self.request.query else ""
        self.site.asked.append((method, path + query, body))
        status, message = self.site.answers.get((method, path), (202, "It is done."))
        self.set_status(status)
        self.finish({"message": message})

    def check_xsrf_cookie(self):
        """Whether a token is right is for the tests of the service's own API."""

    post = delete = _answer


class _Logo(RequestHandler):
    def get(self):
        self.set_header("Content-Type", "image/svg+xml")
        self.finish(
            '<svg xmlns="http://www.w3.org/2000/svg" width="88" height="28">'
            '<rect width="88" height="28" rx="4" fill="#f37524"/></svg>'
        )


class Watched:
    """A page, and everything that went wrong in it."""

    def __init__(self, page):
        self.page = page
        self.wrong = []
        page.on("pageerror", lambda error: self.wrong.append(f"threw {error}"))
        page.on("console", self._hear)

    def _hear(self, message):
        if message.type == "error":
            self.wrong.append(f"said {message.text}")

    async def all_well(self):
        """Return what went wrong, of any kind; empty for nothing."""
        return [*self.wrong, *await self.page.evaluate("window.refused")]


async def signed_in(browser, name):
    """Return a browser's context in which somebody is logged in."""
    made = await browser.new_context(
        extra_http_headers={"Authorization": f"token {name}-token"}
    )
    await made.add_init_script(WATCH)
    return made


@contextlib.asynccontextmanager
async def fed_site():
    """Return a site and its hub, for as long as they are needed."""
    hub = StubHub()
    site = FedSite(hub)
    try:
        yield site, hub
    finally:
        await site.close()
        await hub.stop()


async def look(context, site, *, path="", width=1280, height=800, scheme="light"):
    """Open a page; return it, watched."""
    watched = Watched(await context.new_page())
    await watched.page.set_viewport_size({"width": width, "height": height})
    await watched.page.emulate_media(color_scheme=scheme)
    await watched.page.goto(f"{site.address}{PREFIX}{path}")
    return watched


async def comes_true(page, expression, seconds=30):
    """Wait until an expression holds; the page's policy allows playwright no eval."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await page.evaluate(expression):
        assert asyncio.get_running_loop().time() < deadline, expression
        await asyncio.sleep(0.02)


async def until(condition, seconds=20):
    """Wait until something holds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.02)
