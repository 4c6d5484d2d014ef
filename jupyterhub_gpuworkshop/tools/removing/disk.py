"""Removing a home and its account from this machine.

Owns the order: what would start processes anew, processes, the home, the account. Where
it is killed it can be begun again, for the account goes last, and a home is judged by
it. A home's folders are its attendee's, links and depth included: `rm` of the GNU
coreutils walks them by open folders, which no link diverts, at any depth; `userdel
--remove` of some distributions does not (CVE-2013-4235), and enters mounts.
"""

import os
import stat
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.hub.homes import Home
from jupyterhub_gpuworkshop.tools.hub_calls import one_line

from .homes import STATE_FOLDER, Fate, Judged, judge
from .processes import see_to_processes

_MOST_ENTRIES = 200_000
_MOST_LOOK_SECONDS = 2.0
_RM_SECONDS = 3600.0
_SPOOLS = (
    "/var/spool/cron/crontabs/{account}",
    "/var/spool/cron/{account}",
    "/var/lib/systemd/linger/{account}",
    "/var/mail/{account}",
)
"""What a later account of that name would find, and cron would run for it."""
_JOBS = ("/var/spool/cron/atjobs", "/var/spool/at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is in a home.

    Attributes:
        files: how many.
        bytes: on the disk.
        is_all: whether everything was looked at.
    """

    files: int = 0
    bytes: int = 0
    is_all: bool = True


NOTHING = Size()


def size_of(path: Path) -> Size:
    """Return how much is in a folder, as far as that is quick to say.

    Links are not followed, nor are other file systems entered.
    """
    end = time.monotonic() + _MOST_LOOK_SECONDS
    files = size = 0
    complete = True
    try:
        device = path.lstat().st_dev
    except OSError:
        return Size(is_all=not os.path.lexists(path))
    folders = [str(path)]
    while folders:
        if files > _MOST_ENTRIES or time.monotonic() > end:
            return Size(files=files, bytes=size, is_all=False)
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    seen = entry.stat(follow_symlinks=False)
                    if seen.st_dev != device:
                        continue
                    size += seen.st_blocks * 512
                    if stat.S_ISDIR(seen.st_mode):
                        folders.append(entry.path)
                    else:
                        files += 1
        except OSError:
            complete = False
    return Size(files=files, bytes=size, is_all=complete)


def remove_home(
    name: str, homes: Mapping[str, Home], listed: Judged, *, end_processes: bool
) -> None:
    """Remove the home that was listed, and its account, if nothing has changed.

    Args:
        name: the attendee, whose servers are stopped.
        homes: everybody's, as the hub wrote them down.
        listed: what was listed.
        end_processes: whether to end what runs as that user still.

    Raises:
        HostError: it is not removed, or not all of it; with the reason.
    """
    judged = judge(name, homes)
    if judged.fate is Fate.NONE:
        return
    if judged.fate is not Fate.GOES or judged != listed or judged.path is None:
        raise HostError(judged.why or "its home is not as it was listed")
    if judged.account:
        _remove_spools(judged)
    if judged.uid >= 0:
        shown = judged.account or str(judged.path)
        see_to_processes(judged.uid, shown, end_them=end_processes)
    _remove_tree(judged.path)
    if judged.account:
        _call("userdel", judged.account)
    elif judged.path.parent == STATE_FOLDER / "private":
        link = STATE_FOLDER / name
        if link.is_symlink() and link.resolve() == judged.path:
            link.unlink()


def _remove_spools(judged: Judged) -> None:
    for spool in _SPOOLS:
        path = Path(spool.format(account=judged.account))
        try:
            if stat.S_ISREG(path.lstat().st_mode):
                path.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise HostError(f"{path} cannot be removed: {error.strerror}") from None
    for folder in map(Path, _JOBS):
        if folder.is_dir():
            for job in folder.iterdir():
                seen = job.lstat()
                if seen.st_uid == judged.uid and stat.S_ISREG(seen.st_mode):
                    job.unlink(missing_ok=True)


def _remove_tree(path: Path) -> None:
    if not os.path.lexists(path):
        return
    command = ("rm", "--recursive", "--force", "--one-file-system", "--", str(path))
    _call(*command)
    if os.path.lexists(path):
        raise HostError(f"{path} is still there")


def _call(*command: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - names were judged before
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_RM_SECONDS,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{command[0]} could not be run: {error}") from None
    if done.returncode:
        said = one_line(done.stderr.decode(errors="replace"))
        raise HostError(f"{command[0]} failed: {said or 'it does not say why'}")
