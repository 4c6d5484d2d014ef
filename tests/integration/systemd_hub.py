"""A real hub on a machine with systemd: its servers are units."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.engines.systemd_machine import (
    CAPS_MAJOR,
    NVIDIA_MAJOR,
    UVM_MAJOR,
    SystemdMachine,
)
from tests.hub.running_hub import ROOT, RunningHub, wait_for
from tests.machine.nvml_double import Scenario

SERVER = Path(__file__).with_name("device_server.py")
UNIT = "jupyterhub"

NODES = {
    "/dev/nvidia0": (NVIDIA_MAJOR, 0),
    "/dev/nvidia1": (NVIDIA_MAJOR, 1),
    "/dev/nvidia2": (NVIDIA_MAJOR, 2),
    "/dev/nvidiactl": (NVIDIA_MAJOR, 255),
    "/dev/nvidia-modeset": (NVIDIA_MAJOR, 254),
    "/dev/nvidia-uvm": (UVM_MAJOR, 0),
    "/dev/nvidia-uvm-tools": (UVM_MAJOR, 1),
    "/dev/nvidia-caps/nvidia-cap66": (CAPS_MAJOR, 66),
    "/dev/nvidia-caps/nvidia-cap67": (CAPS_MAJOR, 67),
    "/dev/nvidia-caps/nvidia-cap75": (CAPS_MAJOR, 75),
}
"""As a driver makes them; nothing is behind them, so that an open answers ENXIO."""

PLAIN = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")

_ASK = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1]).read().decode())
"""

_EARLY = """
c.JupyterHub.hub_bind_url = "http://0.0.0.0:{port}"
c.JupyterHub.hub_connect_url = "http://127.0.0.1:{port}"
c.JupyterHub.spawner_class = "systemd"
c.Spawner.cmd = [{python!r}, "-S", "-E", {server!r}]
c.SystemdSpawner.default_shell = "/bin/bash"
c.JupyterHub.allow_named_servers = True
"""


class SystemdHub(RunningHub):
    """One hub in a unit of its own.

    Args:
        folder: which the machine has, too, under the same path.
        machine: where it runs.
        early: configuration code before `configure` is called.
        kwargs: as `RunningHub` takes them.
    """

    def __init__(
        self, folder: Path, machine: SystemdMachine, *, early: str = "", **kwargs: Any
    ) -> None:
        super().__init__(folder, early="{early}", **kwargs)
        self.machine = machine
        config = folder / "jupyterhub_config.py"
        given = _EARLY.format(port=self.port, python=sys.executable, server=str(SERVER))
        config.write_text(config.read_text().replace("{early}", given + early))
        (folder / "hub.log").touch()

    def launch(self) -> None:
        """Start the hub's unit, without waiting."""
        self.machine.run("systemctl", "reset-failed", UNIT, check=False)
        settings = {
            name: value
            for name, value in self.environment.items()
            if os.environ.get(name) != value
        }
        settings.setdefault(
            "PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        )
        settings["PYTHONPATH"] = str(ROOT)
        log = self.folder / "hub.log"
        self.machine.run(
            *(
                "systemd-run",
                "--quiet",
                f"--unit={UNIT}",
                "--property=KillMode=process",
            ),
            *(
                f"--working-directory={self.folder}",
                f"--property=StandardError=append:{log}",
            ),
            f"--property=StandardOutput=append:{log}",
            *(f"--setenv={name}={value}" for name, value in settings.items()),
            *(sys.executable, "-m", "jupyterhub", "-f", "jupyterhub_config.py"),
        )

    def _is_up(self) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return bool(self.api("GET", "info").ok)
        # Asked seldom: a question to systemd costs more than the hub's own start.
        time.sleep(1)
        assert self.is_running, self.log[-6000:]
        return False

    @property
    def is_running(self) -> bool:
        """Whether the hub's process runs."""
        state = self.machine.properties(UNIT, "ActiveState")["ActiveState"]
        return state in ("active", "activating")

    def api(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Call the hub's API as the test service."""
        return requests.request(
            method,
            f"http://{self.machine.address}:{self.port}/hub/api/{path}",
            headers={"Authorization": f"token {self.token}"},
            timeout=kwargs.pop("timeout", 60),
            **kwargs,
        )

    def servers_alive(self) -> list[psutil.Process]:
        """Return the servers of this hub that run, as this host sees them."""
        found = []
        for process in psutil.process_iter(["environ", "status"]):
            environ = process.info["environ"] or {}
            ours = f":{self.port}/" in environ.get("JUPYTERHUB_API_URL", "")
            if ours and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def opens(self, name: str, *paths: str) -> dict[str, str]:
        """Return what a user's server meets when it opens these devices."""
        url = self.environment_of(name)["JUPYTERHUB_SERVICE_URL"]
        query = "&".join(f"path={path}" for path in paths)
        said = self.machine.run(
            *(sys.executable, "-c", _ASK, f"{url.rstrip('/')}/devices?{query}")
        )
        answer: dict[str, str] = json.loads(said.stdout)
        assert answer.pop("terminal and memory") == "work"
        return answer

    def kill(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer does."""
        self.machine.run(
            *("systemctl", "kill", "--signal=SIGKILL", "--kill-whom=main", UNIT)
        )
        self.wait_for_death()

    def wait_for_death(self) -> None:
        """Wait until the hub's process is gone."""
        wait_for(lambda: not self.is_running, why="the hub lives on")

    def close(self) -> None:
        """Leave it to the machine, which ends with all that runs in it."""


def install_driver(machine: SystemdMachine, driver: Scenario) -> dict[str, str]:
    """Give a machine the double of a driver: its nodes, its numbers, its library.

    Slices of the double's slot 0 are GPU instance 7.

    Returns:
        The environment in which a hub meets it.
    """
    for path, (major, minor) in NODES.items():
        machine.make_node(path, major, minor)
    char = "195 nvidia\n{} nvidia-caps\n{} nvidia-uvm\n"
    lines = Path("/proc/devices").read_text().partition("\nBlock devices:")
    text = lines[0] + char.format(CAPS_MAJOR, UVM_MAJOR) + lines[1] + lines[2]
    machine.write("/etc/proc-devices", text)
    machine.run("mount", "--bind", "/etc/proc-devices", "/proc/devices")
    machine.run("mount", "-t", "tmpfs", "none", "/proc/driver")
    top = "/proc/driver/nvidia/capabilities/gpu1/mig/gi7"
    machine.write(f"{top}/access", "DeviceFileMinor: 66\nDeviceFileMode: 292\n")
    machine.write(f"{top}/ci0/access", "DeviceFileMinor: 67\nDeviceFileMode: 292\n")
    return driver.environment
