"""What one run of the demo consists of: its folder, ports, passwords and tokens.

Owns the file through which the demo tells its hub all of this. Nothing secret goes on
a command line or into a file that others can read.
"""

import dataclasses
import json
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyterhub_gpuworkshop.core.errors import DemoError
from jupyterhub_gpuworkshop.core.units import GIB, MIB

from .options import DemoOptions

HOST = "127.0.0.1"
ORGANISER = "organiser"
ATTENDEE_PATTERN = "attendee{:02d}"

_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""Without those that look alike: people type the passwords."""
_KEEP_FREE_BYTES = 512 * MIB
_LEAST_SHARE_BYTES = 16 * MIB
_PORTS = range(20000, 32000)
"""Below what the kernel hands out for outgoing connections by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """One run of the demo, as the demo and its hub share it.

    Attributes:
        directory: the folder that holds all of the run's state.
        demo_pid: the demo's process, whose end is the hub's end.
        port: the public one.
        hub_port: the hub's own.
        proxy_api_port: where the hub configures the proxy.
        service_port: the GPU service's.
        proxy_command: the proxy, without its ports.
        organiser_password: of the organiser.
        attendee_password: of every attendee.
        api_token: of the hub service `demo`.
        workshop: the workshop file's content.
    """

    directory: Path
    demo_pid: int
    port: int
    hub_port: int
    proxy_api_port: int
    service_port: int
    proxy_command: Sequence[str]
    organiser_password: str
    attendee_password: str
    api_token: str
    workshop: dict[str, Any]

    @property
    def hub_url(self) -> str:
        """Where people go."""
        return f"http://{HOST}:{self.port}/"

    @property
    def service_url(self) -> str:
        """Where people find the GPU service."""
        return f"{self.hub_url}services/gpuworkshop/"

    @property
    def inner_hub_url(self) -> str:
        """The hub itself, behind the proxy."""
        return f"http://{HOST}:{self.hub_port}/"

    @property
    def inner_service_url(self) -> str:
        """The service itself, behind the proxy."""
        return f"http://{HOST}:{self.service_port}/services/gpuworkshop/"

    @property
    def simulated_dir(self) -> Path:
        """The folder of the simulated GPUs."""
        return self.directory / "gpus"

    @property
    def file(self) -> Path:
        """Where `save` writes it."""
        return self.directory / "demo.json"

    def save(self) -> None:
        """Write it for the hub, readable by this user alone."""
        content = dataclasses.asdict(self) | {"directory": os.fspath(self.directory)}
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(self.file, flags, 0o600), "w") as file:
            json.dump(content, file)

    @classmethod
    def load(cls, path: Path) -> "DemoSettings":
        """Read what `save` wrote."""
        content = json.loads(path.read_text())
        return cls(**(content | {"directory": Path(content["directory"])}))


def make_settings(
    options: DemoOptions, directory: Path, proxy_command: Sequence[str]
) -> DemoSettings:
    """Settle a run: free ports, new passwords.

    Raises:
        DemoError: the port is taken, or the GPUs are too small for the shares.
    """
    wanted = options.port
    if wanted and not _is_free(wanted):
        raise DemoError(
            f"Port {wanted} on {HOST} is taken. Give another one with --port, or "
            "--port 0 for any that is free."
        )
    ports = free_ports(4)
    return DemoSettings(
        directory=directory,
        demo_pid=os.getpid(),
        port=wanted or ports[0],
        hub_port=ports[1],
        proxy_api_port=ports[2],
        service_port=ports[3],
        proxy_command=list(proxy_command),
        organiser_password=password(),
        attendee_password=password(),
        api_token=secrets.token_hex(32),
        workshop=workshop_of(options, directory / "gpus", ports[3], directory),
    )


def workshop_of(
    options: DemoOptions, simulated_dir: Path, service_port: int, state_dir: Path
) -> dict[str, Any]:
    """Return the workshop file that the options amount to."""
    share_bytes = share_of(options)
    if share_bytes < _LEAST_SHARE_BYTES:
        raise DemoError(
            f"{options.attendees_per_gpu} attendees cannot share a GPU of "
            f"{options.gpu_memory_bytes // MIB} MiB. Give a larger --gpu-memory or a "
            "smaller --attendees-per-gpu."
        )
    idle = options.idle_timeout_seconds
    workshop: dict[str, Any] = {
        "gpus": {
            "attendees_per_gpu": options.attendees_per_gpu,
            "keep_free_per_gpu": f"{_keep_free(options)}B",
            "source": "simulated",
            "simulated_dir": os.fspath(simulated_dir),
        },
        "idle": {"needed_after": f"{idle:.3f}s", "after": f"{idle:.3f}s"},
        "monitor": {"interval": f"{poll_seconds(idle):.3f}s"},
        "service": {"port": service_port, "state_dir": os.fspath(state_dir)},
    }
    # On tiny GPUs the usual 256 MiB would be more than anybody can hold.
    if share_bytes < 4 * 256 * MIB:
        workshop["idle"]["min_memory"] = f"{share_bytes // 8}B"
    return workshop


def share_of(options: DemoOptions) -> int:
    """Return what each attendee may hold, in bytes."""
    shareable = options.gpu_memory_bytes - _keep_free(options)
    return shareable // options.attendees_per_gpu


def _keep_free(options: DemoOptions) -> int:
    memory = options.gpu_memory_bytes
    return _KEEP_FREE_BYTES if memory >= 4 * GIB else memory // 8


def poll_seconds(idle_timeout_seconds: float) -> float:
    """Return how often the service looks: ten times an idle timeout, within reason."""
    return min(2.0, max(0.5, idle_timeout_seconds / 10))


def password() -> str:
    """Return a new password of 59 bits that people can type."""
    parts = ("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(3))
    return "-".join(parts)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on.

    Raises:
        DemoError: there are not so many.
    """
    found: list[int] = []
    for port in secrets.SystemRandom().sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            return found
        if _is_free(port):
            found.append(port)
    raise DemoError(f"No free ports on {HOST} from {_PORTS[0]} to {_PORTS[-1]}.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers bind: connections of an earlier run that linger do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen()
        except PermissionError:
            raise DemoError(
                f"Port {port} is for root alone. Give one from 1024 on with --port."
            ) from None
        except OSError:
            return False
    return True
