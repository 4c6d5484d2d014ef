"""A real JupyterHub in a process of its own, to be talked to, killed and restarted."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jupyterhub
import psutil
import requests
import yaml

from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.hub.ledger import DurableLedger
from jupyterhub_gpuworkshop.machine.simulated import create_devices

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

_CONFIG = """
import os, sys
sys.path.insert(0, {root!r})
from jupyterhub_gpuworkshop.hub.setup import configure
from tests.hub.null_proxy import NullProxy

c = get_config()
c.JupyterHub.proxy_class = NullProxy
c.JupyterHub.bind_url = "http://127.0.0.1:{public_port}{base_url}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.cleanup_servers = False
c.JupyterHub.db_url = "sqlite:///{folder}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.ConfigurableHTTPProxy.auth_token = "not used"
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.allow_all = True
c.JupyterHub.services = [{{"name": "test", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [{{
    "name": "test",
    "services": ["test"],
    "scopes": [
        "admin:users", "admin:servers", "admin:server_state", "admin:groups",
        "tokens", "read:hub", "access:servers", "access:services",
    ],
}}]
c.JupyterHub.spawner_class = "gpu-simple"
c.Spawner.cmd = [{python!r}, "-S", "-E", {stub!r}]
c.Spawner.environment = {{"STUB_HUB_VERSION": {version!r}}}
c.SimpleLocalProcessSpawner.home_dir_template = "{folder}/home/{{username}}"
c.GpuRuntime.reconcile_seconds = 1.0
c.GpuRuntime.report_seconds = 0.5
c.LocalProcessSpawner.interrupt_timeout = 3
c.LocalProcessSpawner.term_timeout = 2
c.LocalProcessSpawner.kill_timeout = 2
{early}
configure(c, {workshop!r})
{late}
"""


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(
    what: Callable[[], Any], *, seconds: float = 30.0, why: str = "nothing came"
) -> Any:
    """Return the first truthy answer; fail with a sentence when none comes."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = what()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(why)


class RunningHub:
    """One hub with simulated GPUs, its folder, and its API.

    Args:
        folder: for its database, ledger, logs and homes.
        gpus: how many simulated GPUs of 16 GiB.
        workshop: the workshop file's content, beside `gpus.source`.
        early: configuration code before `configure` is called.
        late: and after it.
        environment: of the hub's process.
        service: whether the hub manages a GPU service.
    """

    def __init__(
        self,
        folder: Path,
        *,
        gpus: int = 4,
        workshop: dict[str, Any] | None = None,
        early: str = "",
        late: str = "",
        environment: dict[str, str] | None = None,
        service: bool = False,
        base_url: str = "/",
    ) -> None:
        self.folder = folder
        self.token = secrets.token_hex(16)
        self.port = free_port()
        self.service_port = free_port()
        self.devices = folder / "gpus"
        create_devices(self.devices, gpus, 16 * GIB)
        content = dict(workshop or {})
        content["gpus"] = {
            "source": "simulated",
            "simulated_dir": str(self.devices),
            **content.get("gpus", {}),
        }
        content["service"] = {
            "managed": service,
            "port": self.service_port,
            "state_dir": str(folder / "service"),
            "secret_file": None if service else str(folder / "secrets.env"),
            **content.get("service", {}),
        }
        self.workshop_file = folder / "workshop.yaml"
        self.workshop_file.write_text(yaml.safe_dump(content))
        self.base_url = base_url
        (folder / "jupyterhub_config.py").write_text(
            _CONFIG.format(
                root=str(ROOT),
                folder=folder,
                port=self.port,
                public_port=free_port(),
                token=self.token,
                python=sys.executable,
                stub=str(HERE / "stub_server.py"),
                version=jupyterhub.__version__,
                early=early,
                late=late,
                workshop=str(self.workshop_file),
                base_url=base_url,
            )
        )
        self.environment = {**os.environ, **(environment or {})}
        self._waits_for_service = service
        self._logged_before = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """All that the hub has logged."""
        return (self.folder / "hub.log").read_text()

    def launch(self) -> None:
        """Start the hub's process, without waiting."""
        with (self.folder / "hub.log").open("ab") as log:
            self._logged_before = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", "jupyterhub_config.py"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def start(self) -> "RunningHub":
        """Start the hub and wait until its API answers."""
        self.launch()
        wait_for(self._is_up, seconds=60, why=f"the hub is not up:\n{self.log[-4000:]}")
        return self

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log[-6000:]
        # A service that dies before the hub has seen it serve takes the hub along.
        if self._waits_for_service and not self._has_started():
            return False
        with contextlib.suppress(requests.ConnectionError):
            return self.api("GET", "info").ok
        return False

    def _has_started(self) -> bool:
        with (self.folder / "hub.log").open("rb") as log:
            log.seek(self._logged_before)
            return b"JupyterHub is now running" in log.read()

    def api(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Call the hub's API as the test service."""
        return requests.request(
            method,
            f"http://127.0.0.1:{self.port}{self.base_url}hub/api/{path}",
            headers={"Authorization": f"token {self.token}"},
            timeout=60,
            **kwargs,
        )

    def add_users(self, *names: str) -> None:
        """Create attendees."""
        answer = self.api("POST", "users", json={"usernames": list(names)})
        assert answer.ok, answer.text

    def user(self, name: str) -> dict[str, Any]:
        """Return the hub's model of a user, servers and their state included."""
        return self.api("GET", f"users/{name}").json()

    def server(self, name: str, server: str = "") -> dict[str, Any] | None:
        """Return the hub's model of a server that is on record."""
        return self.user(name)["servers"].get(server)

    def spawn(self, name: str, server: str = "", *, wait: bool = True) -> Any:
        """Ask for a server, and wait until it is ready."""
        path = f"users/{name}/servers/{server}" if server else f"users/{name}/server"
        answer = self.api("POST", path)
        told = f"{answer.text}\n{self.log[-6000:]}"
        assert answer.status_code in (201, 202), told
        if wait:
            return wait_for(
                lambda: (s := self.server(name, server)) and s["ready"] and s,
                why=f"{name}'s server is not ready",
            )
        return answer

    def stop_server(self, name: str, server: str = "") -> None:
        """Stop a server and wait until it is off the record."""
        path = f"users/{name}/servers/{server}" if server else f"users/{name}/server"
        answer = self.api("DELETE", path)
        assert answer.ok, answer.text
        wait_for(
            lambda: self.server(name, server) is None, why=f"{name} is still on record"
        )

    def ledger(self) -> Any:
        """Read the ledger's file as it is on disk: the value."""
        store = DurableLedger(f"sqlite:///{self.folder}/gpuworkshop.sqlite")
        try:
            return store.load()
        finally:
            store.close()

    def leases(self) -> list[Any]:
        """Return the leases on disk."""
        return list(self.ledger().leases.values())

    def servers_alive(self) -> list[psutil.Process]:
        """Return the stub servers of this hub that run, whoever their parent is."""
        found = []
        for process in psutil.process_iter(["cmdline", "environ", "status"]):
            environ = process.info["environ"] or {}
            is_ours = environ.get("HOME", "").startswith(f"{self.folder}/home/")
            if is_ours and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def environment_of(self, name: str) -> dict[str, str]:
        """Return the environment that a user's server was started with."""
        return next(
            p.environ()
            for p in self.servers_alive()
            if p.environ().get("JUPYTERHUB_USER") == name
        )

    def kill(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def wait_for_death(self) -> None:
        """Wait until the hub has killed itself, as a test told it to."""
        assert self.process is not None
        assert self.process.wait(60) == -signal.SIGKILL, self.log[-4000:]

    def close(self) -> None:
        """End the hub and whatever it has left running."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
        for process in self.servers_alive():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
