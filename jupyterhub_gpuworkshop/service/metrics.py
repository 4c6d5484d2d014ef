"""The current snapshot as numbers for Prometheus.

Owns which metrics there are, what each says, and what is left out: what is unknown is
absent, never 0, and nobody's name is in any but those of `BY_ATTENDEE`. It asks nobody
anything.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from jupyterhub_gpuworkshop.core.leases import LeaseState
from jupyterhub_gpuworkshop.core.snapshot import (
    Holder,
    HolderKind,
    KernelState,
    LeaseUse,
    Snapshot,
)
from jupyterhub_gpuworkshop.core.wire import Report

from .tally import Tally

DEVICE = ("device", "gpu", "model")
ATTENDEE = ("user", "server")
ATTENDEE_ON = (*ATTENDEE, "device", "gpu")


class MetricKind(str, Enum):
    """How a metric's value moves."""

    GAUGE = "gauge"
    COUNTER = "counter"
    """It only rises while the service lives; a restart of it begins at 0."""
    INFO = "info"
    """Always 1: its labels say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A metric and what it says.

    Attributes:
        name: as Prometheus stores it.
        kind: how its value moves.
        labels: the names of its labels.
        help: one or two sentences; when it is absent, too.
    """

    name: str
    kind: MetricKind = MetricKind.GAUGE
    labels: tuple[str, ...] = ()
    help: str

    @property
    def names_attendees(self) -> bool:
        """Whether a label of it is somebody's name."""
        return "user" in self.labels


def _gauge(name: str, labels: tuple[str, ...], help_: str) -> Described:
    return Described(name=f"gpuworkshop_{name}", labels=labels, help=help_)


def _counter(name: str, labels: tuple[str, ...], help_: str) -> Described:
    return Described(
        name=f"gpuworkshop_{name}",
        kind=MetricKind.COUNTER,
        labels=labels,
        help=f"{help_} Counted since this service started.",
    )


