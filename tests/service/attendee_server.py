"""An attendee's server with real kernels: real HTTP, real processes, simulated GPUs.

It runs in the test's own loop, so that its kernels are direct children of the test's
process, as a real server's are of the server's.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from jupyterhub_gpuworkshop.core.wire import ServerInfo
from jupyterhub_gpuworkshop.machine.processes import read_process

TOKEN = "opens-this-server-and-nothing-else"
ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import sys
from jupyterhub_gpuworkshop.notebook import simcuda
held = []
print("ready", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


@dataclass
class Kernel:
    """One kernel: what its server says of it, and its process."""

    process: subprocess.Popen
    state: str = "idle"
    last_activity: str = "2026-11-20T10:00:00.000000Z"
    connections: int = 1

    def run(self, line):
        """Run a line in it, and wait until it has been run."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self):
        """Kill it, with all that it started, and wait for its end."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@dataclass
class AttendeeServer:
    """A server, with what it was asked and what it shall answer.

    Attributes:
        headers: of each request, in order.
        asked: method and path with query of each request.
        answers: fixed answers by path, as (status, body): they come before the truth.
        ignores_restart: it says that it restarts kernels and does not.
        last_activity: of the server itself.
        terminals: that are open in it.
    """

    simulation: Path
    devices: str = ""
    user: str = "ada"
    kernels: dict[str, Kernel] = field(default_factory=dict)
    sessions: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    asked: list = field(default_factory=list)
    answers: dict = field(default_factory=dict)
    ignores_restart: bool = False
    last_activity: str = "2026-11-20T10:00:00.000000Z"
    terminals: list = field(default_factory=list)

    def start(self):
        """Listen on loopback."""
        application = Application(
            [
                (r"/user/ada/(api/kernels)", _Kernels, {"server": self}),
                (r"/user/ada/(api/sessions)", _Sessions, {"server": self}),
                (r"/user/ada/(api/status)", _Status, {"server": self}),
                (r"/user/ada/(api/terminals)", _Terminals, {"server": self}),
                (r"/user/ada/(api/kernels/[^/]+)", _One, {"server": self}),
                (r"/user/ada/(api/kernels/.+/restart)", _Restart, {"server": self}),
            ]
        )
        socket, self.port = bind_unused_port("127.0.0.1")
        self.http = HTTPServer(application)
        self.http.add_sockets([socket])
        return self

    async def stop(self):
        """End the kernels, and listen no more."""
        for kernel in self.kernels.values():
            kernel.end()
        self.http.stop()
        await self.http.close_all_connections()

    @property
    def info(self):
        """What the hub reports of it."""
        me = read_process(os.getpid())
        return ServerInfo(
            lease_id=f"lease-{self.user}",
            user=self.user,
            server="",
            url=f"http://127.0.0.1:{self.port}/user/ada/",
            token=TOKEN,
            pid=me.pid,
            started=me.started,
        )

    def start_kernel(self, kernel_id=None):
        """Start a kernel; its process is up when this returns."""
        kernel_id = kernel_id or str(uuid.uuid4())
        process = subprocess.Popen(  # noqa: S603 - runs this very module's text
            [sys.executable, "-c", PROGRAM, "-f", f"/run/kernel-{kernel_id}.json"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                "GPUWORKSHOP_SIMULATED_GPUS": str(self.simulation),
                "CUDA_VISIBLE_DEVICES": self.devices,
            },
        )
        assert process.stdout.readline() == "ready\n"
        self.kernels[kernel_id] = Kernel(process)
        return kernel_id


class _Handler(RequestHandler):
    def initialize(self, server):
        self.server = server

    async def prepare(self):
        self.server.asked.append(f"{self.request.method} {self.request.uri}")
        self.server.headers.append(dict(self.request.headers.get_all()))
        path = self.path_args[0]
        answer = self.server.answers.get(path)
        if callable(answer):
            answer = answer()
        if answer is not None:
            status, body = answer
            if body is asyncio.sleep:
                await asyncio.sleep(3600)
            self.set_status(status)
            if status in (301, 302, 307):
                self.set_header("Location", body)
                body = b""
            self.finish(body if isinstance(body, bytes) else json.dumps(body))
        elif self.request.headers.get("Authorization") != f"token {TOKEN}":
            self.set_status(403)
            self.finish()

    def model(self, kernel_id):
        kernel = self.server.kernels[kernel_id]
        return {
            "id": kernel_id,
            "name": "python3",
            "execution_state": kernel.state,
            "last_activity": kernel.last_activity,
            "connections": kernel.connections,
        }


class _Kernels(_Handler):
    def get(self, path):
        self.finish(json.dumps([self.model(x) for x in self.server.kernels]))


class _Sessions(_Handler):
    def get(self, path):
        self.finish(json.dumps(self.server.sessions))


class _Status(_Handler):
    def get(self, path):
        kernels = self.server.kernels.values()
        self.finish(
            {
                "kernels": len(kernels),
                "connections": sum(kernel.connections for kernel in kernels),
                "last_activity": self.server.last_activity,
                "started": "2026-11-20T09:00:00.000000Z",
            }
        )


class _Terminals(_Handler):
    def get(self, path):
        self.finish(json.dumps(self.server.terminals))


class _One(_Handler):
    def get(self, path):
        self.finish(self.model(path.rpartition("/")[2]))

    def delete(self, path):
        self.server.kernels.pop(path.rpartition("/")[2]).end()
        self.set_status(204)


class _Restart(_Handler):
    def post(self, path):
        kernel_id = path.split("/")[2]
        if not self.server.ignores_restart:
            self.server.kernels[kernel_id].end()
            self.server.start_kernel(kernel_id)
            self.server.kernels[kernel_id].last_activity = "2026-11-20T11:11:11Z"
        self.finish(self.model(kernel_id))
