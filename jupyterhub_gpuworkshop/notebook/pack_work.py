"""Packs an attendee's work: the working directory as a .tar.gz, to standard output.

Owns what is work and what is not, and that nothing is read which is not plainly a file
of this folder. It runs as the attendee, who may change anything while it looks: no
link is followed, each folder is entered through the one above it, and a file is read
as far as it went when it was opened. What is not packed is said in the archive, and in
one line of JSON on standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import os
import signal
import stat
import sys
import tarfile
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

LEFT_OUT = "LEFT-OUT.txt"

_NOT_WORK_AT_HOME = frozenset(
    (
        *(".cache", ".local", ".conda", ".npm", ".ipython", ".jupyter", ".config"),
        *(".ssh", ".gnupg", ".nv", ".triton", ".cupy", ".virtual_documents"),
    )
)
"""Settings, caches and keys, in the home itself."""

_NOT_WORK = frozenset(("__pycache__", ".ipynb_checkpoints", "node_modules"))
_ENVIRONMENT = ("pyvenv.cfg", "conda-meta")
"""What tells a folder of installed packages."""

_DATA = "data"
"""The link that the hub makes, to data that everybody has."""

_DEEPEST = 60
_LONGEST_PATH = 3000
_MOST_ENTRIES = 200_000
_MOST_LISTED = 1000
_MOST_TOLD = 5
_LEVEL = 4
_LATEST = 2**33 - 1
"""The last second that fits in a plain tar header."""

_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Entry(NamedTuple):
    """Something in a folder of the home.

    Attributes:
        folder: the open folder it is in.
        name: there.
        path: from the home, as the archive has it.
        depth: how many folders above it are the home's.
        status: what it was when it was listed.
    """

    folder: int
    name: str
    path: str
    depth: int
    status: os.stat_result


class LeftOut:
    """What is not in the archive, or not as it should be, and why."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[tuple[str, str]] = []

    def add(self, path: str, why: str) -> None:
        """Note one; of very many the first are named."""
        self.count += 1
        if self.count <= _MOST_LISTED:
            self.first.append((path, why))

    def text(self) -> str:
        """Return all of it as a text file."""
        lines = [f"{path}: {why}" for path, why in self.first]
        if self.count > len(lines):
            lines.append(f"... and {self.count - len(lines)} more")
        return "Not in this archive, or not as it was:\n\n" + "\n".join(lines) + "\n"


class Walk:
    """One way through the home, in the order of the archive."""

    def __init__(self, left_out: LeftOut) -> None:
        self.left_out = left_out
        self._room = _MOST_ENTRIES

    def below(self, folder: int, path: str = "", depth: int = 0) -> Iterator[Entry]:
        """Yield all that is work in a folder, and below it."""
        for shown, name in self._names(folder, path):
            where = f"{path}/{shown}" if path else shown
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                self.left_out.add(where, _why(error))
                continue
            entry = Entry(folder, name, where, depth, status)
            if not stat.S_ISDIR(status.st_mode):
                yield entry
            elif name not in _NOT_WORK and (depth or name not in _NOT_WORK_AT_HOME):
                yield from self._entered(entry)

    def _entered(self, entry: Entry) -> Iterator[Entry]:
        if entry.depth >= _DEEPEST or len(os.fsencode(entry.path)) > _LONGEST_PATH:
            self.left_out.add(entry.path, "too many folders in one another")
            return
        try:
            folder = os.open(entry.name, _ENTER, dir_fd=entry.folder)
        except OSError as error:
            self.left_out.add(entry.path, _why(error))
            return
        try:
            if why := _why_no_work(folder, entry):
                self.left_out.add(entry.path, why)
                return
            yield entry
            yield from self.below(folder, entry.path, entry.depth + 1)
        finally:
            os.close(folder)

    def _names(self, folder: int, path: str) -> list[tuple[str, str]]:
        """Return the names in a folder: as the archive has them, and as they are."""
        names = []
        try:
            with os.scandir(folder) as found:
                for one in found:
                    if not self._room:
                        self.left_out.add(path or ".", "too many files, and it goes on")
                        break
                    self._room -= 1
                    names.append(one.name)
        except OSError as error:
            self.left_out.add(path or ".", _why(error))
        return named(names)


def named(names: list[str]) -> list[tuple[str, str]]:
    """Give each a name that every system can unpack, and no two the same."""
    taken = {name for name in names if portable(name) == name}
    given = [(name, name) for name in taken]
    for name in sorted(set(names) - taken):
        shown = portable(name)
        while shown in taken:
            shown += "%"
        taken.add(shown)
        given.append((shown, name))
    return sorted(given)


