"""Devices that are drained or lost: who has a lease there is told.

Owns the notices about them, and the event of a loss. Such a device gets no new lease,
which is the hub's to see to; who is on it moves with the next start of the server.
"""

import logging
import time
from collections.abc import Callable

from jupyterhub_gpuworkshop.core.leases import Lease, LeaseState
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.wire import Event, EventKind

from .history import History
from .monitor import Monitor
from .notices import Subject

_LOG = logging.getLogger(__name__)


class LostDevices:
    """Tells whose server is on a device that is drained or lost.

    Args:
        monitor: where devices and leases are seen.
        history: takes the events.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        monitor: Monitor,
        history: History,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monitor = monitor
        self._history = history
        self._wall = wall
        self._seen_rounds = 0
        self._lost: frozenset[str] = frozenset()

    async def step(self) -> None:
        """Wait for the next snapshot, and see who is to be told."""
        await self._monitor.newer_than(self._seen_rounds)
        self._seen_rounds = self._monitor.rounds
        snapshot = self._monitor.snapshot
        lost = {x.uuid: x.label for x in snapshot.inventory.devices if x.lost}
        told = {}
        for lease in snapshot.leases:
            # What is held back is no server's that its attendee could stop.
            is_active = lease.state is LeaseState.ACTIVE
            text = _text(lease, frozenset(lost), snapshot.drained)
            if is_active and text:
                told[_subject(lease)] = text
        notices = self._monitor.notices
        notices.keep_only(NoticeKind.DEVICE_GONE, told)
        for subject, text in told.items():
            before = notices.about(subject)
            if before is None or before.text != text:
                kind, user, server, _ = subject
                notices.give(kind, user=user, server=server, text=text)
        for uuid in sorted(lost.keys() - self._lost):
            await self._record(uuid, lost[uuid], snapshot.leases)
        self._lost = frozenset(lost)

    async def _record(self, uuid: str, label: str, leases: tuple[Lease, ...]) -> None:
        there = sum(uuid in lease.uuids for lease in leases)
        reason = (
            f"The driver has lost GPU {label}: it gets no new share, and {there} "
            "stand on it. Restart the machine or reset the GPU when nobody works there."
        )
        _LOG.warning("%s", reason)
        await self._history.add(
            Event(
                at=self._wall(),
                kind=EventKind.DEVICE_LOST,
                user="",
                devices=(uuid,),
                reason=reason,
            )
        )


def _subject(lease: Lease) -> Subject:
    return (NoticeKind.DEVICE_GONE, lease.user, lease.server, "")


def _text(lease: Lease, lost: frozenset[str], drained: frozenset[str]) -> str:
    """Return what the attendee of a lease reads; nothing where all is well."""
    gone = [x for x in lease.devices if x.uuid in lost]
    out = [x for x in lease.devices if x.uuid in drained and x.uuid not in lost]
    if not gone and not out:
        return ""
    server = f"your server {lease.server}" if lease.server else "your server"
    if gone:
        labels = ", ".join(x.label for x in gone)
        return (
            f"GPU {labels}, which {server} uses, has failed: what is in its memory is "
            "lost. Save your work, then stop the server at the hub and start it again: "
            "it gets another GPU."
        )
    labels = ", ".join(x.label for x in out)
    return (
        f"GPU {labels}, which {server} uses, is being taken out of service. Nothing is "
        "taken from you: when it suits you, stop the server at the hub and start it "
        "again. It gets another GPU."
    )
