"""The hub's API, as far as a service asks it who somebody is, or to stop a server."""

import asyncio

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

READ = "custom:gpuworkshop:read"
TOKENS = {
    "ada-token": {"name": "ada", "kind": "user", "scopes": [READ]},
    "bob-token": {"name": "bob", "kind": "user", "scopes": [READ]},
    "admin-token": {"name": "root", "kind": "user", "scopes": ["admin-ui", READ]},
    "organiser-token": {
        "name": "olga",
        "kind": "user",
        "scopes": ["custom:gpuworkshop:admin"],
    },
    "service-token": {
        "name": "robots",
        "kind": "service",
        "scopes": ["custom:gpuworkshop:admin"],
    },
    "reading-service-token": {"name": "ada", "kind": "service", "scopes": [READ]},
    "stranger-token": {"name": "eve", "kind": "user", "scopes": ["self"]},
}


class StubHub:
    """Listens on loopback.

    Attributes:
        broken: it answers with errors.
        stopped: paths of the servers it was asked to stop, as they came.
        stopping: the status and body it answers that with.
    """

    def __init__(self):
        self.broken = False
        self.stopped = []
        self.stopping = (204, b"")
        socket, self.port = bind_unused_port("127.0.0.1")
        application = Application(
            [
                ("/hub/api/user", _User, {"hub": self}),
                ("/hub/api/oauth2/token", _Token, {"hub": self}),
                ("/hub/api/users/.+", _Server, {"hub": self}),
            ]
        )
        self.http = HTTPServer(application)
        self.http.add_sockets([socket])

    async def stop(self):
        """Listen no more."""
        self.http.stop()
        await self.http.close_all_connections()


class _User(RequestHandler):
    def initialize(self, hub):
        self.hub = hub

    def get(self):
        token = self.request.headers["Authorization"].split()[1]
        if self.hub.broken:
            self.send_error(500)
        elif token in TOKENS:
            self.finish({"admin": False, "groups": [], **TOKENS[token]})
        else:
            self.send_error(403)


class _Token(RequestHandler):
    def initialize(self, hub):
        self.hub = hub

    def post(self):
        """Trade a code for a token, as OAuth has it."""
        self.finish({"access_token": self.get_body_argument("code")})


class _Server(RequestHandler):
    def initialize(self, hub):
        self.hub = hub

    async def delete(self):
        assert self.request.headers["Authorization"] == "token service-token"
        assert self.request.body == b""
        self.hub.stopped.append(self.request.path)
        status, body = self.hub.stopping
        if body is asyncio.sleep:
            await asyncio.sleep(3600)
        self.set_status(status)
        if status == 302:
            self.set_header("Location", "/hub/api/users/bob/server")
        self.finish(body or None)
