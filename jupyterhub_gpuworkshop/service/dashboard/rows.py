"""The rows of the live feed: a snapshot as pages draw it.

Owns what of a snapshot a page is sent, and who gets what of it (design, rule 5). Pure:
a snapshot and what stands beside it in, rows out. What counts by itself is told as the
instant at which it began, and sentences say no running times: a kernel to which nothing
happens has the same row all the time, and need not be sent again.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jupyterhub_gpuworkshop.core.announcements import Announcement
from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.core.lock_out import Locked
from jupyterhub_gpuworkshop.core.snapshot import (
    Glance,
    Holder,
    KernelView,
    LeaseUse,
    Snapshot,
)
from jupyterhub_gpuworkshop.core.wire import Refusal
from jupyterhub_gpuworkshop.service.store import Recorded
from jupyterhub_gpuworkshop.service.web.auth import Viewer
from jupyterhub_gpuworkshop.service.web.views import (
    Sorted,
    event_view,
    holder_view,
    kernel_view,
    lease_view,
    may_see,
    notice_view,
    sort,
)

Json = dict[str, Any]
WhyNotPause = Callable[[KernelView], str]
"""Why a kernel cannot be paused, in a sentence; empty if it can."""

EVERYBODY = Viewer(name="", attendee=None, is_user=False)
"""Whose eyes the organisers' rows are for: they are the same for all of them."""

_MAPS = ("leases", "kernels", "holders", "notices")
_WHOLES = ("problems", "waiting", "locked", "announcement")
_READINGS = frozenset(
    {
        "memory_used_bytes",
        "memory_free_bytes",
        "utilisation",
        "temperature_celsius",
        "power_watts",
    }
)
_SAME_INSTANT_SECONDS = 2.0
"""Process and devices are read one after the other: an instant is known so well."""

_SENTENCES_KEPT = 2048
"""Many kernels are told the same."""
_DURATION = r"\d+ (?:s|min|h(?: \d+ min)?)"
_IDLE_OF = re.compile(rf"\bIdle for {_DURATION} of ({_DURATION})")
_IDLE = re.compile(rf"\bIdle for {_DURATION}")
_SOON = re.compile(rf" in {_DURATION}(?= if it stays idle)")


@functools.lru_cache(maxsize=_SENTENCES_KEPT)
def without_times(sentence: str) -> str:
    """Return a verdict without what counts up or down in it: rows say since when."""
    if "Idle for" not in sentence:
        return sentence
    sentence = _IDLE_OF.sub(r"Idle (limit \1)", sentence)
    return _SOON.sub("", _IDLE.sub("Idle", sentence))


