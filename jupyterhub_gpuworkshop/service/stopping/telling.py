"""Saying what is done to a server: to its attendee, the log and the history.

Owns the sentences and the readings that go with each event about a server. An attendee
never reads who waits for the share.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from jupyterhub_gpuworkshop.core.asking import Asker
from jupyterhub_gpuworkshop.core.idle_servers import ServerDecision, ServerWatch
from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.units import format_duration
from jupyterhub_gpuworkshop.core.wire import (
    ORGANISERS_DETAIL,
    Event,
    EventKind,
    Refusal,
)
from jupyterhub_gpuworkshop.service.history import History
from jupyterhub_gpuworkshop.service.notices import Notices, Subject

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One server, with what follows from its readings.

    Attributes:
        lease: its lease.
        watch: what its readings add up to.
        decision: what to do.
        refusal: who would get its share; None where nobody waits for it.
    """

    lease: Lease
    watch: ServerWatch
    decision: ServerDecision
    refusal: Refusal | None = None


def subject_of(lease: Lease) -> Subject:
    """Return what a notice about an idle server is about."""
    return (NoticeKind.SERVER_IDLE, lease.user, lease.server, "")


class ServerTeller:
    """Says what is done to servers.

    Args:
        notices: those that stand.
        history: takes the events.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        notices: Notices,
        history: History,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._notices = notices
        self._history = history
        self._wall = wall

    async def announce(self, judged: Judged, in_seconds: float) -> None:
        """Tell an attendee that the server will be stopped."""
        lease = judged.lease
        self._notices.give(
            NoticeKind.SERVER_IDLE,
            user=lease.user,
            server=lease.server,
            text=(
                f"{_name(lease)} has not been used for a while, and somebody waits for "
                f"a GPU share. In {format_duration(in_seconds)} it is stopped, and the "
                "variables of its notebooks are lost; files stay. To keep it, open it."
            ),
            acts_in_seconds=in_seconds,
        )
        await self.record(EventKind.NOTICE_GIVEN, judged, judged.decision.reason)

    async def stopped(self, judged: Judged, window_seconds: float) -> None:
        """Say that a server was stopped and its share given back."""
        await self.record(
            EventKind.SERVER_STOPPED,
            judged,
            judged.decision.reason,
            window_ms=round(1000 * window_seconds, 1),
        )
        self._tell_that_it_is_stopped(judged.lease, judged.decision.reason)

    async def stopped_for(self, lease: Lease, asked: Asker) -> None:
        """Say that a server was stopped since somebody asked for it."""
        reason = f"{asked.at_the_beginning} stopped it."
        await self._record_asked(EventKind.SERVER_STOPPED, lease, asked, reason)
        self._notices.withdraw(subject_of(lease))
        if not asked.is_own:
            self._tell_that_it_is_stopped(lease, reason)

    async def not_stopped_for(self, lease: Lease, asked: Asker, why: str) -> None:
        """Say that it was not, or that its share is not given back."""
        reason = f"{asked.at_the_beginning} wanted it stopped. {why}"
        await self._record_asked(EventKind.SERVER_STOP_FAILED, lease, asked, reason)

    async def record(
        self,
        kind: EventKind,
        judged: Judged,
        reason: str,
        **more: str | int | float | bool | None,
    ) -> None:
        """Name attendee, device, readings and reason, in the log and in the history."""
        lease, reading = judged.lease, judged.watch.reading
        answer = reading.answer if reading is not None else None
        notice = self._notices.about(subject_of(lease))
        waits = judged.refusal
        details: dict[str, str | int | float | bool | None] = {
            "lease_id": lease.id,
            "share": lease.share,
            "idle_seconds": round(judged.watch.idle_seconds or 0.0, 1),
            "kernels": len(reading.kernels) if reading is not None else None,
            "connections": answer.browsers if answer is not None else None,
            "last_activity": answer.last_activity if answer is not None else None,
            "notice_at": notice.given_at if notice is not None else None,
            "notice_seen_at": notice.seen_at if notice is not None else None,
            **more,
        }
        if waits is not None:
            details[ORGANISERS_DETAIL] = f"{waits.user} waits for {waits.share}"
        await self._add(kind, lease, reason, details)

    def _tell_that_it_is_stopped(self, lease: Lease, why: str) -> None:
        self._notices.withdraw(subject_of(lease))
        at = datetime.fromtimestamp(self._wall(), tz=timezone.utc).astimezone()
        self._notices.give(
            NoticeKind.SERVER_STOPPED,
            user=lease.user,
            server=lease.server,
            text=(
                f"{_name(lease)} was stopped at {at:%H:%M}, and its GPU share given "
                f"back. {why} Your files are kept; start it again when you need it."
            ),
        )

    async def _record_asked(
        self, kind: EventKind, lease: Lease, asked: Asker, reason: str
    ) -> None:
        details: dict[str, str | int | float | bool | None] = {
            "lease_id": lease.id,
            "share": lease.share,
            "by": asked.name,
        }
        await self._add(kind, lease, reason, details)

    async def _add(
        self,
        kind: EventKind,
        lease: Lease,
        reason: str,
        details: Mapping[str, str | int | float | bool | None],
    ) -> None:
        _LOG.log(
            logging.WARNING if kind is EventKind.SERVER_STOP_FAILED else logging.INFO,
            "%s: the server of %s on %s: %s",
            kind.value,
            lease.owner,
            ", ".join(lease.uuids) or "no device",
            reason,
        )
        await self._history.add(
            Event(
                at=self._wall(),
                kind=kind,
                user=lease.user,
                server=lease.server,
                devices=lease.uuids,
                reason=reason,
                details=details,
            )
        )


def _name(lease: Lease) -> str:
    return f"Your server {lease.server!r}" if lease.server else "Your server"
