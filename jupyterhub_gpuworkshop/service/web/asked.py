"""Answers to what people ask of one kernel, or of one device.

Owns why a kernel was or was not reclaimed, and who holds a device's memory, as JSON:
everything for the organiser, one's own and sums for an attendee (design, rule 5).
"""

from collections.abc import Iterable

from jupyterhub_gpuworkshop.core.devices import Device
from jupyterhub_gpuworkshop.core.leases import Key
from jupyterhub_gpuworkshop.core.notices import Notice
from jupyterhub_gpuworkshop.core.rules import IdleRules
from jupyterhub_gpuworkshop.core.snapshot import (
    Holder,
    HolderKind,
    Snapshot,
    memory_held_by,
)
from jupyterhub_gpuworkshop.service.store import Recorded
from jupyterhub_gpuworkshop.service.watching import Watched

from .auth import Viewer
from .views import Json, event_view, holder_view, kernel_view, notice_view

_MOST_EVENTS = 20


def kernel_answer(
    watched: Watched | None,
    rules: IdleRules,
    notice: Notice | None,
    events: Iterable[Recorded],
    viewer: Viewer,
) -> Json:
    """Return why a kernel was or was not reclaimed.

    Args:
        watched: the kernel as of the last look; None where it is no more.
        rules: the organiser's.
        notice: the one that stands about it.
        events: what happened to it, newest first.
        viewer: who asks.
    """
    return {
        "kernel": kernel_view(watched.view) if watched else None,
        "rules": _rules(watched, rules) if watched is not None else None,
        "notice": notice_view(notice) if notice is not None else None,
        "events": [event_view(recorded, viewer) for recorded in events],
    }


def events_of_kernel(
    events: Iterable[Recorded], kernel_id: str, key: Key | None
) -> list[Recorded]:
    """Return the last events about one kernel, of a list with the newest first.

    Args:
        events: of everybody, or of one attendee.
        kernel_id: the kernel.
        key: (user, server name) of its server; None where that is not known.
    """
    found: list[Recorded] = []
    for recorded in events:
        event = recorded.event
        if event.details.get("kernel_id") == kernel_id and (
            key is None or (event.user, event.server) == key
        ):
            found.append(recorded)
            if len(found) == _MOST_EVENTS:
                break
    return found


def _rules(watched: Watched, rules: IdleRules) -> Json:
    return {
        "needed": watched.is_needed,
        "limit_seconds": rules.limit_seconds(watched.is_needed),
        "notice_seconds": rules.notice_seconds,
        "action": rules.action_for(watched.server.groups).value,
        "min_memory_bytes": rules.min_memory_bytes,
        "max_cpu": rules.max_cpu,
        "without_utilisation": rules.without_utilisation,
        "pin_max_seconds": rules.pin_max_seconds,
        "dry_run": rules.dry_run,
    }


def memory_answer(snapshot: Snapshot, device: Device, viewer: Viewer) -> Json:
    """Return who holds the memory of a device."""
    uuid = device.uuid
    holders = [x for x in snapshot.holders if x.device == uuid]
    sample = next((x for x in snapshot.samples if x.uuid == uuid), None)
    notebooks = {(x.lease_id, x.kernel_id): x.notebook for x in snapshot.kernels}
    mine = [x for x in holders if viewer.attendee and x.user == viewer.attendee]
    shown = holders if viewer.is_organiser else mine

    def held_by(some: Iterable[Holder]) -> int | None:
        return memory_held_by(some) if is_listed else None

    is_listed = uuid in snapshot.listed
    held = memory_held_by(holders)
    return {
        "device": uuid,
        "label": device.label,
        "taken_at": snapshot.taken_at,
        "memory_total_bytes": device.memory_bytes,
        "memory_used_bytes": sample.memory_used_bytes if sample else None,
        "memory_free_bytes": sample.memory_free_bytes if sample else None,
        "own_bytes": held_by(mine),
        "others_bytes": held_by(
            x for x in holders if x.kind is not HolderKind.FOREIGN and x not in mine
        ),
        "foreign_bytes": held_by(
            x for x in holders if x.kind is HolderKind.FOREIGN and x not in mine
        ),
        "unexplained_bytes": (
            max(0, sample.memory_used_bytes - held)
            if sample is not None and is_listed and held is not None
            else None
        ),
        "parked_bytes": sum(x.parked_bytes.get(uuid, 0) for x in snapshot.uses),
        "holders": [
            {
                **holder_view(x),
                "notebook": notebooks.get((x.lease_id, x.kernel_id), "")
                if x.kernel_id
                else "",
            }
            for x in sorted(shown, key=lambda x: x.memory_bytes or 0, reverse=True)
        ],
    }