def portable(name: str) -> str:
    """Return a name without control characters, backslashes and bytes that are no text.

    A backslash would be a folder's end on Windows.
    """
    if not any(map(_is_odd, name)):
        return name
    return "".join(
        "".join(f"%{byte:02X}" for byte in os.fsencode(letter))
        if _is_odd(letter)
        else letter
        for letter in name
    )


def _is_odd(letter: str) -> bool:
    return (
        letter < " "
        or letter == "\\"
        or "\x7f" <= letter <= "\x9f"
        or "\ud800" <= letter <= "\udfff"
    )


def link_stays_inside(target: str, depth: int) -> bool:
    """Tell whether a link leads nowhere but below the home, whatever else is there.

    Going up counts only at its beginning, where the folders are known to be none that
    are linked: behind a name it would start from wherever that leads.
    """
    parts = target.split("/")
    if not target or target.startswith("/") or portable(target) != target:
        return False
    ups = next((i for i, part in enumerate(parts) if part != ".."), len(parts))
    return ups <= depth and ".." not in parts[ups:]


class Packer:
    """Writes the archive.

    Args:
        tar: open for writing.
        top: the folder in the archive that all is in.
        largest_bytes: of all files together.
        left_out: is told what is not packed.
    """

    def __init__(
        self, tar: tarfile.TarFile, top: str, largest_bytes: int, left_out: LeftOut
    ) -> None:
        self._tar = tar
        self._top = top
        self._room = largest_bytes
        self._left_out = left_out
        self.files = 0
        self.bytes = 0

    def pack(self, entry: Entry, fits_bytes: int) -> None:
        """Add one thing, or say why not.

        Args:
            entry: as it was found.
            fits_bytes: larger files are not packed, to leave room for smaller ones.
        """
        mode = entry.status.st_mode
        if stat.S_ISDIR(mode):
            self._put(self._info(entry.path, entry.status, tarfile.DIRTYPE))
        elif stat.S_ISLNK(mode):
            self._link(entry)
        elif not stat.S_ISREG(mode):
            self._left_out.add(entry.path, "a pipe, a socket or a device")
        else:
            self._file(entry, fits_bytes)

    def put_text(self, path: str, text: str) -> None:
        """Add a file of our own."""
        data = text.encode("utf-8", "replace")
        info = tarfile.TarInfo(f"{self._top}/{path}")
        info.size, info.mode, info.mtime = len(data), 0o644, int(time.time())
        self._put(info, io.BytesIO(data))

    def put_top(self) -> None:
        """Add the folder that all is in."""
        info = tarfile.TarInfo(self._top)
        info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, int(time.time())
        self._put(info)

    def _link(self, entry: Entry) -> None:
        try:
            target = os.readlink(entry.name, dir_fd=entry.folder)
        except OSError as error:
            self._left_out.add(entry.path, _why(error))
            return
        if link_stays_inside(target, entry.depth):
            info = self._info(entry.path, entry.status, tarfile.SYMTYPE)
            info.linkname = target
            self._put(info)
        elif entry.path != _DATA:
            self._left_out.add(entry.path, "a link that leads outside the home")

    def _file(self, entry: Entry, fits_bytes: int) -> None:
        try:
            handle = os.open(entry.name, _READ, dir_fd=entry.folder)
        except OSError as error:
            self._left_out.add(entry.path, _why(error))
            return
        try:
            self._opened(entry, handle, fits_bytes)
        finally:
            os.close(handle)

    def _opened(self, entry: Entry, handle: int, fits_bytes: int) -> None:
        opened = os.fstat(handle)
        if not stat.S_ISREG(opened.st_mode):
            self._left_out.add(entry.path, "something else took its place")
            return
        if opened.st_size > min(fits_bytes, self._room):
            self._left_out.add(entry.path, f"too large ({_size(opened.st_size)})")
            return
        info = self._info(entry.path, opened, tarfile.REGTYPE)
        info.size = opened.st_size
        source = _AsLong(handle, opened.st_size)
        self._put(info, source)
        self._room -= info.size
        self.files += 1
        self.bytes += info.size
        after = os.fstat(handle)
        if source.is_short or (after.st_mtime_ns, after.st_size) != (
            opened.st_mtime_ns,
            opened.st_size,
        ):
            self._left_out.add(
                entry.path, "packed, but it changed or could not be read to its end"
            )

    def _info(self, path: str, status: os.stat_result, kind: bytes) -> tarfile.TarInfo:
        """Return a header without an owner: whoever unpacks it owns it."""
        info = tarfile.TarInfo(f"{self._top}/{path}")
        info.type = kind
        is_program = kind == tarfile.DIRTYPE or status.st_mode & stat.S_IXUSR
        info.mode = 0o755 if is_program else 0o644
        info.mtime = int(max(0, min(status.st_mtime, _LATEST)))
        return info

    def _put(self, info: tarfile.TarInfo, source: Any = None) -> None:
        self._tar.addfile(info, source)
        # It would keep all headers, of all the files.
        self._tar.members = []  # type: ignore[attr-defined]


