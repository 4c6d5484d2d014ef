"""What is announced to everybody.

Owns who may announce what, and for how long it stands. One stands at a time; it
outlives the service (`kept`), and the hub shows it.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from jupyterhub_gpuworkshop.core.announcements import (
    Announcement,
    text_mistake,
    tidy_text,
)
from jupyterhub_gpuworkshop.core.errors import ActForbidden, ActRefused
from jupyterhub_gpuworkshop.core.units import format_duration
from jupyterhub_gpuworkshop.core.wire import Event, EventKind

from .acts import IN_MEMORY_ONLY, Done, once_told
from .history import History
from .kept import Kept, KeptState
from .link import Link
from .web.auth import Viewer

_LOG = logging.getLogger(__name__)


class Announcing:
    """What stands, and what organisers do about it.

    Args:
        kept: where it is written.
        history: takes the events.
        link: says whether the hub listens.
        why_not_act: says why another service is to act, in a sentence.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        kept: Kept,
        history: History,
        link: Link,
        *,
        why_not_act: Callable[[], str] = str,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._kept = kept
        self._history = history
        self._link = link
        self._why_not_act = why_not_act
        self._wall = wall

    @property
    def announcement(self) -> Announcement | None:
        """What stands now; None for nothing."""
        found = self._kept.state.for_everybody
        return found if found is not None and found.stands_at(self._wall()) else None

    @property
    def for_hub(self) -> tuple[Announcement, ...] | None:
        """What the hub is told; None where what stands cannot be read."""
        if not self._kept.is_read:
            return None
        found = self.announcement
        return () if found is None else (found,)

    async def announce(self, viewer: Viewer, text: str, seconds: float | None) -> Done:
        """Announce something to everybody, in the place of what was before.

        Args:
            viewer: who does.
            text: of one or more lines.
            seconds: for how long; None for until it is taken down.

        Raises:
            ActRefused: it is not done.
            ValueError: the text cannot be announced; with why.
        """
        self._check(viewer)
        text = tidy_text(text)
        if mistake := text_mistake(text):
            raise ValueError(mistake)
        now = self._wall()
        made = Announcement(
            text=text,
            at=now,
            until=None if seconds is None else now + seconds,
            by=viewer.name,
        )
        on_disk = await self._kept.change(
            lambda state: replace(state, for_everybody=made)
        )
        await self._record(
            EventKind.ANNOUNCEMENT_MADE,
            f"{viewer.name} announced to everybody: {text}",
            viewer.name,
        )
        for_how_long = (
            "until it is taken down"
            if seconds is None
            else f"for {format_duration(seconds)}"
        )
        return self._done(
            f"Announced on every page of the hub, {for_how_long}.", on_disk
        )

    async def take_down(self, viewer: Viewer) -> Done:
        """Take down what is announced; nothing stays nothing.

        Raises:
            ActRefused: it is not done.
        """
        self._check(viewer)
        stood = self.announcement
        on_disk = await self._kept.change(
            lambda state: replace(state, for_everybody=None)
        )
        # Where nothing is known of before, the hub may show something all the same.
        if stood is None and self._kept.is_read:
            return Done(message="Nothing is announced.", on_disk=on_disk)
        if stood is not None:
            await self._record(
                EventKind.ANNOUNCEMENT_ENDED,
                f"{viewer.name} took down what was announced: {stood.text}",
                viewer.name,
            )
        return self._done("Nothing is announced any more.", on_disk)

    async def step(self) -> None:
        """Note that the time of an announcement is over."""
        found = self._kept.state.for_everybody
        if (
            found is None
            or found.stands_at(self._wall())
            or not self._kept.is_read
            or self._why_not_act()
        ):
            return
        is_ended = False

        def end(state: KeptState) -> KeptState:
            nonlocal is_ended
            is_ended = state.for_everybody == found
            return replace(state, for_everybody=None) if is_ended else state

        await self._kept.change(end)
        if is_ended:
            await self._record(
                EventKind.ANNOUNCEMENT_ENDED,
                f"Its time was over, announced by {found.by}: {found.text}",
                found.by,
            )

    def _check(self, viewer: Viewer) -> None:
        if not viewer.is_organiser:
            raise ActForbidden("Only an organiser may announce something to everybody.")
        if why_not := self._why_not_act():
            raise ActRefused(why_not)

    def _done(self, message: str, on_disk: bool) -> Done:
        if self._link.problem:
            message += " The hub does not report now: it follows as soon as it does."
        message = once_told(message, self._kept)
        return Done(
            message=message + ("" if on_disk else IN_MEMORY_ONLY), on_disk=on_disk
        )

    async def _record(self, kind: EventKind, reason: str, by: str) -> None:
        _LOG.info("%s", " / ".join(reason.split("\n")))
        await self._history.add(
            Event(
                at=self._wall(), kind=kind, user="", reason=reason, details={"by": by}
            )
        )
