"""The real service, started as the hub starts it."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from tornado.testing import bind_unused_port

ROOT = Path(__file__).parent.parent.parent
PREFIX = "/services/gpuworkshop/"
SECRET = "the-secret-of-the-link"
START = """
import sys
from jupyterhub_gpuworkshop.service.app import GpuService
GpuService.launch_instance(sys.argv[1:])
"""


def free_port():
    """Return a port that nobody listens at."""
    socket, port = bind_unused_port("127.0.0.1")
    socket.close()
    return port


async def gone(pid):
    """Wait for the end of a process, also of one that nobody waits for."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        while True:
            if process.status() == psutil.STATUS_ZOMBIE:
                return
            await asyncio.sleep(0.02)


class ServiceProcess:
    """The service in a process of its own."""

    def __init__(self, folder, workshop, *, hub_port=1, program=START, **environment):
        self.port = free_port()
        self.folder = folder
        self.log = folder / "service.log"
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "JUPYTERHUB_API_TOKEN": "the-services-own-token",
            "JUPYTERHUB_API_URL": f"http://127.0.0.1:{hub_port}/hub/api",
            "JUPYTERHUB_BASE_URL": "/",
            "JUPYTERHUB_CLIENT_ID": "service-gpuworkshop",
            "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{self.port}",
            "JUPYTERHUB_SERVICE_PREFIX": PREFIX,
            "GPUWORKSHOP_LINK_SECRET": SECRET,
            "GPUWORKSHOP_WORKSHOP": (
                workshop if isinstance(workshop, str) else json.dumps(workshop)
            ),
            **environment,
        }
        self.command = [sys.executable, "-W", "error", "-c", program]
        self.client = AsyncHTTPClient(force_instance=True)

    def start(self):
        """Start it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - this very module's text
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        return self

    async def get(self, path, **kwargs):
        """Return its answer, whatever the status."""
        return await self.client.fetch(
            f"http://127.0.0.1:{self.port}{PREFIX}{path}",
            raise_error=False,
            follow_redirects=False,
            **kwargs,
        )

    async def is_up(self):
        """Wait until it answers."""
        while True:
            assert self.process.poll() is None, self.log.read_text()
            try:
                response = await self.get("health")
            except (OSError, HTTPClientError):
                await asyncio.sleep(0.05)
            else:
                assert response.code == 200
                return self

    async def report(self, body, secret=SECRET):
        """Post to its end of the link."""
        return await self.get(
            "link",
            method="POST",
            body=body,
            headers={"Authorization": f"Bearer {secret}"},
        )

    async def ended(self):
        """Wait for its end; return its exit status."""
        return await asyncio.to_thread(self.process.wait)

    def end(self):
        """End it, whatever it does."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
