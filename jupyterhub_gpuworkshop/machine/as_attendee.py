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
_ENTER = (
    "import os,sys;"
    "home=int(sys.argv.pop(1));os.fchdir(home);os.close(home);"
    "exec(compile(sys.stdin.read(),sys.argv[0],'exec'))"
)
"""Enters the home as its user, not as root: NFS servers may let root in nowhere."""


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
    keywords = _identity(attendee)
    handle = _open_home(home)
    try:
        with script.open("rb") as source:
            yield (
                [str(_python()), "-I", "-S", "-c", _ENTER, str(handle), *arguments],
                {
                    **keywords,
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


def _identity(attendee: Attendee) -> dict[str, Any]:
    """Return as whom a process starts; it cannot come back from there."""
    if os.geteuid() != 0:
        if attendee.uid != os.geteuid():
            raise HostError(
                f"This needs root, to become the user {attendee.uid}. Run it with sudo."
            )
        return {}
    groups = [attendee.gid]
    if attendee.account:
        with suppress(KeyError):
            if pwd.getpwnam(attendee.account).pw_uid == attendee.uid:
                groups = os.getgrouplist(attendee.account, attendee.gid)
    return {"user": attendee.uid, "group": attendee.gid, "extra_groups": groups}


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
