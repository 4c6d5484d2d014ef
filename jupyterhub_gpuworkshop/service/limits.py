"""The loop that has the driver hold each lease to its memory, where it can.

Owns the hard limits by cgroup of leases whose servers run in a cgroup of their own:
set when the server's cgroup is there, lifted when the lease has ended. A limit stands
with the driver: this process may end and come back, and finds what is set. Where a
limit cannot be had there is a reason, and the lease's limit is soft.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from jupyterhub_gpuworkshop.core.caps import is_slice
from jupyterhub_gpuworkshop.core.cgroups import Place
from jupyterhub_gpuworkshop.core.enforcement import HardCap
from jupyterhub_gpuworkshop.core.errors import CallHangs, SourceError
from jupyterhub_gpuworkshop.core.leases import Lease, LeaseState
from jupyterhub_gpuworkshop.core.units import format_size
from jupyterhub_gpuworkshop.core.wire import Report
from jupyterhub_gpuworkshop.machine.limits import CgroupLimits

from .loops import OneThread

_LOG = logging.getLogger(__name__)
_ASK_AGAIN_SECONDS = 60.0
_TIMEOUT_SECONDS = 10.0

_SIMULATED = "Simulated GPUs have no hard limit."
_NO_CGROUP = (
    "Its server runs in the hub's own cgroup: the spawners gpu-systemd and gpu-docker "
    "give each server one of its own."
)
_NOT_SEEN = (
    "The cgroup of its server is not to be seen: the server is not up yet, or the GPU "
    "service runs in a container that does not show it the host's /sys/fs/cgroup."
)
_OF_ONE_LEASE = frozenset({"", _SIMULATED, _NO_CGROUP, _NOT_SEEN})
"""What is as it should be, or passes: not for the log."""


class Reporter(Protocol):
    """Who knows the leases: the link."""

    @property
    def report(self) -> Report:
        """The hub's last report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What the driver was asked for one lease, and when (monotonic seconds)."""

    lease: Lease
    cap: HardCap
    at: float


