"""`gpuworkshop material collect`: arguments only."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jupyterhub_gpuworkshop.cli_material import given_workshop, with_workshop

if TYPE_CHECKING:
    from jupyterhub_gpuworkshop.hub.homes import Home


@click.command()
@click.option(
    "--all", "everybody", is_flag=True, help="Everybody who ever had a server here."
)
@click.option(
    "--largest",
    default="2GiB",
    metavar="SIZE",
    help="So much of each attendee at most; the largest files are left out.",
)
@click.option(
    "--at-once",
    type=click.IntRange(1, 16),
    default=2,
    help="So many attendees at a time.",
)
@with_workshop
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.pass_context
def collect(
    ctx: click.Context,
    names: tuple[str, ...],
    everybody: bool,
    largest: str,
    at_once: int,
    workshop_file: Path | None,
) -> None:
    """Pack every attendee's work into one archive each.

    Every attendee is who is on the roster, or the NAMEs that are given. Servers may
    run meanwhile. Caches and settings are left out. Archives go to material.archives
    of the workshop file; each attendee downloads their own at the GPU service's page
    Work. Exit status: 0 all are packed, 1 some are not; each is listed with the reason.
    """
    from rich.console import Console

    from jupyterhub_gpuworkshop.core.units import parse_size
    from jupyterhub_gpuworkshop.hub.homes import file_beside, read_homes
    from jupyterhub_gpuworkshop.tools.material import collecting
    from jupyterhub_gpuworkshop.tools.tljh_places import host_workshop

    if names and everybody:
        raise click.UsageError("Give names, or --all.")
    workshop = given_workshop(workshop_file)
    place = workshop.roster_file(workshop_file or host_workshop() or "workshop.yaml")
    homes_file = file_beside(place)
    homes = read_homes(homes_file)
    if not homes:
        raise click.ClickException(
            f"Nobody has had a server yet, as far as {homes_file} says. The hub writes "
            "it; --workshop says which hub is meant."
        )
    found, absent = _whose(homes, place, names, everybody)
    folder = workshop.material.archives
    results = collecting.collect(
        collecting.Plan(
            homes=found,
            folder=folder,
            like=homes_file,
            largest_bytes=parse_size(largest),
            at_once=at_once,
        ),
        Console(stderr=True),
    )
    if names:
        results += [
            collecting.Collected(name=name, problem=f"{name} {collecting.NEVER_HERE}.")
            for name in absent
        ]
        absent = []
    for line in collecting.lines_about(results, absent, folder):
        click.echo(line)
    ctx.exit(1 if any(one.problem for one in results) else 0)


def _whose(
    homes: "Mapping[str, Home]", roster: Path, names: tuple[str, ...], everybody: bool
) -> "tuple[dict[str, Home], list[str]]":
    from jupyterhub_gpuworkshop.hub.roster_file import read_roster
    from jupyterhub_gpuworkshop.tools.material.collecting import whose

    if names or everybody:
        return whose(homes, attendees=None, names=names)
    if not roster.exists():
        raise click.ClickException(
            f"There is no roster at {roster} that says who attends. Give --all for "
            f"everybody who ever had a server ({len(homes)}), or names."
        )
    return whose(homes, attendees=read_roster(roster).names())
