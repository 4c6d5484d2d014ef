"""The loop that makes snapshots.

Owns the current Snapshot, one immutable value that is swapped whole, and the watch of
each kernel. Samples, processes and kernels are read at the same time; attribution
joins them. What cannot be read is unknown, and the snapshot says so.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from jupyterhub_gpuworkshop.core.attribution import Attribution, Owner, attribute
from jupyterhub_gpuworkshop.core.devices import Inventory
from jupyterhub_gpuworkshop.core.enforcement import HardCap
from jupyterhub_gpuworkshop.core.errors import CallHangs, SourceError
from jupyterhub_gpuworkshop.core.leases import Key
from jupyterhub_gpuworkshop.core.need import needed
from jupyterhub_gpuworkshop.core.over_share import OverWatch
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, Snapshot
from jupyterhub_gpuworkshop.core.wire import DeviceUse, Reply, Report

from .history import History
from .host import Gpus, Host, Processes
from .kept import Kept
from .link import Link
from .notices import Notices
from .picture import observe_leases, peaks_of, problems_of, use_devices, use_leases
from .pins import Pins
from .rules import Rules
from .servers import Answer, Servers
from .watching import Look, Watched, Watching

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """Everything that one round has read.

    Attributes:
        processes: None where they could not be read.
    """

    report: Report
    samples: tuple[DeviceSample, ...]
    processes: Processes | None
    answers: Mapping[Key, Answer]
    at: float
    taken_at: float
    problems: list[str] = field(default_factory=list)


class Monitor:
    """Samples, attributes, publishes.

    Args:
        gpus: the devices.
        host: the processes.
        servers: attendees' servers.
        link: what the hub said last.
        rules: the organiser's.
        history: takes the peaks.
        notices: those that stand; none to begin with.
        kept: pins and drained devices; kept in memory only where nothing is given.
        hard_caps: what the driver holds leases to.
        why_not_act: says why another service is to take memory, in a sentence.
        clock: monotonic seconds.
        wall: seconds since the epoch.

    Attributes:
        snapshot: the current one.
        attribution: whose everything is, of the same instant.
        overs: how each lease stands to its share, by lease id.
        watching: each kernel's watch.
        server_verdicts: why each server is, or is not, about to be stopped; whoever
            stops servers sets it.
        notices: those that stand.
        kept: what outlives this process.
        pins: those in force.
        answers: what the servers said last.
        rounds: how many snapshots there were.
        asked: how many servers were asked for their kernels.
        unanswered: how many of them did not answer as they should.
        report: what the hub had said at the snapshot's instant.
    """

    def __init__(
        self,
        gpus: Gpus,
        host: Host,
        servers: Servers,
        link: Link,
        rules: Rules,
        history: History,
        *,
        notices: Notices | None = None,
        kept: Kept | None = None,
        hard_caps: Callable[[], tuple[HardCap, ...]] = tuple,
        why_not_act: Callable[[], str] = str,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.snapshot = Snapshot(
            taken_at=wall(), problems=("Nothing has been looked at yet.",)
        )
        self.answers: Mapping[Key, Answer] = {}
        self.attribution = Attribution()
        self.overs: Mapping[str, OverWatch] = {}
        self.notices = notices or Notices(clock=clock, wall=wall)
        self.kept = kept or Kept(None)
        self.pins = Pins(self.kept, wall=wall)
        self.watching = Watching(rules, history, self.notices, self.pins, wall=wall)
        self.server_verdicts: Callable[[], Mapping[str, str]] = dict
        self.rounds = 0
        self.asked = self.unanswered = 0
        self.report = Report(hub_id="", sent_at=0.0)
        self._gpus = gpus
        self._host = host
        self._servers = servers
        self._link = link
        self._rules = rules
        self._history = history
        self._hard_caps = hard_caps
        self._why_not_act = why_not_act
        self._clock = clock
        self._wall = wall
        self._turn = asyncio.Lock()
        self._now: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self._published = asyncio.Event()
        self._kernel_ids: dict[Key, frozenset[str]] = {}
        self._device_uses: tuple[DeviceUse, ...] = ()

    @property
    def kernels(self) -> Mapping[Owner, Watched]:
        """What whoever acts needs of each kernel, of the snapshot's instant."""
        return self.watching.kernels

    async def tick(self) -> None:
        """Make one snapshot that begins now; who asks at the same time shares it."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._round())
        # The round is everybody's: who stops waiting does not stop it.
        await asyncio.shield(self._next)

    def due(self) -> list[Owner]:
        """Return the kernels that are not to be kept."""
        kernels = self.kernels.items()
        return [owner for owner, x in kernels if x.decision.kind.takes]

    async def close(self) -> None:
        """Let go of a round that is under way."""
        rounds = [task for task in (self._next, self._now) if task is not None]
        for task in rounds:
            task.cancel()
        await asyncio.gather(*rounds, return_exceptions=True)

    async def _round(self) -> None:
        async with self._turn:
            # From here on it has begun: who asks now gets the next one.
            self._now, self._next = self._next, None
            self._rules.refresh()
            self._publish(await self._read())
        await self._forget_pins()
        await self._history.flush()

    async def _forget_pins(self) -> None:
        # Only a hub that has reported says which leases have ended; and who only shows
        # would write over what the service that acts has parked since.
        if self._link.report.hub_id and not self._why_not_act():
            await self.pins.forget(frozenset(x.id for x in self._link.report.leases))

    async def newer_than(self, rounds: int) -> None:
        """Wait for a snapshot after the one of this number."""
        while self.rounds <= rounds:
            await self._published.wait()

    @property
    def server_pids(self) -> frozenset[int]:
        """The servers' own processes: as the hub said last, and as they were found.

        The hub knows none where an engine runs it, and a wrapper where there is one.
        """
        said = frozenset(x.pid for x in self._link.report.servers if x.pid)
        trees = self.attribution.servers.values()
        return said | frozenset(tree.main.pid for tree in trees if tree.main)

    @property
    def device_uses(self) -> Mapping[str, DeviceUse]:
        """What placement is told of each device, by UUID."""
        return {use.uuid: use for use in self._device_uses}

    @property
    def hub_problem(self) -> str:
        """Why what the hub said may be out of date, in a sentence; else empty."""
        return self._link.problem

    async def exchange(self, report: Report) -> Reply:
        """Take the hub's report in; return what placement needs."""
        self._link.hear(report)
        self.notices.mark_seen(report.seen)
        return Reply(
            inventory=self._gpus.inventory,
            uses=self._device_uses,
            acknowledged=await self._history.take(report.hub_id, report.events),
            notices=self.notices.standing,
            drained=self.kept.state.drained if self.kept.is_read else None,
        )

    async def _read(self) -> _Reading:
        report = self._link.report
        problems = [
            self._link.problem,
            self._rules.problem,
            self._history.problem,
            self.kept.problem,
            self._why_not_act(),
        ]
        asking = asyncio.ensure_future(self._servers.poll(report.servers))
        samples: tuple[DeviceSample, ...] = ()
        processes = None
        try:
            try:
                samples = await self._gpus.sample()
            except (SourceError, CallHangs) as error:
                problems.append(str(error))
            taken_at = self._wall()
            try:
                processes = await self._host.processes(samples, report.servers)
            except (CallHangs, OSError) as error:
                problems.append(f"Processes are unknown: {error}")
            # Their processor time is of this instant, however long a server takes.
            at = self._clock()
            answers = await asking
        finally:
            asking.cancel()
        return _Reading(
            report=report,
            samples=samples,
            processes=processes,
            answers=answers,
            at=at,
            taken_at=taken_at,
            problems=problems,
        )

    def _publish(self, reading: _Reading) -> None:
        """Join what was read, without an await: one instant, one picture."""
        attribution = self._attribute(reading)
        report, leases = reading.report, reading.report.leases
        known = reading.processes is not None
        listed = self._listed(reading)
        self.overs = observe_leases(
            self.overs,
            leases,
            attribution.holders,
            # Without a list of holders nobody is said to exceed anything.
            listed,
            reading.at,
        )
        uses = use_leases(
            leases,
            attribution.holders,
            listed,
            {x.id: self._history.peak_bytes(x.id) for x in leases},
            reading.samples if known else (),
            self.overs,
            self.kept.state.parked,
            reading.taken_at - reading.at,
        )
        need = needed(
            report.refusals,
            reading.samples,
            leases,
            {use.lease_id: use.memory_bytes for use in uses},
            self._rules.workshop.gpus.keep_free_per_gpu,
        )
        self.watching.look(
            Look(
                report=report,
                attribution=attribution,
                answers=reading.answers,
                samples={x.uuid: x for x in reading.samples} if known else {},
                need=need,
                at=reading.at,
            )
        )
        if reading.samples and reading.processes is not None:
            self._device_uses = use_devices(
                reading.samples,
                uses,
                attribution.holders,
                reading.processes,
                reading.taken_at,
            )
        for peak in peaks_of(leases, uses, self.kernels, reading.taken_at):
            self._history.raise_peak(peak)
        self.notices.expire()
        self.snapshot = Snapshot(
            taken_at=reading.taken_at,
            inventory=self._gpus.inventory or Inventory(),
            samples=reading.samples,
            listed=listed,
            holders=attribution.holders,
            leases=leases,
            uses=uses,
            hard_caps=self._hard_caps(),
            kernels=tuple(watched.view for watched in self.kernels.values()),
            needed=need.anywhere,
            notices=self.notices.standing,
            drained=frozenset(self.kept.state.drained),
            server_verdicts=self.server_verdicts(),
            problems=problems_of(
                reading.problems,
                self._gpus.inventory,
                reading.samples,
                reading.answers,
            ),
        )
        self.report = report
        self.answers = reading.answers
        self.asked = len(reading.answers)
        self.unanswered = sum(bool(x.problem) for x in reading.answers.values())
        self.rounds += 1
        published, self._published = self._published, asyncio.Event()
        published.set()

    @staticmethod
    def _listed(reading: _Reading) -> frozenset[str]:
        """Return the devices of which every holder is known."""
        return frozenset(
            sample.uuid
            for sample in reading.samples
            if sample.processes is not None and reading.processes is not None
        )

    def _attribute(self, reading: _Reading) -> Attribution:
        """Explain the holders; without the processes nobody is blamed for anything."""
        self._kernel_ids = {
            key: (
                frozenset(answer.kernels)
                if answer.kernels is not None
                else self._kernel_ids.get(key, frozenset())
            )
            for key, answer in reading.answers.items()
        }
        known = reading.processes is not None
        attribution = attribute(
            reading.samples if known else (),
            reading.processes.facts if reading.processes is not None else {},
            reading.report.servers,
            reading.report.leases,
            self._kernel_ids,
            self.attribution.owners,
        )
        if known:
            self.attribution = attribution
        return attribution
