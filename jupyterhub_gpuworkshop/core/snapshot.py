"""One immutable picture of devices, holders, kernels and leases at an instant.

Owns the shapes that sampling produces and that api, page, history and reclaim read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from .devices import Inventory
from .enforcement import HardCap
from .leases import Lease
from .notices import Notice


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUse:
    """What the driver says of one process on one device.

    Attributes:
        pid: in the sampler's PID namespace.
        memory_bytes: None where the driver does not say (WDDM, WSL2, MIG at times).
        utilisation: share of the device's time in the last interval, 0.0 to 1.0;
            None where it is unknown. Unknown is not idle.
    """

    pid: int
    memory_bytes: int | None
    utilisation: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSample:
    """One reading of one device.

    Attributes:
        uuid: the device.
        memory_total_bytes: all of its memory.
        memory_used_bytes: used by processes, without what the driver reserves.
        memory_free_bytes: what an allocation could get.
        utilisation: 0.0 to 1.0, None where unknown.
        temperature_celsius: None where unknown.
        power_watts: None where unknown.
        processes: who holds memory, each process once; None where the list could
            not be read (which is not the same as nobody).
        problem: what could not be read and why; empty when all could.
    """

    uuid: str
    memory_total_bytes: int
    memory_used_bytes: int
    memory_free_bytes: int
    utilisation: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    processes: tuple[ProcessUse, ...] | None = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What is cheap to read of one device: nothing of processes.

    Attributes:
        uuid: the device.
        memory_total_bytes: all of its memory.
        memory_used_bytes: used by processes, without what the driver reserves.
        memory_free_bytes: what an allocation could get.
        utilisation: since the glance before, 0.0 to 1.0; None where unknown.
        temperature_celsius: None where unknown.
        power_watts: None where unknown.
    """

    uuid: str
    memory_total_bytes: int
    memory_used_bytes: int
    memory_free_bytes: int
    utilisation: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessId:
    """A process that cannot be mistaken for a later one of the same number.

    Attributes:
        pid: the number.
        started: start time in clock ticks since boot (stat field 22).
    """

    pid: int
    started: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """What Linux vouches for of one process.

    Attributes:
        pid: in the reader's PID namespace.
        started: start time in clock ticks since boot (stat field 22).
        parent: the parent's pid; 0 where it has none.
        session: the session's id (stat field 6).
        uid: whose it is (the effective user id).
        cpu_seconds: user and system time of the process itself, without children.
        tty: its controlling terminal (stat field 7); 0 where it has none.
        cgroup: its path in the cgroup tree; empty where unknown or not read.
        command: its command line, cut short; empty where unknown or not read.
            The process itself can set it to anything: for people's eyes and as a
            hint, never as a proof.
        process: the process, told apart from later ones of the same number. Made
            once: it is asked for again and again while the process lives.
    """

    pid: int
    started: int
    parent: int
    session: int
    uid: int
    cpu_seconds: float
    tty: int = 0
    cgroup: str = ""
    command: str = ""
    process: ProcessId = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make what `process` says."""
        process = ProcessId(pid=self.pid, started=self.started)
        object.__setattr__(self, "process", process)


class HolderKind(str, Enum):
    """What part of a server a holder belongs to."""

    KERNEL = "kernel"
    TERMINAL = "terminal"
    """The server's, in a terminal: it has a controlling tty."""
    SERVER = "server"
    """The server's, in neither: detached, or a child of the server's own."""
    FOREIGN = "foreign"
    """No lease explains it."""
    UNATTRIBUTED = "unattributed"
    """An attendee's, but Linux does not vouch for whose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A process that holds memory on a device, and whose it is."""

    process: ProcessId
    device: str
    memory_bytes: int | None
    utilisation: float | None
    kind: HolderKind
    command: str = ""
    lease_id: str = ""
    user: str = ""
    server: str = ""
    kernel_id: str = ""


class KernelState(str, Enum):
    """What a kernel's server says it does."""

    IDLE = "idle"
    BUSY = "busy"
    STARTING = "starting"
    UNKNOWN = "unknown"


