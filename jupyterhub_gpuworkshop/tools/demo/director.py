"""The demo from its first signal handler to its last removed file.

Owns the order of things: folder, GPUs, hub, robots, output, and the end of it all,
whatever it is that ends it.
"""

import asyncio
import collections
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyterhub_gpuworkshop.core.errors import DemoError
from jupyterhub_gpuworkshop.machine.simulated import create_devices

from .family import Family
from .feed import Feed
from .habits import make_habits
from .hub_process import HubProcess, find_proxy
from .lines import event_line, event_object, json_line, ready_lines, ready_object
from .options import DemoOptions
from .output import Lines, LiveTable, is_lost
from .robots import Robot
from .settings import (
    ATTENDEE_PATTERN,
    DemoSettings,
    make_settings,
    poll_seconds,
    share_of,
)
from .table import View, labels_of

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WATCH_SECONDS = 0.25
_KEPT_EVENTS = 200
_HUB_SECONDS = 2.0
"""For the hub to stop its servers; what is left after it is ended one by one."""
_PATIENCE_SECONDS = 1.0
_REMOVE_ATTEMPTS = 20


def direct(options: DemoOptions) -> int:
    """Run the demo; see `run` in this package.

    Raises:
        DemoError: it could not go on.
    """
    return asyncio.run(Director(options).run())