class _AsLong:
    """A file that is as long as it was, whatever becomes of it."""

    def __init__(self, handle: int, size_bytes: int) -> None:
        self._handle = handle
        self._left = size_bytes
        self.is_short = False

    def read(self, size: int) -> bytes:
        wanted = min(size, self._left)
        parts = []
        while wanted > 0:
            part = b""
            with contextlib.suppress(OSError):
                part = os.read(self._handle, wanted)
            if not part:
                self.is_short = True
                part = bytes(wanted)
            parts.append(part)
            wanted -= len(part)
            self._left -= len(part)
        return b"".join(parts)


def largest_that_fits(sizes: list[int], room_bytes: int) -> int:
    """Return up to which size files are packed, so that as many as can be are."""
    total = fits = 0
    for size in sorted(sizes):
        total += size
        if total > room_bytes:
            break
        fits = size
    return fits


def pack(home: int, out: BinaryIO, top: str, largest_bytes: int) -> dict[str, object]:
    """Pack a home; return what is to be told of it.

    Args:
        home: the open folder.
        out: where the archive is written.
        top: the folder in the archive that all is in.
        largest_bytes: of all files together.
    """
    sizes = [
        entry.status.st_size
        for entry in Walk(LeftOut()).below(home)
        if stat.S_ISREG(entry.status.st_mode)
    ]
    fits_bytes = largest_that_fits(sizes, largest_bytes)
    left_out = LeftOut()
    at_top = set()
    with gzip.GzipFile(
        filename="", mode="wb", compresslevel=_LEVEL, fileobj=out, mtime=0
    ) as zipped, tarfile.open(
        mode="w|", fileobj=zipped, format=tarfile.PAX_FORMAT, encoding="utf-8"
    ) as tar:
        packer = Packer(tar, top, largest_bytes, left_out)
        packer.put_top()
        for entry in Walk(left_out).below(home):
            if not entry.depth:
                at_top.add(entry.path)
            packer.pack(entry, fits_bytes)
        if left_out.count:
            packer.put_text(_free_name(at_top), left_out.text())
    return {
        "files": packer.files,
        "bytes": packer.bytes,
        "left_out": left_out.count,
        "first": left_out.first[:_MOST_TOLD],
    }


def _free_name(taken: set[str]) -> str:
    stem, dot, suffix = LEFT_OUT.partition(".")
    name, number = LEFT_OUT, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}{dot}{suffix}"
    return name


def _why_no_work(folder: int, entry: Entry) -> str:
    """Say why an open folder is not packed, or nothing."""
    for name in _ENVIRONMENT:
        with contextlib.suppress(OSError):
            os.stat(name, dir_fd=folder, follow_symlinks=False)
            return "an environment of installed packages"
    try:
        is_elsewhere = os.fstat(folder).st_dev != os.fstat(entry.folder).st_dev
        if is_elsewhere and os.fstatvfs(folder).f_flag & os.ST_RDONLY:
            return "read-only, and none of the home's own"
    except OSError as error:
        return _why(error)
    return ""


def _why(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "it may not be read"
    if isinstance(error, FileNotFoundError):
        return "it vanished"
    return f"it cannot be read ({error.strerror})"


def _size(size_bytes: int) -> str:
    return f"{-(-size_bytes // 1024**2):,} MiB"


def main() -> None:
    """Pack the working directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--top", required=True)
    parser.add_argument("--largest", type=int, required=True)
    parser.add_argument("--seconds", type=int, required=True)
    given = parser.parse_args()
    # A file system of the attendee's own making may never answer.
    if os.getpid() == 1:
        # The first process of a container gets no signal that it does not handle.
        signal.signal(signal.SIGALRM, lambda *_: os._exit(1))
    signal.alarm(given.seconds)
    with contextlib.suppress(OSError):
        os.nice(10)
    home = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        told = pack(home, sys.stdout.buffer, given.top, given.largest)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever wanted it is gone: nothing is left to be told, nor to be flushed.
        os._exit(1)
    sys.stderr.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