def memory_held_by(holders: Iterable[Holder]) -> int | None:
    """Return what they hold together, in bytes; None where it is unknown of one."""
    total = 0
    for holder in holders:
        if holder.memory_bytes is None:
            return None
        total += holder.memory_bytes
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelView:
    """One kernel, as organiser and owner see it.

    Attributes:
        lease_id: the lease of its server.
        user: the attendee.
        server: the server's name.
        kernel_id: the Jupyter kernel id.
        notebook: the notebook's path in its server; empty where there is none.
        process: its main process; None while it is not known.
        state: what its server says.
        connections: open websockets; None while unknown.
        memory_bytes: GPU memory that its process tree holds now; None where unknown.
        peak_memory_bytes: the most it ever held.
        idle_seconds: how long *all* signals have said idle; None when they do not.
        verdict: why it is, or is not, about to be reclaimed.
        last_activity: in its server's own words; empty while unknown.
        gpu_utilisation: the most of any of its processes, 0.0 to 1.0; None where
            unknown.
        device_utilisation: the most of any of its devices as a whole; None where
            unknown.
        cpu: processor time of its processes since the look before, as a part of one
            core; None where unknown.
        age_seconds: how long its main process has lived; None where unknown.
        acts_at: when its memory will be taken if nothing changes, in wall-clock
            seconds since the epoch; None where that is not planned.
        pinned_until: until when it is pinned, in wall-clock seconds since the epoch;
            infinite for a pin without end; None where it is not.
        pinned_by: who pinned it.
        parked_bytes: GPU memory of it that is in host memory; 0 while it runs.
        parked_at: since when, in wall-clock seconds; None while it runs.
    """

    lease_id: str
    user: str
    server: str
    kernel_id: str
    notebook: str = ""
    process: ProcessId | None = None
    state: KernelState = KernelState.UNKNOWN
    connections: int | None = None
    memory_bytes: int | None = None
    peak_memory_bytes: int = 0
    idle_seconds: float | None = None
    verdict: str = ""
    last_activity: str = ""
    gpu_utilisation: float | None = None
    device_utilisation: float | None = None
    cpu: float | None = None
    age_seconds: float | None = None
    acts_at: float | None = None
    pinned_until: float | None = None
    pinned_by: str = ""
    parked_bytes: int = 0
    parked_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseUse:
    """What the holders of one lease use together.

    Attributes:
        lease_id: the lease.
        memory_bytes: by device UUID, as far as it is seen.
        unknown: devices on which it may use more than that: their processes are not
            listed, or what one of its own holds there is not told.
        peak_memory_bytes: the most that it ever used, over all its devices.
        over_bytes: what it uses above its share, by device UUID; only devices on
            which it does.
        over_since: since when, in wall-clock seconds since the epoch; None while it
            does not.
        short_bytes: what it may still ask for and would not get, by device UUID: less
            is free there than is due to it.
        parked_bytes: what its parked kernels will ask for again, by device UUID.
    """

    lease_id: str
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    unknown: frozenset[str] = frozenset()
    peak_memory_bytes: int = 0
    over_bytes: Mapping[str, int] = field(default_factory=dict)
    over_since: float | None = None
    short_bytes: Mapping[str, int] = field(default_factory=dict)
    parked_bytes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All of it, at one instant.

    Attributes:
        taken_at: wall-clock seconds since the epoch.
        inventory: what exists.
        samples: the reading of each device; empty while devices cannot be read.
        listed: the devices of which every holder is known.
        holders: every process that holds memory.
        leases: as the hub last reported them.
        uses: one for each lease.
        hard_caps: what the driver holds leases to, as far as it was asked.
        kernels: one for each kernel of every server; those of a server that does
            not answer are unknown.
        needed: somebody was refused a share, or a device is short of memory.
        notices: those that stand, of every attendee.
        drained: devices that an organiser has taken out of service.
        server_verdicts: why each server is, or is not, about to be stopped, by lease
            id, as of the look before.
        problems: what is unknown just now and why, in sentences for organisers.
    """

    taken_at: float = 0.0
    inventory: Inventory = field(default_factory=Inventory)
    samples: tuple[DeviceSample, ...] = ()
    listed: frozenset[str] = frozenset()
    holders: tuple[Holder, ...] = ()
    leases: tuple[Lease, ...] = ()
    uses: tuple[LeaseUse, ...] = ()
    hard_caps: tuple[HardCap, ...] = ()
    kernels: tuple[KernelView, ...] = ()
    needed: bool = False
    notices: tuple[Notice, ...] = ()
    drained: frozenset[str] = frozenset()
    server_verdicts: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