class Director:
    """One run of the demo."""

    def __init__(self, options: DemoOptions) -> None:
        self._options = options
        self._end = asyncio.Event()
        self._hurry = asyncio.Event()
        self._events: collections.deque[dict[str, Any]] = collections.deque(
            maxlen=_KEPT_EVENTS
        )
        self._lines: Lines | None = None
        self._table: LiveTable | None = None
        self._log: logging.Handler | None = None

    async def run(self) -> int:
        """Run until the end."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._told_to_end)
        family = Family()
        proxy = find_proxy(os.environ.get("PATH", os.defpath))
        directory = Path(tempfile.mkdtemp(prefix="gpuworkshop-demo-"))
        hub: HubProcess | None = None
        try:
            settings = make_settings(self._options, directory, proxy)
            self._log = _log_into(directory / "demo.log")
            hub = HubProcess(settings)
            self._open_output(settings)
            await self._play(settings, hub, family)
        except DemoError as error:
            raise DemoError(_with_tail(error, hub)) from error
        finally:
            await self._finish(hub, family, directory)
        return 0

    async def _play(
        self, settings: DemoSettings, hub: HubProcess, family: Family
    ) -> None:
        options = self._options
        await asyncio.to_thread(
            create_devices,
            settings.simulated_dir,
            options.gpus,
            options.gpu_memory_bytes,
            seed=options.seed,
        )
        if self._end.is_set():
            return
        hub.start()
        played = asyncio.ensure_future(self._workshop(settings, hub))
        watched = asyncio.ensure_future(self._watch(hub, family))
        told = asyncio.ensure_future(self._end.wait())
        tasks = [played, watched, told]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _workshop(self, settings: DemoSettings, hub: HubProcess) -> None:
        """Everything once the hub is there."""
        await hub.ready()
        self._tell_ready(settings)
        feed = Feed(
            settings.inner_service_url,
            settings.api_token,
            poll_seconds(self._options.idle_timeout_seconds),
        )

        def told(event: dict[str, Any]) -> None:
            self._tell(event, feed.snapshot)

        loops = [feed.follow(told)]
        if self._table is not None:
            loops.append(self._show(settings, feed))
        loops += [robot.live() for robot in self._robots(settings)]
        await asyncio.gather(*loops)

    def _robots(self, settings: DemoSettings) -> list[Robot]:
        options = self._options
        idle = options.idle_timeout_seconds
        habits = make_habits(options.attendees, options.seed, idle)
        return [
            Robot(
                name=ATTENDEE_PATTERN.format(number),
                password=settings.attendee_password,
                base_url=settings.hub_url,
                habit=habit,
                share_bytes=share_of(options),
                idle_seconds=idle,
            )
            for number, habit in enumerate(habits, start=1)
        ]

    async def _watch(self, hub: HubProcess, family: Family) -> None:
        """Return when nobody reads any more; raise when the hub is gone."""
        stdout = sys.stdout.fileno()
        while not is_lost(stdout):
            if hub.ended:
                raise DemoError("JupyterHub ended by itself. Its log ends with:")
            family.reap(leave=hub.pid)
            await asyncio.sleep(_WATCH_SECONDS)

    def _open_output(self, settings: DemoSettings) -> None:
        loop = asyncio.get_running_loop()

        def lost() -> None:
            loop.call_soon_threadsafe(self._end.set)

        if self._options.json or not _is_screen():
            self._lines = Lines(sys.stdout.fileno(), lost)
            if not self._options.json:
                self._lines.write("JupyterHub starts ...")
            return
        self._table = LiveTable(self._view(None, {}))
        self._table.start()

    def _tell_ready(self, settings: DemoSettings) -> None:
        if self._lines is None:
            return
        if self._options.json:
            self._lines.write(json_line(ready_object(settings)))
            return
        for line in ready_lines(settings):
            self._lines.write(line)

    def _tell(self, event: Mapping[str, Any], snapshot: Mapping[str, Any]) -> None:
        self._events.append(dict(event))
        if self._lines is None:
            return
        if self._options.json:
            self._lines.write(json_line(event_object(event)))
        else:
            self._lines.write(event_line(event, labels_of(snapshot)))

    async def _show(self, settings: DemoSettings, feed: Feed) -> None:
        while self._table is not None:
            self._table.view = self._view(settings, feed.snapshot)
            await asyncio.sleep(_WATCH_SECONDS)

    def _view(self, settings: DemoSettings | None, snapshot: Mapping[str, Any]) -> View:
        return View(
            hub_url=settings.hub_url if settings else "",
            organiser_password=settings.organiser_password if settings else "",
            attendee_password=settings.attendee_password if settings else "",
            attendees_per_gpu=self._options.attendees_per_gpu,
            snapshot=snapshot,
            events=tuple(self._events),
        )

    def _told_to_end(self) -> None:
        if self._end.is_set():
            self._hurry.set()
        self._end.set()

    async def _finish(
        self, hub: HubProcess | None, family: Family, directory: Path
    ) -> None:
        """End every process and remove every file of this run."""
        self._end.set()
        leave = hub.pid if hub else 0
        if self._table is not None:
            await asyncio.to_thread(self._table.stop)
            _remark("The workshop ends ...")
        if hub is not None and hub.pid:
            hub.stop()
            await self._wait_for(family, leave)
        patience = 0.0 if self._hurry.is_set() else _PATIENCE_SECONDS
        ended = await family.end(leave=leave, patience_seconds=patience)
        if self._log is not None:
            logging.getLogger().removeHandler(self._log)
            self._log.close()
        removed = await asyncio.to_thread(_remove, directory)
        if self._lines is not None:
            await asyncio.to_thread(self._lines.close)
        if not ended:
            left = ", ".join(str(process.pid) for process in family.members())
            raise DemoError(f"These processes would not end: {left}.")
        if not removed:
            raise DemoError(f"{directory} could not be removed: remove it by hand.")
        if self._table is not None:
            _remark("It is over: no process and no file of it is left.")

    async def _wait_for(self, family: Family, leave: int) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _HUB_SECONDS
        while family.members() and loop.time() < until and not self._hurry.is_set():
            family.reap(leave=leave)
            await asyncio.sleep(_WATCH_SECONDS / 2)


def _is_screen() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _remark(sentence: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be what has gone
        sys.stderr.write(sentence + "\n")


def _with_tail(error: DemoError, hub: HubProcess | None) -> str:
    tail = hub.tail() if hub is not None and hub.pid else ""
    return f"{error}\n\n{tail}" if tail else str(error)


def _remove(directory: Path) -> bool:
    for _ in range(_REMOVE_ATTEMPTS):
        with contextlib.suppress(OSError):
            shutil.rmtree(directory)
        if not directory.exists():
            return True
    return False


def _log_into(path: Path) -> logging.Handler:
    """Keep what the robots and their libraries log off the terminal."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    logging.getLogger(__package__).setLevel(logging.INFO)
    return handler
