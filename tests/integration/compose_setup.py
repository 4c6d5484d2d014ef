"""The compose file of the docs, with images that need no registry."""

import json
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests
import yaml

from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from tests.engines.docker_engine import DockerEngine
from tests.engines.host_image import ROOT, make_image, mounted_paths
from tests.hub.running_hub import wait_for

from .docker_hub import STUB

EXAMPLE = ROOT / "examples" / "docker-compose"

_CONFIG = """
import jupyterhub
load_subconfig("/srv/example/jupyterhub_config.py")
c.JupyterHub.services.append({{"name": "test", "api_token": {token!r}}})
c.JupyterHub.load_roles.append({{
    "name": "test",
    "services": ["test"],
    "scopes": [
        "admin:users", "admin:servers", "access:servers", "access:services",
        "custom:gpuworkshop:admin",
    ],
}})
c.DockerSpawner.image = "attendee:test"
c.DockerSpawner.read_only_volumes = {volumes!r}
c.DockerSpawner.volumes = {{{gpus!r}: {gpus!r}}}
c.DockerSpawner.notebook_dir = "/tmp"
# One real server is enough; it takes its time.
def pre_spawn_hook(spawner):
    real = spawner.user.name == "ann"
    spawner.cmd = ["jupyterhub-singleuser"] if real else {stub!r}
c.Spawner.pre_spawn_hook = pre_spawn_hook
# Simulated GPUs tell processes apart by their ids on the host.
c.DockerSpawner.extra_host_config["pid_mode"] = "host"
c.Spawner.environment = {{
    "HOME": "/tmp", "USER": "attendee", "GPUWORKSHOP_SIMULATED_GPUS": {gpus!r},
    "PYTHONDONTWRITEBYTECODE": "1", "STUB_HUB_VERSION": jupyterhub.__version__,
}}
"""


def compose_command() -> list[str] | None:
    """Return how Docker Compose is called here, or None where it is not there."""
    docker = shutil.which("docker")
    if docker is not None:
        plugin = subprocess.run(  # noqa: S603  the system's own program
            [docker, "compose", "version"], capture_output=True, check=False
        )
        if plugin.returncode == 0:
            return [docker, "compose"]
    old = shutil.which("docker-compose")
    return [old] if old else None


class ComposeSetup:
    """One run of the compose file, up and down.

    Args:
        folder: for what the test adds to the compose file.
        engine: the engine.
        command: as `compose_command` returns it.
    """

    def __init__(self, folder: Path, engine: DockerEngine, command: list[str]) -> None:
        self.folder, self.engine = folder, engine
        self.project = f"t{secrets.token_hex(4)}"
        self.token = secrets.token_hex(16)
        self.port = 18000 + secrets.randbelow(10000)
        self.gpus = folder / "gpus"
        create_devices(self.gpus, 2, 16 * GIB)
        path = f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin"
        make_image(engine, "hub:test", changes=(f"ENV PATH={path}",))
        make_image(
            engine, "attendee:test", changes=(f"ENV PATH={path}", "USER 1000:1000")
        )
        self._write_override()
        self._compose = [
            *command,
            f"--project-name={self.project}",
            f"--file={EXAMPLE / 'compose.yaml'}",
            f"--file={folder / 'override.yaml'}",
        ]

    def _write_override(self) -> None:
        workshop = yaml.safe_load((EXAMPLE / "workshop.yaml").read_text())
        workshop["gpus"] = {"source": "simulated", "simulated_dir": str(self.gpus)}
        workshop["monitor"] = {"interval": "1s"}
        (self.folder / "workshop.yaml").write_text(yaml.safe_dump(workshop))
        (self.folder / "jupyterhub_config.py").write_text(
            _CONFIG.format(
                token=self.token,
                volumes={str(path): str(path) for path in mounted_paths()},
                gpus=str(self.gpus),
                stub=[sys.executable, "-S", "-E", str(STUB)],
            )
        )
        mine = f"{self.folder}/workshop.yaml:/srv/jupyterhub/workshop.yaml:ro"
        shared = [
            *(f"{path}:{path}:ro" for path in mounted_paths()),
            f"{self.gpus}:{self.gpus}",
            mine,
        ]
        config = "/srv/jupyterhub/jupyterhub_config.py"
        socket = self.engine.socket.removeprefix("unix://")
        services = {
            "hub": {
                "image": "hub:test",
                "init": False,  # it would be below /usr, which is the host's here
                "volumes": [
                    *shared,
                    f"{socket}:/var/run/docker.sock",
                    f"{self.folder}/jupyterhub_config.py:{config}:ro",
                    f"{EXAMPLE}:/srv/example:ro",
                ],
            },
            "gpu-service": {"image": "hub:test", "init": False, "volumes": shared},
        }
        (self.folder / "override.yaml").write_text(
            yaml.safe_dump({"services": services})
        )

    def compose(self, *arguments: str) -> str:
        """Run a command of Compose; return what it prints."""
        result = subprocess.run(  # noqa: S603  the system's own program
            [*self._compose, *arguments],
            env={
                **self.engine.environment,
                "WORKSHOP_PASSWORD": "not for the world",
                "WORKSHOP_ADMIN_PASSWORD": secrets.token_hex(16),
                "WORKSHOP_PORT": str(self.port),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        told = f"{result.stdout}{result.stderr}"
        assert result.returncode == 0, f"{' '.join(arguments)}: {told}"
        return told

    @property
    def logs(self) -> str:
        """What hub and service have logged."""
        return self.compose("logs", "--no-color")

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        label = f"label=com.docker.compose.service={service}"
        project = f"label=com.docker.compose.project={self.project}"
        return self.engine.docker(
            "ps", "-q", "--no-trunc", f"--filter={label}", f"--filter={project}"
        )

    def request(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Ask the hub, or the service, as the test: through the proxy, as people do."""
        return requests.request(
            method,
            f"http://{self.engine.published_address}:{self.port}/{path}",
            headers={"Authorization": f"token {self.token}"},
            timeout=30,
            **kwargs,
        )

    def is_up(self) -> bool:
        """Return whether the service answers behind the proxy of the hub."""
        try:
            return self.request("GET", "services/gpuworkshop/health").ok
        except requests.ConnectionError:
            return False

    def snapshot(self) -> dict[str, Any]:
        """Return what the service sees."""
        answer = self.request("GET", "services/gpuworkshop/api/v1/snapshot")
        assert answer.ok, answer.text
        return answer.json()

    def spawn(self, name: str) -> dict[str, Any]:
        """Start a user's server; return the hub's model of it."""
        assert self.request("POST", f"hub/api/users/{name}").ok
        answer = self.request("POST", f"hub/api/users/{name}/server")
        assert answer.status_code in (201, 202), answer.text

        def ready() -> Any:
            user = self.request("GET", f"hub/api/users/{name}").json()
            server = user["servers"].get("")
            return server and server["ready"] and server

        return wait_for(ready, seconds=150, why=f"{name}'s server is not ready")

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what the engine says of a container."""
        return json.loads(self.engine.docker("inspect", name))[0]

    def remove(self) -> None:
        """End everything, as the docs have it."""
        left = self.engine.docker("ps", "-aq", "--filter=label=gpuworkshop.lease")
        for container in left.split():
            self.engine.docker("rm", "--force", container)
        self.compose("down", "--volumes", "--timeout=20")
