"""Of several services on one state folder, which one may take memory back.

Owns a lock in the state folder that is held for life. The kernel lets go of it when
its holder ends, however it ends, and whoever waits takes over. Without the lock a
service looks and shows, and takes nothing.

A file lock, and no socket of an abstract name, for two reasons: services in containers
that share the folder have network namespaces of their own, and would not see each
other; and any attendee on the host could take such a name first, and so keep memory
from ever being taken back. The file is for its owner alone to open.

Where the file is not there and cannot be made (a disk that is full or may only be
read), the folder itself is locked, which writes nothing. When the file can be made
after all, whoever holds the folder locks the file instead, and yields where another was
faster: for the length of one round both may believe that they may act. Where it cannot
be told who holds the lock, nothing is taken.
"""

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import CallHangs

from .loops import OneThread

_LOG = logging.getLogger(__name__)
_FILE = "gpuworkshop-service.lock"
_TIMEOUT_SECONDS = 10.0
_MOST_DIGITS = 20


class OnlyOne:
    """The lock of one state folder.

    Args:
        folder: the state folder.
        take_over: is waited for before this process may act: what another has written
            meanwhile must be read first. None where nothing need be.

    Attributes:
        other: who held the lock at the last look, for a sentence; empty for nobody.
    """

    def __init__(
        self, folder: Path, take_over: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self.other = ""
        self._take_over = take_over
        self._has_taken_over = take_over is None
        self._folder = folder
        self._path = folder / _FILE
        self._thread = OneThread("The disk of the state folder")
        self._file: int | None = None
        self._folder_lock: int | None = None
        self._why_not = (
            f"Whether another GPU service runs on the state folder {folder} is not "
            "known yet: nothing is taken back."
        )

    @property
    def is_held(self) -> bool:
        """Whether this process may act, as of the last look."""
        return not self._why_not

    def why_not(self) -> str:
        """Return why this process may not act, in a sentence; empty where it may."""
        if not self._why_not and not self._has_taken_over:
            return "What another GPU service has written is not read yet."
        return self._why_not

    async def step(self) -> None:
        """Look whether the lock is held, or to be had; never held up by a disk."""
        # A disk that hangs changes nothing: the kernel keeps the lock that is held.
        with contextlib.suppress(CallHangs):
            await self._thread.call(self.acquire, _TIMEOUT_SECONDS)
        if self.is_held and self._take_over is not None and not self._has_taken_over:
            await self._take_over()
            self._has_taken_over = True

    def acquire(self) -> bool:
        """Take the lock if it is free, or see that it is still held; wait for nobody.

        Returns:
            Whether this process may act. Reads the disk: not for the event loop.
        """
        before, why_not = self._why_not, self.take()
        if why_not != before:
            if why_not:
                _LOG.warning("%s", why_not)
            else:
                _LOG.info("This GPU service takes idle memory back")
        return not why_not

    def take(self) -> str:
        """Do as `acquire` does, and log nothing: for who is no service.

        Returns:
            Why this process may not act, in a sentence; empty where it may.
        """
        self.other = ""
        self._why_not = self._take()
        if self._why_not:
            self._has_taken_over = self._take_over is None
        return self._why_not

    def release(self) -> None:
        """Let another take over; the end of the process does so too."""
        self._why_not = "This GPU service ends."
        self._let_go_of_file()
        self._let_go_of_folder()

    def _take(self) -> str:
        """Return why the lock is not held, or nothing."""
        if self._file is not None:
            if self._is_still_there(self._file):
                return ""
            # Removed: another service would make, and lock, a file of its own.
            self._let_go_of_file()
        try:
            descriptor = _open_file(self._path)
        except FileNotFoundError:
            return self._take_folder()
        except OSError as error:
            # It is there: whoever holds it has it, whatever else could be locked.
            return self._cannot_tell(error)
        try:
            if _lock(descriptor) and self._is_still_there(descriptor):
                self._file = os.dup(descriptor)
        except OSError as error:
            return self._cannot_tell(error)
        else:
            # Who held the folder, since there was no file, has the file or yields.
            self._let_go_of_folder()
            if self._file is None:
                return self._another(_read_pid(descriptor))
            _write_pid(descriptor)
            return ""
        finally:
            os.close(descriptor)

    def _take_folder(self) -> str:
        if self._folder_lock is not None:
            return ""
        try:
            descriptor = os.open(
                self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            )
        except OSError as error:
            return self._cannot_tell(error)
        try:
            if not _lock(descriptor):
                return self._another("")
            self._folder_lock = os.dup(descriptor)
        except OSError as error:
            return self._cannot_tell(error)
        finally:
            os.close(descriptor)
        return ""

    def _cannot_tell(self, error: OSError) -> str:
        return (
            f"Whether another GPU service runs on the state folder {self._folder} "
            f"cannot be told ({error.strerror}: {self._path}): nothing is taken back. "
            "Let this service read and write there, on a disk that knows file locks."
        )

    def _another(self, pid: str) -> str:
        who = f"Another GPU service (pid {pid})" if pid else "Another GPU service"
        self.other = who
        return (
            f"{who} runs on the same state folder, {self._folder}, and takes idle "
            "memory back; this one only shows. Stop one of them, or give each a "
            "state_dir of its own."
        )

    def _is_still_there(self, descriptor: int) -> bool:
        """Tell whether the file that is locked is the one that others would lock."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.lstat())
        except FileNotFoundError:
            return False
        except OSError:
            return True  # a disk in trouble has not removed it

    def _let_go_of_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _let_go_of_folder(self) -> None:
        if self._folder_lock is not None:
            os.close(self._folder_lock)
            self._folder_lock = None


def _open_file(path: Path) -> int:
    """Open the lock's file, made where it is not there.

    Raises:
        FileNotFoundError: it is not there and cannot be made.
        OSError: it cannot be opened.
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    except OSError:
        # Of a disk that may only be read: what is there can be locked all the same.
        return os.open(path, os.O_RDONLY | flags)


def _lock(descriptor: int) -> bool:
    """Lock it; False where another has.

    Raises:
        OSError: this disk knows no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _read_pid(descriptor: int) -> str:
    """Return the pid that its holder wrote, for people's eyes; else nothing."""
    try:
        text = os.pread(descriptor, _MOST_DIGITS, 0).decode("ascii", "replace").strip()
    except OSError:
        return ""
    return text if text.isdecimal() else ""


def _write_pid(descriptor: int) -> None:
    # For people's eyes: what cannot be written is not needed.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
