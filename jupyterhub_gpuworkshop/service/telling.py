"""Saying what was done to a kernel: to its owner, the log and the history.

Owns the sentences and the readings that go with each event about a kernel.
"""

import datetime
import logging
import time
from collections.abc import Callable

from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.core.units import format_size
from jupyterhub_gpuworkshop.core.wire import Event, EventKind, ServerInfo

from .history import History
from .kept import ParkedKernel
from .notices import Notices
from .taking import Done, Taking
from .watching import subject_of

_LOG = logging.getLogger(__name__)

LeaveNote = Callable[[ServerInfo, str, str], None]
"""(server, kernel id, text): the first cell that is run there should print it."""

_DONE = {
    Action.PARK: "paused; its variables are kept, and its GPU memory comes back when "
    "you run a cell",
    Action.RESTART: "restarted, and its variables are gone",
    Action.STOP_KERNEL: "stopped, and its variables are gone",
}


def _no_note(server: ServerInfo, kernel_id: str, text: str) -> None:
    return


class Teller:
    """Says what was done to kernels.

    Args:
        notices: those that stand.
        history: takes the events.
        leave_note: tells the owner in the notebook itself.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        notices: Notices,
        history: History,
        *,
        leave_note: LeaveNote = _no_note,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.leave_note = leave_note
        self._notices = notices
        self._history = history
        self._wall = wall

    async def taken(self, taking: Taking, done: Done, freed_bytes: int) -> None:
        """Say what was done: to the log, the history, the owner and the notebook."""
        # First, and at once: who has a paused kernel back takes it down again.
        text = self.tell_what_was_done(taking, done)
        await self.record(
            EventKind.KERNEL_RECLAIMED,
            taking,
            f"{taking.reason}{done.instead}",
            done=done.action.value,
            freed_bytes=freed_bytes,
            window_ms=round(1000 * done.window_seconds, 1),
        )
        self._notices.withdraw(subject_of(taking.owner))
        if text and done.action is Action.RESTART:
            self.leave_note(taking.watched.server, taking.owner.kernel_id, text)

    def tell_what_was_done(self, taking: Taking, done: Done) -> str:
        """Put up what was done to a kernel, and return it; nothing to who did it."""
        owner = taking.owner
        if taking.asked is not None and taking.asked.is_own:
            # It may say until now that the kernel is paused.
            self._notices.withdraw(
                (NoticeKind.KERNEL_TAKEN, owner.user, owner.server, owner.kernel_id)
            )
            return ""
        return self.tell_owner(
            owner,
            taking.watched.view.notebook,
            f"was {_DONE[done.action]}. {taking.reason}",
        )

    def tell_owner(self, owner: Owner, notebook: str, what: str) -> str:
        """Put up what has happened to a kernel, and return it.

        Args:
            owner: whose.
            notebook: its name; empty where it has none.
            what: goes on after "its kernel", sentences.
        """
        name = notebook or "A notebook without a name"
        at = datetime.datetime.fromtimestamp(self._wall(), tz=datetime.timezone.utc)
        text = f"{name}: at {at.astimezone():%H:%M} its kernel {what}"
        self._notices.give(
            NoticeKind.KERNEL_TAKEN,
            user=owner.user,
            server=owner.server,
            kernel_id=owner.kernel_id,
            text=text,
        )
        return text

    async def record(
        self,
        kind: EventKind,
        taking: Taking,
        reason: str,
        **more: str | int | float | bool | None,
    ) -> None:
        """Name attendee, device, readings and reason, in the log and in the history."""
        view, reading = taking.watched.view, taking.watched.watch.reading
        devices = sorted({holder.device for holder in taking.watched.holders})
        subject = taking.announced or subject_of(taking.owner)
        notice = self._notices.about(subject)
        memory_bytes = taking.watched.memory_on()
        _LOG.log(
            logging.WARNING if kind is EventKind.RECLAIM_FAILED else logging.INFO,
            "%s: kernel %s of %s on %s, %s held: %s",
            kind.value,
            view.kernel_id,
            view.user,
            ", ".join(devices) or "no device",
            format_size(memory_bytes),
            reason,
        )
        details: dict[str, str | int | float | bool | None] = {
            "kernel_id": view.kernel_id,
            "lease_id": view.lease_id,
            "notebook": view.notebook,
            "pid": view.process.pid if view.process else None,
            "action": taking.action.value,
            "memory_bytes": memory_bytes,
            "idle_seconds": round(view.idle_seconds or 0.0, 1),
            "needed": taking.watched.is_needed,
            "state": view.state.value,
            "last_activity": view.last_activity,
            "gpu_utilisation": view.gpu_utilisation,
            "device_utilisation": view.device_utilisation,
            "cpu": round(taking.watched.watch.cpu, 4),
            "connections": reading.connections if reading else None,
            "age_seconds": round(view.age_seconds) if view.age_seconds else None,
            "notice_at": notice.given_at if notice else None,
            "notice_seen_at": notice.seen_at if notice else None,
            **({"by": taking.asked.name} if taking.asked is not None else {}),
            **more,
        }
        await self._history.add(
            Event(
                at=self._wall(),
                kind=kind,
                user=view.user,
                server=view.server,
                devices=tuple(devices),
                reason=reason,
                details=details,
            )
        )

    async def record_parked(
        self,
        kind: EventKind,
        record: ParkedKernel,
        reason: str,
        **more: str | int | float | bool | None,
    ) -> None:
        """Name attendee, device and reason of what became of a parked kernel."""
        memory_bytes = sum(record.memory_bytes.values())
        _LOG.log(
            logging.WARNING if kind is EventKind.KERNEL_LOST else logging.INFO,
            "%s: kernel %s of %s on %s, %s: %s",
            kind.value,
            record.kernel_id,
            record.user,
            ", ".join(record.memory_bytes),
            format_size(memory_bytes),
            reason,
        )
        await self._history.add(
            Event(
                at=self._wall(),
                kind=kind,
                user=record.user,
                server=record.server,
                devices=tuple(record.memory_bytes),
                reason=reason,
                details={
                    "kernel_id": record.kernel_id,
                    "lease_id": record.lease_id,
                    "notebook": record.notebook,
                    "memory_bytes": memory_bytes,
                    "parked_at": record.parked_at,
                    **more,
                },
            )
        )
