"""Where The Littlest JupyterHub keeps things, as TLJH itself finds them.

Owns the paths. It reads nothing below them, for most of them are root's alone.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

SECTION = "gpuworkshop"
"""Of TLJH's config.yaml: the workshop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TljhPlaces:
    """The folders of one TLJH.

    Attributes:
        prefix: of the installation.
        commands: where a command is on everybody's PATH.
        units: where systemd finds the units of this host.
    """

    prefix: Path
    commands: Path = Path("/usr/bin")
    units: Path = Path("/etc/systemd/system")

    @classmethod
    def here(cls) -> "TljhPlaces":
        """Return the places of this host's TLJH, whether there is one or not."""
        return cls(prefix=Path(os.environ.get("TLJH_INSTALL_PREFIX", "/opt/tljh")))

    @property
    def config_file(self) -> Path:
        """What the organiser writes."""
        return self.prefix / "config" / "config.yaml"

    @property
    def workshop(self) -> str:
        """The workshop, as `Workshop.load` takes it."""
        return f"{self.config_file}#{SECTION}"

    @property
    def state(self) -> Path:
        """What the plugin keeps for itself; root's alone, as TLJH's own state."""
        return self.prefix / "state" / "gpuworkshop"

    @property
    def secret_file(self) -> Path:
        """What hub and GPU service prove themselves with."""
        return self.state / "secrets.env"

    @property
    def environment_file(self) -> Path:
        """Where the GPU service finds the hub."""
        return self.state / "service.env"

    @property
    def hub_environment(self) -> Path:
        """The Python environment in which the hub runs."""
        return self.prefix / "hub"

    @property
    def user_environment(self) -> Path:
        """The Python environment in which attendees' servers run."""
        return self.prefix / "user"


def host_workshop() -> str | None:
    """Return where this host's organiser writes the workshop; None where anywhere.

    Only TLJH has one place for it, and only the `gpuworkshop` that is installed in
    TLJH's hub belongs to it.
    """
    places = TljhPlaces.here()
    if Path(sys.prefix).resolve() != places.hub_environment.resolve():
        return None
    return places.workshop
