"""A snapshot as JSON: everything for the organiser, one's own for an attendee.

Owns who is shown what (design, rule 5): of others an attendee sees the devices'
totals, and neither names nor notebooks nor processes.
"""

from typing import Any

from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.core.snapshot import (
    DeviceSample,
    Holder,
    KernelView,
    LeaseUse,
    Snapshot,
)
from jupyterhub_gpuworkshop.core.wire import ORGANISERS_DETAIL

from .auth import Viewer
from .store import Recorded

Json = dict[str, Any]
_COMMAND_CHARACTERS = 300


def snapshot_view(snapshot: Snapshot, viewer: Viewer, now: float) -> Json:
    """Return what the viewer may see of a snapshot.

    Args:
        snapshot: the current one.
        viewer: who looks.
        now: wall-clock seconds since the epoch.
    """

    def may_see(user: str) -> bool:
        return viewer.is_organiser or (bool(user) and user == viewer.attendee)

    uses = {use.lease_id: use for use in snapshot.uses}
    return {
        "taken_at": snapshot.taken_at,
        "age_seconds": round(max(0.0, now - snapshot.taken_at), 3),
        "needed": snapshot.needed,
        "devices": _devices(snapshot, viewer),
        "leases": [
            _lease(x, uses.get(x.id)) for x in snapshot.leases if may_see(x.user)
        ],
        "kernels": [_kernel(x) for x in snapshot.kernels if may_see(x.user)],
        "holders": [_holder(x) for x in snapshot.holders if may_see(x.user)],
        # They name attendees and processes.
        "problems": list(snapshot.problems) if viewer.is_organiser else [],
    }


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


def _devices(snapshot: Snapshot, viewer: Viewer) -> list[Json]:
    samples = {sample.uuid: sample for sample in snapshot.samples}
    devices = []
    for device in snapshot.inventory.devices:
        leases = [lease for lease in snapshot.leases if device.uuid in lease.uuids]
        sample = samples.get(device.uuid)
        view: Json = {
            "uuid": device.uuid,
            "label": device.label,
            "name": device.name,
            "memory_total_bytes": device.memory_bytes,
            **_readings(sample),
            "leases": len(leases),
            "promised_bytes": sum(lease.bytes_on(device.uuid) for lease in leases),
            "lost": device.lost,
        }
        if viewer.is_organiser:
            view["problem"] = sample.problem if sample else "It was not read."
        devices.append(view)
    return devices


def _readings(sample: DeviceSample | None) -> Json:
    return {
        "memory_used_bytes": sample.memory_used_bytes if sample else None,
        "memory_free_bytes": sample.memory_free_bytes if sample else None,
        "utilisation": sample.utilisation if sample else None,
        "temperature_celsius": sample.temperature_celsius if sample else None,
        "power_watts": sample.power_watts if sample else None,
    }


def _lease(lease: Lease, use: LeaseUse | None) -> Json:
    used = use.memory_bytes if use else {}
    return {
        "id": lease.id,
        "user": lease.user,
        "server": lease.server,
        "share": lease.share,
        "state": lease.state.value,
        "devices": [
            {
                "uuid": device.uuid,
                "label": device.label,
                "memory_bytes": device.memory_bytes,
                "memory_used_bytes": used.get(device.uuid, 0),
            }
            for device in lease.devices
        ],
        "granted_at": lease.granted_at,
        "reason": lease.reason,
        "memory_used_bytes": sum(used.values()),
        "peak_memory_bytes": use.peak_memory_bytes if use else 0,
    }


def _kernel(kernel: KernelView) -> Json:
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
    }


def _holder(holder: Holder) -> Json:
    return {
        "pid": holder.process.pid,
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
