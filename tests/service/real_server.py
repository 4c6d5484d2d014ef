"""A real Jupyter server with real kernels, in a process of its own."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

from jupyterhub_gpuworkshop.core.wire import ServerInfo
from jupyterhub_gpuworkshop.hub.memory_hook import with_jupyter_settings
from jupyterhub_gpuworkshop.machine.processes import read_process
from jupyterhub_gpuworkshop.machine.timeouts import timeout
from tests.conftest import require_engine

ROOT = Path(__file__).parent.parent.parent
TOKEN = "the-token-of-this-server-alone"


class RealServer:
    """A Jupyter server in a process of its own."""

    def __init__(self, folder, world):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.port}/"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "IPYTHONDIR": str(folder),
            "PYTHONPATH": str(ROOT),
            "GPUWORKSHOP_SIMULATED_GPUS": str(world.simulation),
            "CUDA_VISIBLE_DEVICES": world.devices[0].uuid,
        }
        self.environment = with_jupyter_settings(environment, "")

    async def start(self):
        options = {
            "ServerApp.port": self.port,
            "ServerApp.ip": "127.0.0.1",
            "IdentityProvider.token": TOKEN,
            "ServerApp.open_browser": False,
            "ServerApp.allow_root": True,
            "ServerApp.root_dir": self.folder,
        }
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "jupyter_server",
            *(f"--{key}={value}" for key, value in options.items()),
            env=self.environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        while True:
            assert self.process.returncode is None
            try:
                await self.ask("api/status")
            except OSError:
                await asyncio.sleep(0.1)
            else:
                break
        me = read_process(self.process.pid)
        self.info = ServerInfo(
            lease_id="lease-ada",
            user="ada",
            server="",
            url=self.url,
            token=TOKEN,
            pid=me.pid,
            started=me.started,
        )

    async def ask(self, path, method="GET", body=None):
        request = HTTPRequest(
            self.url + path,
            method=method,
            headers={"Authorization": f"token {TOKEN}"},
            body=None if body is None else json.dumps(body),
        )
        return json.loads((await AsyncHTTPClient().fetch(request)).body)

    async def run(self, kernel_id, code):
        """Run a cell over the websocket, as a notebook does, and leave."""
        page = await self.open(kernel_id)
        await page.run(code)
        page.close()

    async def begin(self, kernel_id, code):
        """Begin to run a cell, and return the open websocket."""
        page = await self.open(kernel_id)
        await page.send("execute_request", cell(code))
        return page

    async def open(self, kernel_id):
        """Connect to a kernel, as the page of its notebook does."""
        url = f"ws://127.0.0.1:{self.port}/api/kernels/{kernel_id}/channels"
        page = Page(uuid.uuid4().hex)
        request = HTTPRequest(
            f"{url}?session_id={page.session}",
            headers={"Authorization": f"token {TOKEN}"},
        )
        page.socket = await websocket_connect(request)
        return page

    async def stop(self):
        """End it as a spawner does: it may not heed what it is told."""
        if self.process.returncode is not None:
            return
        family = psutil.Process(self.process.pid).children(recursive=True)
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            async with timeout(30):
                await self.process.wait()
        except asyncio.TimeoutError:
            self.process.kill()
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            await self.process.wait()


def cell(code, **changes):
    """Return what a page sends to run a cell."""
    return {"code": code, "silent": False, "store_history": False, **changes}


class Page:
    """A notebook's page, as far as its kernel sees it."""

    def __init__(self, session):
        self.session = session
        self.sent = 0

    async def send(self, kind, content, channel="shell"):
        """Send a message, and wait for nothing."""
        self.sent += 1
        header = {
            "msg_id": f"{self.session}-{self.sent}",
            "msg_type": kind,
            "session": self.session,
            "username": "ada",
            "version": "5.3",
            "date": "2026-11-20T10:00:00Z",
        }
        message = {"header": header, "parent_header": {}, "metadata": {}}
        await self.socket.write_message(
            json.dumps({**message, "content": content, "channel": channel})
        )

    async def ask(self, kind, content, channel="shell"):
        """Send a message, and wait until it is dealt with; return what it wrote."""
        await self.send(kind, content, channel)
        return await self.settled(kind)

    async def settled(self, kind):
        """Wait until the last message is dealt with; return what it wrote."""
        written, seen = {}, set()
        wanted = {"status idle"}
        if not kind.startswith("comm_") or kind == "comm_info_request":
            wanted.add(kind.replace("_request", "_reply"))
        while not wanted <= seen:
            reply = json.loads(await self.socket.read_message())
            if reply["parent_header"].get("msg_id") != f"{self.session}-{self.sent}":
                continue
            kind, content = reply["header"]["msg_type"], reply["content"]
            assert kind != "error", content
            if kind == "stream":
                name = content["name"]
                written[name] = written.get(name, "") + content["text"]
            seen.add(
                f"status {content['execution_state']}" if kind == "status" else kind
            )
        return written

    async def run(self, code):
        """Run a cell; return what it wrote, by the name of the stream."""
        return await self.ask("execute_request", cell(code))

    def close(self):
        """Leave."""
        self.socket.close()


@pytest.fixture
async def server(tmp_path, world):
    require_engine(
        "lab",
        all(find_spec(name) for name in ("jupyter_server", "ipykernel")),
        "pip install 'jupyterhub-gpuworkshop[demo]'",
    )
    real = RealServer(tmp_path, world)
    await real.start()
    yield real
    await real.stop()
