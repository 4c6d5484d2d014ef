"""Against a real Jupyter server: what it says is understood, and it is left alone."""

import asyncio
import json
import os
import signal
import socket
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

from jupyterhub_gpuworkshop.core.snapshot import KernelState
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import EventKind, ServerInfo
from jupyterhub_gpuworkshop.machine.processes import read_process
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
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "IPYTHONDIR": str(folder),
            "PYTHONPATH": str(ROOT),
            "GPUWORKSHOP_SIMULATED_GPUS": str(world.simulation),
            "CUDA_VISIBLE_DEVICES": world.devices[0].uuid,
        }

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
        socket = await self.begin(kernel_id, code)
        replies = set()
        while not {"execute_reply", "status idle"} <= replies:
            reply = json.loads(await socket.read_message())
            if reply["parent_header"].get("msg_id") == "m":
                kind = reply["header"]["msg_type"]
                if kind == "status":
                    kind += " " + reply["content"]["execution_state"]
                assert kind != "error", reply["content"]
                replies.add(kind)
        socket.close()

    async def begin(self, kernel_id, code):
        """Begin to run a cell, and return the open websocket."""
        url = f"ws://127.0.0.1:{self.port}/api/kernels/{kernel_id}/channels"
        socket = await websocket_connect(
            HTTPRequest(url, headers={"Authorization": f"token {TOKEN}"})
        )
        content = {"code": code, "silent": False, "store_history": False}
        header = {"msg_id": "m", "msg_type": "execute_request", "session": "s"}
        header |= {"username": "ada", "version": "5.3", "date": "2026-11-20T10:00:00Z"}
        message = {"header": header, "parent_header": {}, "metadata": {}}
        await socket.write_message(
            json.dumps({**message, "content": content, "channel": "shell"})
        )
        return socket

    async def stop(self):
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        await self.process.wait()


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


@pytest.mark.lab
async def test_a_forgotten_kernel_is_restarted_and_watching_left_no_trace(
    world, server
):
    session = await server.ask(
        "api/sessions",
        "POST",
        {
            "path": "work.ipynb",
            "type": "notebook",
            "name": "work",
            "kernel": {"name": "python3"},
        },
    )
    kernel_id = session["kernel"]["id"]
    await server.run(
        kernel_id,
        "from jupyterhub_gpuworkshop.notebook import simcuda\n"
        "held = simcuda.allocate('2GiB')",
    )
    world.report = replace(world.report, servers=(server.info,))
    status = await server.ask("api/status?no_track_activity=1")
    snapshot = await world.look(times=15)
    (kernel,) = snapshot.kernels
    assert (kernel.kernel_id, kernel.notebook) == (kernel_id, "work.ipynb")
    assert kernel.state is KernelState.IDLE
    assert kernel.memory_bytes == 2 * GIB
    # Watching left neither the server's nor the kernel's activity any later.
    after = await server.ask("api/status?no_track_activity=1")
    assert after["last_activity"] == status["last_activity"]

    await world.reap()
    (event,) = world.events()
    assert event.kind is EventKind.KERNEL_RECLAIMED, event.reason
    assert event.details["freed_bytes"] == 2 * GIB
    assert event.details["notebook"] == "work.ipynb"
    assert [k["id"] for k in await server.ask("api/kernels")] == [kernel_id]
    await server.run(kernel_id, "assert 'held' not in globals()")


@pytest.mark.lab
@pytest.mark.parametrize("leaves", ["in mid-output", "the page open"])
async def test_however_it_is_left_a_kernel_without_a_notebook_is_forgotten(
    world, server, leaves
):
    kernel_id = (await server.ask("api/kernels", "POST", {}))["id"]
    done = server.folder / "done"
    socket = await server.begin(
        kernel_id,
        "import pathlib, time\n"
        "from jupyterhub_gpuworkshop.notebook import simcuda\n"
        "held = simcuda.allocate('2GiB')\n"
        "for n in range(200):\n"
        "    print('x' * 1000)\n"
        "    time.sleep(0.005)\n"
        f"pathlib.Path({str(done)!r}).touch()",
    )
    await socket.read_message()
    if leaves == "in mid-output":
        socket.close()
    while True:
        model = await server.ask(f"api/kernels/{kernel_id}")
        if done.exists() and model["execution_state"] == "idle":
            break
        await asyncio.sleep(0.1)
    world.report = replace(world.report, servers=(server.info,))
    for _ in range(15):
        await world.look()
        # What an open page asks every few seconds.
        await server.ask("api/kernels")
        await server.ask("api/sessions")
    await world.reap()
    (event,) = world.events()
    assert event.kind is EventKind.KERNEL_RECLAIMED, event.reason
    assert event.details["freed_bytes"] == 2 * GIB
    socket.close()
