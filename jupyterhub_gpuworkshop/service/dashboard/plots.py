"""The plots' documents and the script that draws them, for browsers to fetch.

Owns the child that makes the documents (`drawing`), once, when a page first asks, and
which of Bokeh's files are served: one. It never imports Bokeh itself.
"""

import asyncio
import contextlib
import gzip
import importlib.metadata
import importlib.util
import logging
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence
from pathlib import Path

from jupyterhub.services.auth import HubOAuth
from tornado.web import HTTPError

from jupyterhub_gpuworkshop.core.errors import PlotError
from jupyterhub_gpuworkshop.machine.timeouts import timeout
from jupyterhub_gpuworkshop.service.web.api import ApiHandler
from jupyterhub_gpuworkshop.service.web.auth import OpenHandler
from jupyterhub_gpuworkshop.service.web.pieces import finish_in_pieces

THEMES = ("light", "dark")
SLOTS = 16
"""Plots of one theme that a page can show at once."""

_LOG = logging.getLogger(__name__)
_DRAWS_WITHIN_SECONDS = 60.0
_TRIES_AGAIN_AFTER_SECONDS = 60.0
_SCRIPT = Path("server", "static", "js", "bokeh.min.js")
_YEAR_SECONDS = 365 * 24 * 3600


def drawing_command() -> list[str]:
    """Return the command of the child that makes the documents."""
    module = "jupyterhub_gpuworkshop.service.dashboard.drawing"
    return [sys.executable, "-m", module, str(SLOTS), *THEMES]


class Plots:
    """The documents of the plots, made when first asked for and kept.

    Args:
        command: of the child that makes them, see `drawing_command`.
        timeout_seconds: how long that may take.
    """

    def __init__(
        self,
        command: Sequence[str] = (),
        *,
        timeout_seconds: float = _DRAWS_WITHIN_SECONDS,
    ) -> None:
        self._command = command or drawing_command()
        self._timeout_seconds = timeout_seconds
        self._drawing: asyncio.Task[list[bytes]] | None = None
        self._failed_at = -_TRIES_AGAIN_AFTER_SECONDS

    async def document(self, theme: str, slot: int) -> bytes:
        """Return one document as JSON.

        Args:
            theme: one of `THEMES`.
            slot: below `SLOTS`; no two of a page take the same.

        Raises:
            PlotError: there are none, now.
        """
        # Whoever asks first may go away before it is drawn: the others stay.
        made = await asyncio.shield(self._made())
        return made[THEMES.index(theme) * SLOTS + slot]

    def _made(self) -> "asyncio.Task[list[bytes]]":
        found = self._drawing
        if found is not None and found.done() and self._is_to_be_tried_again(found):
            found = None
        if found is None:
            found = self._drawing = asyncio.create_task(self._draw())
        return found

    def _is_to_be_tried_again(self, task: "asyncio.Task[list[bytes]]") -> bool:
        if task.cancelled():
            return True
        since = time.monotonic() - self._failed_at
        return task.exception() is not None and since >= _TRIES_AGAIN_AFTER_SECONDS

    async def _draw(self) -> list[bytes]:
        try:
            return await self._ask_child()
        except PlotError as error:
            self._failed_at = time.monotonic()
            _LOG.warning("Pages have no plots: %s", error)
            raise

    async def _ask_child(self) -> list[bytes]:
        try:
            child = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=None,
                start_new_session=True,
                # With -m, Python looks for modules in the current folder first: it
                # may be anybody's, and this may be root.
                cwd="/",
            )
        except OSError as error:
            raise PlotError(f"Plots cannot be drawn: {error}.") from error
        try:
            async with timeout(self._timeout_seconds):
                output, _ = await child.communicate()
        except asyncio.TimeoutError:
            raise PlotError(
                f"Plots were not drawn within {self._timeout_seconds:.0f} s: the "
                "machine is overloaded, or its disk hangs."
            ) from None
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
        made = output.splitlines()
        if child.returncode or len(made) != SLOTS * len(THEMES):
            raise PlotError(
                "Plots cannot be drawn: the service's log says why, or run "
                f"`{' '.join(self._command)}` on the machine."
            )
        return made


class BokehScript:
    """BokehJS, as it is installed beside Bokeh.

    Attributes:
        version: of Bokeh; empty where it is not there.
    """

    def __init__(self) -> None:
        self.version = ""
        self._read: asyncio.Task[tuple[bytes, bytes]] | None = None
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            self.version = importlib.metadata.version("bokeh")

    async def read(self) -> tuple[bytes, bytes]:
        """Return the script, and the same zipped: once for all who ask.

        Raises:
            PlotError: it cannot be read.
        """
        if self._read is None or (
            self._read.done() and (self._read.cancelled() or self._read.exception())
        ):
            self._read = asyncio.create_task(asyncio.to_thread(_read_and_zip))
        return await asyncio.shield(self._read)


def _read_and_zip() -> tuple[bytes, bytes]:
    # Finding a package does not import it.
    found = importlib.util.find_spec("bokeh")
    if found is None or not found.submodule_search_locations:
        raise PlotError("Bokeh is not installed.")
    folder = Path(found.submodule_search_locations[0])
    try:
        plain = (folder / _SCRIPT).read_bytes()
    except OSError as error:
        raise PlotError(f"Bokeh's script cannot be read: {error}.") from error
    return plain, gzip.compress(plain, mtime=0)


class DevicePlotHandler(ApiHandler):
    """``GET plots/device.json?theme=light|dark&slot=N``: a Bokeh ``json_item``."""

    def initialize(self, auth: HubOAuth, plots: Plots) -> None:  # type: ignore[override]  # tornado's own way
        """Take what it reads."""
        super().initialize(auth)
        self._plots = plots

    async def get(self) -> None:
        """Write a plot without data."""
        theme, slot = self.get_argument("theme", THEMES[0]), self._slot()
        if theme not in THEMES:
            raise HTTPError(400, f"theme is one of {', '.join(THEMES)}")
        try:
            document = await self._plots.document(theme, slot)
        except PlotError as error:
            raise HTTPError(503, "Plots cannot be drawn now.") from error
        self.set_header("Content-Type", "application/json")
        self.finish(document)

    def _slot(self) -> int:
        text = self.get_argument("slot", "0")
        slot = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else -1
        if not 0 <= slot < SLOTS:
            raise HTTPError(400, f"slot is a number from 0 to {SLOTS - 1}")
        return slot


class BokehHandler(OpenHandler):
    """``GET plots/bokeh-VERSION.min.js``: public, and the same for a year."""

    def initialize(self, script: BokehScript) -> None:
        """Take what it reads."""
        self._script = script

    async def get(self, version: str) -> None:
        """Write the script; its name says which it is."""
        if not version or version != self._script.version:
            raise HTTPError(404)
        try:
            plain, zipped = await self._script.read()
        except PlotError as error:
            _LOG.warning("Pages have no plots: %s", error)
            raise HTTPError(503) from error
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.set_header("Cache-Control", f"public, max-age={_YEAR_SECONDS}, immutable")
        self.set_header("Vary", "Accept-Encoding")
        if "gzip" in self.request.headers.get("Accept-Encoding", ""):
            self.set_header("Content-Encoding", "gzip")
            await finish_in_pieces(self, zipped)
        else:
            await finish_in_pieces(self, plain)
