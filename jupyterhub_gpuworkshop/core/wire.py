"""What hub and service say to each other over the link, and how it is encoded.

Owns the messages. The hub is the service's client: it posts a `Report` every few
seconds and at once on a change, and reads a `Reply`. JSON both ways, validated on
arrival: a message that does not fit is refused whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from pydantic import TypeAdapter

from .announcements import Announcement
from .devices import Inventory
from .leases import Lease
from .lock_out import Locked
from .notices import Notice

ORGANISERS_DETAIL = "detail"
"""The key of an event's details that may name other attendees and processes."""

MOST_LOCKED = 200
"""So many who wait after wrong codes are reported at most."""


class EventKind(str, Enum):
    """What can happen that people want to read about."""

    LEASE_GRANTED = "lease_granted"
    LEASE_REFUSED = "lease_refused"
    LEASE_RELEASED = "lease_released"
    LEASE_QUARANTINED = "lease_quarantined"
    NOTICE_GIVEN = "notice_given"
    """An attendee is told what will happen if nothing changes, or by an organiser."""
    KERNEL_RECLAIMED = "kernel_reclaimed"
    """An idle kernel was paused, restarted or stopped, or somebody had it done."""
    RECLAIM_FAILED = "reclaim_failed"
    RECLAIM_WOULD = "reclaim_would"
    """`idle.dry_run`: what would have been reclaimed."""
    KERNEL_RETURNED = "kernel_returned"
    """A parked kernel has its GPU memory back."""
    RETURN_WAITS = "return_waits"
    """A parked kernel is to come back, and its memory is not free yet."""
    KERNEL_LOST = "kernel_lost"
    """A kernel's memory could not be moved, and it was restarted."""
    KERNEL_PINNED = "kernel_pinned"
    """Somebody keeps a kernel from being reclaimed for idleness."""
    KERNEL_UNPINNED = "kernel_unpinned"
    """... and lets it go before that is over."""
    PROCESS_ENDED = "process_ended"
    """An organiser has ended a process that is in no kernel."""
    END_FAILED = "end_failed"
    """... or tried to."""
    DEVICE_DRAINED = "device_drained"
    """An organiser has taken a device out of service."""
    DEVICE_UNDRAINED = "device_undrained"
    DEVICE_LOST = "device_lost"
    """The driver has lost a device."""
    SERVER_STOPPED = "server_stopped"
    """An idle server, for its share, or since somebody asked for it."""
    SERVER_STOP_FAILED = "server_stop_failed"
    SERVER_STOP_WOULD = "server_stop_would"
    """`idle.dry_run`: what would have been stopped."""
    OVER_SHARE = "over_share"
    """An attendee is told that processes use more than the share."""
    ANNOUNCEMENT_MADE = "announcement_made"
    """An organiser tells everybody something."""
    ANNOUNCEMENT_ENDED = "announcement_ended"
    """It was taken down, or its time was over."""
    ATTENDEE_UNLOCKED = "attendee_unlocked"
    """An organiser has ended somebody's wait after wrong codes."""
    UNLOCK_FAILED = "unlock_failed"
    """... or tried to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A grant, a refusal, a release, a reclaim.

    Attributes:
        sequence: counts up within one origin; 0 before it is numbered.
        at: wall-clock seconds since the epoch.
        kind: what happened.
        user: the attendee.
        server: the server's name.
        devices: UUIDs.
        reason: why, in a sentence.
        details: what else there is to say: share, bytes, kernel id.
    """

    sequence: int = 0
    at: float
    kind: EventKind
    user: str
    server: str = ""
    devices: tuple[str, ...] = ()
    reason: str = ""
    details: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """A running server, as the hub knows it.

    Attributes:
        lease_id: its lease.
        user: the attendee.
        server: the server's name.
        url: where to call it directly, never through the proxy; ends in ``/``.
        token: opens this server and nothing else, anywhere.
        pid: its main process on this host; 0 where there is none to see.
        started: the main process's start time in clock ticks; 0 where unknown.
        uid: the Unix user it runs as, where that user is this attendee's alone.
        engine: what it runs under, as in its lease.
        engine_id: what the engine calls it, as in its lease.
        groups: the attendee's groups at the hub.
    """

    lease_id: str
    user: str
    server: str
    url: str
    token: str
    pid: int = 0
    started: int = 0
    uid: int | None = None
    engine: str = ""
    engine_id: str = ""
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Somebody who waits for a share: it makes idle memory *needed*.

    Attributes:
        user: the attendee.
        server: the server's name.
        share: what was asked for.
        at: wall-clock seconds since the epoch.
    """

    user: str
    server: str
    share: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """From hub to service.

    Attributes:
        hub_id: one life of one hub process.
        sent_at: wall-clock seconds since the epoch.
        leases: all of them, quarantined ones too.
        servers: those that run.
        refusals: who was refused and has not been granted since.
        events: those the service has not acknowledged.
        seen: ids of the notices that were on a page which the hub sent to the
            attendee, since the service last answered.
        locked: who has to wait after wrong codes, at most `MOST_LOCKED`; None where
            the hub keeps no lock-outs, or has not looked yet.
        unlocked: ids of the orders to unlock that are carried out, for as long as the
            service gives them.
    """

    hub_id: str
    sent_at: float
    leases: tuple[Lease, ...] = ()
    servers: tuple[ServerInfo, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    events: tuple[Event, ...] = ()
    seen: tuple[str, ...] = ()
    locked: tuple[Locked, ...] | None = None
    unlocked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlock:
    """An order to let somebody try again who has to wait after wrong codes.

    Attributes:
        id: of this order; carrying it out twice does no harm.
        name: who, as the hub's report has it.
        by: the organiser who asks.
    """

    id: str
    name: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """What was observed on a device, as placement needs it.

    Attributes:
        uuid: the device.
        free_bytes: what an allocation could get.
        by_lease: bytes used by the holders of each lease, by lease id.
        in_the_way: whom no lease explains, largest first: (who, bytes).
        sampled_at: wall-clock seconds since the epoch.
    """

    uuid: str
    free_bytes: int
    by_lease: Mapping[str, int] = field(default_factory=dict)
    in_the_way: tuple[tuple[str, int], ...] = ()
    sampled_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """From service to hub.

    Attributes:
        inventory: what exists; None while the service has not looked yet.
        uses: what was observed on each device.
        acknowledged: the highest event sequence of this hub that is in the history.
        notices: those that stand; the hub shows each attendee's as a banner.
        drained: devices that an organiser has taken out of service: they get no new
            lease. Both are told whole every time, so that a lost reply loses nothing.
            None where the service cannot read which: what the hub knows stands.
        announced: what is announced to everybody: nothing, or one announcement; whole
            and None as `drained`.
        unlocks: orders that the hub has not reported as carried out, each time all.
    """

    inventory: Inventory | None = None
    uses: tuple[DeviceUse, ...] = ()
    acknowledged: int = 0
    notices: tuple[Notice, ...] = ()
    drained: tuple[str, ...] | None = ()
    announced: tuple[Announcement, ...] | None = ()
    unlocks: tuple[Unlock, ...] = ()


REPORT: TypeAdapter[Report] = TypeAdapter(Report)
REPLY: TypeAdapter[Reply] = TypeAdapter(Reply)
INVENTORY: TypeAdapter[Inventory] = TypeAdapter(Inventory)
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
"""``.dump_json(value)`` gives bytes, ``.validate_json(body)`` reads them."""
