"""A Docker engine of a test run's own: its daemon, data, network and socket."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_PROGRAMS = ("dockerd", "docker", "ip", "iptables", "nsenter", "setpriv")

_HOOK = """#!/bin/sh
# Stands where NVIDIA's hook stands, so that the engine accepts device requests.
cat >/dev/null
exit 0
"""


class EngineTroubleError(Exception):
    """An engine is installed and does not start here; says why."""


class DockerEngine:
    """One dockerd in a network namespace of its own, reached by a Unix socket.

    Another engine on the machine is left alone: daemons that share a network
    namespace share a bridge and flush each other's firewall chains.

    The host reaches containers at their addresses and their published ports at
    `published_address`; containers reach the host at `host_address`. There is no
    way to the rest of the world.
    """

    INSTALL_HINT = (
        "run as root, and apt install docker.io iptables iproute2 (and docker-cli "
        "where docker.io comes without it)"
    )

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gpuworkshop-docker-"))
        self.id = secrets.token_hex(4)
        self.socket = f"unix://{self.folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._namespace = ""
        self.host_address = ""
        self.published_address = ""
        try:
            self._make_network()
            self._start()
        except BaseException:
            self.remove()
            raise

    @staticmethod
    def is_installed() -> bool:
        """Return whether its programs are there, and we may start it."""
        return os.geteuid() == 0 and all(map(shutil.which, _PROGRAMS))

    @property
    def environment(self) -> dict[str, str]:
        """What makes Docker's clients talk to this engine."""
        return {**os.environ, "DOCKER_HOST": self.socket}

    @property
    def log(self) -> str:
        """What the daemon has logged."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "log").read_text(errors="replace")
        return ""

    def docker(self, *arguments: object, **kwargs: Any) -> str:
        """Run a command of Docker's client; return what it prints.

        Raises:
            AssertionError: it failed; says how.
        """
        result = subprocess.run(  # noqa: S603  the client, without a shell
            [_program("docker"), *map(str, arguments)],
            env=self.environment,
            capture_output=True,
            text=True,
            **kwargs,
        )
        assert result.returncode == 0, (
            f"docker {' '.join(map(str, arguments))}: {result.stdout}{result.stderr}"
        )
        return result.stdout.strip()

    def remove(self) -> None:
        """End the daemon and its containers; remove all that it left."""
        if self._process is not None:
            if self._process.poll() is None:
                self._remove_containers()
            self._end()
        for mount in _mounts_below(self.folder):
            subprocess.run(["umount", "-l", mount], check=False)  # noqa: S603, S607
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._namespace:
            subprocess.run(  # noqa: S603
                ["ip", "netns", "delete", self._namespace],  # noqa: S607
                check=False,
            )

    def _remove_containers(self) -> None:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            found = self.docker("ps", "--all", "--quiet", timeout=10).split()
            if found:
                self.docker("rm", "--force", "--volumes", *found, timeout=60)

    def _end(self) -> None:
        assert self._process is not None
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
                return

    def _make_network(self) -> None:
        """Make a network namespace with one cable to the host's."""
        for number in range(256):
            name = f"gpuws-{number}"
            made = subprocess.run(  # noqa: S603
                ["ip", "netns", "add", name],  # noqa: S607
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode == 0:
                break
        else:
            raise EngineTroubleError(f"no network namespace can be made: {made.stderr}")
        self._namespace, self._block = name, f"10.213.{number}"
        self.host_address = f"{self._block}.1"
        self.published_address = f"{self._block}.2"
        here, there = f"gpuws{number}", f"gpuws{number}c"
        inside = ("-n", name)
        for arguments in (
            ("link", "add", here, "type", "veth", "peer", "name", there),
            ("link", "set", there, "netns", name),
            ("addr", "add", f"{self.host_address}/30", "dev", here),
            ("link", "set", here, "up"),
            (*inside, "addr", "add", f"{self.published_address}/30", "dev", there),
            (*inside, "link", "set", there, "up"),
            (*inside, "link", "set", "lo", "up"),
            (*inside, "route", "add", "default", "via", self.host_address),
            ("route", "add", f"{self._block}.0/24", "via", self.published_address),
        ):
            _must("ip", *arguments)

    def _start(self) -> None:
        programs = self.folder / "bin"
        programs.mkdir()
        hook = programs / "nvidia-container-runtime-hook"
        hook.write_text(_HOOK)
        hook.chmod(0o755)
        namespace = f"--net=/run/netns/{self._namespace}"
        command = [
            *("setpriv", "--pdeathsig", "TERM", "nsenter", namespace, "dockerd"),
            *("--data-root", f"{self.folder}/data"),
            *("--exec-root", f"{self.folder}/exec"),
            *("--pidfile", f"{self.folder}/pid"),
            *("--config-file", f"{self.folder}/daemon.json"),
            *("--host", self.socket),
            *("--bip", f"{self._block}.65/26"),
            *("--default-address-pool", f"base={self._block}.128/25,size=28"),
            # Where the machine has a containerd, dockerd joins that one.
            *("--containerd-namespace", f"gpuws-{self.id}"),
            *("--containerd-plugins-namespace", f"gpuws-{self.id}-plugins"),
        ]
        (self.folder / "daemon.json").write_text("{}")
        path = f"{programs}:{os.environ.get('PATH', os.defpath)}"
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  the system's own daemon
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env={**os.environ, "PATH": path},
                start_new_session=True,
            )
        end = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                raise EngineTroubleError(f"dockerd does not start:\n{self.log[-2000:]}")
            time.sleep(0.1)
        # New connections from the host to containers, which Docker would drop.
        allow = ("-I", "DOCKER-USER", "-i", f"{self._namespace.replace('-', '')}c")
        _must("nsenter", namespace, "iptables", *allow, "-j", "ACCEPT")

    def _answers(self) -> bool:
        try:
            self.docker("version", timeout=10)
        except (AssertionError, subprocess.TimeoutExpired):
            return False
        return True


def _program(name: str) -> str:
    path = shutil.which(name)
    assert path is not None, f"{name} is not installed"
    return path


def _must(program: str, *arguments: str) -> None:
    result = subprocess.run(  # noqa: S603  the system's own programs
        [_program(program), *arguments], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise EngineTroubleError(
            f"{program} {' '.join(arguments)}: {result.stderr.strip()}"
        )


def _mounts_below(folder: Path) -> list[str]:
    """Return what is mounted below a folder, the deepest first."""
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True)
