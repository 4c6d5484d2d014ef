"""Where the home is when a server is a container, and what is mounted there.

PURE: what the engine says of a container in, a home out. Owns which folder counts as
home: one that outlives the container, as far as there is any.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jupyterhub_gpuworkshop.hub.homes import DOCKER, Home, Mount

_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
"""The name of a volume that the engine removes with its container."""

_OURS = "/opt/gpuworkshop/"


def home_path(root: str, targets: Iterable[str]) -> str:
    """Return what counts as home.

    The server's root, where that outlives the container; else what does below it, for
    what is put elsewhere would go with the container.

    Args:
        root: the folder at the root of the server's files.
        targets: where the container has folders that outlive it and can be written.
    """
    here = PurePosixPath(root or "/")
    kept = [PurePosixPath(target) for target in targets]
    if any(here.is_relative_to(target) for target in kept):
        return str(here)
    below = sorted(target for target in kept if target.is_relative_to(here))
    return str(below[0] if below else here)


def home_of(container: Mapping[str, Any], root: str) -> Home:
    """Return how the home in a container is reached.

    Args:
        container: what the engine says of it.
        root: the folder at the root of the server's files; empty for the folder in
            which the container starts its command.
    """
    config = container.get("Config") or {}
    mounts = tuple(sorted(_kept(container.get("Mounts") or ()), key=lambda x: x.target))
    root = root if root.startswith("/") else str(config.get("WorkingDir") or "/")
    return Home(
        kind=DOCKER,
        path=home_path(root, [mount.target for mount in mounts]),
        image=str(config.get("Image") or ""),
        user=str(config.get("User") or ""),
        mounts=mounts,
    )


def _kept(mounts: Iterable[Mapping[str, Any]]) -> list[Mount]:
    found = []
    for mount in mounts:
        kind, target = mount.get("Type"), str(mount.get("Destination", ""))
        source = str(mount.get("Name" if kind == "volume" else "Source") or "")
        if kind not in ("volume", "bind") or not mount.get("RW"):
            continue
        if not _ANONYMOUS.fullmatch(source) and not target.startswith(_OURS):
            found.append(Mount(kind=str(kind), source=source, target=target))
    return found


def with_material(
    arguments: Mapping[str, Any], folder: Path, volume: str
) -> dict[str, Any]:
    """Mount the material into a container that is to be created, for reading only.

    Args:
        arguments: of docker-py's `create_container`.
        folder: where it is; in the container too.
        volume: the volume that holds it; empty for the folder of the engine's host.
    """
    host = dict(arguments.get("host_config") or {})
    given: Sequence[Mapping[str, Any]] = host.get("Mounts") or ()
    mount: dict[str, Any] = {
        "Type": "volume" if volume else "bind",
        "Source": volume or str(folder),
        "Target": str(folder),
        "ReadOnly": True,
    }
    if volume:
        mount["VolumeOptions"] = {"NoCopy": True}
    host["Mounts"] = [*given, mount]
    return {**arguments, "host_config": host}


def command_for(source: str, home: Home, arguments: Sequence[str]) -> list[str]:
    """Return what runs a script of ours in a container.

    Its text goes along: there need be no volume with it. Where containers are started
    as root it becomes the owner of the home by itself.
    """
    return [
        *("python3", "-I", "-S", "-B", "-c", source),
        *("--home", home.path, "--as-owner", "yes", *arguments),
    ]
