"""Holders and kernels to attendees, by what Linux vouches for and nothing else.

Owns the question "whose process is this?". The anchor is a server's process, which
the hub names by (pid, start time); what stands below it in the tree of processes is
that server's. Where an engine runs the server, its unit or container is the anchor:
what is in that cgroup is the server's. A kernel's main process is a direct child of
its server, or in its cgroup, leads a session of its own, and names in its command
line a connection file with an id that the server itself lists: a claim that can only
ever cost the attendee who makes it.
Environment variables and files are never looked at (facts/gpu.md, "Whose process is
it?").
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from .cgroups import Place, place_of
from .descriptions import worth_describing as worth_describing
from .leases import Key, Lease
from .owners import Owner as Owner
from .owners import is_parent, owner_of, owners_by_uid
from .server_trees import ServerTree, server_trees
from .snapshot import DeviceSample, Holder, HolderKind, ProcessFacts, ProcessId
from .wire import ServerInfo

_CONNECTION_FILE = re.compile(
    r"kernel-([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})\.json"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTree:
    """A kernel with every process below it.

    Attributes:
        owner: whose kernel it is.
        main: the kernel's main process; None while it is not known.
        members: all of its processes, the main one too.
        cpu_seconds: what the members have used of the processor.
    """

    owner: Owner
    main: ProcessId | None = None
    members: frozenset[ProcessId] = frozenset()
    cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Who uses what, at one instant.

    Attributes:
        holders: one for each process on each device, each explained exactly once.
        kernels: one for each kernel that a server lists.
        servers: one for each server, with what runs in it outside its kernels.
        owners: whose each process below a server is. Hand it to the next pass: a
            process that outlives its parents stays whose it was, in no kernel.
    """

    holders: tuple[Holder, ...] = ()
    kernels: Mapping[Owner, KernelTree] = field(default_factory=dict)
    servers: Mapping[Key, ServerTree] = field(default_factory=dict)
    owners: Mapping[ProcessId, Owner] = field(default_factory=dict)


def attribute(
    samples: Iterable[DeviceSample],
    facts: Mapping[int, ProcessFacts],
    servers: Iterable[ServerInfo],
    leases: Iterable[Lease],
    kernels: Mapping[Key, frozenset[str]],
    remembered: Mapping[ProcessId, Owner] | None = None,
) -> Attribution:
    """Explain every holder, and collect the processes of every kernel.

    Args:
        samples: one reading of each device.
        facts: every process of the machine, by pid, read together with the samples.
        servers: those that run, as the hub knows them.
        leases: all that stand, quarantined ones too.
        kernels: the kernel ids that each server lists, by (user, server name).
        remembered: `Attribution.owners` of the pass before.
    """
    servers = tuple(servers)
    anchors = _anchors(servers, facts)
    places = _places(servers)
    mains = _main_processes(facts, anchors, places, kernels)
    owners = _resolve(facts, anchors, places, mains, remembered or {})
    by_uid = owners_by_uid(servers, facts)
    trees = server_trees(servers, facts, owners, mains, by_uid)
    return Attribution(
        holders=_holders(
            samples,
            facts,
            owners,
            by_uid,
            {process.pid for tree in trees.values() for process in tree.terminals},
            {lease.id for lease in leases},
        ),
        kernels=_kernel_trees(servers, facts, owners, mains, kernels),
        servers=trees,
        owners={facts[pid].process: owner for pid, owner in owners.items()},
    )


def _anchors(
    servers: tuple[ServerInfo, ...], facts: Mapping[int, ProcessFacts]
) -> dict[int, Owner]:
    """Return the servers' own processes that are alive, by pid."""
    anchors: dict[int, Owner] = {}
    doubtful: set[int] = set()
    for server in servers:
        process = facts.get(server.pid)
        # A start time of 0 is unknown: without it the number proves nothing.
        if process is None or not server.started or process.started != server.started:
            continue
        if server.pid in anchors:
            doubtful.add(server.pid)
        anchors[server.pid] = owner_of(server)
    return {pid: owner for pid, owner in anchors.items() if pid not in doubtful}


