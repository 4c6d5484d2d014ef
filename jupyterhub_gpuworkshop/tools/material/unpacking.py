"""Reads tar and zip archives, folders and single files into a tree.

Owns what an archive is, and which of its entries are material. What may be written, and
how much of it, is the tree's to say.
"""

import bz2
import gzip
import lzma
import os
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from jupyterhub_gpuworkshop.core.errors import MaterialError

from .names import printable
from .tree import Tree

_CHUNK_BYTES = 1024 * 1024
_MOST_HEADER_BYTES = 16 * 1024 * 1024
_MOST_TARGET_BYTES = 4096
_UNIX = 3
_ENCRYPTED = 1
_TAR_ENDS = (
    *(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2"),
    *(".tar.xz", ".txz", ".tar.zst", ".tzst"),
)
_CANNOT = (".rar", ".7z")
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, gzip.BadGzipFile, ValueError, NotImplementedError, RuntimeError),
)


def is_archive(path: Path, name: str) -> bool:
    """Say whether a file is to be unpacked, rather than material itself.

    Args:
        path: where it is.
        name: what it is called. A file of which the name tells nothing is unpacked
            where it is an archive: an .npz or .docx is a zip file, and stays one.

    Raises:
        MaterialError: it is an archive of a kind that cannot be unpacked.
    """
    lowered = name.lower()
    if lowered.endswith(_CANNOT):
        raise MaterialError(
            f"{printable(name)} cannot be unpacked here. Pack it as .zip or .tar.gz."
        )
    if lowered.endswith((*_TAR_ENDS, ".zip")):
        return True
    if PurePosixPath(lowered).suffix:
        return False
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
    except _BROKEN:
        return False


def unpack(path: Path, name: str, tree: Tree) -> None:
    """Unpack an archive.

    Raises:
        MaterialError: it is broken, or holds what may not be there.
        OSError: the disk is full, say.
    """
    try:
        if zipfile.is_zipfile(path) and not name.lower().endswith(_TAR_ENDS):
            with zipfile.ZipFile(path) as archive:
                _from_zip(archive, tree)
        else:
            with path.open("rb") as file, _decompressed(file, name) as raw:
                unpack_tar(raw, tree)
    except (*_BROKEN, tarfile.TarError) as error:
        raise MaterialError(
            f"{printable(name)} is no tar or zip file that can be unpacked: "
            f"{printable(str(error)) or type(error).__name__}."
        ) from None
    except OSError as error:
        if error.errno is not None:
            raise
        # As bz2 says that it is broken.
        raise MaterialError(
            f"{printable(name)} cannot be unpacked: {printable(str(error))}."
        ) from None
    except MemoryError:
        raise MaterialError(f"{printable(name)} needs too much memory.") from None


def unpack_tar(raw: IO[bytes], tree: Tree) -> None:
    """Unpack a tar archive that is not compressed (any more).

    Raises:
        MaterialError, OSError, or what tarfile raises of one that is broken.
    """
    reader = cast("IO[bytes]", _Bounded(raw))
    with tarfile.open(fileobj=reader, mode="r:", encoding="utf-8") as archive:
        for member in archive:
            _from_tar(archive, member, tree)
            # It keeps every member that it has met: a million of them.
            archive.members = []  # type: ignore[attr-defined]


def single_file(path: Path, name: str, tree: Tree) -> None:
    """Take a file as it is."""
    with path.open("rb") as file:
        tree.file(name, _chunks(file), executable=False)


def copy_folder(folder: Path, tree: Tree) -> None:
    """Take a folder of this machine.

    Raises:
        MaterialError: it holds what may not be there.
        OSError: it cannot be read, or the disk is full.
    """
    for name, entry in walk(folder):
        if entry.is_symlink():
            tree.symlink(name, os.readlink(entry.path))  # noqa: PTH115  its text
        elif entry.is_dir(follow_symlinks=False):
            tree.folder(name)
        elif entry.is_file(follow_symlinks=False):
            handle = os.open(
                entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )
            with os.fdopen(handle, "rb") as file:
                mode = os.fstat(handle).st_mode
                tree.file(name, _chunks(file), executable=bool(mode & 0o100))
        else:
            raise _special(name)