TOTALS = (
    Described(
        name="gpuworkshop_build_info",
        kind=MetricKind.INFO,
        labels=("version",),
        help="The version of jupyterhub-gpuworkshop that serves this.",
    ),
    _gauge(
        "snapshot_timestamp_seconds",
        (),
        "When the snapshot that all gauges here are taken from was made, in seconds "
        "since the epoch. It stands still while the service cannot look; absent before "
        "the first look.",
    ),
    _counter("snapshots_total", (), "How many snapshots were made."),
    _gauge(
        "driver_up",
        (),
        "Whether the last look could read at least one device (1), or none (0): the "
        "driver does not answer, is not there, or has no device. Absent before the "
        "first look.",
    ),
    _gauge(
        "hub_up",
        (),
        "Whether the hub reports (1) or has been silent for too long (0): what depends "
        "on it then is out of date or absent. Absent until the one or the other is "
        "known.",
    ),
    _gauge(
        "servers",
        (),
        "How many attendees' servers were asked for their kernels. Absent while the "
        "hub does not report.",
    ),
    _gauge(
        "servers_unknown",
        (),
        "How many of them did not answer as they should: nothing of theirs is "
        "reclaimed. Absent while the hub does not report.",
    ),
    _gauge(
        "problems",
        (),
        "How many things are not known just now; the organiser's page has each in a "
        "sentence.",
    ),
    _gauge(
        "history_on_disk",
        (),
        "Whether what happens is on disk (1), or in memory only (0).",
    ),
    _gauge(
        "needed",
        (),
        "Whether memory is needed (1): somebody was refused a share, or a device is "
        "short of memory for the leases on it. Absent before the first look.",
    ),
    _gauge(
        "waiting",
        (),
        "How many servers were refused a share and have not been granted one since. "
        "Absent while the hub does not report.",
    ),
    _gauge(
        "device_up",
        DEVICE,
        "Whether the last look could read this device (1) or not (0); its readings are "
        "absent then.",
    ),
    _gauge(
        "device_lost",
        DEVICE,
        "Whether the driver has lost this device (1), as of when devices were listed "
        "last: it gets no new lease.",
    ),
    _gauge(
        "device_drained",
        DEVICE,
        "Whether an organiser has taken this device out of service (1): it gets no new "
        "lease.",
    ),
    _gauge("device_memory_total_bytes", DEVICE, "All memory of this device."),
    _gauge(
        "device_memory_used_bytes",
        DEVICE,
        "Memory of this device that processes use, without what the driver reserves.",
    ),
    _gauge(
        "device_memory_free_bytes",
        DEVICE,
        "Memory of this device that an allocation could get.",
    ),
    _gauge(
        "device_memory_promised_bytes",
        DEVICE,
        "What all leases on this device may use of it together, as the hub last "
        "reported them. Absent before its first report.",
    ),
    _gauge(
        "device_memory_parked_bytes",
        DEVICE,
        "GPU memory of paused kernels that is in host memory, and that they will ask "
        "for again on this device. Absent before the hub's first report.",
    ),
    _gauge(
        "device_memory_short_bytes",
        DEVICE,
        "What the leases on this device may still ask for and would not get now, added "
        "up over leases. Absent where the processes of the device are not known.",
    ),
    _gauge(
        "device_utilization_ratio",
        DEVICE,
        "How much of the time since the look before this device was at work, from 0 to "
        "1, as the driver tells it. MIG slices have none.",
    ),
    _gauge(
        "device_temperature_celsius", DEVICE, "Temperature, as the driver tells it."
    ),
    _gauge("device_power_watts", DEVICE, "Power drawn, as the driver tells it."),
    _gauge(
        "leases",
        (*DEVICE, "state"),
        "How many leases stand on this device, as the hub last reported them. A lease "
        "on several devices counts on each. Absent before its first report.",
    ),
    _gauge(
        "leases_without_device",
        ("state",),
        "How many leases have no device: shares of cpu. Absent before the hub's first "
        "report.",
    ),
    _gauge(
        "leases_over_share",
        DEVICE,
        "How many leases use more of this device than their share. Absent where the "
        "processes of the device are not known.",
    ),
    _gauge(
        "holders",
        (*DEVICE, "kind"),
        "How many processes hold memory of this device, by what part of a server they "
        "belong to: foreign ones are in no lease. Absent where they are not known.",
    ),
    _gauge(
        "holders_memory_bytes",
        (*DEVICE, "kind"),
        "What these processes hold together. Absent where it is not known of each.",
    ),
    _gauge(
        "kernels",
        ("state",),
        "How many kernels there are, by what their server says they do; unknown where "
        "it does not answer. Absent while the hub does not report.",
    ),
    _gauge(
        "kernels_parked",
        (),
        "How many of them are paused, variables kept. Absent while the hub does not "
        "report.",
    ),
    _gauge(
        "kernels_pinned",
        (),
        "How many of them are kept from being reclaimed for idleness. Absent while the "
        "hub does not report.",
    ),
    _counter(
        "events_total",
        ("kind",),
        "How many events the history took in, by kind.",
    ),
    _counter(
        "reclaimed_bytes_total",
        ("action",),
        "GPU memory that kernels held no more after it was taken from them, by what "
        "was done to them.",
    ),
)
"""What everybody who may look sees."""

BY_ATTENDEE = (
    _gauge(
        "attendee_memory_used_bytes",
        ATTENDEE_ON,
        "What the processes of this server use of the device. Absent where the "
        "processes of the device are not known.",
    ),
    _gauge(
        "attendee_memory_share_bytes",
        ATTENDEE_ON,
        "What this server may use of the device.",
    ),
    _gauge(
        "attendee_memory_over_bytes",
        ATTENDEE_ON,
        "What it uses above its share; 0 where it keeps to it. Absent where the "
        "processes of the device are not known.",
    ),
    _gauge(
        "attendee_memory_short_bytes",
        ATTENDEE_ON,
        "What it may still ask for and would not get now. Absent where the processes "
        "of the device are not known.",
    ),
    _gauge(
        "attendee_memory_parked_bytes",
        ATTENDEE_ON,
        "What its paused kernels will ask for again on the device.",
    ),
    _gauge(
        "attendee_kernels",
        (*ATTENDEE, "state"),
        "How many kernels this server has, by what it says they do. Absent while the "
        "hub does not report.",
    ),
)
"""For organisers alone, where `metrics.by_attendee` of the workshop file says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the metrics are made of.

    Attributes:
        snapshot: the current one.
        rounds: how many there were.
        listed: the devices of which the snapshot names every holder.
        report: what the hub had said at its instant; without an id where it had not.
        hub_problem: why that may be out of date; else empty.
        asked: how many servers were asked for their kernels.
        unanswered: how many of them did not answer as they should.
        history_problem: why the history is not on disk; else empty.
        tally: what happened since the service started.
        version: this package's.
    """

    snapshot: Snapshot
    rounds: int
    listed: frozenset[str]
    report: Report
    hub_problem: str
    asked: int
    unanswered: int
    history_problem: str
    tally: Tally
    version: str

    @property
    def hub_has_reported(self) -> bool:
        """Whether the leases are known, be they of a while ago."""
        return bool(self.report.hub_id)

    @property
    def hub_reports(self) -> bool:
        """Whether servers and refusals are known, too."""
        return self.hub_has_reported and not self.hub_problem


