"""Files of the hub's own: closed to others, and the hub's whoever makes them.

Owns modes, owners, that a change is whole or none and outlives a power loss, and that
two changes wait for each other. What is in the files is their writers' to say.
"""

import contextlib
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
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


@contextlib.contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Keep other changes of a file out, of this process and others.

    By a file beside it that is closed to others: whoever can open what is locked, as
    attendees may the folder, could hold the lock for ever, and the hub's threads with
    it.

    Raises:
        OSError: the lock cannot be had; nothing of the context is run then.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    held = os.open(path.with_name(f".{path.name}.lock"), flags, 0o600)
    try:
        give_to_owner_of(path.parent, held)
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def replace_closed(path: Path, data: bytes) -> None:
    """Put the whole of a file in place, or leave what was there.

    Raises:
        OSError: it cannot be written; nothing has changed.
    """
    made = ""
    try:
        handle, made = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            # mkstemp's mode is 0600. What root writes is the hub's user's to read.
            give_to_owner_of(path if path.exists() else path.parent, file.fileno())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(made).replace(path)
        made = ""
    finally:
        if made:
            with contextlib.suppress(OSError):
                Path(made).unlink()
    # The change is in force. Not every file system can do this to a folder.
    with contextlib.suppress(OSError):
        sync_folder(path.parent)
