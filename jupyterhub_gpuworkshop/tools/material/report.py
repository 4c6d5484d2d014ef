"""What `gpuworkshop material` says: a bar while it works, a line for each part, a list.

Owns the words for people. What is done is `installing`'s.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from jupyterhub_gpuworkshop.machine.material import Part, read_installed
from jupyterhub_gpuworkshop.workshop import Workshop

from .installing import Became, Outcome, Run, Watcher, install
from .names import size_words
from .sources import wanted_parts

_UNBROKEN = ("part", "state", "files", "size")


class _Bar(Watcher):
    """A bar on a terminal; nothing elsewhere."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def begin(self, label: str, doing: str, total: int) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        words = escape(f"{label}: {doing}")
        self._task = self._progress.add_task(words, total=total or None)

    def done(self, count: int) -> None:
        if self._task is not None:
            self._progress.advance(self._task, count)


def run_install(
    workshop: Workshop, *, again: bool, say: Callable[[str], None], console: Console
) -> int:
    """Install, or update, and say what became of each part.

    Args:
        workshop: what it is for.
        again: look at each source, also where the part is installed already.
        say: prints a line.
        console: where the bar is.

    Returns:
        The exit status: 1 where a part failed, else 0.

    Raises:
        MaterialError: nothing can be installed there at all.
    """
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), DownloadColumn()),
        *(TransferSpeedColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        outcomes = install(
            Run(workshop=workshop, again=again, watcher=_Bar(progress), warn=say)
        )
    for line in told(outcomes):
        say(line)
    return 1 if any(one.became is Became.FAILED for one in outcomes) else 0


def told(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a line for each part, those that failed last."""
    if not outcomes:
        return ["The workshop file names no material."]
    failed = [one for one in outcomes if one.became is Became.FAILED]
    lines = [_line(one) for one in outcomes if one.became is not Became.FAILED]
    if failed:
        lines.append(f"{len(failed)} of {len(outcomes)} failed:")
    return lines + [f"  {one.label}: {one.says}" for one in failed]


def _line(one: Outcome) -> str:
    return f"{one.label}: {one.became.value}{f', {one.says}' if one.says else ''}."


def run_list(
    workshop: Workshop, *, as_json: bool, say: Callable[[str], None], console: Console
) -> None:
    """Print what is named, and what is installed.

    Raises:
        MaterialError: what is installed cannot be read.
    """
    rows = listed(workshop)
    if as_json:
        say(json.dumps(rows))
        return
    if not rows:
        say("The workshop file names no material, and none is installed.")
        return
    table = Table()
    for column in ("part", "state", "files", "size", "version", "from"):
        table.add_column(column, overflow="fold", no_wrap=column in _UNBROKEN)
    for row in rows:
        size = size_words(row["bytes"]) if row["version"] else ""
        files = str(row["files"]) if row["version"] else ""
        cells = (row["part"], row["state"], files, size, row["version"], row["from"])
        table.add_row(*map(escape, cells))
    console.print(table)


def listed(workshop: Workshop) -> list[dict[str, Any]]:
    """Return what is named, and what is installed, one entry for each part.

    Raises:
        MaterialError: what is installed cannot be read.
    """
    installed = read_installed(workshop.material.folder)
    rows, named = [], set()
    for wanted in wanted_parts(workshop.material):
        part = installed.part(wanted.kind, wanted.name)
        state = "installed" if part else "not installed"
        if part and part.source != wanted.shown:
            state = "another source"
        rows.append(_row(wanted.label, state, part, wanted.shown))
        named.add((wanted.kind, wanted.name))
    for part in installed.parts:
        if (part.kind, part.name) not in named:
            label = f"{part.kind}/{part.name}"
            rows.append(_row(label, "not in the workshop file", part, part.source))
    return rows


def _row(label: str, state: str, part: Part | None, source: str) -> dict[str, Any]:
    return {
        "part": label,
        "state": state,
        "from": source,
        "version": part.version if part else "",
        "revision": part.revision if part else "",
        "sha256": part.sha256 if part else "",
        "files": part.files if part else 0,
        "bytes": part.bytes if part else 0,
    }
