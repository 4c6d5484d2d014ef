"""From samples, attribution and answers to what is published: pure functions.

Owns how the readings of one kernel, the use of one lease and the use of one device
are put together. It asks nobody anything.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from jupyterhub_gpuworkshop.core.attribution import Attribution, KernelTree, Owner
from jupyterhub_gpuworkshop.core.devices import Inventory
from jupyterhub_gpuworkshop.core.idleness import KernelReading, KernelWatch
from jupyterhub_gpuworkshop.core.leases import Key, Lease
from jupyterhub_gpuworkshop.core.over_share import (
    OverWatch,
    excess,
    observe_excess,
    short_of,
)
from jupyterhub_gpuworkshop.core.snapshot import (
    DeviceSample,
    Holder,
    HolderKind,
    KernelState,
    KernelView,
    LeaseUse,
    memory_held_by,
)
from jupyterhub_gpuworkshop.core.wire import DeviceUse

from .host import Processes
from .kept import ParkedKernel
from .servers import Answer, KernelInfo
from .store import Peak

if TYPE_CHECKING:
    from .watching import Watched

_MOST_IN_THE_WAY = 8
_MOST_PROBLEMS = 30
_COMMAND_CHARACTERS = 60


def kernel_info(owner: Owner, answers: Mapping[Key, Answer]) -> KernelInfo:
    """Return what its server says of a kernel; unknown where it says nothing."""
    answer = answers.get(owner.key)
    kernels = answer.kernels if answer is not None else None
    known = kernels.get(owner.kernel_id) if kernels is not None else None
    return known or KernelInfo(
        kernel_id=owner.kernel_id, state=KernelState.UNKNOWN, last_activity=""
    )


def holders_by_kernel(attribution: Attribution) -> dict[Owner, list[Holder]]:
    """Return the holders of each kernel."""
    held: dict[Owner, list[Holder]] = {}
    for holder in attribution.holders:
        if holder.kind is HolderKind.KERNEL:
            owner = Owner(
                lease_id=holder.lease_id,
                user=holder.user,
                server=holder.server,
                kernel_id=holder.kernel_id,
            )
            held.setdefault(owner, []).append(holder)
    return held


def read_kernel(
    tree: KernelTree,
    info: KernelInfo,
    holders: Sequence[Holder],
    lease: Lease | None,
    samples: Mapping[str, DeviceSample],
    at: float,
) -> KernelReading:
    """Put all signals of one kernel together.

    Args:
        tree: its processes.
        info: what its server says.
        holders: those of its processes that hold memory.
        lease: its server's.
        samples: by device UUID; empty where devices cannot be read.
        at: monotonic seconds.
    """
    uuids = {holder.device for holder in holders} | set(lease.uuids if lease else ())
    its_samples = [samples.get(uuid) for uuid in uuids]
    # Without a full list of holders it may hold what nobody has seen.
    complete = all(
        sample is not None and sample.processes is not None for sample in its_samples
    )
    # Which devices it sees is the attendee's to change: it may also compute on one
    # whose processes nobody can list.
    elsewhere = [
        sample.utilisation
        for uuid, sample in samples.items()
        if sample.processes is None and uuid not in uuids
    ]
    is_told = bool(samples) and complete and not any(x != 0 for x in elsewhere)
    return KernelReading(
        at=at,
        state=info.state,
        last_activity=info.last_activity,
        gpu_utilisation=_most(h.utilisation for h in holders) if is_told else None,
        device_utilisation=(
            _most([*(s.utilisation if s else None for s in its_samples), *elsewhere])
            if its_samples
            else None
        ),
        cpu_seconds=tree.cpu_seconds if tree.main is not None else None,
        memory_bytes=memory_held_by(holders) if complete else None,
        process=tree.main,
        members=tree.members,
    )


def view_kernel(
    owner: Owner,
    info: KernelInfo,
    notebook: str,
    watch: KernelWatch,
    peak_bytes: int,
    verdict: str,
) -> KernelView:
    """Return a kernel as organiser and owner see it."""
    reading = watch.reading
    return KernelView(
        lease_id=owner.lease_id,
        user=owner.user,
        server=owner.server,
        kernel_id=owner.kernel_id,
        notebook=notebook,
        process=reading.process if reading else None,
        state=info.state,
        connections=info.connections,
        memory_bytes=reading.memory_bytes if reading else None,
        peak_memory_bytes=peak_bytes,
        idle_seconds=watch.idle_seconds,
        verdict=verdict,
        last_activity=info.last_activity,
        gpu_utilisation=reading.gpu_utilisation if reading else None,
        device_utilisation=reading.device_utilisation if reading else None,
        cpu=watch.last_cpu,
        age_seconds=reading.age_seconds if reading else None,
    )


def observe_leases(
    overs: Mapping[str, OverWatch],
    leases: Iterable[Lease],
    holders: Iterable[Holder],
    listed: frozenset[str],
    at: float,
) -> dict[str, OverWatch]:
    """Return how each lease stands to its share, by lease id.

    Args:
        overs: how it stood at the look before.
        leases: all of them.
        holders: all of them.
        listed: devices of which every holder is known.
        at: monotonic seconds.
    """
    used: dict[str, dict[str, int | None]] = {}
    for holder in holders:
        if holder.lease_id:
            by_device = used.setdefault(holder.lease_id, {})
            before = by_device.get(holder.device, 0)
            is_known = before is not None and holder.memory_bytes is not None
            by_device[holder.device] = (
                (before or 0) + (holder.memory_bytes or 0) if is_known else None
            )
    return {
        lease.id: observe_excess(
            overs.get(lease.id),
            excess(lease, used.get(lease.id, {}))
            if listed.issuperset(lease.uuids)
            else None,
            at,
        )
        for lease in leases
    }


def use_leases(
    leases: Iterable[Lease],
    holders: Iterable[Holder],
    listed: frozenset[str],
    peaks: Mapping[str, int],
    samples: Iterable[DeviceSample] = (),
    overs: Mapping[str, OverWatch] | None = None,
    parked: Iterable[ParkedKernel] = (),
    epoch_seconds: float = 0.0,
) -> tuple[LeaseUse, ...]:
    """Return what the holders of each lease use together.

    Args:
        leases: all of them.
        holders: all of them.
        listed: devices of which every holder is known.
        peaks: the most that each lease used before, by lease id.
        samples: one reading of each device that can be read.
        overs: how each lease stands to its share, by lease id.
        parked: kernels whose memory is in host memory.
        epoch_seconds: what to add to monotonic seconds for those since the epoch.
    """
    leases = tuple(leases)
    used: dict[str, dict[str, int]] = {lease.id: {} for lease in leases}
    unknown = {lease.id: {*lease.uuids} - listed for lease in leases}
    for holder in holders:
        by_device = used.get(holder.lease_id)
        if by_device is not None:
            before = by_device.get(holder.device, 0)
            by_device[holder.device] = before + (holder.memory_bytes or 0)
            if holder.memory_bytes is None:
                unknown[holder.lease_id].add(holder.device)
    short = short_of(leases, used, {x.uuid: x.memory_free_bytes for x in samples})
    away: dict[str, dict[str, int]] = {}
    for kernel in parked:
        of_lease = away.setdefault(kernel.lease_id, {})
        for uuid, size_bytes in kernel.memory_bytes.items():
            of_lease[uuid] = of_lease.get(uuid, 0) + size_bytes
    found = []
    for lease_id, by_device in used.items():
        over = (overs or {}).get(lease_id) or OverWatch(over_bytes={})
        found.append(
            LeaseUse(
                lease_id=lease_id,
                memory_bytes=by_device,
                unknown=frozenset(unknown[lease_id]),
                peak_memory_bytes=max(peaks.get(lease_id, 0), sum(by_device.values())),
                over_bytes=over.over_bytes,
                over_since=None if over.since is None else over.since + epoch_seconds,
                short_bytes=short.get(lease_id, {}),
                parked_bytes=away.get(lease_id, {}),
            )
        )
    return tuple(found)


def peaks_of(
    leases: Iterable[Lease],
    uses: Iterable[LeaseUse],
    kernels: "Mapping[Owner, Watched]",
    taken_at: float,
) -> Iterator[Peak]:
    """Return the most that leases and kernels have held, as far as it is seen."""
    by_id = {lease.id: lease for lease in leases}
    for use in uses:
        lease = by_id[use.lease_id]
        yield Peak(
            lease_id=lease.id,
            user=lease.user,
            server=lease.server,
            memory_bytes=use.peak_memory_bytes,
            at=taken_at,
        )
    for owner, watched in kernels.items():
        yield Peak(
            lease_id=owner.lease_id,
            kernel_id=owner.kernel_id,
            user=owner.user,
            server=owner.server,
            memory_bytes=watched.watch.peak_memory_bytes,
            at=taken_at,
        )


def problems_of(
    problems: Iterable[str],
    inventory: Inventory | None,
    samples: Iterable[DeviceSample],
    answers: Mapping[Key, Answer],
) -> tuple[str, ...]:
    """Return what is unknown, in sentences for organisers; not more than they read."""
    found = [problem for problem in problems if problem]
    labels = {d.uuid: d.label for d in (inventory or Inventory()).devices}
    found += [
        f"GPU {labels.get(sample.uuid, sample.uuid)}: {sample.problem}"
        for sample in samples
        if sample.problem
    ]
    found += [
        f"The server of {'/'.join(filter(None, key))} is unknown, and none of its "
        f"kernels is reclaimed: {answer.problem}."
        for key, answer in answers.items()
        if answer.problem
    ]
    if len(found) > _MOST_PROBLEMS:
        more = len(found) - _MOST_PROBLEMS
        found = [*found[:_MOST_PROBLEMS], f"And {more} problems more."]
    return tuple(found)


def use_devices(
    samples: Iterable[DeviceSample],
    uses: tuple[LeaseUse, ...],
    holders: tuple[Holder, ...],
    processes: Processes,
    sampled_at: float,
) -> tuple[DeviceUse, ...]:
    """Return what was observed on each device, as placement needs it."""
    return tuple(
        DeviceUse(
            uuid=sample.uuid,
            free_bytes=sample.memory_free_bytes,
            by_lease={
                use.lease_id: use.memory_bytes[sample.uuid]
                for use in uses
                if sample.uuid in use.memory_bytes
            },
            in_the_way=_in_the_way(
                [h for h in holders if h.device == sample.uuid and not h.lease_id],
                processes,
            ),
            sampled_at=sampled_at,
        )
        for sample in samples
    )


def _in_the_way(
    holders: list[Holder], processes: Processes
) -> tuple[tuple[str, int], ...]:
    """Return whom no lease explains, largest first.

    It names processes and Unix users: placement keeps it in the organiser's detail.
    """
    holders.sort(key=lambda h: h.memory_bytes or 0, reverse=True)
    return tuple(
        (_describe(holder, processes), holder.memory_bytes or 0)
        for holder in holders[:_MOST_IN_THE_WAY]
    )


def _describe(holder: Holder, processes: Processes) -> str:
    program = PurePath((holder.command.split(" ", 1)[0]) or "unknown").name
    facts = processes.facts.get(holder.process.pid)
    where = f"{program[:_COMMAND_CHARACTERS]} (pid {holder.process.pid}"
    if holder.user:
        return f"a process that a stopped server left behind: {where})"
    if holder.kind is HolderKind.UNATTRIBUTED:
        return f"a process of some attendee, in no server: {where})"
    name = processes.user_names.get(facts.uid, str(facts.uid)) if facts else "unknown"
    return f"a process outside the hub: {where}, user {name})"


def _most(values: Iterable[float | None]) -> float | None:
    """Return the largest; 0 of none; None where it may be one that is unknown."""
    known, is_known = 0.0, True
    for value in values:
        if value is None:
            is_known = False
        else:
            known = max(value, known)
    return known if is_known or known else None
