"""The folder of installed material, and how it goes from one state to the next.

Owns the order of what is written, so that whoever looks sees each part as it was or as
it will be, whole, wherever a run is cut off: a new version is complete and on disk
before the one link that everybody follows is put in the place of the link before it.
What `installed.json` says follows from the links, and is written anew when it does not.
"""

import fcntl
import getpass
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from jupyterhub_gpuworkshop.core.errors import MaterialError
from jupyterhub_gpuworkshop.hub.own_files import sync_folder
from jupyterhub_gpuworkshop.machine.material import (
    INSTALLED,
    KINDS,
    VERSIONS,
    Installed,
    Part,
    read_installed,
)

from .writing import write_file

_INCOMING = ".incoming"
_LOCK = ".lock"
_KEPT_ENDS = (".part", ".note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A part as installed, with what tells whether it is to be installed anew.

    Attributes:
        part: what everybody may read.
        identity: what was asked for: address, digest, revision.
        looks: how the source looked: a folder's fingerprint, a file's ETag.
    """

    part: Part
    identity: str
    looks: Mapping[str, str] = field(default_factory=dict)


class Store:
    """The folder. One run at a time is in it.

    Args:
        folder: `material.folder`, which is there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.incoming = folder / _INCOMING
        self._versions = folder / VERSIONS

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out.

        Raises:
            MaterialError: one is at it.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        # Closed to others: whoever can open it could hold the lock.
        handle = os.open(self.folder / _LOCK, flags, 0o600)
        with os.fdopen(handle, "r+", encoding="utf-8", errors="replace") as file:
            os.fchmod(handle, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise MaterialError(
                    f"Another run is at {self.folder} ({file.read(200).strip()}). "
                    "Wait until it has ended."
                ) from None
            file.truncate(0)
            now = datetime.now().astimezone()
            file.write(f"process {os.getpid()} of {_who()}, since {now:%H:%M:%S}\n")
            file.flush()
            yield

    def settle(self, resumable: frozenset[str]) -> None:
        """Make what a run that was cut off has left whole, and remove the rest.

        Versions that no link leads to go, the one before the last update among them.

        Args:
            resumable: keys of parts, of which a half download stays.
        """
        for path, mode in (
            (self._versions, 0o755),
            *((self.folder / kind, 0o755) for kind in KINDS),
            (self.incoming, 0o700),
        ):
            path.mkdir(exist_ok=True)
            path.chmod(mode)
        (self.folder / f".{INSTALLED}.new").unlink(missing_ok=True)
        self._write_list()
        for path in self.incoming.iterdir():
            if not (path.name.endswith(_KEPT_ENDS) and path.stem in resumable):
                _remove(path)
        linked = {Path(os.readlink(link)).name for link in self.links()}  # noqa: PTH115
        for path in self._versions.iterdir():
            if path.name.removesuffix(".json") not in linked:
                _remove(path)

    def links(self) -> tuple[Path, ...]:
        """Return what attendees follow to the parts that are installed."""
        return tuple(
            path
            for kind in KINDS
            for path in sorted((self.folder / kind).iterdir())
            if path.is_symlink()
        )

    def records(self) -> tuple[Record, ...]:
        """Return what is installed, as the links say."""
        found = (self.record(link.parent.name, link.name) for link in self.links())
        return tuple(record for record in found if record is not None)

    def record(self, kind: str, name: str) -> Record | None:
        """Return one part; None where it is not installed, or not all of it."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            link = self.folder / kind / name
            version = Path(os.readlink(link)).name  # noqa: PTH115  its text
            said = json.loads((self._versions / f"{version}.json").read_text())
            if not (self._versions / version).is_dir():
                return None
            part = Part(**said["part"])
            if (part.kind, part.name, part.version) == (kind, name, version):
                return Record(part=part, identity=said["identity"], looks=said["looks"])
        return None

    def room_for(self, key: str, what: str) -> Path:
        """Return where something of a part is made, with nothing there."""
        path = self.incoming / f"{key}.{what}"
        _remove(path)
        return path

    def swap_in(self, tree: Path, record: Record) -> Record:
        """Put a tree in the place of the version before, if any; return its record.

        Args:
            tree: complete; in the folder of what comes in.
            record: of it; which version it becomes is decided here.

        Raises:
            MaterialError: something of somebody else's is there.
            OSError: it cannot be done; what was there stays.
        """
        link = record.part.link(self.folder)
        if os.path.lexists(link) and not link.is_symlink():
            raise MaterialError(
                f"{link} is there, and was not installed by this command. Move it away."
            )
        version = self._new_version(record.part.name)
        record = replace(record, part=replace(record.part, version=version))
        tree.chmod(0o755)
        # All files of it at once: one by one takes minutes where they are many.
        os.sync()
        write_file(self._versions / f"{version}.json", _written(record), mode=0o600)
        tree.rename(self._versions / version)
        sync_folder(self._versions)
        new = self.room_for(f"{record.part.kind}.{record.part.name}", "link")
        new.symlink_to(Path("..") / VERSIONS / version)
        new.replace(link)
        sync_folder(link.parent)
        self._write_list()
        return record

    def note(self, record: Record) -> None:
        """Write down how a source looks now, whose files have not changed."""
        path = self._versions / f"{record.part.version}.json"
        write_file(path, _written(record), mode=0o600)

    def take_out(self, link: Path) -> None:
        """Remove a part: first from everybody's sight, then from the disk."""
        version = Path(os.readlink(link)).name  # noqa: PTH115  its text
        link.unlink()
        sync_folder(link.parent)
        self._write_list()
        _remove(self._versions / version)
        _remove(self._versions / f"{version}.json")

    def _new_version(self, name: str) -> str:
        while True:
            version = f"{name}-{secrets.token_hex(4)}"
            if not (self._versions / version).exists():
                return version

    def _write_list(self) -> None:
        parts = tuple(record.part for record in self.records())
        installed = Installed(folder=self.folder, parts=parts)
        with suppress(MaterialError):
            if (self.folder / INSTALLED).exists() and (
                read_installed(self.folder) == installed
            ):
                return
        write_file(self.folder / INSTALLED, installed.as_json(), mode=0o644)


def _written(record: Record) -> str:
    said: dict[str, Any] = asdict(record)
    return json.dumps(said)


def _remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, where it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _who() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
