"""Bring the workshop's notebooks into a home, and never over what its owner has done.

Run as the attendee, with the home as the current directory: by the hub before a server
is ready, and again when there is new material. Standard library only: it runs with the
Python of a machine or of a container's image. It owns which copies are made and what
is remembered of them. It must be good in any home: what is in the way there, links and
FIFOs and a full disk, is told and left alone. It is one file, since its text is handed
over: the attendee may not be able to read where this package is.

What it prints is one line of JSON: what came new (`brought`), what was replaced by a
new version (`updated`), what came beside (`beside`), how much was left as the attendee
has it (`kept`), and what could not come, and why (`failed`).

Whatever it is killed at leaves whole files. What is to come is remembered before, and
that it came, afterwards: a copy that is found again is known as ours either way.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import signal
import stat
import sys
import time
from typing import TYPE_CHECKING

try:
    import ctypes
except ImportError:  # an image's Python may lack it
    _libc = None
else:
    _libc = ctypes.CDLL(None, use_errno=True)

if TYPE_CHECKING:
    from typing import Any, Collection, Iterator

STATE = ".local/share/gpuworkshop/material.json"
"""What is remembered, below the home."""

MISSING, OTHER = "", "?"
"""What may have a name instead of a file or a link that is as some version was."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_SWAP = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
_NOREPLACE, _EXCHANGE = 1, 2
_PIECE = 1 << 20
_MOST_VERSIONS, _MOST_BESIDE, _MOST_DEEP, _MOST_TOLD = 50, 99, 64, 20
_LARGEST_STATE = 32 << 20
_WAIT_SECONDS = 10.0
_NOT_MOUNTED = (
    "Not here. A container that ran before the first material was installed "
    "has it from its next start on"
)


class Blocked(Exception):
    """Something of the attendee's is where a folder has to be."""


class Item:
    """One file or link of the material.

    Attributes:
        rel: where it goes, below the home.
        source: where it is.
        mark: what tells its content from any other.
    """

    def __init__(self, rel: str, source: str, mark: str) -> None:
        self.rel, self.source, self.mark = rel, source, mark


def mark_of(handle: int, size: int) -> str:
    """Return the mark of an open file."""
    digest = hashlib.sha256()
    while True:
        piece = os.read(handle, _PIECE)
        if not piece:
            return f"{digest.hexdigest()}:{size}"
        digest.update(piece)


def look(folder: int | None, name: str, known: Collection[str]) -> str:
    """Return the mark of what has a name.

    Args:
        folder: an open folder, or None for one that is not there.
        name: in it.
        known: the marks that it may turn out to have: what cannot have one of them is
            not read, however large it is.
    """
    if folder is None:
        return MISSING
    try:
        seen = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(seen.st_mode):
            return "->" + os.readlink(name, dir_fd=folder)
        sizes = {mark.rpartition(":")[2] for mark in known}
        if not stat.S_ISREG(seen.st_mode) or str(seen.st_size) not in sizes:
            return OTHER
        handle = os.open(
            name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder
        )
    except FileNotFoundError:
        return MISSING
    except OSError:
        return OTHER
    try:
        return mark_of(handle, os.fstat(handle).st_size)
    except OSError:
        return OTHER
    finally:
        os.close(handle)


def rename(folder: int, old: str, new: str, how: int) -> None:
    """Rename in one step: over nothing, or in exchange.

    Raises:
        OSError: as the kernel says; `_NO_SWAP` where the file system cannot.
    """
    if _libc is None or not hasattr(_libc, "renameat2"):
        raise OSError(errno.ENOSYS, "no renameat2")
    names = os.fsencode(old), os.fsencode(new)
    if _libc.renameat2(folder, names[0], folder, names[1], how):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), new)


def put_new(folder: int, made: str, name: str) -> None:
    """Give a finished file its name, which nothing may have.

    Raises:
        FileExistsError: something has it.
    """
    try:
        rename(folder, made, name, _NOREPLACE)
    except OSError as error:
        if error.errno not in _NO_SWAP:
            raise
        if look(folder, name, ()) != MISSING:
            raise FileExistsError(errno.EEXIST, "is there", name) from None
        os.rename(made, name, src_dir_fd=folder, dst_dir_fd=folder)


def is_at_rest(folder: int, name: str) -> bool:
    """Whether nobody has a file open: who has may be about to write into it."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = os.open(name, flags, dir_fd=folder)
    except OSError:
        return True  # a link
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno != errno.EAGAIN  # not every file system can tell
    finally:
        os.close(handle)
    return True


def unlink(folder: int | None, name: str) -> None:
    """Remove a name of ours, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def names_of(name: str) -> tuple[str, str]:
    """Return the names that a file has while it is written, and then while it waits."""
    return f".{name}.gpuworkshop-part", f".{name}.gpuworkshop-new"


