"""The Docker engine: what it says of containers, and the volume with the import hook.

The only importer of docker-py. Owns the calls that no spawner makes: those about a
container that no spawner vouches for, and those that fill a volume.
"""

import asyncio
import contextlib
import hashlib
import io
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.hub.memory_hook import FOLDER
from jupyterhub_gpuworkshop.machine.timeouts import timeout

from .docker_request import HOOK_TARGET, LEASE_LABEL

_HOOK_LABEL = "gpuworkshop.hook"
_CALL_SECONDS = 10
"""An engine that is well answers in milliseconds."""

_STOP_SECONDS = 5
_LIMIT_SECONDS = 60.0
"""For all the calls of one question, however they wait for one another."""

_NOT_RUNNING = frozenset({"exited", "dead", "removing"})

_SCRIPT_SECONDS, _SILENT_SECONDS = 120.0, 60
_HEADER_BYTES = 8
_STDOUT = 1

__all__ = [
    "APIError",
    "DockerEngine",
    "fill_hook_volume",
    "make_client",
    "run_in_container",
]


def make_client(
    client_kwargs: Mapping[str, Any], tls_config: Mapping[str, Any]
) -> docker.APIClient:
    """Return a client of the engine that DockerSpawner talks to, made as it does.

    Not the same client: this one answers in bounded time, and is used by one thread.

    Args:
        client_kwargs: the trait of DockerSpawner.
        tls_config: the trait of DockerSpawner.
    """
    kwargs: dict[str, Any] = {"version": "auto", "timeout": _CALL_SECONDS}
    if tls_config:
        kwargs["tls"] = TLSConfig(**tls_config)
    kwargs.update(kwargs_from_env())
    kwargs.update(client_kwargs)
    return docker.APIClient(**kwargs)


class DockerEngine:
    """Answers the reconciler about containers.

    A container is found by its id, or by the label with its lease's id where the hub
    was killed before it could write the id down.

    Args:
        client: makes a client; called in this engine's thread, when first needed.
    """

    def __init__(self, client: Callable[[], docker.APIClient]) -> None:
        self._make_client = client
        self._client: docker.APIClient | None = None
        self._thread = ThreadPoolExecutor(1, "gpuworkshop-docker")

    async def is_running(self, lease: Lease) -> bool:
        """Say whether the lease's container runs, or may yet start.

        One that was created and not started counts: the engine may be about to.
        """
        return await self._ask(self._is_running, lease)

    async def end(self, lease: Lease) -> None:
        """Stop and remove the lease's container; one that is gone is fine."""
        await self._ask(self._end, lease)

    async def _ask(self, question: Callable[..., Any], lease: Lease) -> Any:
        answer = asyncio.get_running_loop().run_in_executor(
            self._thread, question, lease
        )
        async with timeout(_LIMIT_SECONDS):
            return await answer

    @property
    def client(self) -> docker.APIClient:
        """The client of this engine's thread."""
        if self._client is None:
            self._client = self._make_client()
        return self._client

    def _is_running(self, lease: Lease) -> bool:
        return any(
            container["State"]["Running"]
            or container["State"].get("Status") not in _NOT_RUNNING
            for container in self._containers(lease)
        )

    def _end(self, lease: Lease) -> None:
        for container in self._containers(lease):
            try:
                self.client.stop(container["Id"], timeout=_STOP_SECONDS)
                self.client.remove_container(container["Id"], v=True, force=True)
            except APIError as error:
                if error.status_code not in (404, 409):  # gone; being removed
                    raise

    def _containers(self, lease: Lease) -> Iterator[dict[str, Any]]:
        labelled = {"label": f"{LEASE_LABEL}={lease.id}"}
        ids = {x["Id"] for x in self.client.containers(all=True, filters=labelled)}
        if lease.engine_id:
            ids.add(lease.engine_id)
        for container_id in sorted(ids):
            try:
                yield self.client.inspect_container(container_id)
            except NotFound:
                continue


def run_in_container(
    make: Callable[..., docker.APIClient],
    container: str,
    command: Callable[[], list[str]],
    most_bytes: int,
) -> bytes:
    """Run a command in a container, as its user; return what it says.

    It comes back in bounded time, whatever an attendee has made of the container.

    Args:
        make: makes a client, given how long an answer may take.
        container: its id.
        command: returns what to run.
        most_bytes: what it may say.

    Raises:
        HostError: it did not end, or ended badly.
    """
    until = time.monotonic() + _SCRIPT_SECONDS
    client = make(timeout=_SILENT_SECONDS)
    run = client.exec_create(container, command())["Id"]
    said = b""
    try:
        with contextlib.closing(client.exec_start(run, socket=True)) as stream:
            while piece := stream.read(most_bytes):
                said += piece
                if time.monotonic() > until or len(said) > most_bytes:
                    raise HostError("it says too much, or does not end")
    except TimeoutError:
        raise HostError("it does not end") from None
    code = client.exec_inspect(run)["ExitCode"]
    client.close()
    output, errors = _apart(said)
    if code:
        raise HostError(f"it ended with {code}: {(errors or output)[-300:]!r}")
    return output


def _apart(said: bytes) -> tuple[bytes, bytes]:
    """Take the engine's stream apart: standard output, and the rest."""
    output, rest = b"", b""
    while len(said) > _HEADER_BYTES:
        end = _HEADER_BYTES + int.from_bytes(said[4:_HEADER_BYTES], "big")
        piece = said[_HEADER_BYTES:end]
        if said[0] == _STDOUT:
            output += piece
        else:
            rest += piece
        said = said[end:]
    return output, rest


def fill_hook_volume(client: docker.APIClient, image: str, filled: set[str]) -> str:
    """Return a volume with the import hook in it, for containers to mount.

    A volume and no folder of the host: the hub may itself be in a container, or the
    engine elsewhere. It is named after what is in it, so that a new version fills a
    new one, and those who use the old one keep it.

    Args:
        client: blocking.
        image: any that is there: a container of it is created to fill the volume, and
            removed without having run.
        filled: names of volumes known to be full; added to.
    """
    archive = _hook_archive()
    name = f"gpuworkshop-hook-{hashlib.sha256(archive).hexdigest()[:12]}"
    if name in filled:
        try:
            client.inspect_volume(name)
            return name
        except NotFound:
            filled.discard(name)
    client.create_volume(name, labels={_HOOK_LABEL: name})
    host_config = client.create_host_config(
        mounts=[{"Type": "volume", "Source": name, "Target": HOOK_TARGET}]
    )
    carrier = client.create_container(
        image, ["none"], host_config=host_config, labels={_HOOK_LABEL: name}
    )["Id"]
    try:
        client.put_archive(carrier, HOOK_TARGET, archive)
    finally:
        client.remove_container(carrier, force=True)
    filled.add(name)
    return name


def _hook_archive() -> bytes:
    """Return the hook's folder as a tar file, always the same for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        files = sorted(FOLDER.rglob("*.py"))
        # Engines before 23 make a folder that is not in the archive root's alone.
        for folder in sorted({file.parent for file in files} - {FOLDER}):
            entry = tarfile.TarInfo(str(folder.relative_to(FOLDER)))
            entry.mode, entry.type = 0o755, tarfile.DIRTYPE
            tar.addfile(entry)
        for file in files:
            data = file.read_bytes()
            entry = tarfile.TarInfo(str(file.relative_to(FOLDER)))
            entry.mode, entry.size = 0o644, len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
