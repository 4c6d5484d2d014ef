"""Which homes may be removed: those that TLJH or systemd made for one attendee alone.

Owns the judgement. It reads accounts, mounts and owners, and changes nothing: that is
`disk`'s, which has a home judged again right before.
"""

import grp
import hashlib
import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.hub.homes import UNIX, Home

TLJH_GROUP = "jupyterhub-users"
_ADMIN_GROUPS = ("jupyterhub-admins", "sudo", "wheel", "admin", "root")
_TLJH_PREFIX = "jupyter-"
_TLJH_LONGEST = 26
_LOWEST_UID = 1000
_NOBODY = 65534
_DYNAMIC_UIDS = range(61184, 65520)
"""systemd.io, Users, Groups, UIDs and GIDs on systemd systems: DynamicUser=."""

STATE_FOLDER = Path("/var/lib")
"""Below it systemd has the homes of dynamic users, in the folder `private`."""

_PASSWD = Path("/etc/passwd")
_MOUNTS = Path("/proc/self/mountinfo")


class Fate(Enum):
    """What is done with a home."""

    NONE = "none"
    """There is none, or it is gone already."""
    GOES = "goes"
    STAYS = "stays"
    """Who made it removes it."""
    IN_DOUBT = "in doubt"
    """Something is not as it should be: its attendee is left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A home, and what is done with it.

    Attributes:
        fate: that.
        path: of the home on this machine; None where it is elsewhere, or none.
        account: the Unix account that goes with it; empty for none.
        uid: of that account; -1 for none. A dynamic user's may be another's by now.
        why: what stays and how to remove it, or what is in doubt, in a sentence.
        volumes: of Docker, to be removed by hand.
    """

    fate: Fate
    path: Path | None = None
    account: str = ""
    uid: int = -1
    why: str = ""
    volumes: tuple[str, ...] = ()


class _DoubtError(HostError):
    """Why a home is not touched."""


def tljh_account(name: str) -> str:
    """Return the Unix user that TLJH makes for a user of the hub.

    It shortens long names (tljh/normalize.py).
    """
    account = f"{_TLJH_PREFIX}{name}"
    if len(account) < _TLJH_LONGEST:
        return account
    digest = hashlib.sha256(account.encode()).hexdigest()
    return f"{account[:_TLJH_LONGEST]}-{digest[:5]}"


def judge(name: str, homes: Mapping[str, Home]) -> Judged:
    """Say what is to be done with an attendee's home.

    Args:
        name: the attendee.
        homes: everybody's, as the hub wrote them down.
    """
    home = homes.get(name)
    if home is None:
        return Judged(fate=Fate.NONE)
    if home.kind != UNIX:
        return _in_docker(home)
    path = Path(home.path)
    try:
        if not home.account:
            return _without_account(name, home, homes)
        if home.account != tljh_account(name) or not _is_tljhs(home.account):
            return _not_tljhs(name, home)
        return _tljhs(name, home, homes)
    except _DoubtError as doubt:
        return Judged(fate=Fate.IN_DOUBT, path=path, why=str(doubt))
    except OSError as error:
        why = f"{path} cannot be looked at: {error.strerror}"
        return Judged(fate=Fate.IN_DOUBT, path=path, why=why)


def _in_docker(home: Home) -> Judged:
    volumes = tuple(x.source for x in home.mounts if x.kind == "volume")
    folders = [x.source for x in home.mounts if x.kind != "volume"]
    told = []
    if volumes:
        told.append(f"volume {', '.join(volumes)}")
    if folders:
        told.append(f"folder {', '.join(folders)} of Docker's host")
    if not told:
        return Judged(fate=Fate.NONE)
    return Judged(fate=Fate.STAYS, why=" and ".join(told), volumes=volumes)


def _not_tljhs(name: str, home: Home) -> Judged:
    path = Path(home.path)
    if not _is_account(home.account):
        if not os.path.lexists(path):
            return Judged(fate=Fate.NONE)
        why = f"{path}, whose account {home.account} is gone"
    else:
        why = f"account {home.account}, which TLJH did not make"
        is_theirs = home.account in (name, tljh_account(name))
        if is_theirs and pwd.getpwnam(home.account).pw_uid >= _LOWEST_UID:
            why += f": sudo userdel --remove {home.account}"
    return Judged(fate=Fate.STAYS, path=path, why=why)


