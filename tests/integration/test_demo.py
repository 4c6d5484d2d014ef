"""`gpuworkshop demo`, driven from outside as a stranger would."""

import contextlib
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import require_engine

_NEWS = "@jupyterlab/apputils-extension:notification"

pytestmark = [pytest.mark.hub, pytest.mark.lab]

_STEP_SECONDS = 0.1
_LONGEST_SECONDS = 120.0
_END_SECONDS = 10.0


@pytest.fixture(autouse=True)
def _engines() -> None:
    names = ("aiohttp", "configurable_http_proxy", "ipykernel", "jupyterlab")
    present = all(importlib.util.find_spec(name) for name in names)
    require_engine("lab", present, 'pip install "jupyterhub-gpuworkshop[demo]"')


class Demo:
    """A demo as a child process, its stream, and everything it started."""

    def __init__(
        self, folder: Path, *arguments: str, stdout: int = subprocess.PIPE
    ) -> None:
        self.folder = folder
        self.told: list[dict[str, Any]] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._seen: dict[int, psutil.Process] = {}
        self.process = subprocess.Popen(  # noqa: S603  # our own command
            [sys.executable, "-m", "jupyterhub_gpuworkshop", "demo", *arguments],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            # Nothing may be left in either of them.
            env={
                **os.environ,
                "TMPDIR": os.fspath(folder / "tmp"),
                "HOME": os.fspath(folder / "home"),
            },
        )
        if stdout == subprocess.PIPE:
            threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the first object of the stream, from here on, that is wanted."""
        until = time.monotonic() + _LONGEST_SECONDS
        while True:
            self.family()
            try:
                line = self._lines.get(timeout=_STEP_SECONDS)
            except queue.Empty:
                assert time.monotonic() < until, f"not told in time: {self.told}"
                continue
            assert line is not None, f"it ended: {self.errors()}"
            self.told.append(json.loads(line))
            if wanted(self.told[-1]):
                return self.told[-1]

    def wait_until(self, done: Callable[[], bool]) -> None:
        """Wait until something holds, reading on meanwhile."""
        until = time.monotonic() + _LONGEST_SECONDS
        while not done():
            self.family()
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=_STEP_SECONDS)
                assert line is not None, f"it ended: {self.errors()}"
                self.told.append(json.loads(line))
            assert time.monotonic() < until, f"not in time: {self.told}"

    def family(self) -> list[psutil.Process]:
        """Return every process that was ever seen to descend from it."""
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self._seen.setdefault(child.pid, child)
        return list(self._seen.values())

    def signal(self, number: int) -> None:
        self.family()
        self.process.send_signal(number)

    def assert_is_gone(self) -> None:
        """Nothing of it is left: no process, no file."""
        self.process.wait(_END_SECONDS)
        alive = [member for member in self.family() if member.is_running()]
        assert not alive
        for name in ("tmp", "home"):
            assert list((self.folder / name).iterdir()) == []

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def end(self) -> None:
        """Leave nothing to other tests, however the test went."""
        with contextlib.suppress(psutil.Error):
            self.family()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for member in self._seen.values():
            with contextlib.suppress(psutil.Error):
                member.kill()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    for name in ("tmp", "home"):
        (tmp_path / name).mkdir()
    demos = []

    def start(*arguments: str, **given: Any) -> Demo:
        demos.append(Demo(tmp_path, "--json", "--port", "0", *arguments, **given))
        return demos[-1]

    yield start
    for demo in demos:
        demo.end()


def is_ready(told: dict[str, Any]) -> bool:
    return bool(told["event"] == "ready")


def call(ready: dict[str, Any], url: str, method: str = "GET") -> Any:
    request = urllib.request.Request(  # noqa: S310  # the demo's own URL
        url, method=method, headers={"Authorization": f"token {ready['api_token']}"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
        body = response.read()
    return json.loads(body) if body else None


def test_a_workshop_happens_and_leaves_nothing_behind(
    start: Callable[..., Demo],
) -> None:
    demo = start("--attendees", "3", "--gpus", "2", "--idle-timeout", "5s")
    ready = demo.wait_for(is_ready)
    assert demo.told == [ready]
    hub, service = ready["hub_url"] + "hub/api/", ready["service_url"] + "api/v1/"

    reclaimed = demo.wait_for(lambda told: told["event"] == "kernel_reclaimed")
    demo.wait_until(
        lambda: sum(told["event"] == "lease_granted" for told in demo.told) >= 3
    )
    granted = [told for told in demo.told if told["event"] == "lease_granted"]

    # Spread: two devices, three attendees, in turn.
    assert {told["attendee"] for told in granted} == {
        ready["attendee"]["name_pattern"].format(number) for number in (1, 2, 3)
    }
    on = [told["devices"] for told in granted]
    assert on[0] == on[2] != on[1]

    # A forgotten kernel was reclaimed; one that trains is none of those.
    assert reclaimed["freed_bytes"] > 0
    assert reclaimed["reason"].startswith("Idle for")
    notebooks = {
        told["notebook"] for told in demo.told if told["event"] == "kernel_reclaimed"
    }
    assert not notebooks & {"train.ipynb", "finetune.ipynb"}

    def trains() -> bool:
        kernels = call(ready, service + "snapshot")["kernels"]
        return any(
            kernel["notebook"] in ("train.ipynb", "finetune.ipynb")
            and kernel["state"] == "busy"
            and kernel["memory_bytes"] > 0
            for kernel in kernels
        )

    demo.wait_until(trains)

    # The token: create users, start, reach and stop their servers.
    call(ready, hub + "users/stranger", "POST")
    call(ready, hub + "users/stranger/server", "POST")
    demo.wait_until(lambda: call(ready, hub + "users/stranger")["server"] is not None)
    state = call(ready, hub + "users/stranger")["servers"][""]["state"]
    assert state["gpuworkshop"]["share"] == "1/5"
    assert call(ready, ready["hub_url"] + "user/stranger/api/kernels") == []
    # Nothing asks them whether JupyterLab may fetch news from the internet.
    settings = call(ready, ready["hub_url"] + f"user/stranger/lab/api/settings/{_NEWS}")
    assert settings["schema"]["properties"]["fetchNews"]["default"] == "false"
    call(ready, hub + "users/stranger/server", "DELETE")
    released = demo.wait_for(lambda told: told["event"] == "lease_released")
    assert released["attendee"] == "stranger"

    demo.signal(signal.SIGTERM)
    demo.assert_is_gone()
    assert demo.process.returncode == 0
    assert demo.errors() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_it_starts_leaves_nothing_behind(
    start: Callable[..., Demo], number: int
) -> None:
    demo = start("--attendees", "0")
    demo.wait_until(lambda: len(demo.family()) >= 2)  # the hub, and its proxy
    demo.signal(number)

    demo.assert_is_gone()
    assert demo.told == []


def test_who_stops_reading_ends_it(start: Callable[..., Demo]) -> None:
    reader, writer = os.pipe()
    demo = start("--attendees", "0", stdout=writer)
    os.close(writer)
    demo.wait_until(lambda: len(demo.family()) >= 1)
    os.close(reader)

    demo.assert_is_gone()
    assert demo.process.returncode == 0


def test_a_hub_that_dies_is_told_and_leaves_nothing_behind(
    start: Callable[..., Demo],
) -> None:
    demo = start("--attendees", "0")
    demo.wait_until(lambda: len(demo.family()) >= 2)
    hub = next(member for member in demo.family() if "-f" in member.cmdline())
    hub.kill()

    demo.assert_is_gone()
    assert demo.process.returncode == 1
    said = demo.errors()
    assert said.startswith("JupyterHub ended ")
    assert "Its log ends with:" in said
    assert "Traceback" not in said
