"""A snapshot as JSON: everything for the organiser, one's own for an attendee.

Owns who is shown what (design, rule 5): of others an attendee sees the devices'
totals, and neither names nor notebooks nor processes.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from jupyterhub_gpuworkshop.core.enforcement import HardCap, limits_in_force, overall
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.notices import Notice
from jupyterhub_gpuworkshop.core.snapshot import (
    DeviceSample,
    Holder,
    KernelView,
    LeaseUse,
    Snapshot,
)
from jupyterhub_gpuworkshop.core.wire import ORGANISERS_DETAIL
from jupyterhub_gpuworkshop.service.store import Recorded

from .auth import Viewer

Json = dict[str, Any]
_COMMAND_CHARACTERS = 300


class _Owned(Protocol):
    @property
    def user(self) -> str: ...


T = TypeVar("T", bound=_Owned)


@dataclass(frozen=True, slots=True)
class Sorted:
    """A snapshot, sorted by whose what is: once for all who look.

    Attributes:
        snapshot: it.
        devices: each with all that an organiser sees of it.
        uses: by lease id.
        hard_caps: by lease id.
        leases: by user, as the others below.
    """

    snapshot: Snapshot
    devices: list[Json]
    uses: dict[str, LeaseUse]
    hard_caps: dict[str, HardCap]
    leases: dict[str, list[Lease]]
    kernels: dict[str, list[KernelView]]
    holders: dict[str, list[Holder]]
    notices: dict[str, list[Notice]]


_latest: Sorted | None = None
"""Of the snapshot that was looked at last: a class looks at one, again and again."""


def sort(snapshot: Snapshot) -> Sorted:
    """Return a snapshot sorted; the same one again for the same snapshot."""
    global _latest
    if _latest is None or _latest.snapshot is not snapshot:
        _latest = Sorted(
            snapshot=snapshot,
            devices=_devices(snapshot),
            uses={use.lease_id: use for use in snapshot.uses},
            hard_caps={cap.lease_id: cap for cap in snapshot.hard_caps},
            leases=_by_user(snapshot.leases),
            kernels=_by_user(snapshot.kernels),
            holders=_by_user(snapshot.holders),
            notices=_by_user(snapshot.notices),
        )
    return _latest


def _by_user(things: Iterable[T]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = {}
    for thing in things:
        found.setdefault(thing.user, []).append(thing)
    return found


def snapshot_view(snapshot: Snapshot, viewer: Viewer, now: float) -> Json:
    """Return what the viewer may see of a snapshot.

    Args:
        snapshot: the current one.
        viewer: who looks.
        now: wall-clock seconds since the epoch.
    """
    found = sort(snapshot)
    return {
        "taken_at": snapshot.taken_at,
        "age_seconds": round(max(0.0, now - snapshot.taken_at), 3),
        "needed": snapshot.needed,
        "devices": found.devices if viewer.is_organiser else _totals(found.devices),
        "leases": [
            lease_view(x, found, viewer)
            for x in may_see(viewer, snapshot.leases, found.leases)
        ],
        "kernels": [
            kernel_view(x) for x in may_see(viewer, snapshot.kernels, found.kernels)
        ],
        "holders": [
            holder_view(x) for x in may_see(viewer, snapshot.holders, found.holders)
        ],
        "notices": [
            notice_view(x) for x in may_see(viewer, snapshot.notices, found.notices)
        ],
        # They name attendees and processes.
        "problems": list(snapshot.problems) if viewer.is_organiser else [],
    }


def may_see(
    viewer: Viewer, things: Iterable[T], of_users: dict[str, list[T]]
) -> Iterable[T]:
    """Return those that this viewer may see: all, one's own, or none.

    Args:
        viewer: who looks.
        things: all of them.
        of_users: the same, by user.
    """
    if viewer.is_organiser:
        return things
    # What is nobody's is not theirs who have no name.
    return of_users.get(viewer.attendee, ()) if viewer.attendee else ()


def own_notices(snapshot: Snapshot, viewer: Viewer) -> list[str]:
    """Return the ids of the notices that are for this viewer's own eyes."""
    return [x.id for x in snapshot.notices if viewer.user and x.user == viewer.user]


def event_view(recorded: Recorded, viewer: Viewer) -> Json:
    """Return an event of the history, as far as this viewer may see it.

    An attendee who was refused reads the reason; the detail beside it says who is in
    the way, with names, and is the organiser's.
    """
    event = recorded.event
    kept = dict(event.details)
    if not viewer.is_organiser:
        kept.pop(ORGANISERS_DETAIL, None)
    return {
        "id": recorded.id,
        "at": event.at,
        "kind": event.kind.value,
        "user": event.user,
        "server": event.server,
        "devices": list(event.devices),
        "reason": event.reason,
        "details": kept,
    }


def _devices(snapshot: Snapshot) -> list[Json]:
    samples = {sample.uuid: sample for sample in snapshot.samples}
    promised: dict[str, list[int]] = {}
    for lease in snapshot.leases:
        for uuid in set(lease.uuids):
            promised.setdefault(uuid, []).append(lease.bytes_on(uuid))
    devices = []
    for device in snapshot.inventory.devices:
        sample = samples.get(device.uuid)
        shares = promised.get(device.uuid, [])
        devices.append(
            {
                "uuid": device.uuid,
                "label": device.label,
                "name": device.name,
                "memory_total_bytes": device.memory_bytes,
                **_readings(sample),
                "leases": len(shares),
                "promised_bytes": sum(shares),
                "lost": device.lost,
                "drained": device.uuid in snapshot.drained,
                "problem": sample.problem if sample else "It was not read.",
            }
        )
    return devices