_Labels = tuple[str, ...]
_Sample = tuple[str, _Labels, float | None]
"""A metric's name without its prefix, its labels' values, and its value."""


class Metrics(Collector):
    """What Prometheus is given, collected anew whenever it asks.

    Args:
        facts: what it is made of.
        by_attendee: whether names may be in it.
    """

    def __init__(self, facts: Facts, *, by_attendee: bool) -> None:
        self._facts = facts
        self._by_attendee = by_attendee

    def collect(self) -> Iterator[Metric]:
        """Return each metric of which something is known."""
        described, samples = [*TOTALS], [*_totals(self._facts)]
        if self._by_attendee:
            described += BY_ATTENDEE
            samples += _by_attendee(self._facts)
        known: dict[str, list[tuple[_Labels, float]]] = {}
        for name, labels, value in samples:
            if value is not None:
                known.setdefault(f"gpuworkshop_{name}", []).append((labels, value))
        for metric in described:
            if metric.name in known:
                yield _family(metric, known[metric.name])


def _family(described: Described, samples: list[tuple[_Labels, float]]) -> Metric:
    name, text, labels = described.name, described.help, described.labels
    if described.kind is MetricKind.INFO:
        info = InfoMetricFamily(name.removesuffix("_info"), text)
        for values, _ in samples:
            info.add_metric([], dict(zip(labels, values, strict=True)))
        return info
    make = (
        CounterMetricFamily
        if described.kind is MetricKind.COUNTER
        else GaugeMetricFamily
    )
    family = make(name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _totals(facts: Facts) -> Iterator[_Sample]:
    snapshot = facts.snapshot
    has_looked = facts.rounds > 0
    yield "build_info", (facts.version,), 1
    yield "snapshots_total", (), facts.rounds
    if has_looked:
        yield "snapshot_timestamp_seconds", (), snapshot.taken_at
        yield "driver_up", (), bool(snapshot.samples)
        yield "needed", (), snapshot.needed
    yield "problems", (), len(snapshot.problems)
    yield "history_on_disk", (), not facts.history_problem
    if facts.hub_has_reported or facts.hub_problem:
        yield "hub_up", (), not facts.hub_problem
    if facts.hub_reports:
        yield "servers", (), facts.asked
        yield "servers_unknown", (), facts.unanswered
        yield "waiting", (), len(facts.report.refusals)
        yield from _kernels(snapshot)
    for labels in _device_labels(snapshot).values():
        yield from _device(facts, labels)
    if facts.hub_has_reported:
        states = Counter(x.state for x in snapshot.leases if not x.devices)
        for state in LeaseState:
            yield "leases_without_device", (state.value,), states[state]
    for kind, count in facts.tally.events.items():
        yield "events_total", (kind.value,), count
    for action, freed_bytes in facts.tally.reclaimed_bytes.items():
        yield "reclaimed_bytes_total", (action,), freed_bytes


def _kernels(snapshot: Snapshot) -> Iterator[_Sample]:
    states = Counter(kernel.state for kernel in snapshot.kernels)
    for state in KernelState:
        yield "kernels", (state.value,), states[state]
    kernels = snapshot.kernels
    yield "kernels_parked", (), sum(x.parked_at is not None for x in kernels)
    yield "kernels_pinned", (), sum(x.pinned_until is not None for x in kernels)


def _device_labels(snapshot: Snapshot) -> dict[str, _Labels]:
    """Return what names each device, by UUID."""
    return {x.uuid: (x.uuid, x.label, x.name) for x in snapshot.inventory.devices}


def _device(facts: Facts, labels: _Labels) -> Iterator[_Sample]:
    """Return what is known of one device."""
    snapshot, uuid = facts.snapshot, labels[0]
    device = snapshot.inventory.find(uuid)
    sample = next((x for x in snapshot.samples if x.uuid == uuid), None)
    yield "device_up", labels, sample is not None
    if device is not None:
        yield "device_lost", labels, device.lost
        yield "device_memory_total_bytes", labels, device.memory_bytes
    yield "device_drained", labels, uuid in snapshot.drained
    if sample is not None:
        yield "device_memory_used_bytes", labels, sample.memory_used_bytes
        yield "device_memory_free_bytes", labels, sample.memory_free_bytes
        yield "device_utilization_ratio", labels, sample.utilisation
        yield "device_temperature_celsius", labels, sample.temperature_celsius
        yield "device_power_watts", labels, sample.power_watts
    if uuid in facts.listed:
        yield from _holders(snapshot.holders, labels)
    if not facts.hub_has_reported:
        return
    leases = [x for x in snapshot.leases if uuid in x.uuids]
    states = Counter(x.state for x in leases)
    for state in LeaseState:
        yield "leases", (*labels, state.value), states[state]
    promised_bytes = sum(x.bytes_on(uuid) for x in leases)
    yield "device_memory_promised_bytes", labels, promised_bytes
    uses = snapshot.uses
    parked_bytes = sum(x.parked_bytes.get(uuid, 0) for x in uses)
    yield "device_memory_parked_bytes", labels, parked_bytes
    if uuid in facts.listed:
        short_bytes = sum(x.short_bytes.get(uuid, 0) for x in uses)
        yield "device_memory_short_bytes", labels, short_bytes
        over = sum(x.over_bytes.get(uuid, 0) > 0 for x in uses)
        yield "leases_over_share", labels, over


def _holders(holders: Iterable[Holder], labels: _Labels) -> Iterator[_Sample]:
    here = [x for x in holders if x.device == labels[0]]
    for kind in HolderKind:
        held = [x.memory_bytes for x in here if x.kind is kind]
        known = [x for x in held if x is not None]
        yield "holders", (*labels, kind.value), len(held)
        yield (
            "holders_memory_bytes",
            (*labels, kind.value),
            sum(known) if len(known) == len(held) else None,
        )


def _by_attendee(facts: Facts) -> Iterator[_Sample]:
    """Return what is known of each server; the leases of one server are added up."""
    snapshot = facts.snapshot
    uses = {use.lease_id: use for use in snapshot.uses}
    sums: dict[tuple[str, _Labels], int] = {}
    for lease in snapshot.leases:
        use = uses.get(lease.id)
        for device in lease.devices:
            labels: _Labels = (lease.user, lease.server, device.uuid, device.label)
            is_listed = device.uuid in facts.listed
            known = _of_use(use, device.uuid, is_listed) if use is not None else {}
            for name, value in {"share": device.memory_bytes, **known}.items():
                key = (f"attendee_memory_{name}_bytes", labels)
                sums[key] = sums.get(key, 0) + value
    for (name, labels), summed in sums.items():
        yield name, labels, summed
    if facts.hub_reports:
        kernels = Counter((x.user, x.server, x.state) for x in snapshot.kernels)
        for user, server in sorted({(x.user, x.server) for x in snapshot.leases}):
            for state in KernelState:
                count = kernels[user, server, state]
                yield "attendee_kernels", (user, server, state.value), count


def _of_use(use: LeaseUse, uuid: str, is_listed: bool) -> Mapping[str, int]:
    known = {"parked": use.parked_bytes.get(uuid, 0)}
    if is_listed:
        known |= {
            "used": use.memory_bytes.get(uuid, 0),
            "over": use.over_bytes.get(uuid, 0),
            "short": use.short_bytes.get(uuid, 0),
        }
    return known
