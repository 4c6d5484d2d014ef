"""Files of the hub's own: closed to others, and the hub's whoever makes them.

Owns modes, owners and that a new name outlives a power loss. What is in the files is
their writers' to say.
"""

import contextlib
import os
import stat
from pathlib import Path


def give_to_owner_of(beside: Path, handle: int) -> None:
    """Give an open file to who owns another, or a folder, where root has made it.

    Commands run as root for a hub that is not: such a file would lock the hub out.

    Raises:
        OSError: there is no such file or folder, or the file system knows no owners.
    """
    if os.geteuid() == 0:
        owner = beside.stat()
        os.fchown(handle, owner.st_uid, owner.st_gid)


def make_closed(path: Path) -> None:
    """Make an empty file where there is none, and keep others from reading it.

    Raises:
        OSError: it cannot be made.
    """
    # An existing file is not opened here: closing it would take away the locks that
    # SQLite may hold on it elsewhere in this process (POSIX advisory locks).
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        # Somebody else's file may be good to use all the same.
        with contextlib.suppress(PermissionError):
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                path.chmod(0o600)
        return
    try:
        give_to_owner_of(path.parent, handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make a new file's name survive power loss, as SQLite does for its own files.

    Raises:
        OSError: the file system cannot do this to a folder.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
