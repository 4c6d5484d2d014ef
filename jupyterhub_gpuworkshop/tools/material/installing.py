"""`gpuworkshop material install` and `update`: one part after the other.

Owns what is fetched again and what is left as it is, and what is said of each part. A
part that fails leaves what was installed of it, and does not stop the others.
"""

import errno
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import MaterialError
from jupyterhub_gpuworkshop.machine.material import Part
from jupyterhub_gpuworkshop.workshop import Workshop

from .cloning import Repository
from .fetching import Download, Telling, Validators
from .names import size_words
from .places import closed_above, make_folder, why_not_lasting
from .sources import From, Wanted, wanted_parts
from .store import Record, Store
from .tree import Limits, Tree
from .unpacking import copy_folder, is_archive, single_file, unpack, walk
from .writing import free_bytes

_CHUNK_BYTES = 1024 * 1024
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Became(Enum):
    """What became of a part."""

    INSTALLED = "installed"
    UNCHANGED = "unchanged"
    REMOVED = "removed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one part.

    Attributes:
        label: kind and name.
        became: what.
        says: how large it is, or why it failed.
    """

    label: str
    became: Became
    says: str = ""


class Watcher:
    """Hears how far it is; this one keeps it to itself."""

    def begin(self, label: str, doing: str, total: int) -> None:
        """Something begins, of so many bytes; 0 where that is not known."""

    def done(self, count: int) -> None:
        """So many bytes of it are done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run.

    Attributes:
        workshop: what it is for.
        again: look at each source, also where the part is installed already.
        watcher: hears how far it is.
        warn: says what the organiser should know.
    """

    workshop: Workshop
    again: bool
    watcher: Watcher
    warn: Callable[[str], None]


def install(run: Run) -> list[Outcome]:
    """Install what the workshop file names, and remove what it names no more.

    Raises:
        MaterialError: nothing can be installed there at all.
    """
    material = run.workshop.material
    _check_place(run)
    make_folder(material.folder)
    _warn_of_closed(run)
    store = Store(material.folder)
    wanted = wanted_parts(material)
    try:
        with store.locked():
            store.settle(frozenset(one.key for one in wanted))
            outcomes = _remove_others(store, wanted)
            outcomes += [_one_of_them(run, store, one) for one in wanted]
    except OSError as error:
        raise MaterialError(_words(error, material.folder)) from None
    return outcomes


def _check_place(run: Run) -> None:
    folder = run.workshop.material.folder
    why = why_not_lasting(folder)
    if not why:
        return
    if run.workshop.gpus.source == "simulated":
        run.warn(f"{why}. For a rehearsal that will do.")
        return
    raise MaterialError(
        f"{why}. Name a place that stays as material.folder: "
        "/var/lib/gpuworkshop-material, say."
    )


def _warn_of_closed(run: Run) -> None:
    folder = run.workshop.material.folder
    if shut := closed_above(folder):
        run.warn(
            f"Attendees cannot get to {folder}: {', '.join(map(str, shut))} is closed "
            f"to them. sudo chmod o+x {' '.join(map(str, shut))}"
        )


def _remove_others(store: Store, wanted: Sequence[Wanted]) -> list[Outcome]:
    named = {(one.kind, one.name) for one in wanted}
    outcomes = []
    for link in store.links():
        kind, name = link.parent.name, link.name
        if (kind, name) not in named:
            store.take_out(link)
            outcomes.append(
                Outcome(
                    label=f"{kind}/{name}",
                    became=Became.REMOVED,
                    says="the workshop file does not name it any more",
                )
            )
    return outcomes


def _one_of_them(run: Run, store: Store, wanted: Wanted) -> Outcome:
    try:
        try:
            record = _One(run, store, wanted).install()
            # Of a run that was cut off there may be one, though it is installed.
            _clear(store, wanted, "part", "note")
        finally:
            _clear(store, wanted, "tree", "git", "link")
    except MaterialError as error:
        return Outcome(label=wanted.label, became=Became.FAILED, says=str(error))
    except OSError as error:
        if error.errno in _NO_ROOM:
            _clear(store, wanted, "part", "note")
        says = f"{_words(error, store.folder)} What was installed before is as it was."
        return Outcome(label=wanted.label, became=Became.FAILED, says=says)
    if record is None:
        return Outcome(label=wanted.label, became=Became.UNCHANGED)
    files = f"{record.part.files} file{'' if record.part.files == 1 else 's'}"
    return Outcome(
        label=wanted.label,
        became=Became.INSTALLED,
        says=f"{files}, {size_words(record.part.bytes)}",
    )


def _clear(store: Store, wanted: Wanted, *what: str) -> None:
    for one in what:
        with suppress(OSError):
            store.room_for(wanted.key, one)


class _One:
    """One part, from its source to its place."""

    def __init__(self, run: Run, store: Store, wanted: Wanted) -> None:
        self._again = run.again
        self._watcher = run.watcher
        self._store = store
        self._wanted = wanted
        self._limits = Limits(
            size=run.workshop.material.largest, fold_case=wanted.kind == "notebooks"
        )
        had = store.record(wanted.kind, wanted.name)
        same = had is not None and had.identity == wanted.identity
        self._had = had if same else None

    def install(self) -> Record | None:
        """Install the part; None where it is installed, and unchanged.

        Raises:
            MaterialError: it cannot be had, or may not be installed.
            OSError: the disk is full, say.
        """
        origin = self._wanted.origin()
        if origin in (From.FOLDER, From.FILE):
            return self._from_here(origin)
        if self._had is not None and not self._again:
            return None
        return self._from_git() if origin is From.GIT else self._from_web()

    def _from_here(self, origin: From) -> Record | None:
        path = Path(self._wanted.given.source)
        try:
            looks, size = _looks(path, origin)
        except OSError as error:
            raise MaterialError(f"{path} cannot be read: {error.strerror}.") from None
        if self._had is not None and self._had.looks == looks:
            return None
        if size > self._limits.size:
            raise MaterialError(
                f"{path} is larger than {size_words(self._limits.size)}, which "
                "material.largest allows."
            )
        self._check_room(size)
        if origin is From.FILE:
            digest = self._digest(path)
            return self._put(
                lambda tree: _take_file(path, path.name, tree),
                size=size,
                unwrap=is_archive(path, path.name),
                sha256=digest,
                looks=looks,
            )
        return self._put(
            lambda tree: copy_folder(path, tree), size=size, unwrap=False, looks=looks
        )

    def _from_web(self) -> Record | None:
        had, given = self._had, self._wanted.given
        if had is not None and given.sha256 is not None:
            return None  # it is what it must be
        download = Download(
            wanted=self._wanted,
            folder=self._store.incoming,
            largest_bytes=self._limits.size,
            telling=_Counting(self._watcher, self._wanted.label).telling(),
        )
        known = Validators(**had.looks) if had is not None else None
        fetched = download.fetch(known)
        if fetched is None:
            return None
        path, name = fetched.path, fetched.name
        looks = asdict(fetched.validators)
        try:
            digest = self._digest(path)
            if had is not None and had.part.sha256 == digest:
                self._store.note(replace(had, looks=looks))
                return None
            return self._put(
                lambda tree: _take_file(path, name, tree),
                unwrap=is_archive(path, name),
                sha256=digest,
                looks=looks,
            )
        except MaterialError:
            # It is here whole, and no good: nothing of it is to be used again.
            download.forget()
            raise

    def _from_git(self) -> Record | None:
        repository = Repository(
            self._wanted,
            self._store.room_for(self._wanted.key, "git"),
            self._limits.size,
        )
        self._watcher.begin(self._wanted.label, "looking", 0)
        if self._had is not None and repository.newest() == self._had.part.revision:
            return None
        self._watcher.begin(self._wanted.label, "fetching", 0)
        commit = repository.fetch()
        return self._put(
            lambda tree: repository.unpack(commit, tree), unwrap=False, revision=commit
        )

    def _digest(self, path: Path) -> str:
        """Return the SHA-256 of a file, which is the one that was given, if any."""
        self._watcher.begin(self._wanted.label, "checking", path.stat().st_size)
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                self._watcher.done(len(chunk))
        found = digest.hexdigest()
        expected = self._wanted.given.sha256
        if expected is not None and found != expected:
            raise MaterialError(
                f"{self._wanted.shown} is not the file that sha256 is of: it has "
                f"{found}. Ask who made it, or write that."
            )
        return found

    def _check_room(self, size: int) -> None:
        free = free_bytes(self._store.folder)
        if size > free:
            raise MaterialError(
                f"It needs {size_words(size)}, and {size_words(free)} are free on "
                f"the disk of {self._store.folder}. Make room there, or name another "
                "material.folder."
            )

    def _put(
        self,
        fill: Callable[[Tree], None],
        *,
        unwrap: bool,
        size: int = 0,
        sha256: str = "",
        revision: str = "",
        looks: Mapping[str, str] | None = None,
    ) -> Record:
        root = self._store.room_for(self._wanted.key, "tree")
        root.mkdir(mode=0o700)
        self._watcher.begin(self._wanted.label, "unpacking", size)
        tree = Tree(root=root, limits=self._limits, tell=self._watcher.done)
        fill(tree)
        base = tree.finish(unwrap=unwrap)
        part = Part(
            kind=self._wanted.kind,
            name=self._wanted.name,
            version="",
            source=self._wanted.shown,
            sha256=sha256,
            revision=revision,
            files=tree.files,
            bytes=tree.size,
        )
        identity = self._wanted.identity
        record = Record(part=part, identity=identity, looks=dict(looks or {}))
        return self._store.swap_in(base, record)


class _Counting:
    """Makes of a download's two numbers what a watcher hears."""

    def __init__(self, watcher: Watcher, label: str) -> None:
        self._watcher, self._label, self._done = watcher, label, 0

    def telling(self) -> Telling:
        return Telling(total=self._begin, done=self._so_far)

    def _begin(self, total: int) -> None:
        self._done = 0
        self._watcher.begin(self._label, "fetching", total)

    def _so_far(self, count: int) -> None:
        self._watcher.done(count - self._done)
        self._done = count


