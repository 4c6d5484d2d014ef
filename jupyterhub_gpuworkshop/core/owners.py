"""Whom a process can belong to, and whom a Unix user names.

Owns `Owner`, and what the user id of a process says where nothing else does.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from .leases import Key
from .snapshot import ProcessFacts
from .wire import ServerInfo

_ROOT_UID = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whom a process belongs to.

    Attributes:
        lease_id: the lease of the server.
        user: the attendee.
        server: the server's name.
        kernel_id: the kernel; empty for what is the server's in no kernel.
    """

    lease_id: str
    user: str
    server: str
    kernel_id: str = ""

    @property
    def key(self) -> Key:
        """Whose it is: (user, server name)."""
        return (self.user, self.server)


def owner_of(server: ServerInfo) -> Owner:
    """Return the owner of what is a server's, in no kernel."""
    return Owner(lease_id=server.lease_id, user=server.user, server=server.server)


def is_parent(parent: ProcessFacts | None, child: ProcessFacts) -> bool:
    """Say whether this can be the parent: a number given anew starts later."""
    return parent is not None and parent.started <= child.started


def owners_by_uid(
    servers: tuple[ServerInfo, ...], facts: Mapping[int, ProcessFacts]
) -> dict[int, Owner | None]:
    """Return whom a Unix user id names; None where attendees' servers share it.

    Where an attendee has several servers, the attendee is named and no lease.
    """
    candidates: dict[int, set[Owner]] = {}
    users: dict[int, set[str]] = {}
    for server in servers:
        process = facts.get(server.pid)
        if process is not None and process.started == server.started:
            users.setdefault(process.uid, set()).add(server.user)
        if server.uid is not None:
            users.setdefault(server.uid, set()).add(server.user)
            candidates.setdefault(server.uid, set()).add(owner_of(server))
    named: dict[int, Owner | None] = {}
    for uid, whose in users.items():
        if uid == _ROOT_UID:
            continue  # everything of the system's is root's
        owners = candidates.get(uid, set())
        if len(whose) > 1 or not owners:
            named[uid] = None
        elif len(owners) == 1:
            named[uid] = next(iter(owners))
        else:
            named[uid] = Owner(lease_id="", user=next(iter(whose)), server="")
    return named
