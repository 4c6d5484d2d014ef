"""Who of the parked kernels' owners is back.

Owns asking the servers of parked kernels, every second and no others, and what counts
as coming back. A server that is slow holds up nobody else's owner.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

from jupyterhub_gpuworkshop.core.snapshot import KernelState
from jupyterhub_gpuworkshop.service.kept import ParkedKernel
from jupyterhub_gpuworkshop.service.link import Link
from jupyterhub_gpuworkshop.service.servers import Answer, Servers

from .parked import Key, key_of

_LISTEN_SECONDS = 0.5
_SILENT_SECONDS = 60.0


class Listening:
    """Listens to the owners of parked kernels.

    Args:
        servers: attendees' servers.
        link: what the hub said last.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        servers: Servers,
        link: Link,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._servers = servers
        self._link = link
        self._clock = clock
        self._silent: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[Answer]] = {}

    async def step(self, records: Iterable[ParkedKernel]) -> Mapping[Key, str]:
        """Ask, and return why each of these is to come back, if it is.

        Args:
            records: kernels that are parked.
        """
        records = list(records)
        leases = {record.lease_id for record in records}
        self._silent = {k: v for k, v in self._silent.items() if k in leases}
        servers = {server.lease_id: server for server in self._link.report.servers}
        for lease_id in leases:
            if lease_id not in servers:
                self._silent.setdefault(lease_id, self._clock())
            elif lease_id not in self._asking:
                asking = asyncio.ensure_future(self._servers.ask(servers[lease_id]))
                self._asking[lease_id] = asking
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=_LISTEN_SECONDS)
        found: dict[Key, str] = {}
        for lease_id, asking in list(self._asking.items()):
            if asking.done():
                del self._asking[lease_id]
                of_lease = [x for x in records if x.lease_id == lease_id]
                found.update(self._hear(lease_id, of_lease, asking.result()))
        for record in records:
            silent_since = self._silent.get(record.lease_id, self._clock())
            # Of an owner who comes back to such a server nobody would know.
            if self._clock() - silent_since > _SILENT_SECONDS:
                found.setdefault(key_of(record), "Its server does not answer.")
        return found

    async def close(self) -> None:
        """Ask no more."""
        for asking in self._asking.values():
            asking.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    def _hear(
        self, lease_id: str, records: Iterable[ParkedKernel], answer: Answer
    ) -> Mapping[Key, str]:
        if answer.kernels is None:
            self._silent.setdefault(lease_id, self._clock())
            return {}
        self._silent.pop(lease_id, None)
        found = {}
        for record in records:
            kernel = answer.kernels.get(record.kernel_id)
            if kernel is None:
                found[key_of(record)] = "Its server does not know it any more."
            elif (
                kernel.state is not KernelState.IDLE
                or kernel.last_activity != record.last_activity
            ):
                found[key_of(record)] = "A cell was run."
        return found
