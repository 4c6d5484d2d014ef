"""The page where each attendee downloads their own work.

Owns who gets which archive. For an attendee that is the one of the user whom the hub
says they are, and of that very account: what a URL says is not looked at. Organisers
get each that is in the folder's list. Archives are made by `gpuworkshop material
collect`; nothing is written here.
"""

import asyncio
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote

from jupyterhub.services.auth import HubOAuth
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError

from jupyterhub_gpuworkshop.core.archives import SUFFIX, is_same_account, stem_of
from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.machine.archives import Archive, archives_in, opened
from jupyterhub_gpuworkshop.machine.timeouts import timeout
from jupyterhub_gpuworkshop.service.dashboard.look import LookHandler
from jupyterhub_gpuworkshop.service.dashboard.words import say

from .auth import Viewer

_LOG = logging.getLogger(__name__)
_PIECE_BYTES = 256 * 1024
_STALL_SECONDS = 300.0
"""For one piece: whoever takes none of it for so long holds a file open for nothing."""

_THREADS = ThreadPoolExecutor(4, "gpuworkshop-work")
"""Of their own: a slow disk holds up downloads, and no look at the GPUs."""

_NOT_THIS_ACCOUNT = (
    "There is work under your name, of an account that was here before yours, or from "
    "before the hub forgot its users. If it is yours, ask the organiser for it."
)
_NOT_SAID = (
    "Your login does not say since when you are a user here, and so not which work is "
    "yours. Log out and in again, or use a token with the scope read:users!user."
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """An archive, as organisers see it in the list.

    Attributes:
        stem: what its link says.
        name: the attendee's.
        size_bytes: of the file.
        made_at: seconds since 1970.
        is_earlier: it is of an account that is no more.
    """

    stem: str
    name: str
    size_bytes: int
    made_at: float
    is_earlier: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An open archive, or why there is none.

    Attributes:
        file: None where there is none.
        archive: what it is.
        why_not: empty where nothing has been packed yet.
    """

    file: BinaryIO | None = None
    archive: Archive | None = None
    why_not: str = ""


class _WorkHandler(LookHandler):
    """What the page and the download have in common."""

    def initialize(self, auth: HubOAuth, folder: Path) -> None:  # type: ignore[override]  # tornado's own way
        """Take where the archives are."""
        super().initialize(auth)
        self._folder = folder

    async def prepare(self) -> None:
        """Ask who it is; services have no work."""
        await super().prepare()
        viewer = getattr(self, "viewer", None)
        if viewer is not None and not (viewer.is_organiser or viewer.user):
            self.send_error(403, reason="A service has no work of its own here.")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say why there is nothing."""
        heading = say("work.nothing")
        if status_code != HTTPStatus.NOT_FOUND:
            heading = say("common.refused")
        self.write_page("work.html", heading=heading, error=self._reason)

    async def in_thread(self, act: Callable[..., T], *given: Any) -> T:
        """Run what reads the disk.

        Raises:
            HTTPError: the folder cannot be read.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(
                _THREADS, act, *given
            )
        except HostError as error:
            # Its message names a folder of the host; the log has it.
            _LOG.error("No archive can be read: %s", error)
            raise HTTPError(
                503, reason="The archives cannot be read just now. Tell the organiser."
            ) from None


class WorkHandler(_WorkHandler):
    """``GET work``: what there is to download."""

    async def get(self) -> None:
        """Write the page."""
        archives: list[Listed] = []
        own = Found()
        if self.viewer.is_organiser:
            found = await self.in_thread(archives_in, self._folder)
            archives = [_listed(archive) for archive in found]
        else:
            with ExitStack() as until_shown:
                own = await self.in_thread(_own, self._folder, self.viewer, until_shown)
        self.write_page(
            "work.html",
            error="",
            archives=archives,
            total_bytes=sum(archive.size_bytes for archive in archives),
            own=own.archive,
            why_not=own.why_not,
        )


class ArchiveHandler(_WorkHandler):
    """``GET work/archive``: the download."""

    def compute_etag(self) -> None:
        """Nothing of it is kept."""

    async def head(self) -> None:
        """Say how large it is."""
        with ExitStack() as until_sent:
            await self._begin(until_sent)
            self.finish()

    async def get(self) -> None:
        """Send it, a piece at a time."""
        with ExitStack() as until_sent:
            file = await self._begin(until_sent)
            try:
                while piece := await self.in_thread(file.read, _PIECE_BYTES):
                    self.write(piece)
                    async with timeout(_STALL_SECONDS):
                        await self.flush()
            except StreamClosedError:
                # Whoever wanted it has gone; the rest is for nobody.
                return
            except asyncio.TimeoutError:
                _LOG.warning("A download of %s does not go on", self.viewer.name)
                self.request.connection.stream.close()  # type: ignore[union-attr]

    async def _begin(self, until_sent: ExitStack) -> BinaryIO:
        """Find the archive that is asked for, and say what it is."""
        # An attendee's own, whatever the URL says.
        stem = self.get_query_argument("name", "") if self.viewer.is_organiser else ""
        if stem:
            found = await self.in_thread(_any, self._folder, stem, until_sent)
        else:
            found = await self.in_thread(_own, self._folder, self.viewer, until_sent)
        if found.file is None or found.archive is None:
            raise HTTPError(404, reason=found.why_not or "There is no such archive.")
        name = re.sub(r"[^A-Za-z0-9._-]", "_", found.archive.stem)
        self.set_header("Content-Type", "application/gzip")
        self.set_header("Content-Length", str(found.archive.size_bytes))
        self.set_header(
            "Content-Disposition", f'attachment; filename="{name}-work{SUFFIX}"'
        )
        return found.file


def _own(folder: Path, viewer: Viewer, until_done: ExitStack) -> Found:
    """Open the archive of who looks, where it is of their account."""
    try:
        stem = stem_of(viewer.user)
    except ValueError:
        return Found()
    entered = _entered(opened(folder, stem), until_done)
    if entered is None:
        return Found()
    file, archive, since = entered
    if viewer.since is None:
        return Found(why_not=_NOT_SAID)
    if not is_same_account(since, viewer.since):
        return Found(why_not=_NOT_THIS_ACCOUNT)
    return Found(file=file, archive=archive)


def _any(folder: Path, stem: str, until_done: ExitStack) -> Found:
    """Open one that is in the list."""
    if all(archive.stem != stem for archive in archives_in(folder)):
        return Found()
    entered = _entered(opened(folder, stem), until_done)
    return Found() if entered is None else Found(file=entered[0], archive=entered[1])


def _entered(context: AbstractContextManager[T], until_done: ExitStack) -> T:
    return until_done.enter_context(context)


def _listed(archive: Archive) -> Listed:
    name, _, earlier = archive.stem.partition("~")
    return Listed(
        stem=archive.stem,
        name=unquote(name),
        size_bytes=archive.size_bytes,
        made_at=archive.made_at,
        is_earlier=bool(earlier),
    )
