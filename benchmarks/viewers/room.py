"""`python -m benchmarks.viewers.room ROOM LINK SECRET`: what is around our service.

A process of its own. It is the hub, says who somebody is and reports the servers; and
it is the attendees' servers, whose kernels are busy now and then. The kernels'
processes are those of the room.
"""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from tornado import web
from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from benchmarks.seats import Room
from jupyterhub_gpuworkshop.core.wire import REPORT, Report, ServerInfo

_REPORT_SECONDS = 2.0
_STATE_SECONDS = 20
_BUSY_OF = 4
"""One kernel in so many runs a cell at any time."""


class _Hub(web.RequestHandler):
    def get(self) -> None:
        """Say who somebody is: they are called like their token."""
        name = self.request.headers.get("Authorization", "").rpartition(" ")[2]
        kind = "admin" if name.startswith("organiser") else "read"
        scopes = [f"custom:gpuworkshop:{kind}"]
        self.finish({"name": name, "kind": "user", "admin": False, "scopes": scopes})


class _Server(web.RequestHandler):
    def initialize(self, kernel_ids: dict[str, str]) -> None:
        """Take who has which kernel."""
        self._kernel_ids = kernel_ids

    def get(self, user: str, what: str) -> None:
        """Answer as an attendee's server does."""
        kernel = _kernel(self._kernel_ids[user])
        answers: dict[str, Callable[[], object]] = {
            "kernels": lambda: [kernel],
            "sessions": lambda: [{"path": "course/part one.ipynb", "kernel": kernel}],
            "terminals": list,
            "status": lambda: {
                "kernels": 1,
                "connections": 1,
                "last_activity": kernel["last_activity"],
                "started": _text(0.0),
            },
        }
        self.finish(json.dumps(answers[what]()))


def _kernel(kernel_id: str) -> dict[str, object]:
    """Return what a server says of its kernel, which is busy for a while in turn."""
    shift = 7 * int(kernel_id[-2:], 16)
    turn, into = divmod(time.time() + shift, _STATE_SECONDS)
    turns_idle = turn % _BUSY_OF
    into += max(0.0, turns_idle - 1) * _STATE_SECONDS
    return {
        "id": kernel_id,
        "name": "python3",
        "execution_state": "idle" if turns_idle else "busy",
        "last_activity": _text(time.time() - into),
        "connections": 1,
    }


def _text(at: float) -> str:
    moment = datetime.fromtimestamp(at, tz=timezone.utc)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


async def _report(
    room: Room, servers: tuple[ServerInfo, ...], link: str, secret: str
) -> None:
    """Tell the service what the hub knows, for ever."""
    client = AsyncHTTPClient()
    while True:
        now = time.time()
        leases = room.leases()
        report = Report(hub_id="hub", sent_at=now, leases=leases, servers=servers)
        # The service is not there yet, or not any more.
        with contextlib.suppress(ConnectionRefusedError):
            await client.fetch(
                link,
                method="POST",
                body=REPORT.dump_json(report),
                headers={"Authorization": f"Bearer {secret}"},
            )
        await asyncio.sleep(_REPORT_SECONDS)


async def _main(room: Room, link: str, secret: str) -> None:
    kernel_ids = {
        server.user: seat.kernel_id
        for server, seat in zip(room.servers(), room.seats, strict=True)
    }
    pattern = r"/user/([^/]+)/api/(kernels|sessions|terminals|status)"
    routes = [
        (r"/hub/api/user", _Hub),
        (pattern, _Server, {"kernel_ids": kernel_ids}),
    ]
    socket, port = bind_unused_port("127.0.0.1")
    application = web.Application(routes, log_function=lambda handler: None)
    HTTPServer(application).add_socket(socket)
    servers = tuple(
        replace(
            server,
            url=f"http://127.0.0.1:{port}/user/{server.user}/",
            token="of-this-server",  # noqa: S106  # nobody asks for it
        )
        for server in room.servers()
    )
    print(json.dumps({"port": port}), flush=True)
    reporting = asyncio.ensure_future(_report(room, servers, link, secret))
    # Whoever has started this ends it by closing its stdin.
    ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    done, _ = await asyncio.wait({reporting, ended}, return_when="FIRST_COMPLETED")
    if reporting in done:
        reporting.result()


if __name__ == "__main__":
    asyncio.run(_main(Room.read(Path(sys.argv[1])), *sys.argv[2:]))
