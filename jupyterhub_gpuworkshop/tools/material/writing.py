"""Writes small files so that they are there whole or not at all, and asks for room."""

import os
from pathlib import Path

from jupyterhub_gpuworkshop.hub.own_files import sync_folder


def write_file(path: Path, text: str, *, mode: int) -> None:
    """Write a file in the place of the one that was there, if any.

    Raises:
        OSError: it cannot be written; the one before stays.
    """
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(new, flags, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(handle, mode)
            os.fsync(handle)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def free_bytes(folder: Path) -> int:
    """Return the room on the disk of a folder, for who is not root.

    Raises:
        OSError: there is no such folder.
    """
    seen = os.statvfs(folder)
    return seen.f_bavail * seen.f_frsize
