"""Material on its way to attendees: when it is brought, and what is said of it.

Owns the hub's side: which servers get it and when, what they open first, and what the
log says. What happens in a home is `notebook/bring_material.py`'s, which runs as the
attendee; how a home is reached is the spawner's. No trouble with material keeps a
server from starting.
"""

import asyncio
import contextlib
import json
import posixpath
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from weakref import WeakValueDictionary

import jupyterhub_gpuworkshop
from jupyterhub_gpuworkshop.core.errors import HostError, MaterialError
from jupyterhub_gpuworkshop.machine.as_attendee import Attendee, run_as_attendee
from jupyterhub_gpuworkshop.machine.material import Installed, read_installed, stamp
from jupyterhub_gpuworkshop.machine.timeouts import timeout

from .homes import Home, Homes

if TYPE_CHECKING:
    from .mixin import GpuSpawnerMixin

SCRIPT = Path(jupyterhub_gpuworkshop.__file__).parent / "notebook" / "bring_material.py"

LOOK_SECONDS = 5.0
"""Between two looks for new material."""

START_SECONDS = 30.0
"""How long a server's start waits for material; then that goes on beside it."""

MOST_SECONDS = 600.0
"""How long bringing may take at all. Whatever it has brought is good by then."""

MOST_BYTES = 64 * 1024
"""Of what the script says. It is believed in nothing that matters."""

_AT_ONCE = 8
_MOST_TOLD = 3
_LAB, _CLASSIC = ("", "/lab"), ("/tree",)


class MaterialBringer:
    """Brings material to this hub's servers.

    Args:
        folder: `material.folder` of the workshop file.
        open_first: `material.open_first` of the workshop file.
        homes: where it is written down how a home is reached.
        log: the hub's.
    """

    def __init__(
        self, folder: Path, open_first: str | None, homes: Homes, log: Any
    ) -> None:
        self.folder = folder
        self.open_first = open_first or ""
        self._homes = homes
        self._log = log
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._own_turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """One at a time for each attendee, who can stop the script and start another
        server, and another: it is their process."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._brought: dict[str, tuple[int, ...]] = {}
        """What was installed when material was last brought, by lease."""
        self._seen: tuple[int, ...] | None = None
        self._installed = Installed(folder=folder)
        self._has_told_no_way = False

    def installed(self) -> Installed:
        """Return what is installed now: one stat, where that has not changed."""
        seen = stamp(self.folder)
        if seen != self._seen:
            self._seen = seen
            try:
                self._installed = read_installed(self.folder)
            except MaterialError as error:
                self._log.error("No material is brought: %s", error)
                self._installed = Installed(folder=self.folder)
        return self._installed

    async def at_start(self, spawner: "GpuSpawnerMixin") -> None:
        """Write down where the home of a started server is, and bring the material.

        It comes back within `START_SECONDS` and raises nothing.
        """
        try:
            bringing = self._begin(spawner)
            done, _ = await asyncio.wait({bringing}, timeout=START_SECONDS)
            if not done:
                self._log.warning(
                    "%s: the material has not come in %.0f s. The server starts, and "
                    "it goes on being brought.",
                    spawner._log_name,
                    START_SECONDS,
                )
        except Exception:
            self._log.exception("%s: no material is brought", spawner._log_name)

    async def watch(self, servers: "Sequence[GpuSpawnerMixin]") -> None:
        """Bring what is new to servers that run; called every `LOOK_SECONDS`.

        Args:
            servers: those that are ready.
        """
        seen = await asyncio.to_thread(stamp, self.folder)
        known = {spawner.lease.id for spawner in servers if spawner.lease}
        self._brought = {k: x for k, x in self._brought.items() if k in known}
        if seen is None:
            return
        for spawner in servers:
            if spawner.lease and self._brought.get(spawner.lease.id) != seen:
                self._begin(spawner)

    def _begin(self, spawner: "GpuSpawnerMixin") -> "asyncio.Task[None]":
        if spawner.lease is not None and (seen := stamp(self.folder)) is not None:
            self._brought[spawner.lease.id] = seen
        task = asyncio.ensure_future(self._bring(spawner))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _bring(self, spawner: "GpuSpawnerMixin") -> None:
        who = spawner._log_name
        try:
            home = await spawner.find_home()
            if home is None:
                self._tell_no_way(spawner)
                return
            home = replace(home, user_since=_since(spawner.user.orm_user.created))
            await asyncio.to_thread(self._homes.record, spawner.user.name, home)
            if not self.installed().parts:
                return
            own = self._own_turns.setdefault(spawner.user.name, asyncio.Lock())
            async with own, self._turns:
                arguments = ["--from", str(self.folder)]
                async with timeout(MOST_SECONDS):
                    said = await spawner.run_in_home(home, SCRIPT, arguments)
        except HostError as error:
            self._log.warning("%s gets no material: %s", who, error)
        except asyncio.TimeoutError:
            self._log.warning(
                "%s: bringing the material was ended after %.0f s. What came is good; "
                "the rest comes at the next start.",
                who,
                MOST_SECONDS,
            )
        except Exception:
            self._log.exception("%s gets no material", who)
        else:
            self._tell(who, said)

    def _tell_no_way(self, spawner: "GpuSpawnerMixin") -> None:
        if self.installed().parts and not self._has_told_no_way:
            self._has_told_no_way = True
            self._log.warning(
                "%s reaches no homes, and nobody gets material: give it a method "
                "find_home, as the spawners of this package have.",
                type(spawner).__name__,
            )

    def _tell(self, who: str, said: bytes) -> None:
        done, failed = in_words(said)
        if done:
            self._log.info("Material for %s: %s", who, done)
        if failed:
            self._log.warning("Material for %s: %s", who, failed)


def _since(created: datetime | None) -> float:
    """Return when a user was made as the hub's API tells it, in seconds since 1970."""
    if created is None:
        return 0.0
    # The hub's database keeps UTC, and does not say so.
    zone = created.tzinfo or timezone.utc
    return created.replace(tzinfo=zone).timestamp()


