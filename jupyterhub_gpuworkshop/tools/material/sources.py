"""Where a part of the material comes from, told apart by how it is written.

Owns what is a repository, an address or a path, and how it is shown to people: without
the passwords in it.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from jupyterhub_gpuworkshop.core.errors import MaterialError
from jupyterhub_gpuworkshop.workshop_event import Material, MaterialSource

from .names import printable

_SCP_LIKE = re.compile(r"[\w.-]+@[\w.-]+:(?!//)", re.ASCII)
_WEB = ("http", "https")
_GIT = ("git", "ssh")


class From(Enum):
    """What a part comes from."""

    FOLDER = "folder"
    FILE = "file"
    WEB = "web"
    GIT = "git"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A part that the workshop file names.

    Attributes:
        kind: ``notebooks`` or ``data``.
        name: of the part.
        given: where it comes from.
    """

    kind: str
    name: str
    given: MaterialSource

    @property
    def key(self) -> str:
        """What it is called beside all others."""
        return f"{self.kind}.{self.name}"

    @property
    def label(self) -> str:
        """What people read."""
        return f"{self.kind}/{self.name}"

    @property
    def shown(self) -> str:
        """Where it comes from, for people."""
        return shown(self.given.source)

    @property
    def identity(self) -> str:
        """Another one whenever another thing is asked for."""
        given = self.given
        said = json.dumps([given.source, given.sha256, given.revision])
        return hashlib.sha256(said.encode()).hexdigest()

    def origin(self) -> From:
        """Return what it comes from.

        Raises:
            MaterialError: nothing can be fetched from there.
        """
        source = self.given.source
        url = split(source)
        if url.scheme == "file":
            raise MaterialError(
                f"{self.shown}: write the path alone, without file:// before it."
            )
        git = self.given.revision is not None or url.path.endswith(".git")
        if url.scheme in _GIT or _SCP_LIKE.match(source):
            origin = From.GIT
        elif url.scheme in _WEB:
            origin = From.GIT if git else From.WEB
        elif "://" in source or source.startswith("ext::"):
            raise MaterialError(
                f"{self.shown}: nothing is fetched with {printable(url.scheme)}. Write "
                "https://, ssh:// or a path."
            )
        elif git and Path(source).is_dir():
            origin = From.GIT
        else:
            origin = From.FOLDER if Path(source).is_dir() else From.FILE
        self._check_options(origin)
        return origin

    def _check_options(self, origin: From) -> None:
        if self.given.sha256 is not None and origin in (From.GIT, From.FOLDER):
            what = "a repository" if origin is From.GIT else "a folder"
            other = " Write revision." if origin is From.GIT else ""
            raise MaterialError(
                f"sha256 was given, but {what} has none: it is of one file.{other}"
            )
        if self.given.revision is not None and origin is not From.GIT:
            raise MaterialError(
                "revision was given, but there is no repository at "
                f"{self.shown}. Take it out, or write where one is."
            )


def wanted_parts(material: Material) -> tuple[Wanted, ...]:
    """Return what the workshop file names."""
    return tuple(
        Wanted(kind=kind, name=name, given=given)
        for kind, parts in (("notebooks", material.notebooks), ("data", material.data))
        for name, given in parts.items()
    )


def split(source: str) -> SplitResult:
    """Return the parts of an address; of a path, a path.

    Raises:
        MaterialError: it is no address.
    """
    try:
        url = urlsplit(source)
        # Read here, for it is only judged when it is read.
        _ = url.port
    except ValueError:
        raise MaterialError(
            f"{shown_text(source)} is no address that can be read."
        ) from None
    return url


def shown(source: str) -> str:
    """Return an address without what may be secret: user, password and query."""
    try:
        url = urlsplit(source)
    except ValueError:
        return shown_text(source)
    if not url.netloc:
        return printable(source)
    host = url.netloc.rpartition("@")[2]
    query = "…" if url.query else ""
    return printable(urlunsplit((url.scheme, host, url.path, query, "")))


def shown_text(source: str) -> str:
    """Return what is no address, without what may be a password in it."""
    return printable(re.sub(r"//[^/]*@", "//", source))


def file_name(source: str) -> str:
    """Return what a file at an address or a path is called; may be empty."""
    if "://" in source:
        return unquote(PurePosixPath(urlsplit(source).path).name)
    return Path(source).name
