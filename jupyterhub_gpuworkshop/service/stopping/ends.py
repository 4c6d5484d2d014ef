"""How a server ends: the hub stops it, and its lease must be gone afterwards.

Owns which servers are being stopped, for whatever cause: no server is asked to stop
twice at once. Who is stopped, and what is said of it, is decided elsewhere.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from jupyterhub_gpuworkshop.core.leases import Lease, LeaseState
from jupyterhub_gpuworkshop.service.monitor import Monitor

_LOG = logging.getLogger(__name__)
_SECONDS_TO_END = 120.0
"""A spawner that has to kill what it stops may take half a minute, an engine more."""


class StopsServers(Protocol):
    """The hub."""

    async def stop_server(self, user: str, server: str) -> None:
        """Stop a server; raise a HubError where that is refused."""


@dataclass(frozen=True, slots=True)
class _End:
    """A server that is being stopped."""

    lease: Lease
    task: "asyncio.Task[None]"


class ServerEnds:
    """Has servers stopped, and sees to it that they are.

    Args:
        monitor: shows which leases stand.
        hub: stops servers.
        clock: monotonic seconds, the monitor's.
    """

    def __init__(
        self,
        monitor: Monitor,
        hub: StopsServers,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monitor = monitor
        self._hub = hub
        self._clock = clock
        self._under_way: dict[str, _End] = {}

    @property
    def under_way(self) -> Mapping[str, Lease]:
        """The leases whose servers are being stopped, by id."""
        return {lease_id: end.lease for lease_id, end in self._under_way.items()}

    def begin(
        self,
        lease: Lease,
        act: Coroutine[Any, Any, None],
        failed: Callable[[], object] = lambda: None,
    ) -> None:
        """Begin to stop a server that is not being stopped, and do not wait for it.

        Args:
            lease: its lease.
            act: what is done, with `stop` in it.
            failed: called where that ends as it should not.
        """
        task = asyncio.ensure_future(act)
        self._under_way[lease.id] = _End(lease, task)
        task.add_done_callback(lambda done: self._ended(lease, done, failed))

    async def stop(self, lease: Lease) -> str:
        """Have the hub stop a server, and wait for its lease to be released.

        Returns:
            Why that is not so, in a sentence; empty where it is.

        Raises:
            HubError: the hub would not, or does not answer.
        """
        await self._hub.stop_server(lease.user, lease.server)
        until = self._clock() + _SECONDS_TO_END
        while self._clock() < until:
            await self._monitor.newer_than(self._monitor.rounds)
            now = {x.id: x for x in self._monitor.snapshot.leases}.get(lease.id)
            if now is None:
                return ""
            if now.state is LeaseState.QUARANTINED:
                return (
                    "The hub stopped it, yet a process of it has not ended: its share "
                    "is held back."
                )
        return (
            "The hub was asked to stop it and did not refuse; its share has not been "
            "given back."
        )

    async def close(self) -> None:
        """Let go of what is under way: the hub stops a server, or it does not."""
        tasks = [end.task for end in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(
        self,
        lease: Lease,
        task: "asyncio.Task[None]",
        failed: Callable[[], object],
    ) -> None:
        self._under_way.pop(lease.id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("Stopping the server of %s failed", lease.owner, exc_info=error)
            failed()
