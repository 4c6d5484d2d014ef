"""Each kernel from one look to the next: its watch, and what follows from it.

Owns the windows of all kernels and the decisions upon them. It is told everything and
asks nobody; it carries nothing out.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from jupyterhub_gpuworkshop.core.asking import Meant
from jupyterhub_gpuworkshop.core.attribution import Attribution, KernelTree, Owner
from jupyterhub_gpuworkshop.core.idleness import KernelReading, KernelWatch, observe
from jupyterhub_gpuworkshop.core.leases import Key, Lease
from jupyterhub_gpuworkshop.core.need import Need
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.reclaim import (
    Circumstances,
    Decision,
    DecisionKind,
    decide,
)
from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, Holder, KernelView
from jupyterhub_gpuworkshop.core.units import format_size
from jupyterhub_gpuworkshop.core.wire import Report, ServerInfo
from jupyterhub_gpuworkshop.machine.processes import age_seconds

from .history import History
from .kept import ParkedKernel
from .notices import Notices, Subject
from .picture import holders_by_kernel, kernel_info, read_kernel, view_kernel
from .pins import Pins, in_words
from .rules import Rules
from .servers import Answer

WhyNotPark = Callable[[Owner, tuple[Holder, ...]], str]
"""Why a kernel with these holders cannot be parked, in a sentence; empty if it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One kernel, as whoever acts on it needs it.

    Attributes:
        server: where it is called.
        watch: what its readings add up to.
        decision: what follows.
        lease: its server's.
        view: what people see of it.
        holders: those of its processes that hold memory.
        is_needed: whether memory on its devices is needed.
        is_pinned: whether it is kept from being reclaimed for idleness.
    """

    server: ServerInfo
    watch: KernelWatch
    decision: Decision
    lease: Lease | None
    view: KernelView
    holders: tuple[Holder, ...] = ()
    is_needed: bool = False
    is_pinned: bool = False

    def memory_on(self, uuids: "frozenset[str] | None" = None) -> int:
        """Return what it holds on these devices, or on all, in bytes."""
        return sum(
            holder.memory_bytes or 0
            for holder in self.holders
            if uuids is None or holder.device in uuids
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look has read, joined.

    Attributes:
        report: the hub's.
        attribution: whose everything is.
        answers: what the servers said.
        samples: by device UUID; empty where they, or the processes, are unknown.
        need: where memory is needed.
        at: monotonic seconds.
    """

    report: Report
    attribution: Attribution
    answers: Mapping[Key, Answer]
    samples: Mapping[str, DeviceSample]
    need: Need
    at: float


def subject_of(owner: Owner) -> Subject:
    """Return what a notice about an idle kernel is about."""
    return (NoticeKind.KERNEL_IDLE, owner.user, owner.server, owner.kernel_id)


class Watching:
    """Every kernel's watch.

    Args:
        rules: the organiser's.
        history: knows the peaks of earlier looks.
        notices: those that stand.
        pins: those in force.
        wall: seconds since the epoch.

    Attributes:
        kernels: each kernel, as of the last look.
        parked: kernels whose memory is in host memory; whoever parks sets it.
        why_not_park: whoever parks sets it.
    """

    def __init__(
        self,
        rules: Rules,
        history: History,
        notices: Notices,
        pins: Pins,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.kernels: Mapping[Owner, Watched] = {}
        self.parked: Callable[[Owner], ParkedKernel | None] = lambda owner: None
        self.why_not_park: WhyNotPark = lambda owner, holders: "parking is not set up."
        self._rules = rules
        self._history = history
        self._notices = notices
        self._pins = pins
        self._wall = wall
        self._watches: dict[Owner, KernelWatch] = {}

    def look(self, look: Look) -> Mapping[Owner, Watched]:
        """Take one look in, and return each kernel."""
        leases = {lease.id: lease for lease in look.report.leases}
        servers = {(s.user, s.server): s for s in look.report.servers}
        held = holders_by_kernel(look.attribution)
        self.kernels = {
            owner: self._one(
                look,
                tree,
                servers[owner.key],
                leases.get(owner.lease_id),
                tuple(held.get(owner, ())),
            )
            for owner, tree in look.attribution.kernels.items()
        }
        self._watches = {owner: x.watch for owner, x in self.kernels.items()}
        return self.kernels

    def meant(self, owner: Owner, watched: Watched) -> Meant:
        """Return what is known of a kernel that somebody means."""
        reading, view = watched.watch.reading, watched.view
        return Meant(
            is_known=reading is not None and reading.process is not None,
            state=view.state,
            memory_bytes=watched.memory_on(),
            is_parked=view.parked_at is not None,
            why_not_park=self.why_not_park(owner, watched.holders),
        )

    def _one(
        self,
        look: Look,
        tree: KernelTree,
        server: ServerInfo,
        lease: Lease | None,
        holders: tuple[Holder, ...],
    ) -> Watched:
        owner, rules = tree.owner, self._rules.idle()
        info = kernel_info(owner, look.answers)
        reading = self._read(look, tree, lease, holders)
        watch = observe(self._watches.get(owner, KernelWatch()), reading, rules)
        devices = {x.device for x in holders} | set(lease.uuids if lease else ())
        pin = self._pins.of(owner)
        case = Circumstances(
            needed=look.need.on(devices),
            action=rules.action_for(server.groups),
            noticed_at=self._notices.given_at(subject_of(owner)),
            pinned=in_words(pin) if pin else "",
        )
        if case.action is Action.PARK:
            why_not = self.why_not_park(owner, holders)
            case = replace(case, why_not_park=why_not)
        decision = decide(watch, rules, look.at, case)
        parked = self.parked(owner)
        if parked is not None:
            # Whatever else it holds by now: taking that would cost it what is away.
            decision = Decision(kind=DecisionKind.KEEP, reason=_in_words(parked))
        peak = self._history.peak_bytes(owner.lease_id, owner.kernel_id)
        view = view_kernel(
            owner,
            info,
            look.answers[owner.key].notebooks.get(owner.kernel_id, ""),
            watch,
            max(peak, watch.peak_memory_bytes),
            decision.reason,
        )
        if decision.acts_at is not None:
            acts_at = self._wall() + decision.acts_at - look.at
            view = replace(view, acts_at=acts_at)
        if pin is not None:
            until = float("inf") if pin.until is None else pin.until
            view = replace(view, pinned_until=until, pinned_by=pin.by)
        if parked is not None:
            view = _with_parked(view, parked)
        return Watched(
            server=server,
            watch=watch,
            decision=decision,
            lease=lease,
            view=view,
            holders=holders,
            is_needed=case.needed,
            is_pinned=pin is not None,
        )

    @staticmethod
    def _read(
        look: Look, tree: KernelTree, lease: Lease | None, holders: tuple[Holder, ...]
    ) -> KernelReading:
        info = kernel_info(tree.owner, look.answers)
        reading = read_kernel(tree, info, holders, lease, look.samples, look.at)
        main = tree.main
        return replace(
            reading,
            connections=info.connections,
            age_seconds=age_seconds(main.started) if main else None,
        )


def _with_parked(view: KernelView, parked: ParkedKernel) -> KernelView:
    return replace(
        view,
        parked_bytes=sum(parked.memory_bytes.values()),
        parked_at=parked.parked_at,
        verdict=_in_words(parked),
    )


def _in_words(parked: ParkedKernel) -> str:
    size = format_size(sum(parked.memory_bytes.values()))
    return (
        f"Paused, variables kept: {size} of GPU memory are in host memory, and come "
        "back when a cell is run."
    )
