"""A hub on this machine whose servers are containers of a real engine."""

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import jupyterhub

from tests.engines.docker_engine import DockerEngine
from tests.engines.host_image import make_image, read_only_volumes
from tests.hub.running_hub import RunningHub, wait_for

STUB = Path(__file__).parents[1] / "hub" / "stub_server.py"

_EARLY = """
c.JupyterHub.spawner_class = "gpu-docker"
c.JupyterHub.hub_bind_url = "http://0.0.0.0:{port}"
c.JupyterHub.hub_connect_url = "http://{host}:{port}"
c.DockerSpawner.image = {image!r}
c.DockerSpawner.pull_policy = "never"
c.DockerSpawner.remove = True
c.DockerSpawner.use_internal_ip = True
c.DockerSpawner.read_only_volumes = {volumes!r}
c.DockerSpawner.prefix = {prefix!r}
c.GpuDockerMixin.device_driver = "nvidia"
c.Spawner.cmd = [{python!r}, "-S", "-E", {stub!r}]
c.Spawner.environment = {{"STUB_HUB_VERSION": {version!r}}}
"""


class DockerHub(RunningHub):
    """A hub, and what the engine says of its containers.

    Args:
        folder: as for `RunningHub`.
        engine: the engine.
        prefix: of the containers' names, this hub's alone.
        changes: to the image, lines of a Dockerfile.
        early: more configuration before `configure`.
        kwargs: as for `RunningHub`.
    """

    def __init__(
        self,
        folder: Path,
        engine: DockerEngine,
        *,
        prefix: str,
        changes: tuple[str, ...] = (),
        early: str = "",
        **kwargs: Any,
    ) -> None:
        self.engine = engine
        self.prefix = prefix
        image = make_image(
            engine, f"{prefix}:latest", changes=("USER 1000:1000", *changes)
        )
        environment = {**engine.environment, **kwargs.pop("environment", {})}
        super().__init__(folder, environment=environment, **kwargs)
        text = _EARLY.format(
            port=self.port,
            host=engine.host_address,
            image=image,
            volumes=read_only_volumes(),
            prefix=prefix,
            python=sys.executable,
            stub=str(STUB),
            version=jupyterhub.__version__,
        )
        config = folder / "jupyterhub_config.py"
        before, call, after = config.read_text().partition("configure(c, ")
        config.write_text(f"{before}{text}{early}\n{call}{after}")

    def ids(self) -> list[str]:
        """Return the ids of this hub's containers, whatever their state."""
        return self.engine.docker(
            *("ps", "--all", "--quiet", "--no-trunc", f"--filter=name=^{self.prefix}-")
        ).split()

    def container(self, user: str) -> dict[str, Any]:
        """Return what the engine says of a user's container."""
        answer = self.engine.docker("inspect", f"{self.prefix}-{user}")
        return json.loads(answer)[0]

    def variables(self, user: str) -> dict[str, str]:
        """Return the environment inside a user's container."""
        lines = self.inside(user, "env", "-0").split("\0")
        return dict(line.split("=", 1) for line in lines if line)

    def inside(self, user: str, *command: str) -> str:
        """Run a command in a user's container, as the attendee."""
        return self.engine.docker("exec", f"{self.prefix}-{user}", *command)

    def lease_of(self, user: str) -> Any:
        """Return a user's lease on disk, or None."""
        return next((x for x in self.leases() if x.user == user), None)

    def wait_until_free(self, user: str) -> None:
        """Wait until a user has no lease and no container."""
        wait_for(lambda: not self.lease_of(user), why=f"{user} still has a lease")
        wait_for(
            lambda: (
                not self.engine.docker(
                    "ps", "-aq", f"--filter=name=^{self.prefix}-{user}$"
                )
            ),
            why=f"{user}'s container is still there",
        )

    def close(self) -> None:
        """End the hub, its containers and its volumes."""
        super().close()
        with contextlib.suppress(AssertionError):
            for container in self.ids():
                self.engine.docker("rm", "--force", "--volumes", container)
