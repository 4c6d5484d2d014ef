"""After the doors have closed: attendees' servers are stopped, a few at a time.

Owns which of them, and that a stop that fails is tried again. Organisers' servers go
on, and so does what somebody with the right to it starts for others later, for the next
morning say.
"""

import asyncio
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from jupyterhub_gpuworkshop.core.doors import Stage

from .doors import DoorKeeper
from .organisers import is_organiser

_LOOK_SECONDS = 5.0
_AT_ONCE = 4


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
        """Stop the servers that were started before the last closing took effect."""
        standing = self._keeper.standing()
        if standing.stage not in (Stage.CLOSED, Stage.OVER):
            return
        stops_at = standing.stops_at
        turn = asyncio.Semaphore(_AT_ONCE)

        async def stop(user: Any, spawner: Any) -> None:
            async with turn:
                await self._stop(user, spawner)

        due = list(self._due(float("inf") if stops_at is None else stops_at))
        await asyncio.gather(*(stop(user, spawner) for user, spawner in due))

    def _due(self, stops_at: float) -> Iterable[tuple[Any, Any]]:
        for user in list(self._app.users.values()):
            running = [
                spawner
                for spawner in list(user.spawners.values())
                if spawner.ready and not spawner.pending
            ]
            if running and not is_organiser(user):
                for spawner in running:
                    if _seconds(spawner.orm_spawner.started) < stops_at:
                        yield user, spawner

    async def _stop(self, user: Any, spawner: Any) -> None:
        if spawner.pending or not spawner.ready:
            return  # somebody else was quicker
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
