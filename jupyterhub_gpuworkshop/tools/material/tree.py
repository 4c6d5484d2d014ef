"""Writes the files of one part into a folder of their own, and nowhere else.

Owns what may be written there: regular files and folders, links that stay inside, up to
a number of bytes and of entries. Links come last, when everything else is written:
nothing can be written through one. Where the files come from is others' business.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import MaterialError

from .names import check_link, checked, is_left_out, leads_out, printable, size_words

MOST_ENTRIES = 1_000_000
_FOLDER, _FILE, _LINK = "folder", "file", "link"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one part may be.

    Attributes:
        size: of all its files in bytes, and of what is fetched.
        entries: files, folders and links.
        fold_case: refuse names that differ in case only: attendees take their copies
            to machines on which these are one.
    """

    size: int
    entries: int = MOST_ENTRIES
    fold_case: bool = False


@dataclass(slots=True)
class Tree:
    """One part that is being written.

    Attributes:
        root: an empty folder that nobody else can reach.
        limits: what it may become.
        tell: called with the number of bytes written since it was called last.
        files: how many there are.
        size: of all of them, in bytes.
    """

    root: Path
    limits: Limits
    tell: Callable[[int], None]
    files: int = 0
    size: int = 0
    _seen: dict[str, str] = field(default_factory=dict)
    _folded: dict[str, str] = field(default_factory=dict)
    _links: dict[str, str] = field(default_factory=dict)
    _entries: int = 0

    def count(self) -> None:
        """Count an entry, whether it is written or not.

        Raises:
            MaterialError: there are too many.
        """
        self._entries += 1
        if self._entries > self.limits.entries:
            raise MaterialError(
                f"It has more than {self.limits.entries} files and folders. Make it "
                "smaller."
            )

    @staticmethod
    def check(name: str) -> None:
        """Refuse a name that nothing may have.

        Raises:
            MaterialError: it is one.
        """
        checked(name)

    def folder(self, name: str) -> None:
        """Make a folder, where it is not there yet."""
        parts = checked(name)
        if is_left_out(parts) or "/".join(parts) in self._seen:
            self.count()
        if not is_left_out(parts):
            self._folder(parts)

    def file(self, name: str, chunks: Iterable[bytes], *, executable: bool) -> None:
        """Write a file.

        Raises:
            MaterialError: it may not be there, or is too large.
            OSError: the disk is full, say.
        """
        self.count()
        parts = checked(name)
        if is_left_out(parts):
            return
        path = self._new(parts, _FILE)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(path, flags, 0o600)
        try:
            for chunk in chunks:
                self._write(handle, chunk)
            os.fchmod(handle, 0o755 if executable else 0o644)
        finally:
            os.close(handle)
        self.files += 1

    def symlink(self, name: str, target: str) -> None:
        """Note a symbolic link, made when all else is written."""
        self.count()
        parts = checked(name)
        if not is_left_out(parts):
            self._new(parts, _LINK)
            self._links["/".join(parts)] = target

    def hard_link(self, name: str, target: str) -> None:
        """Make a second name of a file that is written already."""
        self.count()
        parts, other = checked(name), checked(target)
        if is_left_out(parts):
            return
        if self._seen.get("/".join(other)) != _FILE:
            raise MaterialError(
                f"{printable(name)} is a second name of {printable(target)}, which is "
                "no file of the archive. Put the file itself there."
            )
        path = self._new(parts, _FILE)
        first = self.root.joinpath(*other)
        # A copy of it in each home is as large as the file.
        self._add(first.stat().st_size)
        os.link(first, path, follow_symlinks=False)
        self.files += 1

    def finish(self, *, unwrap: bool) -> Path:
        """Make the links; return the folder that is the part.

        Args:
            unwrap: where all of it is in one folder, that one is the part.

        Raises:
            MaterialError: a link leads out, or there is no file at all.
        """
        if not self.files:
            raise MaterialError("There is no file in it.")
        top: tuple[str, ...] = ()
        firsts = {name.partition("/")[0] for name in self._seen}
        if unwrap and len(firsts) == 1 and self._seen[(one := firsts.pop())] == _FOLDER:
            top = (one,)
        for name, target in self._links.items():
            check_link(name, target, top)
            os.symlink(target, self.root / name)  # noqa: PTH211  its text, not a path
        base = self.root.joinpath(*top)
        inside = os.path.realpath(base)
        for name, target in self._links.items():
            # Links on the way are followed here, as whoever opens it will.
            end = os.path.realpath(self.root / name)
            if os.path.commonpath([inside, end]) != inside:
                raise leads_out(name, target)
        return base

    def _write(self, handle: int, chunk: bytes) -> None:
        self._add(len(chunk))
        view = memoryview(chunk)
        while view:
            view = view[os.write(handle, view) :]
        self.tell(len(chunk))

    def _add(self, count: int) -> None:
        self.size += count
        if self.size > self.limits.size:
            raise MaterialError(
                f"Unpacked it is larger than {size_words(self.limits.size)}, which "
                "material.largest allows."
            )

    def _folder(self, parts: tuple[str, ...]) -> None:
        for depth in range(1, len(parts) + 1):
            name = "/".join(parts[:depth])
            kind = self._seen.get(name)
            if kind == _FOLDER:
                continue
            if kind is not None:
                raise _twice(name)
            self.count()
            self._note(name, _FOLDER)
            path = self.root / name
            path.mkdir(mode=0o755)
            path.chmod(0o755)  # whatever the umask

    def _new(self, parts: tuple[str, ...], kind: str) -> Path:
        if not parts:
            raise MaterialError("The archive's top is no folder. Pack it again.")
        self._folder(parts[:-1])
        name = "/".join(parts)
        if name in self._seen:
            raise _twice(name)
        self._note(name, kind)
        return self.root / name

    def _note(self, name: str, kind: str) -> None:
        self._seen[name] = kind
        if self.limits.fold_case:
            folded = name.casefold()
            other = self._folded.setdefault(folded, name)
            if other != name:
                raise MaterialError(
                    f"{printable(other)} and {printable(name)} are one name on other "
                    "machines, to which attendees take their copies. Rename one."
                )


def _twice(name: str) -> MaterialError:
    return MaterialError(
        f"{printable(name)} is there twice, or is a file that others are in. Pack it "
        "again."
    )
