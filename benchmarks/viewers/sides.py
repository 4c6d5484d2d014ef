"""The programs that are looked at: each a server in a process of its own.

All read one double of the driver's library. Owns how each is started and ended.
"""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from tornado.httpclient import HTTPClient
from tornado.testing import bind_unused_port

from benchmarks.seats import Room

_ROOT = Path(__file__).parents[2]
_START_SECONDS = 60.0
_END_SECONDS = 30.0
_SECRET = "the-secret-of-the-link"  # noqa: S105  # of two processes of ours
_PREFIX = "/services/gpuworkshop/"
_SERVICE = "from jupyterhub_gpuworkshop.cli import main; main()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A program that can be looked at.

    Attributes:
        pid: its process.
        address: its host and port.
    """

    pid: int
    address: str

    @property
    def helpers(self) -> list[int]:
        """The processes that work for it."""
        return [x.pid for x in psutil.Process(self.pid).children(recursive=True)]


Start = Callable[[Path], AbstractContextManager[Served]]


@contextlib.contextmanager
def ours(folder: Path, room: Path, driver: Mapping[str, str]) -> Iterator[Served]:
    """Start the service, with a hub and attendees' servers around it.

    Args:
        folder: for what it writes.
        room: the file of the room.
        driver: the environment in which the driver is the double.
    """
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["-m", "benchmarks.viewers.room", str(room), f"{url}{_PREFIX}link"]
    command.append(_SECRET)
    with talking(command) as around:
        hub_port = json.loads(_line(around))["port"]
        environment = {
            **driver,
            "JUPYTERHUB_API_TOKEN": "of-the-service",
            "JUPYTERHUB_API_URL": f"http://127.0.0.1:{hub_port}/hub/api",
            "JUPYTERHUB_BASE_URL": "/",
            "JUPYTERHUB_CLIENT_ID": "service-gpuworkshop",
            "JUPYTERHUB_SERVICE_URL": url,
            "JUPYTERHUB_SERVICE_PREFIX": _PREFIX,
            "GPUWORKSHOP_LINK_SECRET": _SECRET,
            "GPUWORKSHOP_WORKSHOP": json.dumps({"gpus": {"source": "nvml"}}),
        }
        command = ["-c", _SERVICE, "service"]
        with _serving(command, folder, environment, port, f"{_PREFIX}health") as served:
            _wait_until_known(served, len(Room.read(room).seats))
            yield served


@contextlib.contextmanager
def bokeh(folder: Path, driver: Mapping[str, str]) -> Iterator[Served]:
    """Start the Bokeh server."""
    port = _free_port()
    command = ["-m", "benchmarks.viewers.bokeh_app", str(port)]
    # Bokeh's own advice for the last bit of speed.
    environment = {**driver, "BOKEH_VALIDATE_DOC": "false"}
    with _serving(command, folder, environment, port, "/room") as served:
        yield served


@contextlib.contextmanager
def nvdashboard(folder: Path, driver: Mapping[str, str]) -> Iterator[Served]:
    """Start a Jupyter server with jupyterlab-nvdashboard's extension and no other."""
    port = _free_port()
    extensions = {"jupyterlab_nvdashboard": True}
    command = ["-m", "jupyter_server", "--no-browser", "--allow-root"]
    command += [
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.jpserver_extensions={extensions}",
        f"--ServerApp.root_dir={folder}",
        "--IdentityProvider.token=of-this-server",
    ]
    environment = {
        **driver,
        "HOME": str(folder),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_NO_CONFIG": "1",
    }
    with _serving(command, folder, environment, port, "/api") as served:
        yield served


def starts(room: Path, driver: Mapping[str, str]) -> dict[str, Start]:
    """Return how to start each side that is installed."""
    found: dict[str, Start] = {"ours": partial(ours, room=room, driver=driver)}
    found["bokeh"] = partial(bokeh, driver=driver)
    if importlib.util.find_spec("jupyterlab_nvdashboard"):
        found["nvdashboard"] = partial(nvdashboard, driver=driver)
    return found


@contextlib.contextmanager
def talking(command: list[str]) -> Iterator["subprocess.Popen[str]"]:
    """Start a program of ours that reads stdin to its end, and then ends."""
    with subprocess.Popen(  # noqa: S603  # this Python, our own module
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    ) as process:
        try:
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            _end(process)


def ask(process: "subprocess.Popen[str]", question: str) -> dict[str, float]:
    """Write a line to a program that talks, and return its answer."""
    assert process.stdin is not None
    process.stdin.write(f"{question}\n")
    process.stdin.flush()
    answer: dict[str, float] = json.loads(_line(process))
    return answer


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise AssertionError("a process of the benchmark has ended; see above for why")
    return line


@contextlib.contextmanager
def _serving(
    command: list[str],
    folder: Path,
    environment: Mapping[str, str],
    port: int,
    path: str,
) -> Iterator[Served]:
    """Run a server; it is up once this path is answered."""
    log = folder / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603  # this Python
            [sys.executable, *command],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(_ROOT), **environment},
        ) as process,
    ):
        try:
            address = f"127.0.0.1:{port}"
            _wait_until_up(process, f"http://{address}{path}", log)
            yield Served(pid=process.pid, address=address)
        except BaseException:
            sys.stderr.write(log.read_text(errors="replace")[-4000:])
            raise
        finally:
            process.terminate()
            _end(process)


def _wait_until_up(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    with contextlib.closing(HTTPClient()) as client:
        while True:
            with contextlib.suppress(OSError):
                client.fetch(url, request_timeout=_START_SECONDS)
                return
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"{url} is not answered")
            time.sleep(0.05)


def _wait_until_known(served: Served, kernels: int) -> None:
    """Wait until our service knows all kernels: without them it has little to do."""
    url = f"http://{served.address}{_PREFIX}api/v1/snapshot"
    headers = {"Authorization": "token organiser"}
    end = time.monotonic() + _START_SECONDS
    known = -1
    with contextlib.closing(HTTPClient()) as client:
        while known != kernels:
            if time.monotonic() > end:
                raise AssertionError(f"{known} kernels are known, not {kernels}")
            time.sleep(0.5)
            answer = client.fetch(url, headers=headers)
            states = [x["state"] for x in json.loads(answer.body)["kernels"]]
            known = sum(state in ("idle", "busy") for state in states)


def _end(process: "subprocess.Popen[bytes] | subprocess.Popen[str]") -> None:
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _free_port() -> int:
    socket, port = bind_unused_port("127.0.0.1")
    socket.close()
    return port