def _totals(devices: list[Json]) -> list[Json]:
    """Leave out what is the organiser's to see."""
    return [{k: v for k, v in x.items() if k != "problem"} for x in devices]


def _readings(sample: DeviceSample | None) -> Json:
    return {
        "memory_used_bytes": sample.memory_used_bytes if sample else None,
        "memory_free_bytes": sample.memory_free_bytes if sample else None,
        "utilisation": sample.utilisation if sample else None,
        "temperature_celsius": sample.temperature_celsius if sample else None,
        "power_watts": sample.power_watts if sample else None,
    }


def lease_view(lease: Lease, found: Sorted, viewer: Viewer) -> Json:
    """Return a lease, what is used of it, and what holds it to its share."""
    return {
        **_lease(lease, found),
        "server_verdict": found.snapshot.server_verdicts.get(lease.id, ""),
        **_limits(lease, found.hard_caps.get(lease.id), viewer),
    }


def _lease(lease: Lease, found: Sorted) -> Json:
    use = found.uses.get(lease.id) or LeaseUse(
        lease_id=lease.id, unknown=frozenset(lease.uuids)
    )
    return {
        "id": lease.id,
        "user": lease.user,
        "server": lease.server,
        "share": lease.share,
        "state": lease.state.value,
        "devices": [_on(device, use) for device in lease.devices],
        "granted_at": lease.granted_at,
        "reason": lease.reason,
        "memory_used_bytes": (None if use.unknown else sum(use.memory_bytes.values())),
        "peak_memory_bytes": use.peak_memory_bytes,
        "over_bytes": sum(use.over_bytes.values()),
        "short_bytes": sum(use.short_bytes.values()),
        "parked_bytes": sum(use.parked_bytes.values()),
    }


def _on(device: LeasedDevice, use: LeaseUse) -> Json:
    is_known = device.uuid not in use.unknown
    return {
        "uuid": device.uuid,
        "label": device.label,
        "memory_bytes": device.memory_bytes,
        "memory_used_bytes": (
            use.memory_bytes.get(device.uuid, 0) if is_known else None
        ),
        "over_bytes": use.over_bytes.get(device.uuid, 0) if is_known else None,
    }


def _limits(lease: Lease, hard: HardCap | None, viewer: Viewer) -> Json:
    return {
        "memory_limit": overall(lease, hard).value,
        "memory_limits": [
            {
                "applies_to": limit.applies_to,
                "kind": limit.kind.value,
                "limit_bytes": limit.limit_bytes,
                "enforced_by": limit.enforced_by,
            }
            for limit in limits_in_force(lease, hard)
        ],
        # How the machine is set up is the organiser's to see.
        "no_hard_limit": hard.problem if hard and viewer.is_organiser else "",
    }


def kernel_view(kernel: KernelView) -> Json:
    """Return a kernel with all its readings."""
    return {
        "lease_id": kernel.lease_id,
        "user": kernel.user,
        "server": kernel.server,
        "kernel_id": kernel.kernel_id,
        "notebook": kernel.notebook,
        "pid": kernel.process.pid if kernel.process else None,
        "state": kernel.state.value,
        "connections": kernel.connections,
        "memory_bytes": kernel.memory_bytes,
        "peak_memory_bytes": kernel.peak_memory_bytes,
        "idle_seconds": kernel.idle_seconds,
        "verdict": kernel.verdict,
        "last_activity": kernel.last_activity,
        "gpu_utilisation": kernel.gpu_utilisation,
        "device_utilisation": kernel.device_utilisation,
        "cpu": kernel.cpu,
        "age_seconds": kernel.age_seconds,
        "acts_at": kernel.acts_at,
        "pinned": kernel.pinned_until is not None,
        "pinned_until": _finite(kernel.pinned_until),
        "pinned_by": kernel.pinned_by,
        "parked_bytes": kernel.parked_bytes,
        "parked_at": kernel.parked_at,
    }


def _finite(at: float | None) -> float | None:
    """Return an instant as JSON knows it, which has no infinity."""
    return None if at is None or math.isinf(at) else at


def notice_view(notice: Notice) -> Json:
    """Return a notice, and whether it was seen."""
    return {
        "id": notice.id,
        "kind": notice.kind.value,
        "user": notice.user,
        "server": notice.server,
        "kernel_id": notice.kernel_id,
        "text": notice.text,
        "given_at": notice.given_at,
        "acts_at": notice.acts_at,
        "seen_at": notice.seen_at,
    }


def holder_view(holder: Holder) -> Json:
    """Return what a process holds on one device, and whose it is."""
    return {
        "pid": holder.process.pid,
        "started": holder.process.started,
        "device": holder.device,
        "memory_bytes": holder.memory_bytes,
        "utilisation": holder.utilisation,
        "kind": holder.kind.value,
        "command": holder.command[:_COMMAND_CHARACTERS],
        "lease_id": holder.lease_id,
        "user": holder.user,
        "server": holder.server,
        "kernel_id": holder.kernel_id,
    }
