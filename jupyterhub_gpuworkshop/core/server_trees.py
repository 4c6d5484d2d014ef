"""Each server with what runs in it outside its kernels.

Owns the question "would stopping this server end anything but idle kernels?". The
first process of a server is the one that the hub names, or the eldest in its unit or
container; the server itself is that one, or the one below it that starts the kernels,
or whose command line is a server's: a claim that can only ever cost the attendee who
makes it. A process that may have been left behind by a server, and of which nothing
says by which one, leaves every server that it may be of incomplete.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .cgroups import place_of
from .leases import Key
from .owners import Owner, is_parent
from .snapshot import ProcessFacts
from .wire import ServerInfo

INIT = 1
"""Who becomes the parent of what has lost its parents."""

_SERVER_PROGRAM = re.compile(
    r"(?:^|[\s/])(?:jupyterhub-singleuser|jupyter[- ]labhub|jupyterhub\.singleuser)"
    r"(?=\s|$)"
)
_OWN_MANAGER = re.compile(r"/user@\d+\.service/(init\.scope$)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTree:
    """A server with every process of it that is in no kernel.

    Attributes:
        lease_id: the server's lease.
        main: the server itself; None while it is not known.
        terminals: those in a terminal of the server: they have a controlling tty.
        outside: all others but the server itself and what stands between it and
            whoever started it (``sh -c``, ``conda run``).
        is_complete: whether no process of the server can be missing here. A server
            of which it is not known is not one without such processes.
    """

    lease_id: str
    main: ProcessFacts | None = None
    terminals: tuple[ProcessFacts, ...] = ()
    outside: tuple[ProcessFacts, ...] = ()
    is_complete: bool = False


def server_trees(
    servers: Iterable[ServerInfo],
    facts: Mapping[int, ProcessFacts],
    owners: Mapping[int, Owner],
    mains: Mapping[Owner, ProcessFacts],
    by_uid: Mapping[int, Owner | None],
) -> dict[Key, ServerTree]:
    """Collect the processes of each server that are in none of its kernels.

    Args:
        servers: those that run, as the hub knows them.
        facts: every process of the machine, by pid.
        owners: whose each process is, by pid.
        mains: the kernels' main processes.
        by_uid: whom a Unix user names; None where attendees' servers share it.
    """
    servers = tuple(servers)
    # By lease, which is one life of one server: a name is a cheaper key than an owner.
    members: dict[str, list[ProcessFacts]] = {server.lease_id: [] for server in servers}
    for pid, owner in owners.items():
        if not owner.kernel_id and owner.lease_id in members:
            members[owner.lease_id].append(facts[pid])
    starters: dict[str, set[int]] = {}
    for owner, main in mains.items():
        starters.setdefault(owner.lease_id, set()).add(main.parent)
    firsts = [_first(server, members[server.lease_id], facts) for server in servers]
    strays = _strays(facts, owners, [x for x in firsts if x is not None])
    trees = {}
    for server, first in zip(servers, firsts, strict=True):
        own, is_clear = _left_behind(server, first, strays, by_uid)
        trees[server.user, server.server] = _tree(
            server,
            first,
            [*members[server.lease_id], *_with_children(own, facts, owners)],
            starters.get(server.lease_id, set()),
            is_clear=is_clear,
        )
    return trees


def _first(
    server: ServerInfo, members: list[ProcessFacts], facts: Mapping[int, ProcessFacts]
) -> ProcessFacts | None:
    """Return the process of a server that began first; None where it is not known."""
    process = facts.get(server.pid)
    if process is not None and process in members:
        return process if process.started == server.started else None
    if not server.engine:
        return None
    pids = {member.pid for member in members}
    tops = sorted((x for x in members if x.parent not in pids), key=_age)
    if len(tops) > 1 and tops[0].started == tops[1].started:
        return None
    return tops[0] if tops else None


def _age(process: ProcessFacts) -> int:
    return process.started


def _strays(
    facts: Mapping[int, ProcessFacts],
    owners: Mapping[int, Owner],
    firsts: Sequence[ProcessFacts],
) -> list[ProcessFacts]:
    """Return the processes of nobody that may have stood below a server.

    What loses its parents becomes a child of the nearest process above that takes
    such in (prctl(2), PR_SET_CHILD_SUBREAPER), and at last of init.
    """
    if not firsts:
        return []
    earliest = min(first.started for first in firsts)
    above: set[int] = {INIT}
    for first in firsts:
        # Whoever started it, the hub, takes nothing in: its children are its own.
        starter = facts.get(first.parent)
        parent = starter.parent if starter is not None else INIT
        while parent not in above and parent in facts:
            above.add(parent)
            parent = facts[parent].parent
    return [
        process
        for pid, process in facts.items()
        if pid not in owners
        and process.started >= earliest
        and pid not in above
        and process.parent
        and (
            process.parent in above or not is_parent(facts.get(process.parent), process)
        )
        and not _is_own_manager(process)
    ]


def _left_behind(
    server: ServerInfo,
    first: ProcessFacts | None,
    strays: Iterable[ProcessFacts],
    by_uid: Mapping[int, Owner | None],
) -> tuple[list[ProcessFacts], bool]:
    """Return what a server left behind, and whether that is certainly all."""
    if first is None:
        return [], False
    own, is_clear = [], True
    for stray in strays:
        if stray.started < first.started or _is_elsewhere(stray, first):
            continue
        if server.engine:
            # What is in its cgroup is its own already: was the cgroup read at all?
            is_clear &= bool(stray.cgroup) or not _is_told_by_cgroup(stray)
        elif stray.uid == first.uid:
            owner = by_uid.get(stray.uid)
            if owner is not None and owner.lease_id == server.lease_id:
                own.append(stray)
            else:
                is_clear = False
    return own, is_clear


def _is_elsewhere(stray: ProcessFacts, first: ProcessFacts) -> bool:
    """Say whether this is in a unit or a container that the server is not in.

    Only root moves a process from one to another, but for one's own into a unit of
    one's own service manager.
    """
    place = place_of(stray.cgroup)
    return (
        place is not None
        and bool(first.cgroup)
        and place != place_of(first.cgroup)
        and not _OWN_MANAGER.search(stray.cgroup)
    )


def _is_own_manager(process: ProcessFacts) -> bool:
    """Say whether this is the service manager of a Unix user, which logins start."""
    match = _OWN_MANAGER.search(process.cgroup)
    return match is not None and match[1] is not None


def _is_told_by_cgroup(process: ProcessFacts) -> bool:
    """Say whether this is one of those of which the cgroup is read."""
    return process.parent == INIT or process.session == process.pid


def _with_children(
    processes: list[ProcessFacts],
    facts: Mapping[int, ProcessFacts],
    owners: Mapping[int, Owner],
) -> list[ProcessFacts]:
    """Add what stands below these and is of nobody else."""
    if not processes:
        return []
    found = {process.pid: process for process in processes}
    grows = True
    while grows:
        more = {
            pid: process
            for pid, process in facts.items()
            if pid not in found
            and pid not in owners
            and process.parent in found
            and is_parent(found[process.parent], process)
        }
        found |= more
        grows = bool(more)
    return list(found.values())


def _tree(
    server: ServerInfo,
    first: ProcessFacts | None,
    members: list[ProcessFacts],
    starters: Collection[int],
    *,
    is_clear: bool,
) -> ServerTree:
    by_pid = {member.pid: member for member in members}
    main = _main(first, by_pid, starters) if first is not None else None
    itself = set() if main is None else {main.pid, *_above(main, by_pid)}
    terminals: list[ProcessFacts] = []
    outside: list[ProcessFacts] = []
    for process in members:
        if process.pid in itself:
            continue
        # A tty that the server was started in is none of its terminals.
        in_terminal = process.tty and (first is None or process.tty != first.tty)
        (terminals if in_terminal else outside).append(process)
    return ServerTree(
        lease_id=server.lease_id,
        main=main,
        terminals=tuple(terminals),
        outside=tuple(outside),
        is_complete=main is not None and is_clear,
    )


def _main(
    first: ProcessFacts, by_pid: Mapping[int, ProcessFacts], starters: Collection[int]
) -> ProcessFacts | None:
    """Return the server itself: its first process, or one that this one started."""
    # Kernels and terminals have sessions of their own; wrappers hand on theirs.
    chain = {
        pid: process
        for pid, process in by_pid.items()
        if process.session == first.session
        and (process is first or first.pid in _above(process, by_pid))
    }
    found = [chain[pid] for pid in starters if pid in chain]
    if not found:
        named = [x for x in chain.values() if _SERVER_PROGRAM.search(x.command)]
        wrappers = {pid for process in named for pid in _above(process, by_pid)}
        found = [x for x in named if x.pid not in wrappers] or [first]
    return found[0] if len(found) == 1 else None


def _above(process: ProcessFacts, by_pid: Mapping[int, ProcessFacts]) -> list[int]:
    """Return the pids of those above a process, as far as these reach."""
    path: list[int] = []
    while (
        (parent := by_pid.get(process.parent)) is not None
        and is_parent(parent, process)
        and parent.pid not in path
    ):
        path.append(parent.pid)
        process = parent
    return path
