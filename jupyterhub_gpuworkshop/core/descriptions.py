"""Which processes are read whole: command line and cgroup besides what stat says.

Owns the choice. Both cost a file more for each process: all of them would cost more
than everything else that a sample reads.
"""

from collections.abc import Iterable, Mapping

from .server_trees import INIT
from .snapshot import DeviceSample, ProcessFacts
from .wire import ServerInfo

_ROOT_UID = 0


def worth_describing(
    samples: Iterable[DeviceSample],
    facts: Mapping[int, ProcessFacts],
    servers: Iterable[ServerInfo],
) -> frozenset[int]:
    """Return the pids whose command line and cgroup attribution reads or people see.

    Those are the holders, what may be a kernel's main process or a server below a
    wrapper, and what a server may have left behind.
    """
    servers = tuple(servers)
    started = {server.pid: server.started for server in servers if server.started}
    in_engines = any(server.engine for server in servers)
    holders = frozenset(use.pid for sample in samples for use in sample.processes or ())
    return (
        holders
        | frozenset(
            process.pid
            for process in facts.values()
            if (
                in_engines
                or (
                    process.parent in started
                    and process.started >= started[process.parent]
                )
                if process.session == process.pid
                else process.session in started
                or (in_engines and _may_be_a_server(process, facts))
            )
        )
        | _left_behind(facts, started, holders, in_engines=in_engines)
    )


def _may_be_a_server(process: ProcessFacts, facts: Mapping[int, ProcessFacts]) -> bool:
    """Say whether this may be a server that an engine runs behind a wrapper.

    The wrapper leads the session, and was started by root's own: by init, or by what
    runs a container below it.
    """
    leader = facts.get(process.session)
    starter = facts.get(leader.parent) if leader is not None else None
    return (
        starter is not None
        and starter.uid == _ROOT_UID
        and INIT in (starter.pid, starter.parent)
    )


def _left_behind(
    facts: Mapping[int, ProcessFacts],
    started: Mapping[int, int],
    holders: frozenset[int],
    *,
    in_engines: bool,
) -> frozenset[int]:
    """Return what may have stood below a server, and the servers that it may be of.

    Servers of the Unix user of a holder that is in no session of theirs are among
    them: it is told by their cgroup whether they can be in one container.
    """
    firsts = [
        facts[pid]
        for pid, at in started.items()
        if pid in facts and facts[pid].started == at
    ]
    earliest: dict[int, int] = {}
    for first in firsts:
        earliest[first.uid] = min(first.started, earliest.get(first.uid, first.started))
    left = [
        process
        for process in facts.values()
        if process.parent == INIT
        and process.pid not in started
        and (
            in_engines
            or (process.uid in earliest and process.started >= earliest[process.uid])
        )
    ]
    uids = {process.uid for process in left}
    for pid in holders & facts.keys():
        leader = facts.get(facts[pid].session)
        if leader is None or not {leader.pid, leader.parent} & started.keys():
            uids.add(facts[pid].uid)
    return frozenset(x.pid for x in left) | frozenset(
        first.pid for first in firsts if first.uid in uids
    )
