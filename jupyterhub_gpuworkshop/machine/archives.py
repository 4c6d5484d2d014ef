"""The folder with an archive of each attendee's work.

Owns how an archive comes to be there whole or not at all, and how one is found by its
name. The folder is its owner's alone; nothing in it is followed that is a link.
"""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from jupyterhub_gpuworkshop.core.archives import (
    HEAD_BYTES,
    SUFFIX,
    earlier_stem,
    is_same_account,
    marked,
    since_of,
)
from jupyterhub_gpuworkshop.core.errors import HostError

_LOCK = ".lock"
_INCOMING = ".incoming-"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One that is there.

    Attributes:
        stem: its name without the suffix.
        size_bytes: of the file.
        made_at: seconds since 1970.
    """

    stem: str
    size_bytes: int
    made_at: float


def archives_in(folder: Path) -> list[Archive]:
    """Return what is there, by name; nothing where there is no such folder.

    Raises:
        HostError: the folder cannot be read.
    """
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                stem = entry.name.removesuffix(SUFFIX)
                if stem == entry.name or stem.startswith("."):
                    continue
                with suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        found.append(_archive(stem, status))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise HostError(f"{folder} cannot be read: {error.strerror}.") from None
    return sorted(found, key=lambda archive: archive.stem)


@contextmanager
def opened(
    folder: Path, stem: str
) -> Iterator[tuple[BinaryIO, Archive, float | None] | None]:
    """Yield an archive: the file, what it is, and its account's mark; or None.

    Args:
        folder: of archives.
        stem: as `core.archives.stem_of` has it; anything else names none.

    Raises:
        HostError: it cannot be read.
    """
    file = _file(folder, stem)
    if file is None:
        yield None
        return
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            yield None
            return
        since = since_of(file.read(HEAD_BYTES))
        file.seek(0)
        yield file, _archive(stem, status), since


def _file(folder: Path, stem: str) -> BinaryIO | None:
    if not stem or stem.startswith(".") or "/" in stem or "\0" in stem:
        return None
    try:
        inside = os.open(folder, _FOLDER)
        try:
            return os.fdopen(os.open(stem + SUFFIX, _READ, dir_fd=inside), "rb")
        finally:
            os.close(inside)
    except OSError as error:
        # No such one; a link, or the name of none that there could be.
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO):
            return None
        raise HostError(f"{folder} cannot be read: {error.strerror}.") from None


def _archive(stem: str, status: os.stat_result) -> Archive:
    return Archive(stem=stem, size_bytes=status.st_size, made_at=status.st_mtime)


class Shelf:
    """The folder, to put archives into: by one process at a time.

    Args:
        folder: it is made where it is not there.
        like: a file, or a folder, whose owner is to read the archives.

    Raises:
        HostError: it cannot be made, is open to others, or is being filled just now.
    """

    def __init__(self, folder: Path, like: Path) -> None:
        self.folder = folder
        try:
            owner = like.stat()
            self._owner = (owner.st_uid, owner.st_gid)
            self._folder = self._made()
        except OSError as error:
            where = error.filename or folder
            raise HostError(f"{where} cannot be used: {error.strerror}.") from None
        try:
            self._lock = self._alone()
            self._clean()
        except BaseException:
            os.close(self._folder)
            raise

    def __enter__(self) -> "Shelf":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)
        os.close(self._folder)

    def _made(self) -> int:
        with suppress(FileExistsError):
            self.folder.mkdir(mode=0o700, parents=True)
            if os.geteuid() == 0:
                os.chown(self.folder, *self._owner)
        handle = os.open(self.folder, _FOLDER)
        status = os.fstat(handle)
        if status.st_uid not in (0, os.geteuid(), self._owner[0]):
            os.close(handle)
            raise HostError(
                f"{self.folder} belongs to the user {status.st_uid}, who could put "
                "anything in the place of an archive. Name another folder as "
                "material.archives, or change its owner."
            )
        if status.st_mode & 0o027:
            os.fchmod(handle, status.st_mode & 0o750)
        return handle

    def _alone(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            lock = os.open(_LOCK, flags, 0o600, dir_fd=self._folder)
        except OSError as error:
            raise HostError(
                f"{self.folder} cannot be written to: {error.strerror}."
            ) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise HostError(
                f"Another `gpuworkshop material collect` writes to {self.folder}. "
                "Wait for its end."
            ) from None
        return lock

    def _clean(self) -> None:
        """Remove what a run has left that was killed."""
        for name in os.listdir(self._folder):  # noqa: PTH208  a handle
            if name.startswith(_INCOMING):
                os.unlink(name, dir_fd=self._folder)

    @contextmanager
    def incoming(self, stem: str) -> Iterator["Incoming"]:
        """Yield a file to write an archive to; without `Incoming.keep` it is gone.

        Raises:
            OSError: it cannot be made.
        """
        name = f"{_INCOMING}{secrets.token_hex(8)}"
        handle = os.open(name, _MAKE, 0o600, dir_fd=self._folder)
        incoming = Incoming(self, name, stem, handle)
        try:
            if os.geteuid() == 0:
                os.fchown(handle, *self._owner)
            yield incoming
        finally:
            os.close(handle)
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)

    def put(self, name: str, stem: str, since: float) -> None:
        """Give a whole file its name; the one that had it is gone, if it is as old.

        One of an earlier account is kept under another name.
        """
        final = stem + SUFFIX
        with opened(self.folder, stem) as before:
            mark = before[2] if before is not None else None
            made_at = before[1].made_at if before is not None else 0.0
        is_known = bool(mark or since)
        if before is not None and is_known and not is_same_account(mark, since):
            aside = earlier_stem(stem, mark or made_at) + SUFFIX
            with suppress(FileExistsError):
                os.link(final, aside, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        os.replace(name, final, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        # Not every file system can do this to a folder; the archive is there.
        with suppress(OSError):
            os.fsync(self._folder)


class Incoming:
    """An archive on its way."""

    def __init__(self, shelf: Shelf, name: str, stem: str, handle: int) -> None:
        self._shelf = shelf
        self._name = name
        self._stem = stem
        self._handle = handle
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """Add to it.

        Raises:
            OSError: there is no room.
        """
        left = memoryview(data)
        while left:
            left = left[os.write(self._handle, left) :]
        self.size_bytes += len(data)

    def write_head(self, head: bytes, since: float) -> None:
        """Begin it, with the mark of its account.

        Raises:
            ValueError: this is no archive's head.
            OSError: there is no room.
        """
        self.write(marked(head, since))

    def keep(self, since: float) -> None:
        """Put it in the place of the one before.

        Raises:
            OSError: it cannot be made to last.
        """
        os.fsync(self._handle)
        self._shelf.put(self._name, self._stem, since)