def _take_file(path: Path, name: str, tree: Tree) -> None:
    if is_archive(path, name):
        unpack(path, name, tree)
    else:
        single_file(path, name, tree)


def _looks(path: Path, origin: From) -> tuple[dict[str, str], int]:
    """Return what tells that something on this machine has changed, and its size."""
    seen = path.stat()
    if origin is From.FILE:
        if not path.is_file():
            raise MaterialError(f"{path} is no file and no folder.")
        return {"looks": f"{seen.st_size} {seen.st_mtime_ns}"}, seen.st_size
    digest, size = hashlib.sha256(), 0
    for name, entry in walk(path):
        one = entry.stat(follow_symlinks=False)
        is_file = entry.is_file(follow_symlinks=False)
        # The time of a folder or a link says nothing about what is in it.
        when = (one.st_size, one.st_mtime_ns) if is_file else ()
        target = str(Path(entry.path).readlink()) if entry.is_symlink() else ""
        said = repr((name, one.st_mode, when, target))
        digest.update(said.encode(errors="surrogatepass"))
        size += one.st_size if is_file else 0
    return {"looks": digest.hexdigest()}, size


def _words(error: OSError, folder: Path) -> str:
    if error.errno in _NO_ROOM:
        return f"The disk of {folder} is full. Make room there, and run it again."
    where = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{where}."
