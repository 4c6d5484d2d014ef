"""What the doctor knows of a hub's configuration: values."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEntry:
    """One of `c.JupyterHub.services`, without its secrets."""

    name: str
    url: str = ""
    command: tuple[str, ...] = ()
    display: bool = True
    client_scopes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleFacts:
    """One of `c.JupyterHub.load_roles`."""

    name: str
    scopes: tuple[str, ...] = ()
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFacts:
    """What matters of a hub's configuration.

    Attributes:
        file: where it was read; empty where none was found.
        problem: why it could not be read; else empty.
        needs_root: whether root could.
        version: of JupyterHub in this environment; empty without.
        packages: versions of spawners and cullers that are installed.
        spawner: the class, with its module.
        lineage: its classes in the order in which Python looks.
        mixin_leftmost: None where the mixin is missing.
        configured: whether `configure(c, ...)` was called.
        workshop: what it was called with: a path or the content.
        base_url: of the hub.
        bind_url: where its proxy listens.
        public_url: what its users type, where it is set.
        hub_url: of its API on this machine.
        internal_ssl: whether it talks TLS inside.
        has_certificate: whether its proxy has one.
        concurrent_spawn_limit: 0 for none.
        active_server_limit: 0 for none.
        services: all of them.
        roles: all of them.
        custom_scopes: their names.
        traits: the spawner's, by name, as far as it has them.
    """

    file: str = ""
    problem: str = ""
    needs_root: bool = False
    version: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    spawner: str = ""
    lineage: tuple[str, ...] = ()
    mixin_leftmost: bool | None = None
    configured: bool = False
    workshop: str | dict[str, Any] | None = None
    base_url: str = "/"
    bind_url: str = ""
    public_url: str = ""
    hub_url: str = ""
    internal_ssl: bool = False
    has_certificate: bool = False
    concurrent_spawn_limit: int = 0
    active_server_limit: int = 0
    services: tuple[ServiceEntry, ...] = ()
    roles: tuple[RoleFacts, ...] = ()
    custom_scopes: tuple[str, ...] = ()
    traits: dict[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether there is a configuration to judge."""
        return bool(self.file) and not self.problem

    def is_a(self, name: str) -> bool:
        """Whether the spawner is of a class, by its bare name."""
        return any(each.rpartition(".")[2] == name for each in self.lineage)

    @property
    def uses_docker(self) -> bool:
        """Whether servers are containers."""
        return self.is_a("DockerSpawner")

    @property
    def uses_systemd(self) -> bool:
        """Whether servers are units of systemd."""
        return self.is_a("SystemdSpawner")

    @property
    def is_local(self) -> bool:
        """Whether servers are the hub's own children."""
        return self.is_a("LocalProcessSpawner")


HUB_FACTS: TypeAdapter[HubFacts] = TypeAdapter(HubFacts)