class Memory:
    """What is remembered in a home.

    Attributes:
        known: by path, the marks of all versions that there were.
        seen: by path, the mark that was dealt with last, wherever it is now.
        parts: by the names of parts, the version that was dealt with in full.
        data: what our link to the data sets says; empty where we made none.
    """

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}
        self.seen: dict[str, str] = {}
        self.parts: dict[str, str] = {}
        self.data = ""
        self._kept = self._dump()
        self._lock = -1

    def _dump(self) -> str:
        names = ("known", "seen", "parts", "data")
        return json.dumps({name: getattr(self, name) for name in names}, sort_keys=True)

    def lock(self) -> None:
        """Keep other runs in this home out.

        Raises:
            OSError: the folder cannot be made, or another run does not end.
        """
        os.makedirs(os.path.dirname(STATE), exist_ok=True)
        flags = os.O_RDONLY | os.O_DIRECTORY
        self._lock = os.open(os.path.dirname(STATE), flags)
        until = time.monotonic() + _WAIT_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def unlock(self) -> None:
        """Let other runs in."""
        if self._lock != -1:
            os.close(self._lock)
            self._lock = -1

    def read(self) -> None:
        """Read it; what is none of ours counts as nothing.

        That never costs anybody's work: what is not known as ours is theirs.
        """
        try:
            handle = os.open(STATE, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            return
        with os.fdopen(handle, "rb") as file:
            is_file = stat.S_ISREG(os.fstat(handle).st_mode)
            text = file.read(_LARGEST_STATE) if is_file else b""
        try:
            said = json.loads(text)
            known = {str(k): [str(x) for x in v] for k, v in said["known"].items()}
            seen = {str(k): str(v) for k, v in said["seen"].items()}
            parts = {str(k): str(v) for k, v in said["parts"].items()}
            data = str(said["data"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        except (RecursionError, MemoryError):  # somebody has made it so
            return
        self.known, self.seen, self.parts, self.data = known, seen, parts, data
        self._kept = self._dump()

    def save(self) -> None:
        """Write it, if it has changed: whole, or as it was.

        Raises:
            OSError: there is no room, say.
        """
        text = self._dump()
        if text == self._kept:
            return
        made = STATE + ".new"
        unlink(None, made)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(made, flags, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.rename(made, STATE)
        except OSError:
            unlink(None, made)
            raise
        self._kept = text


class Bringing:
    """One run in one home.

    Args:
        folder: the material's, as this process sees it.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.memory = Memory()
        self.told: dict[str, list[Any]] = {
            "brought": [],
            "updated": [],
            "beside": [],
            "failed": [],
        }
        self.kept = 0
        self._is_full = False
        self._ours: set[str] = set()

    def run(self) -> None:
        """Bring what there is; trouble with the home as a whole is told as well."""
        try:
            self.memory.lock()
            self.memory.read()
            parts = self._installed()
            self._bring_parts([x for x in parts if x["kind"] == "notebooks"])
            if any(x["kind"] == "data" for x in parts):
                self._link_data()
            self.memory.save()
        except OSError as error:
            self._fail(error.filename or STATE, error.strerror)
        finally:
            self.memory.unlock()

    def result(self) -> dict[str, Any]:
        """Return what was done, for the hub's log."""
        counts = {key: len(paths) for key, paths in self.told.items()}
        some = {key: self.told[key][:_MOST_TOLD] for key in ("beside", "failed")}
        return dict(counts, kept=self.kept, paths=some)

    def _fail(self, path: object, why: object) -> None:
        self.told["failed"].append([str(path)[:200], str(why)])

    def _installed(self) -> list[dict[str, Any]]:
        path = os.path.join(self.folder, "installed.json")
        try:
            with open(path, encoding="utf-8") as file:
                parts: list[dict[str, Any]] = json.load(file)["parts"]
        except FileNotFoundError as error:
            raise OSError(error.errno, _NOT_MOUNTED, path) from None
        return parts

    def _bring_parts(self, parts: list[dict[str, Any]]) -> None:
        todo = []
        for part in parts:
            name, version = part["name"], part["version"]
            if self.memory.parts.get(name) == version:
                continue
            root = os.path.join(self.folder, ".versions", version)
            todo.append((name, version, list(items_in(root, name))))
        self._ours = {item.rel for _, _, items in todo for item in items}
        # Before the first copy: one that this run is killed at is known as ours.
        for _, _, items in todo:
            for item in items:
                known = self.memory.known.setdefault(item.rel, [])
                if item.mark not in known:
                    known.append(item.mark)
                    del known[:-_MOST_VERSIONS]
        self.memory.save()
        if not todo:
            return
        done = {}
        for name, version, items in todo:
            undone = [item for item in items if not self._bring(item)]
            if not undone:
                done[name] = version
        sync()
        self.memory.parts.update(done)

    def _bring(self, item: Item) -> bool:
        """Bring one file; return whether it is dealt with."""
        if self._is_full:
            return False
        try:
            self._bring_or_fail(item)
        except Blocked as error:
            self._fail(item.rel, error)
        except OSError as error:
            self._fail(item.rel, error.strerror)
            self._is_full = error.errno in _FULL
        else:
            self.memory.seen[item.rel] = item.mark
            return True
        return False

    def _bring_or_fail(self, item: Item) -> None:
        known = self.memory.known[item.rel]
        name = os.path.basename(item.rel)
        dealt_with = self.memory.seen.get(item.rel) == item.mark
        folder = open_folder(os.path.dirname(item.rel), make=not dealt_with)
        try:
            if folder is not None:
                recover(folder, name, known)
            here = look(folder, name, known)
            if here == item.mark or dealt_with:
                self.kept += here != item.mark
            elif here == MISSING and self._place(folder, name, item):
                self.told["brought"].append(item.rel)
            elif folder is not None:
                if here in known and replace(folder, name, item, known):
                    self.told["updated"].append(item.rel)
                else:
                    self._put_beside(folder, item, known)
        finally:
            if folder is not None:
                os.close(folder)

    def _place(self, folder: int | None, name: str, item: Item) -> bool:
        if folder is None:
            return False
        made = write(folder, name, item, None)
        try:
            put_new(folder, made, name)
        except FileExistsError:
            unlink(folder, made)
            return False
        return True

    def _put_beside(self, folder: int, item: Item, known: list[str]) -> None:
        """Bring a new version beside what the attendee has made of an old one."""
        self.kept += 1
        stem, suffix = os.path.splitext(os.path.basename(item.rel))
        for number in range(1, _MOST_BESIDE + 1):
            again = "" if number == 1 else f"-{number}"
            name = f"{stem}-updated{again}{suffix}"
            rel = os.path.join(os.path.dirname(item.rel), name)
            if rel in self._ours:
                continue
            recover(folder, name, known)
            here = look(folder, name, known)
            if here == item.mark:
                return
            if (here == MISSING and self._place(folder, name, item)) or (
                here in known and replace(folder, name, item, known)
            ):
                self.told["beside"].append(rel)
                return
        raise Blocked("there are too many versions beside it")

    def _link_data(self) -> None:
        """Link to the data sets, where nothing else has the name."""
        target = os.path.join(self.folder, "data")
        here = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = look(here, "data", ())
            if found == "->" + self.memory.data and self.memory.data != target:
                unlink(here, "data")
                found = MISSING
            elif found == MISSING and self.memory.data == target:
                return
            if found == MISSING:
                os.symlink(target, "data", dir_fd=here)
                found = "->" + target
            if found == "->" + target:
                self.memory.data = target
        except FileExistsError:
            pass
        finally:
            os.close(here)


def items_in(root: str, rel: str, inside: str = "", depth: int = 0) -> Iterator[Item]:
    """Yield what a version holds, sorted; links only if they stay in it.

    Args:
        root: the folder.
        rel: where it goes, below the home.
        inside: where in the part this folder is.
        depth: of this folder.
    """
    if depth > _MOST_DEEP:
        return
    for name in sorted(os.listdir(root)):
        path, goes = os.path.join(root, name), os.path.join(rel, name)
        kind = os.lstat(path).st_mode
        if stat.S_ISDIR(kind):
            yield from items_in(path, goes, os.path.join(inside, name), depth + 1)
        elif stat.S_ISLNK(kind):
            target = os.readlink(path)
            leads = os.path.normpath(os.path.join(inside, target))
            if not os.path.isabs(target) and leads.split("/")[0] != os.pardir:
                yield Item(goes, path, "->" + target)
        elif stat.S_ISREG(kind):
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                mark = mark_of(handle, os.fstat(handle).st_size)
            finally:
                os.close(handle)
            yield Item(goes, path, mark)


def open_folder(rel: str, make: bool) -> int | None:
    """Open a folder below the home, by no link.

    Args:
        rel: its path.
        make: whether to make it; else None is returned where it is not there.

    Raises:
        Blocked: something that is no folder has its name, or a part of it.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    folder = os.open(".", flags)
    for name in [name for name in rel.split("/") if name]:
        above = folder
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=above)
            folder = os.open(name, flags, dir_fd=above)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise Blocked(f"{name!r} is there and is no folder") from None
            raise
        finally:
            os.close(above)
    return folder


def write(folder: int, name: str, item: Item, mode: int | None) -> str:
    """Write a copy under a name of ours, to be renamed; return that name.

    Args:
        folder: where.
        name: what it will be called.
        item: what to copy.
        mode: of the file that it replaces; None for a new one.

    Raises:
        OSError: it cannot be written; nothing of it is left.
    """
    part, whole = names_of(name)
    unlink(folder, part)
    try:
        if item.mark.startswith("->"):
            os.symlink(item.mark[2:], part, dir_fd=folder)
        else:
            copy(folder, part, item, mode)
        os.rename(part, whole, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        unlink(folder, part)
        raise
    return whole


def copy(folder: int, part: str, item: Item, mode: int | None) -> None:
    """Copy a file's content, and see that it is what was announced."""
    source = os.open(item.source, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        wanted = 0o777 if os.fstat(source).st_mode & 0o100 else 0o666
        made = os.open(part, flags, wanted, dir_fd=folder)
        try:
            if mode is not None:
                os.fchmod(made, mode)
            while True:
                piece = os.read(source, _PIECE)
                if not piece:
                    break
                while piece:
                    piece = piece[os.write(made, piece) :]
            os.lseek(made, 0, os.SEEK_SET)
            if mark_of(made, os.fstat(made).st_size) != item.mark:
                raise OSError(errno.EIO, "changed while it was copied", item.source)
        finally:
            os.close(made)
    finally:
        os.close(source)


def replace(folder: int, name: str, item: Item, known: list[str]) -> bool:
    """Put a new version in the place of one of ours; return whether that was done.

    It is swapped with what has the name, which is then looked at again: an attendee
    may have saved meanwhile, or be about to.
    """
    seen = os.stat(name, dir_fd=folder, follow_symlinks=False)
    mode = stat.S_IMODE(seen.st_mode) if stat.S_ISREG(seen.st_mode) else None
    whole = write(folder, name, item, mode)
    try:
        rename(folder, whole, name, _EXCHANGE)
    except FileNotFoundError:
        unlink(folder, whole)  # They have just removed it.
        return False
    except OSError as error:
        if error.errno not in _NO_SWAP:
            unlink(folder, whole)
            raise
        if look(folder, name, known) not in known:
            unlink(folder, whole)
            return False
        os.rename(whole, name, src_dir_fd=folder, dst_dir_fd=folder)
        return True
    if is_at_rest(folder, whole) and look(folder, whole, known) in known:
        unlink(folder, whole)
        return True
    give_back(folder, whole, name, known)
    return False


def give_back(folder: int, whole: str, name: str, known: list[str]) -> None:
    """Give what was swapped away its name again, or one beside it."""
    if look(folder, name, known) in known:
        rename(folder, whole, name, _EXCHANGE)
        if look(folder, whole, known) in known:
            unlink(folder, whole)
            return
    stem, suffix = os.path.splitext(name)
    free = [f"{stem}-yours-{number}{suffix}" for number in range(1, _MOST_BESIDE)]
    for other in (name, *free):
        with contextlib.suppress(FileExistsError):
            put_new(folder, whole, other)
            return


def recover(folder: int, name: str, known: list[str]) -> None:
    """Tidy up what a killed run has left of one file."""
    part, whole = names_of(name)
    unlink(folder, part)
    left = look(folder, whole, known)
    if left in known:
        unlink(folder, whole)
    elif left != MISSING:
        give_back(folder, whole, name, known)


def sync() -> None:
    """Have the copies on disk before it is remembered that they came."""
    here = os.open(".", os.O_RDONLY)
    try:
        if _libc is None or not hasattr(_libc, "syncfs") or _libc.syncfs(here):
            os.sync()
    finally:
        os.close(here)


def enter(home: str, as_owner: bool) -> None:
    """Go to a home, and become its owner where this is root in a container.

    Raises:
        OSError: it is no folder, or a link.
    """
    handle = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchdir(handle)
        owner = os.fstat(handle)
    finally:
        os.close(handle)
    if as_owner and os.geteuid() == 0 and owner.st_uid != 0:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def main(arguments: list[str]) -> None:
    """Bring what is in `--from FOLDER`; into `--home PATH`, or where we are."""
    options = dict(zip(arguments[::2], arguments[1::2]))
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # what breaks a lease sends it
    bringing = Bringing(options["--from"])
    try:
        os.umask(0o022)
        if "--home" in options:
            enter(options["--home"], "--as-owner" in options)
    except OSError as error:
        bringing._fail(options["--home"], error.strerror)
    else:
        bringing.run()
    sys.stdout.write(json.dumps(bringing.result()) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