def _places(servers: tuple[ServerInfo, ...]) -> dict[Place, Owner]:
    """Return whose each unit and container is; one that two servers claim is nobody's.

    An engine uses a name again for a later server: the hub reports one of the two.
    """
    places: dict[Place, Owner] = {}
    doubtful: set[Place] = set()
    for server in servers:
        place = (server.engine, server.engine_id)
        if not all(place):
            continue
        if place in places:
            doubtful.add(place)
        places[place] = owner_of(server)
    return {place: owner for place, owner in places.items() if place not in doubtful}


def _of_place(process: ProcessFacts, places: Mapping[Place, Owner]) -> Owner | None:
    """Return whose unit or container a process is in, as far as its cgroup was read."""
    place = place_of(process.cgroup) if process.cgroup and places else None
    return places.get(place) if place else None


def _main_processes(
    facts: Mapping[int, ProcessFacts],
    anchors: Mapping[int, Owner],
    places: Mapping[Place, Owner],
    kernels: Mapping[Key, frozenset[str]],
) -> dict[Owner, ProcessFacts]:
    """Return each kernel's main process: of several that claim one, none.

    An earlier life of a kernel that could not be ended stands beside the present one,
    for example, and what the one does says nothing of the other.
    """
    mains: dict[Owner, ProcessFacts] = {}
    doubtful: set[Owner] = set()
    for process in facts.values():
        if process.session != process.pid:
            continue
        server = _of_place(process, places)
        if server is None and is_parent(facts.get(process.parent), process):
            server = anchors.get(process.parent)
        if server is None:
            continue
        listed = kernels.get(server.key, frozenset())
        claimed = (x for x in _CONNECTION_FILE.findall(process.command) if x in listed)
        kernel_id = next(claimed, None)
        if kernel_id is None:
            continue
        owner = replace(server, kernel_id=kernel_id)
        if owner in mains:
            doubtful.add(owner)
        mains[owner] = process
    return {owner: main for owner, main in mains.items() if owner not in doubtful}


def _resolve(
    facts: Mapping[int, ProcessFacts],
    anchors: Mapping[int, Owner],
    places: Mapping[Place, Owner],
    mains: Mapping[Owner, ProcessFacts],
    remembered: Mapping[ProcessId, Owner],
) -> dict[int, Owner]:
    """Return whose each process is, by pid; those of nobody's server are left out."""
    sessions = {main.pid: (main.started, owner) for owner, main in mains.items()}
    known: dict[int, Owner | None] = {}
    for pid in facts:
        path: list[ProcessFacts] = []
        on_path: set[int] = set()
        owner: Owner | None = None
        current: ProcessFacts | None = facts[pid]
        while current is not None:
            if current.pid in known:
                owner = known[current.pid]
                break
            path.append(current)
            on_path.add(current.pid)
            owner = anchors.get(current.pid) or _of_session(current, sessions)
            if owner is not None:
                break
            parent = facts.get(current.parent)
            if not is_parent(parent, current) or current.parent in on_path:
                break
            current = parent
        # From the top down: what was seen below a server before stays that server's
        # although its parents are gone, and so do its children.
        for process in reversed(path):
            if owner is None:
                owner = _of_place(process, places) or remembered.get(process.process)
                # It is not below its kernel any more, so that a restart would not
                # end it: what it holds and does is not the kernel's.
                if owner is not None and owner in mains:
                    owner = replace(owner, kernel_id="")
            known[process.pid] = owner
    return {pid: owner for pid, owner in known.items() if owner is not None}


def _of_session(
    process: ProcessFacts, sessions: Mapping[int, tuple[int, Owner]]
) -> Owner | None:
    """Return the kernel whose session the process is in.

    A session is inherited and never joined, and its number is not given anew while
    it has a member: membership proves descent from the kernel's main process.
    """
    started, owner = sessions.get(process.session, (0, None))
    return owner if process.started >= started else None