class HardCaps:
    """Sets, checks and lifts the driver's limits of all leases.

    Args:
        link: knows the leases.
        limits: the driver's; None where GPUs are simulated.
        clock: monotonic seconds.

    Attributes:
        caps: what each lease with devices was found to be held to.
    """

    def __init__(
        self,
        link: Reporter,
        limits: CgroupLimits | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.caps: tuple[HardCap, ...] = ()
        self._link = link
        self._limits = limits
        self._clock = clock
        self._thread = OneThread("The GPU driver")
        self._known: dict[str, _Known] = {}
        self._unlifted: set[str] = set()
        self._told: frozenset[str] = frozenset()

    async def step(self) -> None:
        """See to every lease once."""
        leases = tuple(lease for lease in self._link.report.leases if lease.devices)
        try:
            self.caps = await self._thread.call(
                lambda: self._see_to(leases), _TIMEOUT_SECONDS
            )
        except CallHangs as error:
            # What is set stands, whether the driver answers or not.
            before = {cap.lease_id: cap for cap in self.caps}
            self.caps = tuple(
                before.get(lease.id) or HardCap(lease_id=lease.id, problem=str(error))
                for lease in leases
            )
            self._tell(frozenset({"The GPU driver does not answer."}))
        else:
            self._tell(frozenset(cap.problem for cap in self.caps) - _OF_ONE_LEASE)

    def _tell(self, problems: frozenset[str]) -> None:
        """Log why limits cannot be set: once, until it has passed."""
        for problem in sorted(problems - self._told):
            _LOG.info("No hard limit on GPU memory is set: %s", problem)
        self._told = problems

    # What follows runs in the thread, which alone touches what is known.

    def _see_to(self, leases: tuple[Lease, ...]) -> tuple[HardCap, ...]:
        if self._limits is None:
            return tuple(HardCap(lease_id=x.id, problem=_SIMULATED) for x in leases)
        self._lift_ended(self._limits, {lease.id for lease in leases})
        cgroups, problem = self._find(self._limits, leases)
        return tuple(
            self._see_to_one(self._limits, lease, cgroups.get(lease.id, ""), problem)
            for lease in leases
        )

    def _lift_ended(self, limits: CgroupLimits, lease_ids: set[str]) -> None:
        """Lift the limits of leases that have ended; with a cgroup, they go as well."""
        for lease_id, known in list(self._known.items()):
            cgroup = known.cap.cgroup
            is_there = limits.is_there(cgroup)
            if is_there and lease_id in lease_ids:
                continue
            try:
                limits.lift(cgroup, tuple(_most(known.lease)))
            except SourceError as error:
                if known.cap.by_device:
                    if lease_id not in self._unlifted:
                        _LOG.warning("A limit on %s is not lifted: %s", cgroup, error)
                    self._unlifted.add(lease_id)
                    continue
            self._known.pop(lease_id, None)
            self._unlifted.discard(lease_id)
            if known.cap.by_device:
                _LOG.info(
                    "The driver holds %s no more, on cgroup %s: %s",
                    known.lease.owner,
                    cgroup,
                    "lifted" if is_there else "it is gone",
                )
            # A later server of the same name may be in the same cgroup.
            for other in [
                x for x in self._known if self._known[x].cap.cgroup == cgroup
            ]:
                del self._known[other]

    def _find(
        self, limits: CgroupLimits, leases: tuple[Lease, ...]
    ) -> tuple[Mapping[str, str], str]:
        """Return the leases' cgroups by lease id, and why there are none, if so."""
        cgroups = {x: known.cap.cgroup for x, known in self._known.items()}
        # An engine uses a name again: the active lease comes last.
        ordered = sorted(leases, key=lambda lease: lease.state is LeaseState.ACTIVE)
        missing: dict[Place, str] = {
            (lease.engine, lease.engine_id): lease.id
            for lease in ordered
            if lease.engine_id and lease.id not in cgroups and _most(lease)
        }
        if not missing:
            return cgroups, ""
        try:
            found = limits.find(missing)
        except SourceError as error:
            return cgroups, str(error)
        return {**cgroups, **{missing[p]: path for p, path in found.items()}}, ""

    def _see_to_one(
        self, limits: CgroupLimits, lease: Lease, cgroup: str, problem: str
    ) -> HardCap:
        most = _most(lease)
        if not most:
            return HardCap(lease_id=lease.id)  # the hardware sees to it
        if not cgroup:
            why = problem or _NOT_SEEN if lease.engine else _NO_CGROUP
            return HardCap(lease_id=lease.id, problem=why)
        now, known = self._clock(), self._known.get(lease.id)
        if known is None or now - known.at >= _ASK_AGAIN_SECONDS:
            known = _Known(
                lease=lease, cap=self._hold(limits, lease, cgroup, most, known), at=now
            )
            self._known[lease.id] = known
        return known.cap

    def _hold(
        self,
        limits: CgroupLimits,
        lease: Lease,
        cgroup: str,
        most: Mapping[str, int],
        before: _Known | None,
    ) -> HardCap:
        try:
            held, changed = limits.hold(cgroup, most)
        except SourceError as error:
            return HardCap(lease_id=lease.id, cgroup=cgroup, problem=str(error))
        if changed or before is None or not before.cap.by_device:
            labels = {device.uuid: device.label for device in lease.devices}
            _LOG.info(
                "The driver %s %s (%s) to %s, on cgroup %s",
                "now holds" if changed else "holds, as it did before,",
                lease.owner,
                lease.share,
                ", ".join(
                    f"{format_size(n)} of GPU {labels[x]}" for x, n in held.items()
                ),
                cgroup,
            )
        return HardCap(lease_id=lease.id, cgroup=cgroup, by_device=held)


def _most(lease: Lease) -> dict[str, int]:
    """Return what the driver should hold a lease to; slices are no matter of its."""
    return {x.uuid: x.memory_bytes for x in lease.devices if not is_slice(x)}
