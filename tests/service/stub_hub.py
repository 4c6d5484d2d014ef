"""The hub's API, as far as a service asks it who somebody is."""

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

READ = "custom:gpuworkshop:read"
TOKENS = {
    "ada-token": {"name": "ada", "kind": "user", "scopes": [READ]},
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
    """Listens on loopback; `broken` makes it answer with errors."""

    def __init__(self):
        self.broken = False
        socket, self.port = bind_unused_port("127.0.0.1")
        application = Application(
            [
                ("/hub/api/user", _User, {"hub": self}),
                ("/hub/api/oauth2/token", _Token, {"hub": self}),
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
