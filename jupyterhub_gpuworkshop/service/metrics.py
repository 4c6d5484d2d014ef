"""The current snapshot as numbers for Prometheus.

Owns what is known of each metric, and what is left out: what is unknown is absent,
never 0, and nobody's name is in any but those of `BY_ATTENDEE`. It asks nobody.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from jupyterhub_gpuworkshop.core.devices import Device
from jupyterhub_gpuworkshop.core.leases import LeasedDevice, LeaseState
from jupyterhub_gpuworkshop.core.snapshot import (
    DeviceSample,
    Holder,
    HolderKind,
    KernelState,
    LeaseUse,
    Snapshot,
    memory_held_by,
)
from jupyterhub_gpuworkshop.core.wire import Report

from .metric_catalogue import BY_ATTENDEE, TOTALS, Described, MetricKind
from .tally import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the metrics are made of.

    Attributes:
        snapshot: the current one.
        rounds: how many there were.
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
    by_device = _sort(snapshot)
    for device in snapshot.inventory.devices:
        here = by_device.get(device.uuid) or _Here()
        yield from _device(facts, device, here)
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


@dataclass(slots=True)
class _Here:
    """What there is on one device, sorted once for all of them."""

    sample: DeviceSample | None = None
    holders: list[Holder] = field(default_factory=list)
    lease_states: list[LeaseState] = field(default_factory=list)
    promised_bytes: int = 0
    parked_bytes: int = 0
    short_bytes: int = 0
    over: int = 0


def _sort(snapshot: Snapshot) -> dict[str, _Here]:
    found: dict[str, _Here] = defaultdict(_Here)
    for sample in snapshot.samples:
        found[sample.uuid].sample = sample
    for holder in snapshot.holders:
        found[holder.device].holders.append(holder)
    for lease in snapshot.leases:
        for uuid in set(lease.uuids):
            found[uuid].lease_states.append(lease.state)
            found[uuid].promised_bytes += lease.bytes_on(uuid)
    for use in snapshot.uses:
        for uuid, parked_bytes in use.parked_bytes.items():
            found[uuid].parked_bytes += parked_bytes
        for uuid, short_bytes in use.short_bytes.items():
            found[uuid].short_bytes += short_bytes
        for uuid, over_bytes in use.over_bytes.items():
            found[uuid].over += over_bytes > 0
    return found


def _device(facts: Facts, device: Device, here: _Here) -> Iterator[_Sample]:
    """Return what is known of one device."""
    uuid, sample = device.uuid, here.sample
    labels = (uuid, device.label, device.name)
    is_listed = uuid in facts.snapshot.listed
    yield "device_up", labels, sample is not None
    yield "device_lost", labels, device.lost
    yield "device_drained", labels, uuid in facts.snapshot.drained
    yield "device_memory_total_bytes", labels, device.memory_bytes
    if sample is not None:
        yield "device_memory_used_bytes", labels, sample.memory_used_bytes
        yield "device_memory_free_bytes", labels, sample.memory_free_bytes
        yield "device_utilization_ratio", labels, sample.utilisation
        yield "device_temperature_celsius", labels, sample.temperature_celsius
        yield "device_power_watts", labels, sample.power_watts
    if is_listed:
        yield from _holders(here.holders, labels)
    if facts.hub_has_reported:
        states = Counter(here.lease_states)
        for state in LeaseState:
            yield "leases", (*labels, state.value), states[state]
        yield "device_memory_promised_bytes", labels, here.promised_bytes
        yield "device_memory_parked_bytes", labels, here.parked_bytes
    if facts.hub_has_reported and is_listed:
        yield "device_memory_short_bytes", labels, here.short_bytes
        yield "leases_over_share", labels, here.over


def _holders(holders: Iterable[Holder], labels: _Labels) -> Iterator[_Sample]:
    by_kind: dict[HolderKind, list[Holder]] = {kind: [] for kind in HolderKind}
    for holder in holders:
        by_kind[holder.kind].append(holder)
    for kind, found in by_kind.items():
        with_kind = (*labels, kind.value)
        yield "holders", with_kind, len(found)
        yield "holders_memory_bytes", with_kind, memory_held_by(found)


def _by_attendee(facts: Facts) -> Iterator[_Sample]:
    """Return what is known of each server; the leases of one server are added up."""
    snapshot = facts.snapshot
    uses = {use.lease_id: use for use in snapshot.uses}
    sums: dict[tuple[str, _Labels], int | None] = {}
    for lease in snapshot.leases:
        use = uses.get(lease.id)
        for device in lease.devices:
            labels: _Labels = (lease.user, lease.server, device.uuid, device.label)
            for name, value in _of_use(device, use).items():
                key = (f"attendee_memory_{name}_bytes", labels)
                sums[key] = _sum(sums.get(key, 0), value)
    for (name, labels), summed in sums.items():
        yield name, labels, summed
    if facts.hub_reports:
        kernels = Counter((x.user, x.server, x.state) for x in snapshot.kernels)
        for user, server in sorted({(x.user, x.server) for x in snapshot.leases}):
            for state in KernelState:
                count = kernels[user, server, state]
                yield "attendee_kernels", (user, server, state.value), count


def _of_use(device: LeasedDevice, use: LeaseUse | None) -> Mapping[str, int | None]:
    known: dict[str, int | None] = {"share": device.memory_bytes}
    if use is not None:
        is_told = device.uuid not in use.unknown
        for name, by_device in (
            ("used", use.memory_bytes),
            ("over", use.over_bytes),
            ("short", use.short_bytes),
        ):
            known[name] = by_device.get(device.uuid, 0) if is_told else None
        known["parked"] = use.parked_bytes.get(device.uuid, 0)
    return known


def _sum(one: int | None, other: int | None) -> int | None:
    """Return both together; what is partly unknown is unknown."""
    return None if one is None or other is None else one + other
