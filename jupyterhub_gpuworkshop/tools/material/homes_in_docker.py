"""How a script is run in a home that only containers see.

Owns the calls of the `docker` command for it. Where volumes hold the whole home a
container of its own looks at them: it needs no server that runs, and its Python is the
image's. Else the attendee's own container does it, where anything may be in the place
of Python.
"""

import csv
import io
import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.hub.homes import Home, Mount
from jupyterhub_gpuworkshop.hub.spawners.docker_request import LEASE_LABEL

_CALL_SECONDS = 60.0
_PYTHON = ("python3", "-I", "-S", "-X", "utf8", "-")
_VOLUME = "volume"


@contextmanager
def run_in_container(
    name: str, home: Home, script: Path, arguments: Sequence[str]
) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Yield a command line, and keywords to start it with, as `run_as_attendee` does.

    Raises:
        HostError: there is no way into this home now, or no Docker.
    """
    docker = shutil.which("docker")
    if docker is None:
        raise HostError("The command `docker` is not installed here.")
    running = "" if _is_in_volumes(home) else _running(docker, name)
    with script.open("rb") as source:
        given = {"stdin": source, "start_new_session": True}
        if running:
            inside = ["--workdir", home.path] if home.path else []
            line = [docker, "exec", "--interactive", *inside, running]
            yield [*line, *_PYTHON, *arguments], given
            return
        if not home.mounts:
            raise HostError(
                "The home ends with the server's container, and the server does not "
                "run. Start it; next time collect before `gpuworkshop stop-all`."
            )
        called = f"gpuworkshop-pack-{secrets.token_hex(6)}"
        try:
            yield [docker, *_own_container(docker, home, called), *arguments], given
        finally:
            _call(docker, "rm", "--force", called)


def _is_in_volumes(home: Home) -> bool:
    """Tell whether all of a home outlives the container."""
    path = PurePosixPath(home.path)
    return bool(home.path) and any(
        path.is_relative_to(mount.target) for mount in home.mounts
    )


def _running(docker: str, name: str) -> str:
    """Return the container of a user's server, the default one first, or nothing."""
    listed = _call(docker, "ps", "--quiet", "--filter", f"label={LEASE_LABEL}").split()
    if not listed:
        return ""
    found: dict[str, str] = {}
    for container in json.loads(_call(docker, "inspect", *listed) or "[]"):
        # The engine's record of it: no process inside can change it.
        lines = (container.get("Config") or {}).get("Env") or []
        given = dict(line.partition("=")[::2] for line in lines)
        if given.get("JUPYTERHUB_USER") == name:
            found[given.get("JUPYTERHUB_SERVER_NAME", "")] = container["Id"]
    return found.get("", next(iter(found.values()), ""))


def _own_container(docker: str, home: Home, called: str) -> list[str]:
    for mount in home.mounts:
        # Docker would make an empty one, and its archive take the full one's place.
        if mount.kind == _VOLUME and not _call(
            docker, "volume", "inspect", "--format={{.Name}}", mount.source
        ):
            raise HostError(f"The volume {mount.source} is not there any more.")
    return [
        *("run", "--rm", "--interactive", "--name", called),
        *("--network=none", "--log-driver=none", "--pull=never"),
        *("--cap-drop=ALL", "--cap-add=DAC_READ_SEARCH"),
        *("--security-opt=no-new-privileges", "--memory=1g", "--pids-limit=64"),
        *(x for mount in home.mounts for x in ("--mount", _mount(mount))),
        *(("--user", home.user) if home.user else ()),
        *(("--workdir", home.path) if home.path else ()),
        *("--entrypoint", _PYTHON[0], home.image, *_PYTHON[1:]),
    ]


def _mount(mount: Mount) -> str:
    """Return a mount as the option has it: a line of CSV."""
    line = io.StringIO()
    parts = [f"type={mount.kind}", f"src={mount.source}", f"dst={mount.target}"]
    if mount.kind == _VOLUME:
        parts.append("volume-nocopy")
    csv.writer(line, lineterminator="").writerow(parts)
    return line.getvalue()


def _call(docker: str, *arguments: str) -> str:
    """Return what a command prints; nothing where it fails.

    Raises:
        HostError: the engine does not answer.
    """
    try:
        done = subprocess.run(  # noqa: S603  our own arguments
            [docker, *arguments],
            check=False,
            capture_output=True,
            timeout=_CALL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise HostError("The Docker engine does not answer.") from None
    if done.returncode and b"Cannot connect" in done.stderr:
        raise HostError("The Docker engine does not run, or not for this user.")
    return done.stdout.decode(errors="replace").strip()
