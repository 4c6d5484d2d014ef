"""The run of `gpuworkshop remove-attendees`: read, list, ask, remove.

Owns the exit status, and that nothing is changed before the yes.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.hub.homes import file_beside, read_homes
from jupyterhub_gpuworkshop.hub.roster_file import read_roster
from jupyterhub_gpuworkshop.tools.everybody import Outcome
from jupyterhub_gpuworkshop.tools.hub_calls import HubCalls

from .carrying_out import Places, carry_out
from .history import History
from .homes import Fate
from .planning import Going, Plan, make_plan
from .telling import show_outcome, show_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveOptions:
    """What the command line says.

    Attributes:
        names: whom; all of the roster's attendees without any.
        roster: the file.
        archives: the folder of collected work.
        service: the GPU service's name at the hub.
        api_url: of the hub's API.
        token: of an admin.
        at_once: so many at a time.
        dry_run: list, and do nothing.
        end_processes: whether to end what runs as their Unix users still.
    """

    names: Sequence[str]
    roster: Path
    archives: Path
    service: str
    api_url: str
    token: str
    at_once: int
    dry_run: bool
    end_processes: bool


def run(
    options: RemoveOptions, console: Console, is_sure: Callable[[int], bool]
) -> int:
    """Remove attendees; return the exit status.

    Args:
        options: as given.
        console: for the list and the outcome.
        is_sure: asks, and is told of how many.

    Raises:
        RosterError: there is no such attendee, or no roster.
        HostError: root is needed, or the file of homes cannot be used.
        HubError: the hub does not answer, or the token is not good for it.
    """
    places = Places(
        roster=options.roster,
        homes=read_homes(file_beside(options.roster.absolute())),
        service=options.service,
    )
    plan, has_service = asyncio.run(_plan(options, places))
    show_plan(plan, console, has_service=has_service)
    if not plan.going:
        console.print("There is nobody to remove.")
        return 1 if plan.left else 0
    if options.dry_run:
        return 1 if plan.left else 0
    if os.geteuid() != 0 and any(x.home.fate is Fate.GOES for x in plan.going):
        raise HostError(
            "Only root removes homes. Nothing is removed yet; run: sudo "
            "--preserve-env=JUPYTERHUB_API_TOKEN gpuworkshop remove-attendees"
        )
    if not is_sure(len(plan.going)):
        console.print("Nothing is removed.")
        return 1
    outcomes = asyncio.run(_carry_out(options, plan.going, places, console))
    show_outcome(plan.going, outcomes, plan.left, options.archives, console)
    return 1 if plan.left or any(one.problem for one in outcomes) else 0


async def _plan(options: RemoveOptions, places: Places) -> tuple[Plan, bool]:
    hub = HubCalls(options.api_url, options.token, options.at_once)
    try:
        plan = await make_plan(
            hub,
            read_roster(options.roster),
            places.homes,
            options.archives,
            options.names,
        )
        return plan, bool(await History(hub, options.service).url())
    finally:
        hub.close()


async def _carry_out(
    options: RemoveOptions,
    going: Sequence[Going],
    places: Places,
    console: Console,
) -> list[Outcome]:
    hub = HubCalls(options.api_url, options.token, options.at_once)
    columns = (TextColumn("Removing"), BarColumn(), MofNCompleteColumn())
    try:
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("Removing", total=len(going))
            return await carry_out(
                hub,
                going,
                places,
                at_once=options.at_once,
                end_processes=options.end_processes,
                advance=lambda: bar.advance(task),
            )
    finally:
        hub.close()
