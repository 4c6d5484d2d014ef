"""What the GPU service tells the demo: its events and its current picture.

Owns the reading, at the service itself and not through the proxy. A service that is
away for a moment is asked again.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

_EVENT_SECONDS = 0.5
_PAGE = 200

log = logging.getLogger(__name__)

Events = Callable[[dict[str, Any]], None]


class Feed:
    """Follows the service from its first event on.

    Args:
        url: the service's own; ends in ``/``.
        token: one with the organisers' scope.
        snapshot_seconds: how often its picture changes.
    """

    def __init__(self, url: str, token: str, snapshot_seconds: float) -> None:
        self._url = url + "api/v1/"
        self._token = token
        self._snapshot_seconds = snapshot_seconds
        self.snapshot: Mapping[str, Any] = {}
        """The last that was read, as the service tells it; empty before the first."""

    async def follow(self, told: Events) -> None:
        """Hand over each event once, in order, until cancelled."""
        async with aiohttp.ClientSession(
            headers={"Authorization": f"token {self._token}"},
            timeout=aiohttp.ClientTimeout(total=10),
            raise_for_status=True,
        ) as session:
            await asyncio.gather(self._events(session, told), self._snapshots(session))

    async def _events(self, session: aiohttp.ClientSession, told: Events) -> None:
        last = 0
        while True:
            query = {"after": str(last), "limit": str(_PAGE)}
            for event in await self._get(session, "events", query) or ():
                last = max(last, int(event["id"]))
                told(event)
            await asyncio.sleep(_EVENT_SECONDS)

    async def _snapshots(self, session: aiohttp.ClientSession) -> None:
        while True:
            content = await self._get(session, "snapshot", {})
            if content is not None:
                self.snapshot = content
            await asyncio.sleep(self._snapshot_seconds)

    async def _get(
        self, session: aiohttp.ClientSession, path: str, query: dict[str, str]
    ) -> Any:
        try:
            async with session.get(self._url + path, params=query) as response:
                return await response.json()
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
            log.info("The GPU service does not answer: %s", error)
            return None