def walk(folder: Path) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Return everything in a folder with its name from there, folders first, sorted.

    Raises:
        OSError: it cannot be read.
    """
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(folder / below) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            name = f"{below}{entry.name}"
            if entry.name in (".git", ".ipynb_checkpoints"):
                continue
            yield name, entry
            if entry.is_dir(follow_symlinks=False):
                waiting.append(f"{name}/")


class _Bounded:
    """A file that is never read in huge pieces: a tar header may claim any length."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._place = 0
        self._last = b""  # the byte before the place
        self._again = b""  # what is read a second time

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_HEADER_BYTES:
            raise tarfile.ReadError("a header is too long")
        data = self._again[:size]
        self._again = self._again[size:]
        while len(data) < size and (more := self._file.read(size - len(data))):
            data += more
        self._place += len(data)
        self._last = data[-1:] or self._last
        return data

    def tell(self) -> int:
        return self._place

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = 0) -> int:
        # Forward only, by reading: pipes too, and no archive is unpacked twice. One
        # byte back is what tarfile goes to see whether a file was there whole.
        if whence == 0 and place == self._place - 1 and self._last and not self._again:
            self._again, self._last = self._last, b""
            self._place = place
        if whence != 0 or place < self._place:
            raise tarfile.ReadError("its parts are not in order")
        while self._place < place:
            if not self.read(min(_CHUNK_BYTES, place - self._place)):
                raise tarfile.ReadError("it ends too early")
        return self._place


def _decompressed(file: IO[bytes], name: str) -> IO[bytes]:
    magic = file.read(6)
    file.seek(0)
    opened: Any = file
    if magic.startswith(b"\x1f\x8b"):
        opened = gzip.GzipFile(fileobj=file)
    elif magic.startswith(b"BZh"):
        opened = bz2.BZ2File(file)
    elif magic.startswith(b"\xfd7zXZ\x00"):
        opened = lzma.LZMAFile(file)  # noqa: SIM115  the caller closes it
    elif magic.startswith(b"\x28\xb5\x2f\xfd"):
        opened = _zstd(file, name)
    return cast("IO[bytes]", cast("BufferedIOBase", opened))


def _zstd(file: IO[bytes], name: str) -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.ZstdFile(file)
    raise MaterialError(
        f"{printable(name)} is packed with zstd, which Python knows from 3.14 on. Pack "
        "it as .tar.xz or .tar.gz."
    )


def _from_tar(archive: tarfile.TarFile, member: tarfile.TarInfo, tree: Tree) -> None:
    name = member.name
    if member.isdir():
        tree.folder(name)
    elif member.issym():
        tree.symlink(name, member.linkname)
    elif member.islnk():
        tree.hard_link(name, member.linkname)
    elif member.isreg():
        # Names are judged before tarfile's own filter, which mends some of them.
        tree.check(name)
        if hasattr(tarfile, "data_filter"):
            tarfile.data_filter(member, str(tree.root))
        file = archive.extractfile(member)
        if file is None:
            raise tarfile.ReadError("a file has no content")
        with file:
            tree.file(name, _whole(file, member), executable=bool(member.mode & 0o100))
    else:
        raise _special(name)


def _whole(file: IO[bytes], member: tarfile.TarInfo) -> Iterator[bytes]:
    left = member.size
    for chunk in _chunks(file):
        left -= len(chunk)
        yield chunk
    if left > 0:
        raise tarfile.ReadError("it ends too early")


def _from_zip(archive: zipfile.ZipFile, tree: Tree) -> None:
    for member in archive.infolist():
        # What a Unix program has packed says the kind and the mode of it.
        mode = member.external_attr >> 16 if member.create_system == _UNIX else 0
        kind = stat.S_IFMT(mode)
        if member.flag_bits & _ENCRYPTED:
            raise MaterialError(
                f"{printable(member.filename)} has a password. Pack it without one."
            )
        if member.is_dir() or kind == stat.S_IFDIR:
            tree.folder(member.filename)
        elif kind == stat.S_IFLNK:
            with archive.open(member) as file:
                target = file.read(_MOST_TARGET_BYTES)
            tree.symlink(member.filename, target.decode("utf-8"))
        elif kind in (0, stat.S_IFREG):
            with archive.open(member) as file:
                tree.file(member.filename, _chunks(file), executable=bool(mode & 0o100))
        else:
            raise _special(member.filename)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _special(name: str) -> MaterialError:
    return MaterialError(
        f"{printable(name)} is no file, folder or link but a device, a pipe or a "
        "socket. Leave it out."
    )
