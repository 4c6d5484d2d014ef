"""The feed of the pages: what is sent to whom, and when.

Owns who is connected, and what each has got already. Nothing is queued for anybody: a
viewer whose socket is not empty is passed over, and gets what is current once it is.
While nobody is connected nothing is made, compared or waited for.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from jupyterhub_gpuworkshop.service.loops import forever
from jupyterhub_gpuworkshop.service.monitor import Monitor
from jupyterhub_gpuworkshop.service.pulse import PULSE_SECONDS, Pulses
from jupyterhub_gpuworkshop.service.web.auth import Viewer

from .messages import (
    DEVICES,
    ROOM,
    TOTALS,
    WALL,
    WALL_WITH_NAMES,
    Key,
    Messages,
    key_of_mine,
)

_LOG = logging.getLogger(__name__)

MOST_OF_ONE = 20
"""So many pages one user may have open."""
MOST = 2000
"""... and all users together."""

LOG_IN = 4401
MAY_NOT = 4403
ENDS = 1001
TRY_LATER = 1013

_STALLED_SECONDS = 60.0
_ASK_EVERY_SECONDS = 240.0
_UNASKED_SECONDS = 900.0
"""So long a hub may be away before it is not known any more who looks."""
_MOST_ASKING = 5
_AT_ONCE = 50
"""After so many viewers others may have their turn."""


class View(str, Enum):
    """What somebody looks at."""

    ATTENDEE = "attendee"
    ORGANISER = "organiser"
    WALL = "wall"


class Outlet(Protocol):
    """A viewer's socket."""

    @property
    def is_drained(self) -> bool:
        """Whether all that was handed to it is on its way."""

    def send(self, message: bytes, then: Callable[[], None] | None = None) -> None:
        """Hand a message to it.

        Args:
            message: it.
            then: called once it is on its way; never where that fails.
        """

    def end(self, code: int, reason: str) -> None:
        """Close it."""

    async def ask(self) -> Viewer | int:
        """Ask the hub anew who looks: `LOG_IN` or `MAY_NOT` where nobody may.

        Raises:
            Exception: the hub does not say.
        """


@dataclass(slots=True, kw_only=True, eq=False)
class Seat:
    """Somebody who looks.

    Attributes:
        viewer: who, as what is looked at shows it.
        view: at what.
        outlet: the socket.
        with_names: whether a wall says whose the memory is.
        got: the version of each kind of message that was handed over last.
        drained_at: when the socket was empty last, in monotonic seconds.
        known_at: when the hub said last who it is, in monotonic seconds.
        asked_at: when it was asked last.
    """

    viewer: Viewer
    view: View
    outlet: Outlet
    with_names: bool = False
    got: dict[str, int] = field(default_factory=dict)
    drained_at: float = 0.0
    known_at: float = 0.0
    asked_at: float = 0.0

    @property
    def key(self) -> Key:
        """What it gets beside the devices and their readings."""
        if self.view is View.ATTENDEE:
            return key_of_mine(self.viewer)
        if self.view is View.ORGANISER:
            return ROOM
        return WALL_WITH_NAMES if self.with_names else WALL


def shown_to(viewer: Viewer, view: View) -> Viewer | None:
    """Return as whom somebody looks at this; None where they may not."""
    if view is not View.ATTENDEE:
        return viewer if viewer.is_organiser else None
    # An organiser has kernels too: here they see those alone.
    return Viewer(
        name=viewer.name,
        attendee=viewer.user,
        is_user=viewer.is_user,
        since=viewer.since,
    )