def _holders(
    samples: Iterable[DeviceSample],
    facts: Mapping[int, ProcessFacts],
    owners: Mapping[int, Owner],
    by_uid: Mapping[int, Owner | None],
    in_terminals: set[int],
    lease_ids: set[str],
) -> tuple[Holder, ...]:
    holders: list[Holder] = []
    for sample in samples:
        for use in sample.processes or ():
            process = facts.get(use.pid)
            if process is not None and _is_in_anothers_container(
                process, by_uid.get(process.uid), facts, owners
            ):
                # A container's user has the number of a user of the host, no more.
                owner, kind = None, HolderKind.FOREIGN
            else:
                owner, kind = _explain(process, owners, by_uid, in_terminals, lease_ids)
            holders.append(
                Holder(
                    process=(
                        process.process
                        if process
                        else ProcessId(pid=use.pid, started=0)
                    ),
                    device=sample.uuid,
                    memory_bytes=use.memory_bytes,
                    utilisation=use.utilisation,
                    kind=kind,
                    command=process.command if process else "",
                    lease_id=owner.lease_id if owner else "",
                    user=owner.user if owner else "",
                    server=owner.server if owner else "",
                    kernel_id=owner.kernel_id if owner else "",
                )
            )
    return tuple(holders)


def _is_in_anothers_container(
    process: ProcessFacts,
    named: Owner | None,
    facts: Mapping[int, ProcessFacts],
    owners: Mapping[int, Owner],
) -> bool:
    """Say whether it is in a container in which nothing is of whom its user names.

    Where no cgroup of that attendee's could be read, this is not said.

    Args:
        process: the process.
        named: whom its Unix user names.
        facts: every process of the machine, by pid.
        owners: whose each process below a server is, by pid.
    """
    place = place_of(process.cgroup) if named and process.pid not in owners else None
    if named is None or place is None or place[0] != "docker":
        return False
    theirs = (facts[pid].cgroup for pid, x in owners.items() if x.user == named.user)
    places = {place_of(cgroup) for cgroup in theirs if cgroup}
    return bool(places) and place not in places


def _explain(
    process: ProcessFacts | None,
    owners: Mapping[int, Owner],
    by_uid: Mapping[int, Owner | None],
    in_terminals: set[int],
    lease_ids: set[str],
) -> tuple[Owner | None, HolderKind]:
    """Give one holder its one explanation."""
    if process is None:
        return None, HolderKind.FOREIGN
    owner = owners.get(process.pid)
    if owner is None:
        if process.uid not in by_uid:
            return None, HolderKind.FOREIGN
        owner = by_uid[process.uid]
        if owner is None or not owner.lease_id:
            return owner, HolderKind.UNATTRIBUTED
    if owner.lease_id not in lease_ids:
        # Left behind by a server whose lease has been released since.
        return replace(owner, lease_id="", kernel_id=""), HolderKind.FOREIGN
    if owner.kernel_id:
        return owner, HolderKind.KERNEL
    in_terminal = process.pid in in_terminals
    return owner, HolderKind.TERMINAL if in_terminal else HolderKind.SERVER


def _kernel_trees(
    servers: tuple[ServerInfo, ...],
    facts: Mapping[int, ProcessFacts],
    owners: Mapping[int, Owner],
    mains: Mapping[Owner, ProcessFacts],
    kernels: Mapping[Key, frozenset[str]],
) -> dict[Owner, KernelTree]:
    members: dict[Owner, list[ProcessFacts]] = {}
    for pid, owner in owners.items():
        if owner.kernel_id:
            members.setdefault(owner, []).append(facts[pid])
    trees: dict[Owner, KernelTree] = {}
    for server in servers:
        for kernel_id in sorted(kernels.get((server.user, server.server), ())):
            owner = Owner(
                lease_id=server.lease_id,
                user=server.user,
                server=server.server,
                kernel_id=kernel_id,
            )
            main = mains.get(owner)
            trees[owner] = KernelTree(
                owner=owner,
                main=main.process if main else None,
                members=frozenset(x.process for x in members.get(owner, ())),
                cpu_seconds=sum((x.cpu_seconds for x in members.get(owner, ())), 0.0),
            )
    return trees
