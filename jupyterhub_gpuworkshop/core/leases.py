"""Lease, and the ledger as a value.

Owns what a lease says and how the ledger looks after a grant or a release. It does not
decide where a lease goes (`placement`) nor keep it (`hub.ledger`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

Key = tuple[str, str]
"""(user name, server name): the default server's name is empty."""


class LeaseState(str, Enum):
    """Where a lease stands.

    Both states count in full: a quarantined lease's server would not die, or was
    forgotten by a hub that was killed, and its memory is still taken.
    """

    ACTIVE = "active"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasedDevice:
    """One device of a lease.

    Attributes:
        uuid: the device.
        label: its index for people's eyes.
        memory_bytes: what the lease may use of it.
        total_bytes: all of the device's memory, the base of frameworks' fractions.
        context_bytes: what a CUDA context costs there, per process.
    """

    uuid: str
    label: str
    memory_bytes: int
    total_bytes: int
    context_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A share granted to (user, server name) on named devices.

    Attributes:
        id: unique for ever.
        user: the attendee's hub name.
        server: the server's name; empty for the default server.
        share: as `Share.parse` reads it.
        exclusive: no other lease may stand on these devices.
        devices: empty for a share of ``cpu``.
        granted_at: wall-clock seconds since the epoch.
        boot_id: the boot of the machine under which it was granted; a lease of an
            earlier boot is void, whatever its process id says, unless an engine
            has its server running again.
        reason: why it was granted as it was, in a sentence.
        state: active, or quarantined.
        engine: what its server runs under: ``systemd``, ``docker``; empty for a
            process that the hub itself started.
        engine_id: what the engine calls it: a unit's name (``jupyter-ada.service``),
            a container's full id; empty while it has none.
        hook: whether its server is given the import hook that caps frameworks.
    """

    id: str
    user: str
    server: str
    share: str
    exclusive: bool = False
    devices: tuple[LeasedDevice, ...] = ()
    granted_at: float
    boot_id: str = ""
    reason: str = ""
    state: LeaseState = LeaseState.ACTIVE
    engine: str = ""
    engine_id: str = ""
    hook: bool = False

    @property
    def key(self) -> Key:
        """Whose it is: (user, server name)."""
        return (self.user, self.server)

    @property
    def uuids(self) -> tuple[str, ...]:
        """The UUIDs of its devices."""
        return tuple(device.uuid for device in self.devices)

    @property
    def owner(self) -> str:
        """The attendee, with the server's name where it has one: for people and logs.

        JupyterHub lets attendees name servers as they like: with a line of a log, too.
        """
        name = f"{self.user}/{self.server}" if self.server else self.user
        return "".join(c if c.isprintable() else " " for c in name)

    def bytes_on(self, uuid: str) -> int:
        """Return what it may use of a device, in bytes; 0 where it has no part."""
        return sum(d.memory_bytes for d in self.devices if d.uuid == uuid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """All leases, as an immutable value.

    Attributes:
        leases: by lease id.
        last_device: the device that was given last, for round-robin.
        previous: the devices that (user, server) had last, for `sticky`.
    """

    leases: Mapping[str, Lease] = field(default_factory=dict)
    last_device: str | None = None
    previous: Mapping[Key, tuple[str, ...]] = field(default_factory=dict)

    def of(self, user: str, server: str) -> Lease | None:
        """Return the active lease of (user, server), or None."""
        return next(
            (
                lease
                for lease in self.leases.values()
                if lease.user == user
                and lease.server == server
                and lease.state is LeaseState.ACTIVE
            ),
            None,
        )

    def on(self, uuid: str) -> tuple[Lease, ...]:
        """Return the leases that stand on a device."""
        return tuple(x for x in self.leases.values() if uuid in x.uuids)

    def with_lease(self, lease: Lease) -> "Ledger":
        """Return the ledger after a grant."""
        return Ledger(
            leases={**self.leases, lease.id: lease},
            last_device=lease.uuids[-1] if lease.devices else self.last_device,
            previous=(
                {**self.previous, lease.key: lease.uuids}
                if lease.devices
                else self.previous
            ),
        )

    def without(self, lease_ids: Iterable[str]) -> "Ledger":
        """Return the ledger after releases; ids it does not hold do no harm."""
        leases = dict(self.leases)
        for lease_id in lease_ids:
            leases.pop(lease_id, None)
        return replace(self, leases=leases)

    def forgetting(self, user: str, server: str | None = None) -> "Ledger":
        """Return the ledger without what a user's servers had before.

        Args:
            user: the attendee.
            server: only this server's; None for all of them.
        """
        previous = {
            key: uuids
            for key, uuids in self.previous.items()
            if key[0] != user or server not in (None, key[1])
        }
        return replace(self, previous=previous)

    def identified(self, lease_id: str, engine_id: str, hook: bool) -> "Ledger":
        """Return the ledger with what became known of one lease's server."""
        lease = replace(self.leases[lease_id], engine_id=engine_id, hook=hook)
        return replace(self, leases={**self.leases, lease_id: lease})

    def quarantine(self, lease_id: str) -> "Ledger":
        """Return the ledger with one lease quarantined."""
        lease = replace(self.leases[lease_id], state=LeaseState.QUARANTINED)
        return replace(self, leases={**self.leases, lease_id: lease})
