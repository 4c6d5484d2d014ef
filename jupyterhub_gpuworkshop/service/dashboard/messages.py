"""The messages of the feed: each made once for all who get it, and only if wanted.

Owns what the messages say of the current snapshot, their versions, and their encoding.
To whom they go, and when, is `feed`'s.
"""

import datetime
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jupyterhub_gpuworkshop.core.announcements import Announcement
from jupyterhub_gpuworkshop.core.asking import why_not_take
from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.lock_out import Locked
from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.core.snapshot import KernelView, Snapshot
from jupyterhub_gpuworkshop.service.history import History
from jupyterhub_gpuworkshop.service.monitor import Monitor
from jupyterhub_gpuworkshop.service.pulse import Pulses
from jupyterhub_gpuworkshop.service.rules import Rules
from jupyterhub_gpuworkshop.service.store import Recorded
from jupyterhub_gpuworkshop.service.web.auth import Viewer
from jupyterhub_gpuworkshop.service.web.views import event_view, own_notices

from . import rows as made
from .rows import EVERYBODY, Json, Rows

_MOST_OWN_EVENTS = 50
_MOST_EVENTS = 100
_MOST_EVENTS_ON_WALL = 10
_MOST_EVENTS_LOOKED_THROUGH = 10_000

Key = tuple[str, str]
"""(kind of message, whose or which)."""
DEVICES = ("devices", "")
TOTALS = ("devices", "totals")
"""The same, without what is the organisers' to see of it."""
ROOM = ("room", "")
WALL = ("wall", "")
WALL_WITH_NAMES = ("wall", "names")


def key_of_mine(viewer: Viewer) -> Key:
    """Return the key of an attendee's own: several pages of one attendee share it."""
    return ("mine", viewer.attendee or "")


@dataclass(slots=True, kw_only=True)
class Message:
    """What is current of one kind, for whom it is.

    Attributes:
        content: what it says, to be compared with.
        version: counts up when that changes.
        round: the snapshot for which it was looked at last.
        events: those that it tells, as the history has them, newest first.
        changes: what is new since the version before; None where that is not told.
        text: all of it, encoded; None until somebody needs it.
        changes_text: the changes, encoded.
    """

    content: Json
    version: int
    round: int
    events: Sequence[Recorded] = ()
    changes: Json | None = None
    text: bytes | None = None
    changes_text: bytes | None = None