def _tljhs(name: str, home: Home, homes: Mapping[str, Home]) -> Judged:
    """Judge the home of an account that TLJH made.

    Raises:
        _DoubtError: it is not as TLJH made it.
    """
    path, account = Path(home.path), pwd.getpwnam(home.account)
    if account.pw_uid != home.uid or account.pw_uid < _LOWEST_UID:
        raise _DoubtError(
            f"{home.account} has the user id {account.pw_uid}, and had {home.uid}"
        )
    if not _is_local(home.account):
        raise _DoubtError(f"{home.account} is of a directory service, not of this host")
    if account.pw_uid == _NOBODY:
        raise _DoubtError(f"{home.account} is the system's nobody")
    groups = {x.gr_name for x in grp.getgrall() if home.account in x.gr_mem}
    groups.add(_group(account.pw_gid))
    if admin := groups & set(_ADMIN_GROUPS):
        raise _DoubtError(f"{home.account} is in the group {', '.join(sorted(admin))}")
    if Path(account.pw_dir) != path:
        raise _DoubtError(f"the home of {home.account} is {account.pw_dir}, not {path}")
    _alone(path, account.pw_uid, home.account)
    _no_other(name, path, homes)
    if os.path.lexists(path):
        _as_it_was_made(path, account.pw_uid)
    return Judged(fate=Fate.GOES, path=path, account=home.account, uid=account.pw_uid)


def _without_account(name: str, home: Home, homes: Mapping[str, Home]) -> Judged:
    """Judge a home without a Unix account: of a dynamic user, or of gpu-simple.

    Raises:
        _DoubtError: it is not as systemd made it.
    """
    path = Path(home.path)
    real = STATE_FOLDER / "private" / name
    if path not in (real, STATE_FOLDER / name):
        if not os.path.lexists(path):
            return Judged(fate=Fate.NONE)
        return Judged(fate=Fate.STAYS, path=path, why=f"folder {path}")
    if not os.path.lexists(real):
        return Judged(fate=Fate.NONE)
    uid = real.lstat().st_uid
    # While no server runs the folder is nobody's, or that of its last server's user.
    if uid not in _DYNAMIC_UIDS and uid != _NOBODY:
        raise _DoubtError(f"{real} belongs to user id {uid}, which is no dynamic one")
    _no_other(name, real, homes)
    _as_it_was_made(real, uid)
    return Judged(fate=Fate.GOES, path=real)


def _as_it_was_made(path: Path, uid: int) -> None:
    """Make sure that a home is a folder of its own, of that user, without mounts.

    Raises:
        _DoubtError: it is not.
    """
    if not path.is_absolute() or len(path.parts) < 3 or ".." in path.parts:
        raise _DoubtError(f"{path} is no home")
    real = path.parent.resolve() / path.name
    seen = real.lstat()
    if not stat.S_ISDIR(seen.st_mode):
        raise _DoubtError(f"{path} is no folder, but a link perhaps")
    if seen.st_uid != uid:
        raise _DoubtError(f"{path} belongs to user id {seen.st_uid}, not {uid}")
    # Both ways to it: whoever may change a link on the way may change where it leads.
    for above in (*path.parents, *real.parents):
        found = above.stat()
        by_group = found.st_mode & stat.S_IWGRP and found.st_gid != 0
        if found.st_uid != 0 or by_group or found.st_mode & stat.S_IWOTH:
            raise _DoubtError(f"others than root may change {above}")
    if mounts := [str(x) for x in mounts_at(real)]:
        raise _DoubtError(f"something is mounted there: umount {' '.join(mounts)}")


def mounts_at(path: Path) -> list[Path]:
    """Return what is mounted at a folder or below it."""
    found = []
    for line in _MOUNTS.read_bytes().splitlines():
        point = line.split()[4].decode("unicode_escape").encode("latin-1")
        mount = Path(os.fsdecode(point))
        if mount == path or path in mount.parents:
            found.append(mount)
    return found


def _alone(path: Path, uid: int, account: str) -> None:
    """Make sure that no other account has this user id, or a home that is near.

    Raises:
        _DoubtError: one has.
    """
    for other in pwd.getpwall():
        if other.pw_name == account:
            continue
        if other.pw_uid == uid:
            raise _DoubtError(f"{other.pw_name} has the same user id")
        if _touches(path, Path(other.pw_dir)):
            raise _DoubtError(f"{path} is the home of {other.pw_name} too")


def _no_other(name: str, path: Path, homes: Mapping[str, Home]) -> None:
    for other, home in homes.items():
        if other != name and home.kind == UNIX and _touches(path, Path(home.path)):
            raise _DoubtError(f"{path} is the home of {other} too")


def _touches(path: Path, other: Path) -> bool:
    """Whether removing a folder would take another home, or a part of it, along."""
    return other == path or path in other.parents


def _is_tljhs(account: str) -> bool:
    try:
        members = grp.getgrnam(TLJH_GROUP).gr_mem
    except KeyError:
        return False
    return account in members and _is_account(account)


def _is_account(account: str) -> bool:
    try:
        pwd.getpwnam(account)
    except KeyError:
        return False
    return True


def _is_local(account: str) -> bool:
    """Whether `userdel` can remove an account: home and account go both, or neither."""
    lines = _PASSWD.read_bytes().splitlines()
    return any(line.startswith(f"{account}:".encode()) for line in lines)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
