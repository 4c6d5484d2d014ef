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
from jupyterhub_gpuworkshop.core.idleness import KernelWatch, observe
from jupyterhub_gpuworkshop.core.leases import Key, Lease
from jupyterhub_gpuworkshop.core.need import Need, needed
from jupyterhub_gpuworkshop.core.reclaim import Circumstances, Decision, decide
from jupyterhub_gpuworkshop.core.snapshot import (
    DeviceSample,
    Holder,
    KernelView,
    LeaseUse,
    Snapshot,
)
from jupyterhub_gpuworkshop.core.wire import DeviceUse, Reply, Report, ServerInfo

from .history import History
from .host import Gpus, Host, Processes
from .link import Link
from .picture import (
    holders_by_kernel,
    kernel_info,
    read_kernel,
    use_devices,
    use_leases,
    view_kernel,
)
from .rules import Rules
from .servers import Answer, Servers
from .store import Peak

_LOG = logging.getLogger(__name__)
_MOST_PROBLEMS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One kernel, as the reaper needs it.

    Attributes:
        server: where it is called.
        watch: what its readings add up to.
        decision: what follows.
        lease: its server's.
        view: what people see of it.
        holders: those of its processes that hold memory.
        is_needed: whether memory on its devices is needed.
    """

    server: ServerInfo
    watch: KernelWatch
    decision: Decision
    lease: Lease | None
    view: KernelView
    holders: tuple[Holder, ...] = ()
    is_needed: bool = False


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
        hard_caps: what the driver holds leases to.
        clock: monotonic seconds.
        wall: seconds since the epoch.

    Attributes:
        snapshot: the current one.
        kernels: what the reaper needs of each kernel, of the same instant.
        rounds: how many snapshots there were.
        listed: the devices of which the snapshot names every holder.
        asked: how many servers were asked for their kernels.
        unanswered: how many of them did not answer as they should.
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
        hard_caps: Callable[[], tuple[HardCap, ...]] = tuple,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.snapshot = Snapshot(
            taken_at=wall(), problems=("Nothing has been looked at yet.",)
        )
        self.kernels: Mapping[Owner, Watched] = {}
        self.rounds = 0
        self.listed: frozenset[str] = frozenset()
        self.asked = self.unanswered = 0
        self._gpus = gpus
        self._host = host
        self._servers = servers
        self._link = link
        self._rules = rules
        self._history = history
        self._hard_caps = hard_caps
        self._clock = clock
        self._wall = wall
        self._turn = asyncio.Lock()
        self._now: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None
        self._published = asyncio.Event()
        self._attribution = Attribution()
        self._kernel_ids: dict[Key, frozenset[str]] = {}
        self._watches: dict[Owner, KernelWatch] = {}
        self._device_uses: tuple[DeviceUse, ...] = ()

    async def tick(self) -> None:
        """Make one snapshot that begins now; who asks at the same time shares it."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._round())
        # The round is everybody's: who stops waiting does not stop it.
        await asyncio.shield(self._next)

    def due(self) -> list[Owner]:
        """Return the kernels that are not to be kept."""
        return [
            owner
            for owner, watched in self.kernels.items()
            if watched.decision.kind.takes
        ]

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
        await self._history.flush()

    async def newer_than(self, rounds: int) -> None:
        """Wait for a snapshot after the one of this number."""
        while self.rounds <= rounds:
            await self._published.wait()

    @property
    def hub_problem(self) -> str:
        """Why what the hub said may be out of date, in a sentence; else empty."""
        return self._link.problem

    async def exchange(self, report: Report) -> Reply:
        """Take the hub's report in; return what placement needs."""
        self._link.hear(report)
        return Reply(
            inventory=self._gpus.inventory,
            uses=self._device_uses,
            acknowledged=await self._history.take(report.hub_id, report.events),
        )

    async def _read(self) -> _Reading:
        report = self._link.report
        problems = [self._link.problem, self._rules.problem, self._history.problem]
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
        uses = use_leases(
            reading.report.leases,
            attribution.holders,
            {x.id: self._history.peak_bytes(x.id) for x in reading.report.leases},
        )
        need = needed(
            reading.report.refusals,
            reading.samples,
            reading.report.leases,
            {use.lease_id: use.memory_bytes for use in uses},
            self._rules.workshop.gpus.keep_free_per_gpu,
        )
        self.kernels = self._watch(reading, attribution, need)
        if reading.samples and reading.processes is not None:
            self._device_uses = use_devices(
                reading.samples,
                uses,
                attribution.holders,
                reading.processes,
                reading.taken_at,
            )
        self._keep_peaks(reading, uses)
        self.listed = frozenset(
            sample.uuid
            for sample in reading.samples
            if sample.processes is not None and reading.processes is not None
        )
        self.snapshot = Snapshot(
            taken_at=reading.taken_at,
            inventory=self._gpus.inventory or Inventory(),
            samples=reading.samples,
            holders=attribution.holders,
            leases=reading.report.leases,
            uses=uses,
            hard_caps=self._hard_caps(),
            kernels=tuple(watched.view for watched in self.kernels.values()),
            needed=need.anywhere,
            problems=self._problems(reading),
        )
        self.asked = len(reading.answers)
        self.unanswered = sum(bool(x.problem) for x in reading.answers.values())
        self.rounds += 1
        published, self._published = self._published, asyncio.Event()
        published.set()

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
            self._attribution.owners,
        )
        if known:
            self._attribution = attribution
        return attribution

    def _watch(
        self, reading: _Reading, attribution: Attribution, need: Need
    ) -> dict[Owner, Watched]:
        rules = self._rules.idle()
        leases = {lease.id: lease for lease in reading.report.leases}
        servers = {(s.user, s.server): s for s in reading.report.servers}
        samples = {
            sample.uuid: sample
            for sample in reading.samples
            if reading.processes is not None
        }
        held = holders_by_kernel(attribution)
        watched: dict[Owner, Watched] = {}
        for owner, tree in attribution.kernels.items():
            info = kernel_info(owner, reading.answers)
            holders, lease = held.get(owner, []), leases.get(owner.lease_id)
            watch = observe(
                self._watches.get(owner, KernelWatch()),
                read_kernel(tree, info, holders, lease, samples, reading.at),
                rules,
            )
            devices = {h.device for h in holders} | set(lease.uuids if lease else ())
            is_needed = need.on(devices)
            case = Circumstances(needed=is_needed, action=rules.action)
            decision = decide(watch, rules, reading.at, case)
            peak = self._history.peak_bytes(owner.lease_id, owner.kernel_id)
            watched[owner] = Watched(
                server=servers[owner.key],
                watch=watch,
                decision=decision,
                lease=lease,
                view=view_kernel(
                    owner,
                    info,
                    reading.answers[owner.key].notebooks.get(owner.kernel_id, ""),
                    watch,
                    max(peak, watch.peak_memory_bytes),
                    decision.reason,
                ),
                holders=tuple(holders),
                is_needed=is_needed,
            )
        self._watches = {owner: x.watch for owner, x in watched.items()}
        return watched

    def _keep_peaks(self, reading: _Reading, uses: tuple[LeaseUse, ...]) -> None:
        leases = {lease.id: lease for lease in reading.report.leases}
        for use in uses:
            lease = leases[use.lease_id]
            self._history.raise_peak(
                Peak(
                    lease_id=lease.id,
                    user=lease.user,
                    server=lease.server,
                    memory_bytes=use.peak_memory_bytes,
                    at=reading.taken_at,
                )
            )
        for owner, watched in self.kernels.items():
            self._history.raise_peak(
                Peak(
                    lease_id=owner.lease_id,
                    kernel_id=owner.kernel_id,
                    user=owner.user,
                    server=owner.server,
                    memory_bytes=watched.watch.peak_memory_bytes,
                    at=reading.taken_at,
                )
            )

    def _problems(self, reading: _Reading) -> tuple[str, ...]:
        problems = [problem for problem in reading.problems if problem]
        labels = {
            d.uuid: d.label for d in (self._gpus.inventory or Inventory()).devices
        }
        problems += [
            f"GPU {labels.get(sample.uuid, sample.uuid)}: {sample.problem}"
            for sample in reading.samples
            if sample.problem
        ]
        problems += [
            f"The server of {'/'.join(filter(None, key))} is unknown, and none of its "
            f"kernels is reclaimed: {answer.problem}."
            for key, answer in reading.answers.items()
            if answer.problem
        ]
        if len(problems) > _MOST_PROBLEMS:
            more = len(problems) - _MOST_PROBLEMS
            problems = [*problems[:_MOST_PROBLEMS], f"And {more} problems more."]
        return tuple(problems)
