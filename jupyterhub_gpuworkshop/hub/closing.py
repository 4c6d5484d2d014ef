"""After the doors have closed: attendees' servers are stopped, a few at a time.

Owns which of them, and that a stop that fails is tried again. Organisers' servers go
on, and so does what somebody with the right to it starts for others later, for the next
morning say.
"""

import asyncio
from datetime import datetime, timezone
from typing import Any

from jupyterhub_gpuworkshop.core.doors import Stage

from .doors import DoorKeeper
from .organisers import is_organiser

_LOOK_SECONDS = 5.0
_AT_ONCE = 16
"""To stop is mostly to wait, for up to half a minute each."""


class Closing:
    """Stops attendees' servers when their time is over.

    Args:
        app: the hub.
        keeper: of the doors.
    """

    def __init__(self, app: Any, keeper: DoorKeeper) -> None:
        self._app = app
        self._keeper = keeper
        self._log = app.log

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            try:
                await self.stop_those_due()
            except Exception:
                self._log.exception("Servers may go on although the doors are closed")
            await asyncio.sleep(_LOOK_SECONDS)

    async def stop_those_due(self) -> None:
        """Stop the servers whose time is over."""
        turn = asyncio.Semaphore(_AT_ONCE)

        async def stop(user: Any, spawner: Any) -> None:
            async with turn:
                # The hours may have been edited while others were stopped.
                if self._is_due(user, spawner):
                    await self._stop(user, spawner)

        due = [
            (user, spawner)
            for user in list(self._app.users.values())
            for spawner in list(user.spawners.values())
            if self._is_due(user, spawner)
        ]
        await asyncio.gather(*(stop(user, spawner) for user, spawner in due))

    def _is_due(self, user: Any, spawner: Any) -> bool:
        """Whether a server runs that was started before its doors were closed.

        Where its attendee started it that is so, whatever the clock said: the hours
        may have been edited since, and to a time that had passed.
        """
        if not spawner.ready or spawner.pending:
            return False
        standing = self._keeper.standing()
        if standing.stage not in (Stage.CLOSED, Stage.OVER) or is_organiser(user):
            return False
        if getattr(spawner, "is_own_start", False) or standing.stops_at is None:
            return True
        return _seconds(spawner.orm_spawner.started) < standing.stops_at

    async def _stop(self, user: Any, spawner: Any) -> None:
        self._log.info("Stopping %s: the doors are closed", spawner._log_name)
        # As JupyterHub's own handlers do, which need a request.
        spawner._stop_pending = True
        try:
            await self._app.proxy.delete_user(user, spawner.name)
            await user.stop(spawner.name)
        except Exception:
            self._log.exception(
                "%s goes on although the doors are closed; it is tried again",
                spawner._log_name,
            )
        finally:
            spawner._stop_pending = False


def _seconds(started: datetime | None) -> float:
    """Return when a server was started, which JupyterHub writes down as UTC."""
    if started is None:
        return float("-inf")
    if started.tzinfo is None:
        started = started.replace(tzinfo=timezone.utc)
    return started.timestamp()
