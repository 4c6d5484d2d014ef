"""What material is installed on this host: read from where the installer wrote it.

Owns the format of ``installed.json``, and where things are in ``material.folder``. It
reads, and never changes anything: fetching and installing is done by a command.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jupyterhub_gpuworkshop.core.errors import MaterialError

from .stamps import stamp_of

INSTALLED = "installed.json"
VERSIONS = ".versions"
KINDS = ("notebooks", "data")

_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the material that is installed.

    Attributes:
        kind: ``notebooks`` or ``data``.
        name: of the part, as the workshop file and attendees' folders name it.
        version: another one whenever the part was installed anew.
        source: where it came from, for people: without passwords.
        sha256: of the file that was fetched; empty for a folder or a repository.
        revision: the commit of a repository; else empty.
        files: how many there are.
        bytes: of all of them.
    """

    kind: str
    name: str
    version: str
    source: str = ""
    sha256: str = ""
    revision: str = ""
    files: int = 0
    bytes: int = 0

    def path(self, folder: Path) -> Path:
        """Return the folder that holds this version, and never another.

        It is there until the next install or update after it was replaced begins:
        whoever finds a file of it missing reads what is installed again.

        Args:
            folder: `material.folder` of the workshop file.
        """
        return folder / VERSIONS / self.version

    def link(self, folder: Path) -> Path:
        """Return where attendees find the part, whichever version it is."""
        return folder / self.kind / self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """All material that is installed."""

    folder: Path
    parts: tuple[Part, ...] = ()

    @property
    def notebooks(self) -> tuple[Part, ...]:
        """What each attendee gets a copy of."""
        return tuple(part for part in self.parts if part.kind == "notebooks")

    @property
    def data(self) -> tuple[Part, ...]:
        """What stays in one place."""
        return tuple(part for part in self.parts if part.kind == "data")

    @property
    def data_folder(self) -> Path:
        """What attendees' servers find in GPUWORKSHOP_DATA."""
        return self.folder / "data"

    def part(self, kind: str, name: str) -> Part | None:
        """Return one part; None where it is not installed."""
        return next((x for x in self.parts if (x.kind, x.name) == (kind, name)), None)

    def as_json(self) -> str:
        """Return what `read_installed` reads again."""
        parts = [asdict(part) for part in self.parts]
        return json.dumps({"format": _FORMAT, "parts": parts}, indent=1) + "\n"


def stamp(folder: Path) -> tuple[int, ...] | None:
    """Return a value that is another one when what is installed has changed.

    None where nothing is installed, or it cannot be told. It costs one stat.
    """
    return stamp_of(folder / INSTALLED)


def read_installed(folder: Path) -> Installed:
    """Read what is installed; nothing, where nothing ever was.

    Raises:
        MaterialError: the list cannot be read, or is none of ours.
    """
    path = folder / INSTALLED
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["format"] != _FORMAT:
            raise ValueError(f"its format is {said['format']!r}, not {_FORMAT}")
        parts = tuple(_part(entry) for entry in said["parts"])
    except (FileNotFoundError, NotADirectoryError):
        return Installed(folder=folder)
    except OSError as error:
        raise MaterialError(f"{path}: cannot be read: {error.strerror}.") from None
    except (ValueError, TypeError, KeyError) as error:
        raise MaterialError(
            f"{path}: is no list of installed material ({error}). `gpuworkshop "
            "material install` writes it anew."
        ) from None
    return Installed(folder=folder, parts=parts)


def _part(entry: dict[str, Any]) -> Part:
    part = Part(**entry)
    for name in (part.name, part.version):
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a folder")
    if part.kind not in KINDS:
        raise ValueError(f"{part.kind!r} is no kind of material")
    return part
