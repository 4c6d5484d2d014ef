"""The demo's hub, as a child process.

Owns its start, its environment, its log and the moment at which people can log in.
"""

import asyncio
import collections
import getpass
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from jupyterhub_gpuworkshop.core.errors import DemoError

from .browser import Browser, BrowserError
from .hub_config import write_config
from .settings import ATTENDEE_PATTERN, ORGANISER, DemoSettings

_START_SECONDS = 120.0
_POLL_SECONDS = 0.25
_SERVICE_SECONDS = 20.0
_TAIL_LINES = 30

_NOT_INHERITED = (
    "CONFIGPROXY_",
    "CUDA_",
    "GPUWORKSHOP_",
    "IPYTHON",
    "JPY_",
    "JUPYTER",
    "MAKE",
    "MFLAGS",
    "NVIDIA_",
    "XDG_",
)
"""The demo may itself run in a hub's server, under make, or on a machine with GPUs."""

PYTHON_PROXY = (
    sys.executable,
    "-m",
    "jupyterhub_gpuworkshop.tools.demo.proxy",
    # It gives up after 20 s otherwise, and a spawn page takes longer.
    "--proxy-timeout",
    "600000",
)


def find_proxy(path: str) -> tuple[str, ...]:
    """Return the command of a proxy: Node's where it is on the PATH, else Python's.

    Both are called configurable-http-proxy, so the file's first line tells.
    """
    name = "configurable-http-proxy"
    for folder in path.split(os.pathsep):
        found = shutil.which(name, path=folder) if folder else None
        if found and shutil.which("node", path=path) and _is_nodes(Path(found)):
            return (found,)
    return PYTHON_PROXY


def _is_nodes(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            first = file.readline(200)
    except OSError:
        return False
    return first.startswith(b"#!") and b"node" in first


def environment(inherited: Mapping[str, str], settings: DemoSettings) -> dict[str, str]:
    """Return the hub's environment: all that it and its children write is in the
    run's folder, and nothing of an outer hub is passed on."""
    env = {
        name: value
        for name, value in inherited.items()
        if not name.startswith(_NOT_INHERITED)
    }
    folder = settings.directory
    env |= {
        "HOME": os.fspath(folder / "hub"),
        "TMPDIR": os.fspath(folder / "tmp"),
        # HOME is another one there: `pip install --user` packages would be lost.
        "PYTHONUSERBASE": site.getuserbase(),
        "PYTHONUNBUFFERED": "1",
    }
    env.setdefault("LOGNAME", _user_name())
    return env


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "demo"  # a uid without a name, as containers have


def _is_sampled(snapshot: Mapping[str, Any]) -> bool:
    devices = snapshot.get("devices") or ()
    return any(device.get("memory_used_bytes") is not None for device in devices)


class HubProcess:
    """A JupyterHub with its proxy and services, started by `start`."""

    def __init__(self, settings: DemoSettings) -> None:
        self._settings = settings
        self._log = settings.directory / "hub.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process; 0 before the start."""
        return self._process.pid if self._process else 0

    @property
    def ended(self) -> bool:
        """Whether it has been started and is no more."""
        return self._process is not None and self._process.poll() is not None

    def start(self) -> None:
        """Start it. `ready` says when it can be used."""
        settings = self._settings
        for name in ("hub", "tmp", "homes"):
            (settings.directory / name).mkdir(mode=0o700)
        config = write_config(settings)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603  # our own command
                [sys.executable, "-m", "jupyterhub", "-f", os.fspath(config)],
                cwd=settings.directory / "hub",
                env=environment(os.environ, settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for the demo alone.
                start_new_session=True,
            )

    def stop(self) -> None:
        """Ask it to end, with all of its servers."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def tail(self) -> str:
        """Return the end of its log."""
        try:
            with self._log.open(errors="replace") as file:
                return "".join(collections.deque(file, maxlen=_TAIL_LINES)).rstrip()
        except OSError:
            return ""

    async def ready(self) -> None:
        """Wait until people can log in and the GPU service answers.

        Raises:
            DemoError: it ended, or it took too long.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _START_SECONDS
        trouble = "it does not answer"
        while loop.time() < until:
            if self.ended:
                raise DemoError("JupyterHub ended while it started. Its log ends with:")
            try:
                await self._answers()
                await self._log_in()
                break
            except (aiohttp.ClientError, TimeoutError, BrowserError) as error:
                trouble = str(error) or type(error).__name__
            await asyncio.sleep(_POLL_SECONDS)
        else:
            raise DemoError(
                f"JupyterHub did not start within {_START_SECONDS:.0f} s: {trouble}. "
                "Its log ends with:"
            )
        await self._service_answers(min(until, loop.time() + _SERVICE_SECONDS))

    async def _answers(self) -> None:
        """See whether the hub listens, and whether the proxy knows of it."""
        timeout = aiohttp.ClientTimeout(total=5)
        async with aiohttp.ClientSession(
            timeout=timeout, raise_for_status=True
        ) as session:
            for url in (self._settings.inner_hub_url, self._settings.hub_url):
                async with session.get(url + "hub/api/"):
                    pass

    async def _log_in(self) -> None:
        settings = self._settings
        for name, password in (
            (ORGANISER, settings.organiser_password),
            (ATTENDEE_PATTERN.format(1), settings.attendee_password),
        ):
            async with Browser(settings.hub_url) as browser:
                await browser.log_in(name, password)

    async def _service_answers(self, until: float) -> None:
        """Give the GPU service a moment; without it people can log in all the same."""
        loop = asyncio.get_running_loop()
        timeout = aiohttp.ClientTimeout(total=5)
        headers = {"Authorization": f"token {self._settings.api_token}"}
        url = self._settings.service_url + "api/v1/snapshot"
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            while loop.time() < until and not self.ended:
                try:
                    async with session.get(url) as response:
                        if response.status == 200 and _is_sampled(
                            await response.json()
                        ):
                            return
                except (aiohttp.ClientError, TimeoutError, ValueError):
                    pass  # not yet
                await asyncio.sleep(_POLL_SECONDS)
