"""A machine with systemd as PID 1: a container with the host's own programs.

Its cgroups are version 2 whatever the host's are, so that systemd's `DeviceAllow=` is
a BPF program as on the machines of today; nodes made with mknod tell what it does: a
device that may be opened and is not there answers ENXIO, one that may not, EPERM.
"""

import contextlib
import os
import secrets
import subprocess
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from .docker_engine import DockerEngine, EngineTroubleError, _program
from .host_image import make_image, mount_arguments

IMAGE = "gpuworkshop-systemd:latest"
NVIDIA_MAJOR = 195
CAPS_MAJOR = 237
"""In place of the number that a driver's nvidia-caps would have got."""
UVM_MAJOR = 511
"""In place of the number that a driver's nvidia-uvm would have got."""

_SYSTEMD = Path("/usr/lib/systemd/systemd")
_START_SECONDS = 90.0
_COMMAND_SECONDS = 120.0

_INIT = """#!/bin/sh
# PID 1 goes into a cgroup of its own and sees it as the root of all.
set -e
mkdir -p /run/hierarchy
mount -t cgroup2 none /run/hierarchy
mkdir /run/hierarchy/$1
echo $$ >/run/hierarchy/$1/cgroup.procs
umount /run/hierarchy
rmdir /run/hierarchy
exec unshare --cgroup /bin/sh -c \\
  'umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec {systemd}'
"""


class SystemdMachine:
    """One such machine, as root sees it.

    Args:
        engine: the Docker engine that runs it.
        arguments: more arguments for `docker run`.
    """

    INSTALL_HINT = f"apt install systemd, and Docker: {DockerEngine.INSTALL_HINT}"

    def __init__(self, engine: DockerEngine, *arguments: str) -> None:
        self._engine = engine
        self.name = f"gpuws-{secrets.token_hex(4)}"
        make_image(
            engine,
            IMAGE,
            files={"init": _INIT.format(systemd=_SYSTEMD)},
            executable=["init"],
            links={
                "etc/systemd/system/default.target": (
                    "/usr/lib/systemd/system/multi-user.target"
                ),
            },
        )
        engine.docker(
            *("run", "--detach", "--name", self.name, "--hostname", self.name),
            *("--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined"),
            *("--security-opt=apparmor=unconfined", "--cgroupns=private"),
            *("--tmpfs=/run", "--tmpfs=/tmp:mode=1777,exec", "--env=container=docker"),
            # A machine, not one process among the host's, when they share its cores.
            "--cpu-shares=16384",
            # What Docker itself would refuse; systemd shall be the one that does.
            *(f"--device-cgroup-rule=c {NVIDIA_MAJOR}:* rwm",),
            *(f"--device-cgroup-rule=c {CAPS_MAJOR}:* rwm",),
            *(f"--device-cgroup-rule=c {UVM_MAJOR}:* rwm",),
            *mount_arguments(),
            *arguments,
            *(IMAGE, "/init", self.name),
        )
        try:
            self._wait_until_up()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def is_installed() -> bool:
        """Return whether systemd's and Docker's programs are there."""
        return _SYSTEMD.exists() and DockerEngine.is_installed()

    def run(
        self,
        *command: object,
        check: bool = True,
        user: str = "root",
        env: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine.

        Args:
            command: without a shell.
            check: whether a failure is one of the test.
            user: who runs it.
            env: more environment.
            kwargs: for `subprocess.run`: `input`, `timeout`.
        """
        settings = [f"--env={k}={v}" for k, v in (env or {}).items()]
        kwargs.setdefault("timeout", _COMMAND_SECONDS)
        result = subprocess.run(  # noqa: S603  Docker's own client
            [
                *(_program("docker"), "exec", "--interactive", f"--user={user}"),
                *(*settings, self.name, *map(str, command)),
            ],
            env=self._engine.environment,
            capture_output=True,
            text=True,
            check=False,
            **kwargs,
        )
        assert not check or result.returncode == 0, (
            f"{' '.join(map(str, command))}: {result.stdout}{result.stderr}"
        )
        return result

    def add_user(self, name: str) -> int:
        """Create a Unix user with a home; return its number."""
        self.run("useradd", "--create-home", "--shell", "/bin/bash", name)
        return int(self.run("id", "--user", name).stdout)

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """Write a file, its folder included."""
        script = f'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod {mode:o} "$1"'
        self.run("/bin/sh", "-c", script, "sh", path, input=text)

    def read(self, path: str) -> str:
        """Read a file."""
        return self.run("cat", path).stdout

    def make_node(self, path: str, major: int, minor: int) -> None:
        """Make a character device that everybody may open, as far as modes go."""
        script = 'mkdir -p "$(dirname "$1")" && mknod -m 666 "$1" c "$2" "$3"'
        self.run("/bin/sh", "-c", script, "sh", path, major, minor)

    def journal(self, unit: str) -> str:
        """Return what a unit has logged."""
        return self.run("journalctl", "--no-pager", "--unit", unit).stdout

    def properties(self, unit: str, *names: str) -> dict[str, str]:
        """Return a unit's properties; one given several times, in as many lines."""
        shown = self.run("systemctl", "show", unit, f"--property={','.join(names)}")
        found: dict[str, str] = {}
        for line in shown.stdout.splitlines():
            key, _, value = line.partition("=")
            found[key] = f"{found[key]}\n{value}" if key in found else value
        return found

    @cached_property
    def address(self) -> str:
        """Its IP address, which the host reaches."""
        wanted = "{{.NetworkSettings.IPAddress}}"
        return self._engine.docker("inspect", f"--format={wanted}", self.name)

    def close(self) -> None:
        """Remove the machine."""
        with contextlib.suppress(AssertionError):
            self._engine.docker("rm", "--force", "--volumes", self.name)
        self._remove_cgroups()

    def _wait_until_up(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            state = self.run("systemctl", "is-system-running", check=False).stdout
            if state.strip() in ("running", "degraded"):
                return
            running = self._engine.docker(
                "inspect", "--format={{.State.Running}}", self.name
            )
            if running != "true":
                break
            time.sleep(0.2)
        said = self._engine.docker("logs", self.name)
        raise EngineTroubleError(f"systemd does not come up as PID 1 here: {said}")

    def _remove_cgroups(self) -> None:
        """Remove what a dead systemd leaves in the host's tree, if it has one."""
        for line in Path("/proc/mounts").read_text().splitlines():
            _, where, kind, *_ = line.split()
            if kind == "cgroup2":
                top = Path(where, self.name)
                for folder, _, _ in os.walk(top, topdown=False):
                    with contextlib.suppress(OSError):
                        Path(folder).rmdir()
                return