class Feed:
    """Feeds all pages that are open.

    Args:
        messages: what there is to send.
        monitor: says when there is a snapshot, and takes which notices were seen.
        pulses: says when there are readings.
        clock: monotonic seconds.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        messages: Messages,
        monitor: Monitor,
        pulses: Pulses,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._messages = messages
        self._monitor = monitor
        self._pulses = pulses
        self._clock = clock
        self._wall = wall
        self._taken: dict[Seat, None] = {}
        self._seats: dict[Seat, None] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._asking: set[asyncio.Task[None]] = set()

    @property
    def viewers(self) -> int:
        """How many look."""
        return len(self._seats)

    def take(self, seat: Seat) -> bool:
        """Give somebody a seat; False where there is none."""
        who = (seat.viewer.name, seat.viewer.is_user)
        theirs = sum((x.viewer.name, x.viewer.is_user) == who for x in self._taken)
        if len(self._taken) >= MOST or theirs >= MOST_OF_ONE:
            return False
        self._taken[seat] = None
        seat.known_at = seat.asked_at = seat.drained_at = self._clock()
        return True

    def begin(self, seat: Seat) -> None:
        """Send somebody who has a seat all there is, and from then on what changes."""
        if seat not in self._taken or seat in self._seats:
            return
        self._seats[seat] = None
        hello = {
            "type": "hello",
            "now": self._wall(),
            "view": seat.view.value,
            "name": seat.viewer.name,
            "tick_seconds": PULSE_SECONDS,
        }
        seat.outlet.send(self._messages.encode(hello))
        self._look()
        self._offer_if_it_can(seat, with_tick=True)
        if self._seats and not self._loops:
            self._loops = [
                asyncio.ensure_future(
                    forever(name, step, interval_seconds=0.0, log=_LOG)
                )
                for name, step in (
                    ("Sending readings", self._after_pulses(self._pulses.rounds)),
                    ("Sending pictures", self._after_looks(self._monitor.rounds)),
                )
            ]

    def drop(self, seat: Seat) -> None:
        """Forget somebody who looks no more; one without a seat does no harm."""
        self._taken.pop(seat, None)
        looked = seat in self._seats
        self._seats.pop(seat, None)
        if looked and not self._seats:
            for task in self._loops:
                task.cancel()
            self._loops = []
            self._look()

    async def close(self) -> None:
        """Close every socket: the service ends."""
        tasks = [*self._loops, *self._asking]
        for seat in list(self._taken):
            self._end(seat, ENDS, "The service ends.")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def send_readings(self) -> None:
        """Send everybody the readings, and whatever they have missed."""
        await self._offer_all(with_tick=True)
        self._ask_some()

    async def send_changes(self) -> None:
        """Send everybody what the last snapshot has changed for them."""
        await self._offer_all(with_tick=False)

    def _after_pulses(self, rounds: int) -> Callable[[], Awaitable[None]]:
        async def step() -> None:
            nonlocal rounds
            await self._pulses.newer_than(rounds)
            rounds = self._pulses.rounds
            await self.send_readings()

        return step

    def _after_looks(self, rounds: int) -> Callable[[], Awaitable[None]]:
        async def step() -> None:
            nonlocal rounds
            await self._monitor.newer_than(rounds)
            rounds = self._monitor.rounds
            await self.send_changes()

        return step

    def _look(self) -> None:
        self._messages.look({seat.key for seat in self._seats})

    async def _offer_all(self, *, with_tick: bool) -> None:
        self._look()
        for number, seat in enumerate(list(self._seats), 1):
            if seat in self._seats:
                self._offer_if_it_can(seat, with_tick=with_tick)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    def _offer_if_it_can(self, seat: Seat, *, with_tick: bool) -> None:
        """Have a mistake in what one is to see be felt by that one alone."""
        try:
            self._offer(seat, with_tick=with_tick)
        except Exception:
            _LOG.exception("What %s looks at cannot be made", seat.viewer.name)
            self._end(seat, TRY_LATER, "What you look at cannot be made now.")

    def _offer(self, seat: Seat, *, with_tick: bool) -> None:
        """Hand somebody what is new for them, if the socket is empty."""
        outlet, messages, now = seat.outlet, self._messages, self._clock()
        # Not asked before the first time: the greeting may still be in it.
        if seat.got and not outlet.is_drained:
            if now - seat.drained_at > _STALLED_SECONDS:
                self._end(seat, TRY_LATER, "Nothing is read from this socket.")
            return
        seat.drained_at = now
        devices = messages.devices()
        if seat.got.get("devices") != devices.version:
            seat.got["devices"] = devices.version
            if seat.view is View.ORGANISER:
                outlet.send(messages.text(DEVICES, devices))
            else:
                outlet.send(messages.text(TOTALS, messages.totals()))
        self._offer_own(seat)
        if with_tick:
            outlet.send(messages.tick())

    def _offer_own(self, seat: Seat) -> None:
        """Hand somebody what this view shows beside the devices, where it is new."""
        messages, then = self._messages, None
        if seat.view is View.ATTENDEE:
            message = messages.mine(seat.viewer)
        elif seat.view is View.ORGANISER:
            message = messages.room()
        else:
            message = messages.wall(with_names=seat.with_names)
        got = seat.got.get("own")
        if got == message.version:
            return
        seat.got["own"] = message.version
        if seat.view is View.ATTENDEE and (unseen := messages.unseen(seat.viewer)):
            then = functools.partial(self._monitor.notices.mark_seen, unseen)
        changes = messages.changes_text(seat.key, message, got)
        seat.outlet.send(changes or messages.text(seat.key, message), then)

    def _ask_some(self) -> None:
        """Ask the hub anew about those who have looked for long, a few at a time."""
        now = self._clock()
        for seat in self._seats:
            if len(self._asking) >= _MOST_ASKING:
                return
            if now - seat.asked_at > _ASK_EVERY_SECONDS:
                seat.asked_at = now
                task = asyncio.ensure_future(self._ask(seat))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)

    async def _ask(self, seat: Seat) -> None:
        try:
            found = await seat.outlet.ask()
        except Exception as error:
            # It restarts, say: those who look go on looking, for a while.
            _LOG.debug("The hub does not say who %s is: %r", seat.viewer.name, error)
            if self._clock() - seat.known_at > _UNASKED_SECONDS:
                self._end(seat, TRY_LATER, "The hub does not say who you are.")
            return
        if isinstance(found, int):
            self._end(seat, found, "You may not look any more.")
        elif shown_to(found, seat.view) != seat.viewer:
            self._end(seat, MAY_NOT, "You may not look at this any more.")
        else:
            seat.known_at = self._clock()

    def _end(self, seat: Seat, code: int, reason: str) -> None:
        if seat in self._taken:
            seat.outlet.end(code, reason)
            self.drop(seat)
