"""Leases whose processes together use more than their share.

Owns when that is so, for how long, and what follows: each process has a cap of its
own, and two kernels under their caps can exceed what one attendee was granted. What
follows is carried out by the service's watchdog.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from .leases import Lease
from .rules import OverShareAction, OverShareRules
from .units import MIB, format_duration, format_size

TOLERANCE_BYTES = 64 * MIB
"""No excess: a process on an H200 stood 70 MiB above what its cap allowed, which a
larger estimate of its context has covered since (driver 580, PyTorch 2.11)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverWatch:
    """How one lease stands to its share.

    Attributes:
        over_bytes: what it uses above its share, by device UUID; only where it does.
        since: since when, in monotonic seconds; None while it does not.
        noticed_at: when its attendee was told, in monotonic seconds; None before.
    """

    over_bytes: Mapping[str, int]
    since: float | None = None
    noticed_at: float | None = None


class OverKind(str, Enum):
    """What to do about a lease that exceeds its share."""

    KEEP = "keep"
    NOTICE = "notice"
    TAKE_IDLE = "take_idle"
    """Reclaim its largest idle kernel."""
    TAKE_BUSY = "take_busy"
    """Restart its largest busy kernel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverDecision:
    """What to do about a lease that exceeds its share, and why, in a sentence."""

    kind: OverKind
    reason: str


def excess(lease: Lease, used_bytes: Mapping[str, int | None]) -> dict[str, int] | None:
    """Return what a lease uses above its share, by device UUID; only where it does.

    Args:
        lease: the lease.
        used_bytes: what its processes hold on each device, by UUID; None where one of
            them is not known.

    Returns:
        None where that cannot be said.
    """
    over: dict[str, int] = {}
    for uuid, used in used_bytes.items():
        if used is None:
            return None
        above = used - lease.bytes_on(uuid)
        if above > TOLERANCE_BYTES:
            over[uuid] = above
    return over


def observe_excess(
    watch: OverWatch | None, over_bytes: Mapping[str, int] | None, now: float
) -> OverWatch:
    """Return the watch after one more look.

    Args:
        watch: what it was; None before the first look.
        over_bytes: of `excess`; what is not known is no excess, and begins anew.
        now: monotonic seconds.
    """
    if not over_bytes:
        return OverWatch(over_bytes={})
    if watch is None or watch.since is None:
        return OverWatch(over_bytes=over_bytes, since=now)
    return replace(watch, over_bytes=over_bytes)


def decide_over(
    watch: OverWatch,
    rules: OverShareRules,
    now: float,
    lease: Lease,
    *,
    has_idle: bool,
    has_busy: bool,
) -> OverDecision:
    """Decide what to do about one lease.

    Args:
        watch: how it stands.
        rules: the organiser's.
        now: monotonic seconds.
        lease: the lease.
        has_idle: whether it has an idle kernel that holds memory where it exceeds.
        has_busy: whether it has any other kernel that does.
    """
    if watch.since is None:
        return OverDecision(kind=OverKind.KEEP, reason="It keeps to its share.")
    what = excess_in_words(lease, watch.over_bytes)
    lasts = format_duration(now - watch.since)
    if now - watch.since < rules.grace_seconds:
        return OverDecision(kind=OverKind.KEEP, reason=f"{what}, for {lasts}.")
    if watch.noticed_at is None:
        return OverDecision(kind=OverKind.NOTICE, reason=f"{what}, for {lasts}.")
    if now - watch.noticed_at < rules.grace_seconds:
        return OverDecision(
            kind=OverKind.KEEP, reason=f"{what}, for {lasts}; its attendee was told."
        )
    if rules.action is not OverShareAction.NOTICE and has_idle:
        return OverDecision(
            kind=OverKind.TAKE_IDLE,
            reason=f"{what}, for {lasts}: its largest idle kernel gives memory back.",
        )
    if rules.action is OverShareAction.RESTART and has_busy:
        return OverDecision(
            kind=OverKind.TAKE_BUSY,
            reason=(
                f"{what}, for {lasts}, and no kernel of it is idle: the largest is "
                "restarted (over_share.action: restart)."
            ),
        )
    return OverDecision(
        kind=OverKind.KEEP,
        reason=f"{what}, for {lasts}; nothing of it can be taken back.",
    )


def excess_in_words(lease: Lease, over_bytes: Mapping[str, int]) -> str:
    """Say how much more than its share a lease uses, without a full stop."""
    labels = {device.uuid: device.label for device in lease.devices}
    parts = [
        f"{format_size(lease.bytes_on(uuid) + above)} of GPU "
        f"{labels.get(uuid, uuid)} where the share is "
        f"{format_size(lease.bytes_on(uuid))}"
        for uuid, above in over_bytes.items()
    ]
    return f"Its processes use {' and '.join(parts)}"


def short_of(
    leases: Iterable[Lease],
    used_bytes: Mapping[str, Mapping[str, int]],
    free_bytes: Mapping[str, int],
) -> dict[str, dict[str, int]]:
    """Return who would not get what is still due: by lease id, by device UUID, bytes.

    Args:
        leases: all of them.
        used_bytes: what each uses, by lease id, by device UUID.
        free_bytes: what an allocation could get, by device UUID.
    """
    short: dict[str, dict[str, int]] = {}
    for lease in leases:
        for device in lease.devices:
            free = free_bytes.get(device.uuid)
            used = used_bytes.get(lease.id, {}).get(device.uuid, 0)
            due = device.memory_bytes - used
            if free is not None and due > free:
                short.setdefault(lease.id, {})[device.uuid] = due - free
    return short
