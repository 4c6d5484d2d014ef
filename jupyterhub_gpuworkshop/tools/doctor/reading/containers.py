"""What there is to know of Docker or Podman, through the engine's own socket."""

import http.client
import json
import os
import re
import socket
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .host import has_command

_SECONDS = 10.0
_SOCKETS = ("/var/run/docker.sock", "/run/podman/podman.sock")
_CDI_FOLDERS = ("/etc/cdi", "/var/run/cdi")
_CDI_DRIVER = re.compile(r"lib(?:cuda|nvidia-ml)\.so\.(\d+\.\d+(?:\.\d+)?)\b")
_MOST_CDI_BYTES = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CdiFile:
    """A CDI specification of NVIDIA devices.

    Attributes:
        path: the file.
        driver: the driver's version that it was made for; empty where it names none.
    """

    path: str
    driver: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A container engine.

    Attributes:
        address: of its socket; empty where there is none.
        problem: why it does not answer; else empty.
        needs_root: whether root, or a member of its group, could ask.
        installed: whether there is a command of an engine at least.
        name: Docker or Podman.
        version: of the engine.
        cgroup_driver: systemd or cgroupfs.
        runtimes: by name.
        default_runtime: the one that is taken unless one is named.
        cdi_folders: where the engine looks for CDI; empty where it knows none.
        root: where it keeps images and volumes.
        nvidia_ctk: whether NVIDIA's toolkit is installed.
        nvidia_hook: whether its hook for device requests is.
        cdi: specifications of NVIDIA devices.
    """

    address: str = ""
    problem: str = ""
    needs_root: bool = False
    installed: bool = False
    name: str = "Docker"
    version: str = ""
    cgroup_driver: str = ""
    runtimes: tuple[str, ...] = ()
    default_runtime: str = ""
    cdi_folders: tuple[str, ...] = ()
    root: str = ""
    nvidia_ctk: bool = False
    nvidia_hook: bool = False
    cdi: tuple[CdiFile, ...] = field(default=())

    @property
    def answers(self) -> bool:
        """Whether it can be asked."""
        return bool(self.version)


def read_engine() -> Engine:
    """Ask the engine that DOCKER_HOST names, else the one with a socket here."""
    installed = has_command("docker") or has_command("podman")
    address = os.environ.get("DOCKER_HOST") or next(
        (f"unix://{path}" for path in _SOCKETS if Path(path).exists()), ""
    )
    if not address:
        return Engine(installed=installed)
    try:
        status, said = _get(address, "/info")
    except PermissionError:
        return Engine(
            address=address,
            installed=True,
            problem="permission denied",
            needs_root=True,
        )
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Engine(
            address=address, installed=installed, problem=str(error) or repr(error)
        )
    if status != 200 or not isinstance(said, dict):
        return Engine(
            address=address, installed=True, problem=f"it answers with status {status}"
        )
    return _engine(address, said)


def _engine(address: str, said: dict[str, Any]) -> Engine:
    return Engine(
        address=address,
        installed=True,
        name="Podman" if "podman" in address or "buildahVersion" in said else "Docker",
        version=str(said.get("ServerVersion") or "unknown"),
        cgroup_driver=str(said.get("CgroupDriver", "")),
        runtimes=tuple(said.get("Runtimes") or ()),
        default_runtime=str(said.get("DefaultRuntime", "")),
        cdi_folders=tuple(said.get("CDISpecDirs") or ()),
        root=str(said.get("DockerRootDir", "")),
        nvidia_ctk=has_command("nvidia-ctk"),
        nvidia_hook=has_command("nvidia-container-runtime-hook"),
        cdi=_read_cdi(),
    )


def image_is_there(engine: Engine, image: str) -> bool | None:
    """Say whether an image is pulled; None where the engine does not say."""
    quoted = urllib.parse.quote(image, safe="/:@")
    try:
        status, _ = _get(engine.address, f"/images/{quoted}/json")
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return {200: True, 404: False}.get(status)


def char_links(majors: set[int]) -> bool:
    """Say whether /dev/char has a link for each of these kinds of device."""
    there = {link.name.partition(":")[0] for link in Path("/dev/char").glob("*:*")}
    return {str(major) for major in majors} <= there


def _read_cdi() -> tuple[CdiFile, ...]:
    found = []
    for folder in map(Path, _CDI_FOLDERS):
        for path in [*folder.glob("*.yaml"), *folder.glob("*.json")]:
            try:
                text = path.read_text("utf-8", "replace")[:_MOST_CDI_BYTES]
            except OSError:
                continue
            if "nvidia.com/" in text:
                driver = _CDI_DRIVER.search(text)
                found.append(
                    CdiFile(path=str(path), driver=driver[1] if driver else "")
                )
    return tuple(found)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(self._path)


def _get(address: str, path: str) -> tuple[int, Any]:
    """Ask the engine.

    Raises:
        OSError: it cannot be reached.
        ValueError: the address is of a kind that we do not speak, or the answer is.
    """
    parts = urllib.parse.urlsplit(address)
    connection: http.client.HTTPConnection
    if parts.scheme == "unix":
        connection = _UnixConnection(parts.path)
    elif parts.scheme in ("tcp", "http") and not os.environ.get("DOCKER_TLS_VERIFY"):
        connection = http.client.HTTPConnection(
            parts.hostname or "localhost", parts.port or 2375, timeout=_SECONDS
        )
    else:
        raise ValueError(f"{address} is no socket that the doctor can ask")
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()
