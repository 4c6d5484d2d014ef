"""`gpuworkshop material collect`: an archive of each attendee's work.

Owns whose work is collected, how a few at a time are packed, and what is said of it.
What is work is `notebook.pack_work`'s to say, which runs as the attendee: what comes
from there is bounded in size and time, and believed no further.
"""

import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from jupyterhub_gpuworkshop.core.archives import file_size, stem_of
from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.hub.homes import UNIX, Home
from jupyterhub_gpuworkshop.machine.archives import Shelf
from jupyterhub_gpuworkshop.machine.as_attendee import Attendee, run_as_attendee

from .homes_in_docker import run_in_container
from .packing import Limits, StoppedError, Told, pack_into

PACK_WORK = Path(__file__).parents[2] / "notebook" / "pack_work.py"

NEVER_HERE = "never had a server here, so that there is no home to pack"
_MOST_SECONDS = 3600
_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be collected, and how.

    Attributes:
        homes: of everybody whose work it is.
        folder: for the archives.
        like: the archives are readable to who owns this file.
        largest_bytes: of all files of one attendee together.
        at_once: how many at a time.
        script: what packs.
    """

    homes: Mapping[str, Home]
    folder: Path
    like: Path
    largest_bytes: int
    at_once: int = 2
    script: Path = PACK_WORK


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What became of one: an archive, or why there is none.

    Attributes:
        name: of the attendee.
        size_bytes: of the archive.
        told: what the packer says of it.
        problem: why there is none; empty where there is.
    """

    name: str
    size_bytes: int = 0
    told: Told = field(default_factory=Told)
    problem: str = ""


def whose(
    homes: Mapping[str, Home],
    *,
    attendees: Collection[str] | None,
    names: Sequence[str] = (),
) -> tuple[dict[str, Home], list[str]]:
    """Return whose work is collected, and who of them never had a home here.

    Args:
        homes: of everybody who ever had a server.
        attendees: of the roster; None for everybody in `homes`.
        names: these alone, where there are any.
    """
    wanted = names or (homes if attendees is None else attendees)
    found = {name: homes[name] for name in wanted if name in homes}
    return found, sorted({name for name in wanted if name not in homes})


def collect(plan: Plan, console: Console) -> list[Collected]:
    """Pack everybody's work; return what became of each, in the order of names.

    Raises:
        HostError: nothing can be collected at all.
    """
    me = os.geteuid()
    if me != 0 and any(x.kind == UNIX and x.uid != me for x in plan.homes.values()):
        raise HostError(
            "This needs root, to enter each home as its attendee. Run: sudo "
            "gpuworkshop material collect"
        )
    stop = threading.Event()
    columns = (TextColumn("Packing"), BarColumn(), MofNCompleteColumn())
    with (
        Shelf(plan.folder, plan.like) as shelf,
        Progress(
            *columns, TextColumn("{task.description}"), console=console, transient=True
        ) as bar,
        ThreadPoolExecutor(plan.at_once) as pool,
    ):
        task = bar.add_task("", total=len(plan.homes))
        acts = [
            pool.submit(_one, name, home, plan, shelf, stop)
            for name, home in plan.homes.items()
        ]
        try:
            return _gathered(
                acts, lambda text: bar.update(task, advance=1, description=text)
            )
        finally:
            stop.set()
            for act in acts:
                act.cancel()


def _gathered(
    acts: Sequence["Future[Collected]"], show: Callable[[str], None]
) -> list[Collected]:
    results, total = [], 0
    for act in as_completed(acts):
        one = act.result()
        results.append(one)
        total += one.size_bytes
        show(file_size(total))
    return sorted(results, key=lambda one: one.name)


def _one(
    name: str, home: Home, plan: Plan, shelf: Shelf, stop: threading.Event
) -> Collected:
    limits = Limits(largest_bytes=plan.largest_bytes, seconds=_MOST_SECONDS)
    try:
        stem = stem_of(name)
        options = [
            f"--top={stem}",
            f"--largest={plan.largest_bytes}",
            f"--seconds={_MOST_SECONDS}",
        ]
        with (
            _way_in(name, home, plan.script, options) as (line, given),
            shelf.incoming(stem) as incoming,
        ):
            told = pack_into(incoming, line, given, limits, home.user_since, stop)
            incoming.keep(home.user_since)
    except (HostError, ValueError, StoppedError) as error:
        return Collected(name=name, problem=str(error).strip())
    except OSError as error:
        return Collected(
            name=name,
            problem=f"The archive cannot be written: {error.strerror}. The one before, "
            "if there was one, is as it was.",
        )
    return Collected(name=name, size_bytes=incoming.size_bytes, told=told)


def _way_in(
    name: str, home: Home, script: Path, options: Sequence[str]
) -> AbstractContextManager[tuple[list[str], dict[str, Any]]]:
    if home.kind != UNIX:
        return run_in_container(name, home, script, options)
    attendee = Attendee(uid=home.uid, gid=home.gid, account=home.account)
    return run_as_attendee(attendee, Path(home.path), script, options)


def lines_about(
    results: Sequence[Collected], absent: Sequence[str], folder: Path
) -> list[str]:
    """Return what is said of it all, what failed last."""
    good = [one for one in results if not one.problem]
    failed = [one for one in results if one.problem]
    size = file_size(sum(one.size_bytes for one in good))
    lines = [f"{len(good)} of {len(results)} packed, {size}, in {folder}."]
    if not results:
        lines = ["There is no work to collect."]
    if absent:
        lines.append(f"{len(absent)} never had a server here: {_some(absent)}.")
    partly = [one for one in good if one.told.left_out]
    if partly:
        lines.append(
            "Not all of it was packed; LEFT-OUT.txt in each archive says more:"
        )
        lines += [_left_out(one) for one in partly[:_MOST_SHOWN]]
        if len(partly) > _MOST_SHOWN:
            lines.append(f"  ... and of {len(partly) - _MOST_SHOWN} more")
    if failed:
        lines.append(f"{len(failed)} have no new archive:")
        lines += [f"  {_shown(one.name)}: {_shown(one.problem)}" for one in failed]
    return lines


def _left_out(one: Collected) -> str:
    first = "; ".join(f"{_shown(path)}: {_shown(why)}" for path, why in one.told.first)
    more = one.told.left_out - len(one.told.first)
    return f"  {_shown(one.name)}: {first}" + (f"; and {more} more" if more > 0 else "")


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(_shown(name) for name in names[:_MOST_SHOWN])
    more = len(names) - _MOST_SHOWN
    return shown + (f" and {more} more" if more > 0 else "")


def _shown(text: str) -> str:
    """Return a text that an attendee may have chosen, fit for a terminal."""
    return "".join(x if x.isprintable() else "?" for x in text)[:300]
