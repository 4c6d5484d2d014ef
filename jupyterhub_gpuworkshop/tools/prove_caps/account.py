"""Which Unix user a probe runs as, and what that user's processes start with.

Owns the choice of the user and the variables that no lease sets.
"""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import ProofError

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_STRANGER = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A Unix user.

    Attributes:
        name: of the user.
        uid: of the user.
        gid: of the user's own group.
        groups: all of them.
        home: the home folder; empty where there is none.
        shell: the login shell.
        switch: whether the caller is somebody else, and must become this user.
    """

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    shell: str
    switch: bool


def account_of(name: str | None) -> Account:
    """Return whom a probe runs as.

    Args:
        name: the Unix user; None for the caller, or for nobody where that is root,
            since no attendee is root.

    Raises:
        ProofError: there is no such user, or the caller cannot become one.
    """
    own = os.geteuid()
    try:
        if name is not None:
            entry = pwd.getpwnam(name)
        else:
            entry = pwd.getpwuid(own) if own else pwd.getpwnam(_STRANGER)
    except KeyError:
        raise ProofError(
            f"There is no Unix user {name or own!r} on this machine. Name one with "
            "--as-user; The Littlest JupyterHub calls that of ada jupyter-ada."
        ) from None
    if own not in (0, entry.pw_uid):
        raise ProofError(
            f"Only root can run a program as {entry.pw_name}: start this with sudo, or "
            "leave --as-user out."
        )
    return Account(
        name=entry.pw_name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        groups=tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)),
        home=entry.pw_dir if Path(entry.pw_dir).is_dir() else "",
        shell=entry.pw_shell,
        switch=own != entry.pw_uid,
    )


def plain_environment(account: Account, python: str, folder: str) -> dict[str, str]:
    """Return what a server of this user starts with, before the admin and the lease.

    Args:
        account: the user.
        python: its folder stands first in PATH, as the hub's servers have it.
        folder: the home of who has none.
    """
    return {
        "PATH": f"{Path(python).parent}:{_PATH}",
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "HOME": account.home or folder,
        "USER": account.name,
        "LOGNAME": account.name,
        "SHELL": account.shell,
    }
