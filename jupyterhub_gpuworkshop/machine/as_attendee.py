"""How a script is run as an attendee, in their home.

Owns the way in: root opens the home's folder, and what it starts gives up root before
the first line of the script. Whatever links and mounts an attendee has made at home
then reach what they may reach themselves. What the script does is its own; whoever
starts it trusts nothing that it says, for its user can be anything to it.
"""

import os
import pwd
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyterhub_gpuworkshop.core.errors import HostError

_SYSTEMS_PYTHON = Path("/usr/bin/python3")
_MOST_BYTES = 512 * 1024**2
"""Of memory. What is at home may be made to need very much, and it would be the hub's:
the process is in none of the attendee's cgroups."""

_ENTER = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_DATA, ({_MOST_BYTES}, {_MOST_BYTES}))
home, uid, gid, groups = sys.argv[1:5]
del sys.argv[1:5]
if os.geteuid() == 0:
    os.setgroups([int(group) for group in groups.split(",")])
    os.setresgid(int(gid), int(gid), int(gid))
    os.setresuid(int(uid), int(uid), int(uid))
os.fchdir(int(home))
os.close(int(home))
exec(compile(sys.stdin.read(), "script", "exec"))
"""
"""Gives up root, then enters the home: NFS servers may let root in nowhere.

No program is started after that, so that Linux lets nobody but root trace this process
or write to its memory (prctl(2), PR_SET_DUMPABLE): it is in none of the attendee's
cgroups, whose limits they would be rid of.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendee:
    """A user of this machine.

    Attributes:
        uid: as whom to run.
        gid: with which group.
        account: the Unix account, whose other groups count too; empty for none.
    """

    uid: int
    gid: int
    account: str = ""


@contextmanager
def run_as_attendee(
    attendee: Attendee, home: Path, script: Path, arguments: Sequence[str] = ()
) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Yield a command line, and keywords to start it with.

    Both go to ``subprocess.Popen`` or ``asyncio.create_subprocess_exec``, within the
    context: what the process inherits is closed here when it ends. Its standard input
    is the script.

    Args:
        attendee: as whom.
        home: the working directory; a link is not followed.
        script: Python 3.8 and the standard library; it need not be readable to them.
        arguments: of the script.

    Raises:
        HostError: there is no such home, or this user may not become that one.
    """
    groups = ",".join(map(str, _groups(attendee)))
    identity = [str(attendee.uid), str(attendee.gid), groups]
    handle = _open_home(home)
    try:
        with script.open("rb") as source:
            yield (
                [
                    *(str(_python()), "-I", "-S", "-c", _ENTER),
                    *(str(handle), *identity, *arguments),
                ],
                {
                    "stdin": source,
                    "pass_fds": (handle,),
                    "cwd": "/",
                    "umask": 0o022,
                    "start_new_session": True,
                    "env": {
                        "HOME": str(home),
                        "PATH": "/usr/local/bin:/usr/bin:/bin",
                        "LC_ALL": "C.UTF-8",
                    },
                },
            )
    finally:
        os.close(handle)


def _groups(attendee: Attendee) -> list[int]:
    """Return the groups that a process is to have."""
    if os.geteuid() != 0 and attendee.uid != os.geteuid():
        raise HostError(
            f"This needs root, to become the user {attendee.uid}. Run it with sudo."
        )
    if attendee.account:
        with suppress(KeyError):
            if pwd.getpwnam(attendee.account).pw_uid == attendee.uid:
                return os.getgrouplist(attendee.account, attendee.gid)
    return [attendee.gid]


def _open_home(home: Path) -> int:
    # O_PATH needs no right to look into it, which root may lack on an NFS server.
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(home, flags)
    except FileNotFoundError:
        raise HostError(f"There is no home at {home}.") from None
    except NotADirectoryError:
        raise HostError(f"{home} is no folder, and is not entered.") from None
    except OSError as error:
        raise HostError(f"{home} cannot be opened: {error.strerror}.") from None


def _python() -> Path:
    """Return a Python that every user may run: ours, unless it is closed to them."""
    own = Path(sys.executable).resolve()
    library = Path(os.__file__).resolve()
    if os.geteuid() == 0 and not (_is_open(own) and _is_open(library)):
        return _SYSTEMS_PYTHON
    return own


def _is_open(path: Path) -> bool:
    return all(part.stat().st_mode & 0o001 for part in path.parents) and bool(
        path.stat().st_mode & 0o004
    )
