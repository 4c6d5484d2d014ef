"""What is known of whole servers: the last picture, what they say, who is connected.

Owns how the signals of one server are put together. A server is asked only while
everything else of it is idle, once a minute; of one that is not asked nothing is
known. Nothing is decided here.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from jupyterhub_gpuworkshop.core.errors import CallHangs, ServerError
from jupyterhub_gpuworkshop.core.idle_servers import (
    ASK_EVERY_SECONDS,
    ServerAnswer,
    ServerReading,
    is_worth_asking,
)
from jupyterhub_gpuworkshop.core.leases import Lease, LeaseState
from jupyterhub_gpuworkshop.core.rules import IdleRules
from jupyterhub_gpuworkshop.core.snapshot import HolderKind
from jupyterhub_gpuworkshop.core.wire import Refusal, ServerInfo
from jupyterhub_gpuworkshop.machine.connections import Connections
from jupyterhub_gpuworkshop.service.link import Link
from jupyterhub_gpuworkshop.service.loops import OneThread
from jupyterhub_gpuworkshop.service.monitor import Monitor
from jupyterhub_gpuworkshop.service.servers import Servers

_TIMEOUT_SECONDS = 10.0
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A server to be asked.

    Attributes:
        server: where it is called.
        pid: a process of it, in whose network it listens.
    """

    server: ServerInfo
    pid: int


CountConnections = Callable[[Sequence[Asked]], Mapping[str, int | None]]
"""How many are connected to each, by lease id; None where that is unknown."""


def count_connections(asked: Sequence[Asked]) -> Mapping[str, int | None]:
    """Count who is connected, as Linux says it; it reads files.

    Raises:
        OSError: nothing can be read.
    """
    connections = Connections(Path("/proc"))
    counts: dict[str, int | None] = {}
    for each in asked:
        url = urlsplit(each.server.url)
        port = url.port or _PORTS.get(url.scheme)
        counts[each.server.lease_id] = (
            connections.count(each.pid, port) if port is not None else None
        )
    return counts


class ServerSignals:
    """The signals of every server.

    Args:
        monitor: has the last picture.
        servers: attendees' servers.
        link: what the hub said last.
        count: counts connections; called in a thread.
        clock: monotonic seconds, the monitor's.
    """

    def __init__(
        self,
        monitor: Monitor,
        servers: Servers,
        link: Link,
        *,
        count: CountConnections = count_connections,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monitor = monitor
        self._servers = servers
        self._link = link
        self._count = count
        self._clock = clock
        self._thread = OneThread("/proc")
        self._answers: dict[str, ServerAnswer] = {}

    def server_of(self, lease: Lease) -> ServerInfo | None:
        """Return where a lease's server is called."""
        servers = self._link.report.servers
        return next((x for x in servers if x.lease_id == lease.id), None)

    def refusals(self) -> tuple[Refusal, ...]:
        """Return who waits for a share."""
        return self._link.report.refusals

    def leases(self) -> dict[str, Lease]:
        """Return the leases whose servers may be stopped at all, by id."""
        return {
            lease.id: lease
            for lease in self._monitor.snapshot.leases
            if lease.devices and lease.state is LeaseState.ACTIVE
        }

    def read(self, lease: Lease) -> ServerReading:
        """Put all signals of one server together, as of the last picture."""
        monitor = self._monitor
        tree = monitor.attribution.servers.get(lease.key)
        if tree is not None and tree.lease_id != lease.id:
            tree = None
        kernels = sorted(
            (owner.kernel_id, watched)
            for owner, watched in monitor.kernels.items()
            if owner.lease_id == lease.id
        )
        return ServerReading(
            at=self._clock(),
            problem=self._problem(lease),
            process=tree.main.process if tree is not None and tree.main else None,
            kernels=tuple((kernel_id, x.watch) for kernel_id, x in kernels),
            holds_memory=self._holds_memory(lease),
            pinned=any(x.is_pinned for _, x in kernels),
            terminals=len(tree.terminals) if tree is not None else 0,
            outside=len(tree.outside) if tree is not None else 0,
            answer=self._answers.get(lease.id),
        )

    def to_be_asked(
        self, readings: Mapping[str, ServerReading], rules: IdleRules
    ) -> list[str]:
        """Return the leases whose servers are to be asked now.

        What others said, who are not idle now, is forgotten.
        """
        worth = [
            k for k, reading in readings.items() if is_worth_asking(reading, rules)
        ]
        self._answers = {k: self._answers[k] for k in worth if k in self._answers}
        now = self._clock()
        return [
            lease_id
            for lease_id in worth
            if lease_id not in self._answers
            or not 0 <= now - self._answers[lease_id].at < ASK_EVERY_SECONDS
        ]

    async def ask(self, leases: Sequence[Lease]) -> None:
        """Ask servers what they say of themselves, and Linux who is connected."""
        asked: list[Asked] = []
        for lease in leases:
            server, process = self.server_of(lease), self.read(lease).process
            if server is not None and process is not None:
                asked.append(Asked(server=server, pid=process.pid))
        if not asked:
            return
        answers = await asyncio.gather(*(self._ask(each.server) for each in asked))
        # Last: who comes while the others are asked is seen.
        try:
            counts = await self._thread.call(
                functools.partial(self._count, asked), _TIMEOUT_SECONDS
            )
        except (CallHangs, OSError):
            counts = {}
        for each, answer in zip(asked, answers, strict=True):
            lease_id = each.server.lease_id
            self._answers[lease_id] = _with_count(answer, counts.get(lease_id))

    async def _ask(self, server: ServerInfo) -> ServerAnswer:
        at = self._clock()
        try:
            status = await self._servers.status(server)
        except ServerError as error:
            return ServerAnswer(at=at, problem=f"Its state is unknown: {error}.")
        if status.terminals is None:
            return ServerAnswer(at=at, problem="Its terminals are unknown.")
        return ServerAnswer(
            at=at,
            browsers=status.connections,
            last_activity=status.last_activity,
            terminals=status.terminals,
            kernels=status.kernels,
        )

    def _problem(self, lease: Lease) -> str:
        """Say what of a server is unknown, in a sentence; empty where nothing is."""
        monitor = self._monitor
        if self._link.problem:
            return self._link.problem
        if self.server_of(lease) is None:
            return "The hub does not say where it runs."
        if not monitor.snapshot.listed.issuperset(lease.uuids):
            return "Who uses its GPU is unknown."
        answer = monitor.answers.get(lease.key)
        if answer is None or answer.kernels is None:
            why = f": {answer.problem}" if answer is not None else ""
            return f"Its kernels are unknown{why}."
        tree = monitor.attribution.servers.get(lease.key)
        if tree is None or tree.lease_id != lease.id or not tree.is_complete:
            return "What runs in it, besides its kernels, is unknown."
        return ""

    def _holds_memory(self, lease: Lease) -> bool:
        """Whether a process that is its own, or may be, holds GPU memory or is parked.

        Of a process that is an attendee's and nobody knows whose, it may be anybody's.
        """
        return any(
            holder.lease_id == lease.id
            or (
                holder.kind is HolderKind.UNATTRIBUTED
                and holder.user in ("", lease.user)
            )
            for holder in self._monitor.snapshot.holders
        ) or any(
            parked.lease_id == lease.id for parked in self._monitor.kept.state.parked
        )


def _with_count(answer: ServerAnswer, count: int | None) -> ServerAnswer:
    """Add how many are connected; a kernel's websocket is a connection too."""
    if answer.problem:
        return answer
    if count is None:
        return replace(answer, problem="Whether a browser is open on it is unknown.")
    return replace(answer, browsers=max(answer.browsers, count))