def in_words(said: bytes) -> tuple[str, str]:
    """Return what the script says it did, and what could not be done, in words.

    Args:
        said: its output, of which nothing is sure: it is the attendee's process.
    """
    try:
        result = json.loads(said)
        counts = {
            key: int(result[key]) for key in ("brought", "updated", "beside", "failed")
        }
        beside = [str(path) for path in result["paths"]["beside"]]
        failed = [(str(path), str(why)) for path, why in result["paths"]["failed"]]
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return "", f"bringing it ended without a result: {said[-300:]!r}"
    words = {
        "brought": "{} brought",
        "updated": "{} replaced by new versions",
        "beside": "{} beside what they have edited",
    }
    done = [words[key].format(n) for key, n in counts.items() if n > 0 and key in words]
    if beside:
        done.append("new: " + _some([ascii(path[:200]) for path in beside]))
    told = [f"{path[:200]!a} ({why[:200]!a})" for path, why in failed]
    lost = f"{counts['failed']} could not be brought: {_some(told)}" if told else ""
    return ", ".join(done), lost


def _some(texts: list[str]) -> str:
    more = ", ..." if len(texts) > _MOST_TOLD else ""
    return ", ".join(texts[:_MOST_TOLD]) + more


async def run_on_host(home: Home, script: Path, arguments: Sequence[str]) -> bytes:
    """Run a script as an attendee who is a user of this machine; return what it says.

    A script that is cut off, by a cancellation or for talking too much, is killed.

    Raises:
        HostError: there is no such home, or it ended badly.
    """
    attendee = Attendee(uid=home.uid, gid=home.gid, account=home.account)
    with run_as_attendee(attendee, Path(home.path), script, arguments) as (
        command,
        keywords,
    ):
        try:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=PIPE, stderr=PIPE, **keywords
            )
        except OSError as error:
            raise HostError(f"{command[0]} cannot be started: {error}") from None
    try:
        # One after the other: a cancellation leaves no reader behind.
        said = await _at_most(process.stdout)
        wrong = await _at_most(process.stderr)
        if await process.wait():
            raise HostError(f"it ended with {process.returncode}: {wrong[-300:]!r}")
        return said
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            # What is left in its pipes is little, and asyncio waits for it.
            await process.communicate()


async def _at_most(stream: asyncio.StreamReader | None) -> bytes:
    """Read all that a process says, if that is not too much."""
    assert stream is not None  # noqa: S101 - it is a pipe
    said = b""
    while piece := await stream.read(MOST_BYTES):
        said += piece
        if len(said) > MOST_BYTES:
            raise HostError("the script says more than it can have to say")
    return said


def first_url(open_first: str, *, home: str, root: str, default_url: str) -> str:
    """Return what a server opens first; empty to leave it as it is.

    Args:
        open_first: a path below the home.
        home: the home, as the server has it; empty where that is not known.
        root: the folder at the root of the server's files; empty for the home.
        default_url: what the server opens else. Only a bare JupyterLab or Notebook
            gives way: anything more is what the organiser wants to be seen.
    """
    where = open_first
    if root.startswith("~"):
        where = posixpath.relpath(open_first, root[2:] or ".")
    elif root and root != home:
        if not home:
            return ""
        where = posixpath.relpath(posixpath.join(home, open_first), root)
    bare = default_url.rstrip("/")
    is_below = where.split("/")[0] != ".."
    if not open_first or not is_below or bare not in (*_LAB, *_CLASSIC):
        return ""
    if bare in _CLASSIC:
        is_notebook = where.endswith(".ipynb")
        return f"/{'notebooks' if is_notebook else 'edit'}/{quote(where)}"
    return f"/lab/tree/{quote(where)}"


async def watch_for_ever(runtime: Any) -> None:
    """Look for new material again and again."""
    last = ""
    while True:
        try:
            holders = runtime.holders().values()
            await runtime.material.watch([x for x in holders if x.ready])
            last = ""
        except Exception as error:
            if repr(error) != last:
                last = repr(error)
                runtime.log.exception("Looking for new material failed; it goes on")
        await asyncio.sleep(LOOK_SECONDS)