class Messages:
    """The messages of the current snapshot and pulse.

    Args:
        monitor: has the snapshots.
        pulses: has what changes every second.
        history: has the events.
        rules: the organiser's.
        locked: who waits after wrong codes.
        announcement: what is announced to everybody.
        wall: seconds since the epoch.

    Attributes:
        encoded: how many messages of each kind were encoded.
    """

    def __init__(
        self,
        monitor: Monitor,
        pulses: Pulses,
        history: History,
        rules: Rules,
        *,
        locked: Callable[[], Iterable[Locked]] = tuple,
        announcement: Callable[[], Announcement | None] = lambda: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.encoded: Counter[str] = Counter()
        self._monitor = monitor
        self._pulses = pulses
        self._history = history
        self._rules = rules
        self._locked = locked
        self._announcement = announcement
        self._wall = wall
        self._version = 0
        self._forget()

    def _forget(self) -> None:
        self._round = -1
        self._rows = Rows(Snapshot(), self._why_not_pause)
        self._found: dict[Key, Message] = {}
        self._tick_of: tuple[int, ...] = ()
        self._tick = b""
        self._freed: tuple[tuple[int, float], int] = ((0, 0.0), 0)

    def look(self, wanted: set[Key]) -> None:
        """Take the last snapshot in; what it says is made when somebody needs it.

        Args:
            wanted: what somebody looks at: nothing else is kept to be compared with.
        """
        if not wanted:
            self._forget()
            return
        if self._monitor.rounds == self._round:
            return
        self._round = self._monitor.rounds
        self._rows = Rows(self._monitor.snapshot, self._why_not_pause, self._rows)
        wanted = wanted | {DEVICES, TOTALS}
        self._found = {key: x for key, x in self._found.items() if key in wanted}

    def tick(self) -> bytes:
        """Return the readings, encoded."""
        pulse, snapshot = self._pulses.latest, self._monitor.snapshot
        devices = self.devices()
        of = (self._pulses.rounds, self._round, devices.version)
        if self._tick_of != of:
            uuids = (device["uuid"] for device in devices.content["devices"])
            self._tick_of = of
            self._tick = self.encode(
                {
                    "type": "tick",
                    "version": devices.version,
                    "at": round(pulse.taken_at, 3),
                    "looked_at": round(snapshot.taken_at, 3),
                    "needed": snapshot.needed,
                    "devices": made.reading_rows(uuids, pulse.readings),
                }
            )
        return self._tick

    def devices(self) -> Message:
        """Return the devices, as organisers see them."""

        def make(before: Message | None) -> tuple[Json, Sequence[Recorded]]:
            rows = self._rows
            content = {
                "devices": rows.devices(with_problems=True),
                "why_none": rows.snapshot.inventory.problem,
            }
            return content, ()

        return self._current(DEVICES, make)

    def totals(self) -> Message:
        """Return the devices, as everybody sees them; of the same version."""
        version = self.devices().version

        def make(before: Message | None) -> tuple[Json, Sequence[Recorded]]:
            devices = self._rows.devices(with_problems=False)
            return {"version": version, "devices": devices}, ()

        return self._current(TOTALS, make)

    def mine(self, viewer: Viewer) -> Message:
        """Return what is an attendee's own."""

        def make(before: Message | None) -> tuple[Json, Sequence[Recorded]]:
            events = self._history.latest(_MOST_OWN_EVENTS, viewer.attendee)
            known = None
            if before is not None and before.events == events:
                known = before.content["events"]
            content = made.mine(
                self._rows,
                viewer,
                events if known is None else (),
                self._rules.idle().pin_max_seconds,
                self._announcement(),
            )
            if known is not None:
                content["events"] = known
            return content, events

        return self._current(key_of_mine(viewer), make)

    def unseen(self, viewer: Viewer) -> list[str]:
        """Return the ids of the viewer's own notices that nobody has seen yet."""
        told = set(own_notices(self._monitor.snapshot, viewer))
        rows = self.mine(viewer).content["notices"]
        return [x["id"] for x in rows if x["seen_at"] is None and x["id"] in told]

    def wall(self, *, with_names: bool) -> Message:
        """Return what is for a projector."""

        def make(before: Message | None) -> tuple[Json, Sequence[Recorded]]:
            content = made.wall(
                self._rows,
                waiting=len(self._monitor.report.refusals),
                freed_bytes=self._freed_today(),
                events=self._history.latest(_MOST_EVENTS_ON_WALL, None),
                with_names=with_names,
                announcement=self._announcement(),
            )
            return content, ()

        return self._current(WALL_WITH_NAMES if with_names else WALL, make)

    def room(self) -> Message:
        """Return everything, for organisers."""
        before = self._found.get(ROOM)
        if before is not None and before.round == self._round:
            return before
        picture = made.room(
            self._rows,
            self._monitor.report.refusals,
            self._locked(),
            self._announcement(),
        )
        events = self._history.latest(_MOST_EVENTS, None)
        if before is None:
            return self._new(ROOM, picture, events)
        known = before.events[0].id if before.events else 0
        new = [recorded for recorded in events if recorded.id > known]
        old = events[len(new) :]
        changes = made.room_changes(before.content, picture)
        if old != list(before.events[: len(old)]):
            # Names were forgotten: nobody goes on showing what told them.
            return self._new(ROOM, picture, events)
        if not new and not made.is_change(changes):
            before.round = self._round
            return before
        room = self._new(ROOM, picture, events)
        room.changes = {
            "version": room.version,
            "base": before.version,
            **changes,
            "events": [event_view(recorded, EVERYBODY) for recorded in new],
        }
        return room

    def text(self, key: Key, message: Message) -> bytes:
        """Return all of a message, encoded once."""
        if message.text is None:
            whole: Json = {"type": key[0]}
            if key in (DEVICES, ROOM):
                whole["version"] = message.version
            if key == ROOM:
                whole["base"] = None
                whole["events"] = [event_view(x, EVERYBODY) for x in message.events]
            message.text = self.encode({**whole, **message.content})
        return message.text

    def changes_text(self, key: Key, message: Message, got: int | None) -> bytes | None:
        """Return what is new since a version, encoded once; None where nobody tells.

        Args:
            key: which message.
            message: it.
            got: the version that somebody has.
        """
        changes = message.changes
        if changes is None or got is None or changes["base"] != got:
            return None
        if message.changes_text is None:
            message.changes_text = self.encode({"type": key[0], **changes})
        return message.changes_text

    def encode(self, message: Json) -> bytes:
        """Return a message as JSON, and count it."""
        self.encoded[message["type"]] += 1
        return encode(message)

    def _current(
        self,
        key: Key,
        make: Callable[[Message | None], tuple[Json, Sequence[Recorded]]],
    ) -> Message:
        """Return a message: the one before where it says the same now."""
        before = self._found.get(key)
        if before is not None and before.round == self._round:
            return before
        content, events = make(before)
        if before is None or before.content != content:
            return self._new(key, content, events)
        before.round, before.events = self._round, events
        return before

    def _new(self, key: Key, content: Json, events: Sequence[Recorded]) -> Message:
        self._version += 1
        message = self._found[key] = Message(
            content=content, version=self._version, round=self._round, events=events
        )
        return message

    def _why_not_pause(self, kernel: KernelView) -> str:
        """Say why a kernel cannot be paused, in a sentence; empty if it can."""
        owner = Owner(
            lease_id=kernel.lease_id,
            user=kernel.user,
            server=kernel.server,
            kernel_id=kernel.kernel_id,
        )
        watched = self._monitor.kernels.get(owner)
        if watched is None:
            return "It is not there any more."
        meant = self._monitor.watching.meant(owner, watched)
        return why_not_take(Action.PARK, meant)

    def _freed_today(self) -> int:
        """Return what was taken back since midnight; added up once for each event."""
        now = datetime.datetime.fromtimestamp(self._wall(), tz=datetime.timezone.utc)
        midnight = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
        last = next((x.id for x in self._history.latest(1, None)), 0)
        of = (last, midnight.timestamp())
        if self._freed[0] != of:
            events = self._history.latest(_MOST_EVENTS_LOOKED_THROUGH, None)
            freed = sum(made.freed_bytes(x) for x in events if x.event.at >= of[1])
            self._freed = (of, freed)
        return self._freed[1]


def encode(message: Json) -> bytes:
    """Return a message as JSON that every browser reads.

    What is not ASCII is escaped: a command line may hold what is no text.
    """
    try:
        text = json.dumps(message, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(message), separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def _finite(value: Any) -> Any:
    """Return a value without the numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
