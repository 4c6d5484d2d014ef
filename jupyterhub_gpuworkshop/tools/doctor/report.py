"""What the doctor found, for people and for programs.

Owns how checks are shown: what needs action first, then the rest by area. It writes
lines that wrap, not tables: they fit a phone, and a pipe.
"""

import json
import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from .catalogue import AREAS
from .check import Check, Status

_MARKS = {
    Status.FAIL: ("FAIL", "bold red"),
    Status.WARN: ("warn", "yellow"),
    Status.SKIP: ("skip", "dim"),
    Status.OK: ("ok", "green"),
}
_COMMAND = "$ "
_INDENT = " " * 5
_LEAST_COLUMNS = 20


def as_json(checks: Sequence[Check]) -> str:
    """Return the checks as a JSON array."""
    return json.dumps(
        [
            {
                "check": each.check,
                "status": each.status.value,
                "finding": each.finding,
                "remedy": each.remedy,
            }
            for each in checks
        ],
        indent=1,
    )


def exit_status(checks: Sequence[Check]) -> int:
    """Return 1 where anything fails, else 0."""
    return int(any(each.status is Status.FAIL for each in checks))


def verdict(checks: Sequence[Check]) -> str:
    """Say in a sentence how it stands."""
    count = {status: sum(each.status is status for each in checks) for status in Status}
    parts = [
        f"{count[status]} {word}"
        for status, word in (
            (Status.FAIL, "to mend"),
            (Status.WARN, "to look at"),
            (Status.SKIP, "not looked at"),
            (Status.OK, "fine"),
        )
        if count[status]
    ]
    head = "Not ready" if count[Status.FAIL] else "Nothing stands in the way"
    return f"{head}: {', '.join(parts)}."


def show(checks: Sequence[Check], console: Console) -> None:
    """Print the checks: what needs action with its remedy, then the rest, closer."""
    action = [x for x in checks if x.status is Status.FAIL]
    action += [x for x in checks if x.status is Status.WARN]
    if action:
        _heading("What needs action", console)
        for each in action:
            _show(each.status, each.check, console)
            _say(each.finding, console)
            _show_remedy(each.remedy, console)
    rest = [x for x in checks if x not in action]
    for area in _areas(rest):
        _heading(AREAS.get(area, area.capitalize()), console)
        _show_briefly([each for each in rest if each.area == area], console)
    console.print()
    failed = exit_status(checks)
    words = Text(verdict(checks), style="bold red" if failed else "bold green")
    console.print(words, soft_wrap=not console.is_terminal)


def _areas(checks: Sequence[Check]) -> list[str]:
    """Return the areas that occur: the known ones in their order, then others."""
    found = dict.fromkeys(each.area for each in checks)
    return [x for x in AREAS if x in found] + [x for x in found if x not in AREAS]


def _show_briefly(checks: Sequence[Check], console: Console) -> None:
    """Print checks of one area; those that say the same thing together."""
    together: dict[tuple[Status, str, str], list[str]] = {}
    for each in checks:
        same = each.status, each.finding, each.remedy
        together.setdefault(same, []).append(each.check.partition(".")[2])
    for (status, finding, remedy), names in together.items():
        _show(status, ", ".join(names), console)
        _say(finding, console)
        _show_remedy(remedy, console)


def _heading(words: str, console: Console) -> None:
    console.print()
    console.print(Text(words, style="bold underline"))


def _show(status: Status, names: str, console: Console) -> None:
    mark, style = _MARKS[status]
    wrapped = textwrap.wrap(names, _room(console), break_on_hyphens=False)
    for position, line in enumerate(wrapped):
        before = (f"{mark:<5}", style) if position == 0 else _INDENT
        console.print(Text.assemble(before, (line, "bold")), soft_wrap=True)


def _show_remedy(remedy: str, console: Console) -> None:
    for line in _printable(remedy).splitlines():
        if line.startswith((_COMMAND, " ")):
            # Not wrapped: a command that is cut cannot be copied.
            console.print(Text(_INDENT + line, style="cyan"), soft_wrap=True)
        else:
            _say(line, console)


def _say(words: str, console: Console) -> None:
    for paragraph in _printable(words).splitlines():
        for line in textwrap.wrap(
            paragraph, _room(console), break_long_words=False, break_on_hyphens=False
        ):
            console.print(Text(_INDENT + line), soft_wrap=True)


def _printable(words: str) -> str:
    """Write out what would move a terminal's cursor, or cannot be encoded.

    Attendees choose the names of processes and files, and what their Python says.
    """
    return "".join(
        x if x.isprintable() or x in "\n\t" else x.encode("unicode_escape").decode()
        for x in words
    )


def _room(console: Console) -> int:
    return max(_LEAST_COLUMNS, console.width - len(_INDENT))
