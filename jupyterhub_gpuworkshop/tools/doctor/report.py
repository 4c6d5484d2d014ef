"""What the doctor found, for people and for programs.

Owns how checks are shown: what needs action first, then the rest by area. It writes
lines that wrap, not tables: they fit a phone, and a pipe.
"""

import json
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
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
    """Print the checks."""
    action = [x for x in checks if x.status is Status.FAIL]
    action += [x for x in checks if x.status is Status.WARN]
    if action:
        _heading("What needs action", console)
        for each in action:
            _show(each, console)
    rest = [x for x in checks if x not in action]
    for area in _areas(rest):
        _heading(AREAS.get(area, area.capitalize()), console)
        for each in rest:
            if each.area == area:
                _show(each, console)
    console.print()
    failed = exit_status(checks)
    console.print(Text(verdict(checks), style="bold red" if failed else "bold green"))


def _areas(checks: Sequence[Check]) -> list[str]:
    """Return the areas that occur: the known ones in their order, then others."""
    found = dict.fromkeys(each.area for each in checks)
    return [x for x in AREAS if x in found] + [x for x in found if x not in AREAS]


def _heading(words: str, console: Console) -> None:
    console.print()
    console.print(Text(words, style="bold underline"))


def _show(check: Check, console: Console) -> None:
    mark, style = _MARKS[check.status]
    line = Text.assemble((f"{mark:<4}", style), " ", (check.check, "bold"))
    console.print(line)
    _indented(Text(check.finding), console)
    for said in check.remedy.splitlines():
        if said.startswith(_COMMAND):
            # Not wrapped: a command that is cut cannot be copied.
            console.print(Text(f"     {said}", style="cyan"), soft_wrap=True)
        elif said:
            _indented(Text(said, style="italic"), console)


def _indented(text: Text, console: Console) -> None:
    console.print(Padding(text, (0, 0, 0, 5), expand=False))