class Rows:
    """The rows of one snapshot, those of a kernel made once for all who see it.

    Args:
        snapshot: the current one.
        why_not_pause: of each kernel.
        before: the rows of the snapshot before, whose instants stay.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        why_not_pause: WhyNotPause,
        before: "Rows | None" = None,
    ) -> None:
        self.snapshot = snapshot
        self._why_not_pause = why_not_pause
        self._before = before.made_kernels if before is not None else {}
        self.made_kernels: dict[str, Json] = {}

    @functools.cached_property
    def _found(self) -> Sorted:
        return sort(self.snapshot)

    def devices(self, *, with_problems: bool) -> list[Json]:
        """Return each device, without what changes every second."""
        left_out = _READINGS if with_problems else _READINGS | {"problem"}
        return [
            {key: value for key, value in device.items() if key not in left_out}
            for device in self._found.devices
        ]

    def leases(self, viewer: Viewer) -> dict[str, Json]:
        """Return the leases that this viewer may see, by id."""
        seen = may_see(viewer, self.snapshot.leases, self._found.leases)
        rows = {x.id: lease_view(x, self._found, viewer) for x in seen}
        for row in rows.values():
            row["server_verdict"] = without_times(row["server_verdict"])
        return rows

    def kernels(self, viewer: Viewer) -> dict[str, Json]:
        """Return the kernels that this viewer may see, by USER/SERVER/ID."""
        seen = may_see(viewer, self.snapshot.kernels, self._found.kernels)
        return {(key := kernel_key(x)): self._kernel(key, x) for x in seen}

    def holders(self, viewer: Viewer) -> dict[str, Json]:
        """Return the processes that this viewer may see, by PID-STARTED/UUID."""
        seen = may_see(viewer, self.snapshot.holders, self._found.holders)
        return {
            f"{x.process.pid}-{x.process.started}/{x.device}": _holder(x) for x in seen
        }

    def notices(self, viewer: Viewer) -> dict[str, Json]:
        """Return the notices that this viewer may see, by id."""
        seen = may_see(viewer, self.snapshot.notices, self._found.notices)
        return {x.id: notice_view(x) for x in seen}

    def _kernel(self, key: str, kernel: KernelView) -> Json:
        row = self.made_kernels.get(key)
        if row is None:
            before = self._before.get(key, {})
            row = self.made_kernels[key] = kernel_row(
                kernel, self._found, self._why_not_pause(kernel), before
            )
        return row


def kernel_key(kernel: KernelView) -> str:
    """Return what tells a kernel from those that other servers call the same."""
    return "/".join(
        part.replace("%", "%25").replace("/", "%2F")
        for part in (kernel.user, kernel.server, kernel.kernel_id)
    )


def kernel_row(
    kernel: KernelView, found: Sorted, why_not_pause: str, before: Json
) -> Json:
    """Return a kernel's row.

    Args:
        kernel: it.
        found: the snapshot that it is of.
        why_not_pause: why it cannot be paused; empty if it can.
        before: its row of the snapshot before; empty where there is none.
    """
    row = kernel_view(kernel)
    idle_seconds, age_seconds = row.pop("idle_seconds"), row.pop("age_seconds")
    # That of its devices is in every tick.
    del row["device_utilisation"]
    row["verdict"] = without_times(row["verdict"])
    row["gpu_utilisation"] = _rounded(row["gpu_utilisation"])
    row["cpu"] = _rounded(row["cpu"])
    for name, seconds in (("idle_since", idle_seconds), ("started_at", age_seconds)):
        row[name] = _instant(found.snapshot.taken_at, seconds, before.get(name))
    row["acts_at"] = _near(row["acts_at"], before.get("acts_at"))
    row["why_not_pause"] = why_not_pause
    return row


def _instant(now: float, seconds: float | None, before: float | None) -> float | None:
    """Return when it was so many seconds ago; the instant before where it is that."""
    return None if seconds is None else _near(now - seconds, before)


def _near(instant: float | None, before: float | None) -> float | None:
    if instant is None:
        return None
    if before is not None and abs(instant - before) <= _SAME_INSTANT_SECONDS:
        return before
    return float(round(instant))


def _rounded(part: float | None) -> float | None:
    return None if part is None else round(part, 2)


def _holder(holder: Holder) -> Json:
    return {**holder_view(holder), "utilisation": _rounded(holder.utilisation)}


def reading_rows(
    uuids: Iterable[str], readings: Mapping[str, Glance]
) -> list[list[float | None]]:
    """Return the readings of these devices, in their order."""
    rows: list[list[float | None]] = []
    for uuid in uuids:
        x = readings.get(uuid)
        if x is None:
            rows.append([None, None, None, None])
        else:
            rows.append(
                [
                    x.memory_used_bytes,
                    None if x.utilisation is None else round(x.utilisation, 3),
                    x.temperature_celsius,
                    None if x.power_watts is None else round(x.power_watts, 1),
                ]
            )
    return rows


def mine(
    rows: Rows,
    viewer: Viewer,
    events: Iterable[Recorded],
    pin_seconds: float,
    announcement: Announcement | None = None,
) -> Json:
    """Return what is for an attendee's eyes: nothing own for a viewer without a name.

    Args:
        rows: of the current snapshot.
        viewer: the attendee.
        events: the last ones of this attendee, newest first.
        pin_seconds: for how long an attendee may pin a kernel.
        announcement: what is announced to everybody.
    """
    return {
        "leases": list(rows.leases(viewer).values()),
        "kernels": list(rows.kernels(viewer).values()),
        "holders": list(rows.holders(viewer).values()),
        "notices": list(rows.notices(viewer).values()),
        "events": [event_view(recorded, viewer) for recorded in events],
        "may": {"pin_seconds": pin_seconds if viewer.attendee else 0},
        "announcement": _announced(announcement),
    }


def room(
    rows: Rows,
    refusals: Iterable[Refusal],
    locked: Iterable[Locked],
    announcement: Announcement | None,
) -> Json:
    """Return everything, as an organiser sees it, but the events."""
    return {
        "leases": rows.leases(EVERYBODY),
        "kernels": rows.kernels(EVERYBODY),
        "holders": rows.holders(EVERYBODY),
        "notices": rows.notices(EVERYBODY),
        "problems": list(rows.snapshot.problems),
        "waiting": [
            {"user": x.user, "server": x.server, "share": x.share, "at": x.at}
            for x in refusals
        ],
        "locked": [
            {"name": x.name, "address": x.address, "until": x.until} for x in locked
        ],
        "announcement": _announced(announcement),
    }


def _announced(announcement: Announcement | None) -> Json | None:
    if announcement is None:
        return None
    return {
        "text": announcement.text,
        "at": announcement.at,
        "until": announcement.until,
        "by": announcement.by,
    }


def room_changes(before: Json, after: Json) -> Json:
    """Return what makes the one picture of a room into the other."""
    changes: Json = {}
    for name in _MAPS:
        old, new = before[name], after[name]
        changes[name] = {
            **{key: row for key, row in new.items() if old.get(key) != row},
            **{key: None for key in old if key not in new},
        }
    for name in _WHOLES:
        if before[name] != after[name]:
            changes[name] = after[name]
    return changes


def is_change(changes: Json) -> bool:
    """Whether there is anything in the changes of a room."""
    return any(changes[name] for name in _MAPS) or any(x in changes for x in _WHOLES)


def wall(
    rows: Rows,
    *,
    waiting: int,
    freed_bytes: int,
    events: Iterable[Recorded],
    with_names: bool,
    announcement: Announcement | None = None,
) -> Json:
    """Return what a wall for everybody's eyes shows.

    Args:
        rows: of the current snapshot.
        waiting: how many wait for a share.
        freed_bytes: what was taken back today.
        events: the last ones, newest first.
        with_names: whether it says whose the memory is.
        announcement: what is announced to everybody.
    """
    return {
        "announcement": announcement.text if announcement else None,
        "devices": _segments(rows.snapshot, with_names=with_names),
        "leases": len(rows.snapshot.leases),
        "waiting": waiting,
        "freed_bytes_today": freed_bytes,
        "events": [
            {
                "at": x.event.at,
                "kind": x.event.kind.value,
                "bytes": _bytes_of(x),
            }
            for x in events
        ],
    }


def _bytes_of(recorded: Recorded) -> int | float | None:
    """Return how much memory an event is about, where it says so."""
    details = recorded.event.details
    for name in ("freed_bytes", "memory_bytes"):
        size = details.get(name)
        if isinstance(size, (int, float)) and not isinstance(size, bool):
            return size
    return None


def freed_bytes(recorded: Recorded) -> int:
    """Return how much memory an event says was taken back."""
    size = recorded.event.details.get("freed_bytes")
    return size if isinstance(size, int) and not isinstance(size, bool) else 0


def _segments(snapshot: Snapshot, *, with_names: bool) -> dict[str, list[Json]]:
    """Split each device's memory by attendee, in an order that stays.

    What is nobody's comes last.
    """
    ranks = {
        lease.user: rank
        for rank, lease in enumerate(
            sorted(snapshot.leases, key=lambda x: (x.granted_at, x.id), reverse=True)
        )
    }
    over = {
        (lease.user, uuid)
        for lease, use in _with_uses(snapshot)
        for uuid in use.over_bytes
    }
    held: dict[str, dict[str, int]] = {x.uuid: {} for x in snapshot.inventory.devices}
    for holder in snapshot.holders:
        of_device = held.get(holder.device)
        if of_device is not None and holder.memory_bytes:
            before = of_device.get(holder.user, 0)
            of_device[holder.user] = before + holder.memory_bytes
    return {
        uuid: [
            {
                "bytes": of_device[user],
                "over": (user, uuid) in over,
                "user": user if with_names else "",
            }
            for user in sorted(
                of_device, key=lambda user: (not user, -ranks.get(user, -1), user)
            )
        ]
        for uuid, of_device in held.items()
    }


def _with_uses(snapshot: Snapshot) -> list[tuple[Lease, LeaseUse]]:
    leases = {lease.id: lease for lease in snapshot.leases}
    return [(leases[x.lease_id], x) for x in snapshot.uses if x.lease_id in leases]
