"""What is told of a removal: the list before, and the outcome after.

Owns the words.
"""

import datetime
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jupyterhub_gpuworkshop.core.units import format_size
from jupyterhub_gpuworkshop.tools.everybody import Outcome

from .homes import Fate
from .planning import Going, Plan

_MOST_NAMED = 10
_COLLECT = "sudo gpuworkshop material collect"
_Justify = Literal["left", "right"]


def show_plan(plan: Plan, console: Console, *, has_service: bool) -> None:
    """Print what would be removed, and what stays."""
    if plan.going:
        console.print(_table(plan.going))
        console.print(Text(_sum(plan.going)), soft_wrap=True)
        console.print(
            Text(
                "Names in the history become numbers."
                if has_service
                else "This hub has no GPU service: a history, if there is one, stays "
                "as it is."
            )
        )
    if stays := [one for one in plan.going if one.home.fate is Fate.STAYS]:
        console.print(Text("These homes stay; who made them removes them:"))
        for one in stays:
            console.print(Text(f"  {one.name}: {one.home.why}"), soft_wrap=True)
        console.print(Text("Archives of collected work stay, too."))
    elif plan.going:
        console.print(Text("Archives of collected work stay."))
    if plan.left:
        console.print(Text(f"{len(plan.left)} are left as they are:", style="bold"))
        for name, why in plan.left:
            console.print(Text(f"  {name}: {why}"), soft_wrap=True)
    _warn(plan, console)


def show_outcome(
    going: Sequence[Going],
    outcomes: Sequence[Outcome],
    left: Sequence[tuple[str, str]],
    archives: Path,
    console: Console,
) -> None:
    """Print who was removed, why others were not, and what is left to do."""
    failed = [one for one in outcomes if one.problem]
    gone = {one.name for one in outcomes} - {one.name for one in failed}
    console.print(Text(f"{len(gone)} of {len(outcomes) + len(left)} are removed."))
    if failed:
        console.print(Text(f"{len(failed)} are not, or not wholly:", style="bold"))
    for one in failed:
        console.print(Text(f"  {one.name}: {one.problem}"), soft_wrap=True)
    if failed:
        console.print(Text("They cannot log in any more. Run this again."))
    if any(one.name in gone and one.archive_at is not None for one in going):
        console.print(
            Text(
                f"Their work stays in {archives}. Move it away before somebody else "
                "gets one of these names."
            ),
            soft_wrap=True,
        )
    volumes = [x for one in going if one.name in gone for x in one.home.volumes]
    if volumes:
        console.print(Text("Their volumes are still there; to remove them for good:"))
        names = shlex.join(dict.fromkeys(volumes))
        console.print(Text(f"  docker volume rm {names}"), soft_wrap=True)


def _table(going: Sequence[Going]) -> Table:
    table = Table(title=f"{len(going)} would be removed", title_justify="left")
    columns: tuple[tuple[str, _Justify], ...] = (
        ("name", "left"),
        ("account", "left"),
        ("servers, leases", "right"),
        ("home", "left"),
        ("size", "right"),
        ("work collected", "left"),
    )
    for title, justify in columns:
        table.add_column(title, justify=justify, overflow="fold")
    never_here = [one for one in going if _was_never_here(one)]
    for one in going:
        if len(never_here) <= _MOST_NAMED or one not in never_here:
            table.add_row(*map(Text, _row(one)[:-1]), _collected(one))
    if len(never_here) > _MOST_NAMED:
        table.add_row(Text(f"{len(never_here)} more, who never came"), Text("none"))
    return table


def _was_never_here(one: Going) -> bool:
    """Whether the roster's line is all that there is of somebody."""
    return not (one.has_account or one.archive_at) and one.home.fate is Fate.NONE


def _row(one: Going) -> tuple[str, ...]:
    home = {
        Fate.GOES: f"{one.home.path}",
        Fate.STAYS: "stays",
    }.get(one.home.fate, "none")
    size = _size([one]) if one.home.fate is Fate.GOES else ""
    account = "yes" if one.has_account else "none"
    return (one.name, account, str(len(one.servers) or ""), home, size, "")


def _collected(one: Going) -> Text:
    if one.archive_at is None:
        style = "" if one.is_collected else "bold red"
        return Text("no", style=style)
    at = datetime.datetime.fromtimestamp(one.archive_at, tz=datetime.timezone.utc)
    text = f"{at.astimezone():%Y-%m-%d %H:%M}"
    if one.is_collected:
        return Text(text)
    return Text(f"{text}, and worked since", style="bold red")


def _size(going: Sequence[Going]) -> str:
    total = sum(one.size.bytes for one in going)
    is_all = all(one.size.is_all for one in going)
    return ("" if is_all else "more than ") + format_size(total)


def _sum(going: Sequence[Going]) -> str:
    homes = [one for one in going if one.home.fate is Fate.GOES]
    accounts = sum(one.has_account for one in going)
    servers = sum(len(one.servers) for one in going)
    files = sum(one.size.files for one in homes)
    return (
        f"{_count(len(going), 'line')} of the roster, {_count(accounts, 'account')} of "
        f"the hub with tokens, {_count(servers, 'server')} with leases, "
        f"{_count(len(homes), 'home')} with {_size(homes)} in {_count(files, 'file')}."
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _warn(plan: Plan, console: Console) -> None:
    lost = [one.name for one in plan.going if not one.is_collected]
    if not lost:
        return
    named = ", ".join(lost[:_MOST_NAMED])
    more = f" and {len(lost) - _MOST_NAMED} more" if len(lost) > _MOST_NAMED else ""
    console.print(
        Text(
            f"WARNING: the latest work of {len(lost)} of them is in no archive: {named}"
            f"{more}. Collect it first, or it is lost with the homes: {_COLLECT}",
            style="bold red",
        ),
        soft_wrap=True,
    )
