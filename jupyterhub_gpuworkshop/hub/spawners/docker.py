"""Servers in Docker containers: each is handed the devices of its lease, no others.

Owns what is particular to DockerSpawner: the request that creates a container, and
that the lease knows the container before it starts. The only importer of dockerspawner.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from dockerspawner import DockerSpawner, SwarmSpawner
from traitlets import CaselessStrEnum, Unicode, default
from traitlets.config import Config
from traitlets.config.loader import LazyConfigValue

from jupyterhub_gpuworkshop.core.errors import HostError, LedgerError
from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.hub.homes import Home
from jupyterhub_gpuworkshop.hub.material import MOST_BYTES
from jupyterhub_gpuworkshop.hub.mixin import GpuSpawnerMixin
from jupyterhub_gpuworkshop.hub.refusal import refusal
from jupyterhub_gpuworkshop.hub.runtime import NO_LEDGER, GpuRuntime

from .docker_engine import (
    APIError,
    DockerEngine,
    fill_hook_volume,
    make_client,
    run_in_container,
)
from .docker_home import command_for, home_of, home_path, with_material
from .docker_request import (
    HOOK_TARGET,
    LEASE_LABEL,
    NO_SWARM,
    DeviceDriver,
    ask,
    driver_of,
    over_image,
)

_ASK_AGAIN_SECONDS = (0.5, 2.0, 5.0)
# What waits for attendees' containers keeps nothing else of the hub waiting.
_IN_CONTAINERS = ThreadPoolExecutor(4, "gpuworkshop-in-containers")

_NO_SUCH_SOURCE = "bind source path does not exist"

_NEEDS_REMOVE = (
    "GPU shares need containers that are removed when their servers stop: one that is "
    "kept would be started again with its old GPU. Write c.DockerSpawner.remove = True "
    "in jupyterhub_config.py, and keep attendees' files in a volume, since a container "
    "takes its own with it: c.DockerSpawner.volumes = "
    '{"jupyter-{username}": "/home/jovyan/work"}.'
)
_TELL = "Your server cannot start: the hub is not set up for containers with GPUs. "
_TELL_NAME = "Your server cannot start: another one runs under its name. "
_ORGANISER = "Tell the organiser, who finds the reason in the hub's log."


class GpuDockerMixin(GpuSpawnerMixin):
    """What spawners of containers add to the mixin.

    ::

        class MySpawner(GpuDockerMixin, SomeDockerSpawner): ...
    """

    engine: ClassVar[str] = "docker"

    device_driver = CaselessStrEnum(
        ["auto", "nvidia", "cdi"],
        "auto",
        help="""
        How the engine is asked for a lease's devices.

        `nvidia`: device requests for NVIDIA's container runtime, as `docker run
        --gpus` makes them. `cdi`: by their names in the Container Device Interface,
        `nvidia.com/gpu=GPU-...`, for an engine from 25 on. `auto`, the default: CDI
        where the engine lists these devices (from 28.2 on), or looks for CDI files
        and does not know NVIDIA's runtime; else `nvidia`. Simulated GPUs are not
        asked for.

        Example::

            c.GpuDockerMixin.device_driver = "cdi"
        """,
    ).tag(config=True)

    material_volume = Unicode(
        help="""
        The volume with the material, where the engine's host has it in no folder.

        Where the hub itself runs in a container: the name of the volume that is
        mounted at `material.folder` of the workshop file. Attendees' containers get
        it at the same path, read-only, once material is installed. Empty, the
        default, means that folder of the engine's host.

        Example::

            c.GpuDockerMixin.material_volume = "gpuworkshop-material"
        """,
    ).tag(config=True)

    _filled_volumes: ClassVar[set[str]] = set()
    _image_environment: Sequence[str] = ()
    _image_folder = ""
    """Where the image starts its command."""

    _driver = DeviceDriver.NVIDIA
    _hook_volume = ""
    _whose_name = ""
    """Whose container has the name of this server's, where it is another's."""

    @default("object_name")
    def _object_name_default(self) -> str:
        """Name the container; a named server's is never that of another server.

        Where the admin's template has no {servername}, two servers of one attendee
        would share a container, and whatever is done to one befalls the other.
        """
        template = self.name_template
        if self.name and "servername}" not in template:
            template += "--{servername}"
        return str(self._render_templates(template))

    @classmethod
    def mistake_in(cls, c: Config) -> str:
        """Say what in the hub's configuration cannot work, or nothing.

        Args:
            c: the configuration, as far as it is set.
        """
        if issubclass(cls, SwarmSpawner):
            return NO_SWARM
        old_name = _configured(
            cls, c, "remove_containers", default=cls.remove.default()
        )
        removed = _configured(cls, c, "remove", default=old_name)
        return "" if removed else _NEEDS_REMOVE

    async def start(self) -> Any:
        """Claim a lease, then create and start a container that has its devices.

        Raises:
            Exception: `refusal`, which the attendee reads on the hub's page.
        """
        mistake = ""
        if isinstance(self, SwarmSpawner):
            mistake = NO_SWARM
        elif not self.remove:
            mistake = _NEEDS_REMOVE
        if mistake:
            self.log.error("%s is refused a share: %s", self._log_name, mistake)
            raise refusal(_TELL + _ORGANISER, self)
        return await super().start()

    async def poll(self) -> Any:
        """Return None while the container runs.

        An engine that is away, restarting say, is asked again: to the hub a poll that
        fails when it starts means that the server is gone.
        """
        for seconds in _ASK_AGAIN_SECONDS:
            try:
                return await super().poll()
            except Exception as error:
                self.log.warning("%s cannot be polled: %s", self._log_name, error)
                await asyncio.sleep(seconds)
        return await super().poll()

    def get_env(self) -> dict[str, str]:
        """Return the environment, with lease and image in mind."""
        environment = super().get_env()
        if self.lease is None:
            return environment
        return over_image(environment, self._image_environment, self.hook_folder())

    def hook_folder(self) -> str:
        """Return the import hook's folder in the container."""
        return super().hook_folder() or HOOK_TARGET

    async def get_object(self) -> dict[str, Any] | None:
        """Return the container of this server, and of no other.

        DockerSpawner goes by the name alone, and stops and removes what has it.
        """
        found: dict[str, Any] | None = await super().get_object()
        self._whose_name = self._owner_besides(found) if found else ""
        if self._whose_name:
            self.object_id = ""
            return None
        return found

    def _owner_besides(self, container: dict[str, Any]) -> str:
        """Return whose container it is where its lease is another server's."""
        labels = (container.get("Config") or {}).get("Labels") or {}
        runtime = self.user.settings.get("gpuworkshop")
        if runtime is None or LEASE_LABEL not in labels:
            return ""
        lease = runtime.allocator.ledger.leases.get(labels[LEASE_LABEL])
        if lease is None or lease.key == (self.user.name, self.name):
            return ""
        # After an attendee was renamed, the lease still has the old name.
        ours = self.lease is not None and lease.id == self.lease.id
        return "" if ours else str(lease.owner)

    async def create_object(self) -> dict[str, Any]:
        """Create the container, and write down that it is the lease's.

        Raises:
            Exception: `refusal`, where that cannot be written, or another server has
                the container of that name: it must not start.
        """
        lease = self.lease
        if self._whose_name:
            self.log.error(
                "%s cannot start: its container %s is that of %s, and DockerSpawner "
                "would end that server. Mend c.DockerSpawner.name_template: {username} "
                "and {servername} tell servers apart.",
                self._log_name,
                self.object_name,
                self._whose_name,
            )
            raise refusal(f"{_TELL_NAME}{_ORGANISER}", self)
        if lease is None:
            return await super().create_object()
        image = await self.docker("inspect_image", self.image)
        image_config = image.get("Config") or {}
        self._image_environment = image_config.get("Env") or ()
        self._image_folder = str(image_config.get("WorkingDir") or "/")
        self._driver = await self._choose_driver(lease)
        self._hook_volume = await self._prepare_hook(lease)
        created: dict[str, Any] = await super().create_object()
        try:
            hook = lease.hook and bool(self._hook_volume or self.memory_hook_path)
            self.identify_lease(created["Id"], hook=hook)
        except LedgerError as error:
            await self.docker("remove_container", created["Id"], v=True, force=True)
            self.log.error("%s is refused a share: %s", self._log_name, error)
            raise refusal(NO_LEDGER, self) from error
        return created

    def docker(self, method: str, *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Call a method of the client in a thread.

        The request that creates the server's container gets the lease here, after
        the admin's configuration has been merged in, in which lists replace lists.
        The container that stages certificates has no name.
        """
        if method == "create_container" and "name" in kwargs and self.lease:
            asked = ask(
                kwargs,
                self.lease,
                self._driver,
                by_index=bool(self.visible_indices),
                hook_volume=self._hook_volume,
            )
            for sentence in asked.sentences:
                self.log.warning("%s", sentence)
            return self._create(dict(asked.arguments))
        return super().docker(method, *args, **kwargs)

    async def _create(self, arguments: dict[str, Any]) -> Any:
        """Create the container: with the material, and if that fails without it."""
        create = super().docker
        material = GpuRuntime.of(self.user.settings).material
        if not material.installed().parts:
            return await create("create_container", **arguments)
        with_it = with_material(arguments, material.folder, str(self.material_volume))
        try:
            return await create("create_container", **with_it)
        except APIError as error:
            if _NO_SUCH_SOURCE not in str(error.explanation):
                raise
            self.log.error(
                "%s gets no material: the engine's host has no folder %s. Where the "
                "hub is in a container too, keep it in a volume, and name that in "
                "c.GpuDockerMixin.material_volume.",
                self._log_name,
                material.folder,
            )
        return await create("create_container", **arguments)

    def root_folder(self) -> str:
        """Return the root of the server's files."""
        given = self.extra_create_kwargs
        asked = given.get("working_dir", "") if isinstance(given, dict) else ""
        root = super().root_folder()
        return root if root.startswith("/") else str(asked or self._image_folder)

    def home_folder(self) -> str:
        """Return what counts as home in a container that is to be created."""
        binds = [x["bind"] for x in self.volume_binds.values() if x["mode"] != "ro"]
        mounts = [x["Target"] for x in self.mount_binds if not x["ReadOnly"]]
        return home_path(self.root_folder(), [*binds, *mounts])

    async def find_home(self) -> Home | None:
        """Return what counts as home in the container that runs."""
        container = await self.docker("inspect_container", self.object_id)
        return home_of(container, super().root_folder())

    async def run_in_home(
        self, home: Home, script: Path, arguments: Sequence[str]
    ) -> bytes:
        """Run a script in the container, as its user; return what it says.

        Raises:
            HostError: it did not run to its end.
        """
        given, tls = self.client_kwargs, self.tls_config
        call = _IN_CONTAINERS.submit(
            run_in_container,
            lambda **kwargs: make_client({**kwargs, **given}, tls),
            self.object_id,
            lambda: command_for(script.read_text(), home, arguments),
            MOST_BYTES,
        )
        try:
            return await asyncio.wrap_future(call)
        except APIError as error:
            raise HostError(str(error.explanation or error)) from None

    def _docker(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client; an engine in trouble is no answer.

        DockerSpawner takes status 500 for a container that is gone, and the hub would
        forget a server that runs.
        """
        try:
            return super()._docker(method, *args, **kwargs)
        except APIError as error:
            if method != "inspect_container" or error.status_code != 500:
                raise
            raise OSError(
                f"The Docker engine does not say whether {self.object_name} runs: "
                f"{error.explanation or error}"
            ) from error

    async def _choose_driver(self, lease: Lease) -> DeviceDriver:
        rules = GpuRuntime.of(self.user.settings).rules
        if self.device_driver != "auto":
            return DeviceDriver(self.device_driver)
        if not lease.devices or rules.gpus.source == "simulated":
            return DeviceDriver.NONE
        return driver_of(await self.docker("info"), lease.uuids)

    async def _prepare_hook(self, lease: Lease) -> str:
        """Return the volume to mount; empty for none."""
        if self.memory_hook_path or not lease.devices:
            return ""
        fill = self.executor.submit(
            lambda: fill_hook_volume(self.client, self.image, self._filled_volumes)
        )
        try:
            return await asyncio.wrap_future(fill)
        except APIError as error:
            self.log.error(
                "%s starts without the import hook, so PyTorch, TensorFlow and ONNX "
                "Runtime have no cap there, and widgets and opened pages count as "
                "activity: the volume for it cannot be filled: %s. Put the hook into "
                "the image, and set c.GpuSpawnerMixin.memory_hook_path.",
                self._log_name,
                error,
            )
            return ""


class GpuDockerSpawner(GpuDockerMixin, DockerSpawner):
    """DockerSpawner with GPU shares: each server is a container."""


def make_engine(app: Any) -> DockerEngine:
    """Return the engine that this hub's spawners talk to.

    Args:
        app: the hub's application.
    """
    chosen = app.spawner_class
    kind = chosen if issubclass(chosen, DockerSpawner) else DockerSpawner
    client_kwargs, tls_config = (
        _configured(kind, app.config, name, default={})
        for name in ("client_kwargs", "tls_config")
    )
    return DockerEngine(lambda: make_client(client_kwargs, tls_config))


def _configured(kind: type, c: Config, name: str, *, default: Any) -> Any:
    """Return what the configuration says of a trait, without a spawner to ask.

    The nearest class that is configured has the say, as with traitlets.
    """
    for base in kind.__mro__:
        section = c.get(base.__name__, {})
        if name in section:
            value = section[name]
            lazy = isinstance(value, LazyConfigValue)
            return value.get_value(default) if lazy else value
    return default
