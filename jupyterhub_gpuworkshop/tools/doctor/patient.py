"""What is examined: every reading that several checks share, taken once."""

import os
from dataclasses import dataclass
from pathlib import Path

import jupyterhub

from jupyterhub_gpuworkshop.hub.memory_hook import FOLDER
from jupyterhub_gpuworkshop.machine.examination import Examination
from jupyterhub_gpuworkshop.workshop import Workshop

from .address import address_of, health_url
from .consult import Once
from .reading.containers import Engine, char_links, read_engine
from .reading.driver import DriverFacts, examine, read_driver
from .reading.host import Disk, read_disk
from .reading.hub import read_hub
from .reading.hub_facts import HubFacts
from .reading.service import Answer, ask, read_secrets
from .service import service_url
from .workshop import Given, find_workshop

_TOKEN = "JUPYTERHUB_API_TOKEN"  # noqa: S105  # a variable's name


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """What to examine.

    Attributes:
        workshop_file: None to take what the hub's configuration names.
        hub_config: None to look where it usually is.
        url: what attendees will type; None for what the configuration says.
        json: print a JSON array instead of lines.
        prove_caps: run each framework to see which caps hold.
        python: the attendees' Python for that; None to find it.
        as_user: the Unix user for that; None for the caller, or nobody for root.
        force: prove caps also on a device that is in use.
    """

    workshop_file: Path | None = None
    hub_config: Path | None = None
    url: str | None = None
    json: bool = False
    prove_caps: bool = False
    python: str | None = None
    as_user: str | None = None
    force: bool = False


class Patient:
    """One machine, with its hub and service.

    Args:
        options: where to look.

    Attributes:
        hub: the hub's configuration.
        given: the workshop file.
        driver: what NVML says.
        linux: what Linux says of the driver.
        engine: Docker or Podman.
        health: the service's.
        hub_version: of the hub that runs; empty where none answers.
    """

    def __init__(self, options: DoctorOptions) -> None:
        self._options = options
        self.hub: Once[HubFacts] = Once(lambda: read_hub(options.hub_config))
        self.given: Once[Given] = Once(
            lambda: find_workshop(options.workshop_file, self.hub())
        )
        self.driver: Once[Examination] = Once(examine)
        self.linux: Once[DriverFacts] = Once(read_driver)
        self.engine: Once[Engine] = Once(read_engine)
        self.health: Once[Answer] = Once(
            lambda: ask(f"{service_url(self.workshop, self.hub())}health")
        )
        self.hub_version: Once[str] = Once(self._ask_hub)
        self._address: Once[tuple[Answer | None, str, bool]] = Once(self._ask_address)

    @property
    def workshop(self) -> Workshop:
        """The workshop; its defaults where the file has mistakes."""
        return self.given().workshop

    @property
    def simulated(self) -> bool:
        """Whether there is no driver to ask."""
        return self.workshop.gpus.source == "simulated"

    @property
    def jupyterhub_version(self) -> str:
        """Of this environment."""
        return str(jupyterhub.__version__)

    @property
    def driver_version(self) -> str:
        """Empty without a driver."""
        return "" if self.simulated else self.driver().driver or self.linux().module

    @property
    def in_containers(self) -> bool | None:
        """Whether servers are containers; None where that is not known."""
        return self.hub().uses_docker if self.hub().known else None

    @property
    def has_char_links(self) -> bool:
        """Whether systemd would find the nodes of the GPUs again."""
        return char_links({node.major for node in self.linux().nodes})

    @property
    def service_is_root(self) -> bool | None:
        """None where the service does not say."""
        body = self.health().body
        said = body.get("is_root") if isinstance(body, dict) else None
        if said is None and self.workshop.service.managed and self.hub().known:
            return None
        return bool(said) if said is not None else None

    @property
    def hook_folder(self) -> Path | None:
        """Where attendees read the import hook on this machine; None for nowhere."""
        traits = self.hub().traits
        if not traits.get("memory_hook", True):
            return None
        named = traits.get("memory_hook_path")
        if named:
            return None if self.hub().uses_docker else Path(str(named))
        return FOLDER

    def disks(self) -> list[Disk]:
        """Read the places where the homes are."""
        return [read_disk(path) for path in self._home_folders()]

    def _home_folders(self) -> list[str]:
        hub = self.hub()
        if hub.uses_docker:
            mounted = [
                source.partition("{")[0]
                for source in dict(hub.traits.get("volumes") or {})
                if source.startswith("/")
            ]
            root = self.engine().root
            return mounted or ([root] if root else [])
        template = str(hub.traits.get("home_dir_template") or "")
        if hub.is_a("SimpleLocalProcessSpawner") and template:
            return [template.partition("{")[0]]
        return ["/home"]

    def _ask_hub(self) -> str:
        hub = self.hub()
        if not hub.hub_url:
            return ""
        body = ask(f"{hub.hub_url.rstrip('/')}{hub.base_url.rstrip('/')}/hub/api/").body
        return str(body.get("version", "")) if isinstance(body, dict) else ""

    def who_is_the_service(self) -> Answer | None:
        """Ask the hub who has the service's token; None where it cannot be asked."""
        token = self._secrets().get(_TOKEN)
        hub = self.hub()
        if not token or not hub.hub_url:
            return None
        return ask(
            f"{hub.hub_url.rstrip('/')}{hub.base_url.rstrip('/')}/hub/api/user",
            {"Authorization": f"token {token}"},
        )

    @property
    def has_secret(self) -> bool:
        """Whether the secrets of hub and service can be read."""
        return bool(self._secrets())

    def _secrets(self) -> dict[str, str]:
        return read_secrets(self.workshop.service.secret_file)

    def problems(self) -> list[str] | None:
        """Return what the service says is unknown, if an organiser's token is set."""
        token = os.environ.get(_TOKEN)
        if not token:
            return None
        answer = ask(
            f"{service_url(self.workshop, self.hub())}api/v1/snapshot",
            {"Authorization": f"token {token}"},
        )
        body = answer.body
        found = body.get("problems") if isinstance(body, dict) else None
        return [str(x) for x in found] if isinstance(found, list) else None

    def address(self) -> tuple[Answer | None, str, bool]:
        """Return the hub's answer at the attendees' address, and that address."""
        return self._address()

    def _ask_address(self) -> tuple[Answer | None, str, bool]:
        url, is_public = address_of(self._options.url, self.hub())
        return (ask(health_url(url)) if url else None), url, is_public
