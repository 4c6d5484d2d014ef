"""`gpuworkshop prestart`, `stop-all`, `remove-attendees`: arguments only."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jupyterhub_gpuworkshop.cli_roster import roster_place, with_roster

if TYPE_CHECKING:
    from jupyterhub_gpuworkshop.tools.everybody import Everybody, Outcome
    from jupyterhub_gpuworkshop.workshop import Workshop

_Command = Callable[..., Any]


def _with_hub(command: _Command) -> _Command:
    for option in (
        click.option(
            "--at-once",
            type=click.IntRange(1, 50),
            default=4,
            help="So many at a time.",
        ),
        click.option(
            "--token",
            envvar="JUPYTERHUB_API_TOKEN",
            prompt="Token of an admin of the hub",
            hide_input=True,
            help="Of an admin, from the hub's page Token; better in the environment as "
            "JUPYTERHUB_API_TOKEN, or typed when asked.",
        ),
        click.option("--api-url", help="Where the hub's API is."),
        with_roster,
        click.argument("names", nargs=-1, metavar="[NAME]..."),
    ):
        command = option(command)
    return command


@click.command()
@_with_hub
@click.pass_context
def prestart(ctx: click.Context, /, **given: Any) -> None:
    """Start everyone's server before the doors open, a few at a time.

    Everyone is who is on the roster, or the NAMEs that are given. Servers that run
    already are left as they are. Exit status: 0 all of them run, 1 some do not; each is
    listed with the reason.
    """
    from rich.console import Console

    from jupyterhub_gpuworkshop.tools import everybody

    _refuse_strangers(given["names"], roster_place(given["path"], given["workshop"]))
    wanted = _everybody(**given)
    outcomes = everybody.prestart(wanted, Console(stderr=True))
    ctx.exit(_tell(outcomes, "run", "do not run"))


@click.command("stop-all")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_with_hub
@click.pass_context
def stop_all(ctx: click.Context, /, yes: bool, **given: Any) -> None:
    """Stop everyone's servers; what runs in them ends, files stay.

    Everyone is who is on the roster, or the NAMEs that are given. Exit status: 0 all
    of them are stopped, 1 some are not.
    """
    from rich.console import Console

    from jupyterhub_gpuworkshop.tools import everybody

    wanted = _everybody(**given)
    count = len(wanted.names)
    if not yes:
        click.confirm(f"Stop the servers of {count} attendees?", abort=True)
    outcomes = everybody.stop_all(wanted, Console(stderr=True))
    ctx.exit(_tell(outcomes, "are stopped", "are not"))


@click.command("remove-attendees")
@click.option("--dry-run", is_flag=True, help="List what would be removed, no more.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--end-processes",
    is_flag=True,
    help="End what still runs as the Unix users that go; else these are left.",
)
@_with_hub
@click.pass_context
def remove_attendees(
    ctx: click.Context,
    /,
    dry_run: bool,
    yes: bool,
    end_processes: bool,
    **given: Any,
) -> None:
    """Remove what the workshop has made of attendees: accounts, homes, their names.

    All that are on the roster, or the NAMEs that are given. It lists what would be
    removed and asks: servers with their leases, the hub's accounts with their tokens,
    homes that The Littlest JupyterHub or systemd made, and the lines of the roster. In
    the history their names become numbers. Organisers and admins are never removed,
    and archives of collected work stay. A run that was killed is begun again by the
    same command. Exit status: 0 all of them are removed, 1 some are not; each is
    listed with the reason.
    """
    from rich.console import Console

    from jupyterhub_gpuworkshop.tools.removing.command import RemoveOptions, run

    roster, workshop = _roster_and_workshop(given["path"], given["workshop"])
    options = RemoveOptions(
        names=given["names"],
        roster=roster,
        archives=workshop.material.archives,
        service=workshop.service.name,
        api_url=_api_url(given["api_url"]),
        token=given["token"],
        at_once=given["at_once"],
        dry_run=dry_run,
        end_processes=end_processes,
    )

    def is_sure(count: int) -> bool:
        wanted = f"Type the number of attendees ({count}) to remove them for good"
        return yes or click.prompt(wanted, default="", show_default=False) == str(count)

    ctx.exit(run(options, Console(highlight=False), is_sure))


def _roster_and_workshop(
    path: Path | None, workshop: Path | None
) -> "tuple[Path, Workshop]":
    """Return the roster that is meant, and the workshop that it belongs to."""
    from jupyterhub_gpuworkshop.tools.tljh_places import host_workshop
    from jupyterhub_gpuworkshop.workshop import Workshop

    roster = roster_place(path, workshop)
    beside = roster.absolute().with_name("workshop.yaml")
    found = workshop or host_workshop() or (beside if beside.exists() else None)
    return roster, Workshop.load(found or {})


def _api_url(given: str | None) -> str:
    from jupyterhub_gpuworkshop.tools.tljh_places import host_workshop

    # TLJH's hub has a port of its own.
    port = 15001 if host_workshop() else 8081
    return given or f"http://127.0.0.1:{port}/hub/api"


def _everybody(
    *,
    names: tuple[str, ...],
    path: Path | None,
    workshop: Path | None,
    api_url: str | None,
    token: str,
    at_once: int,
) -> "Everybody":
    from jupyterhub_gpuworkshop.hub.roster_file import read_roster
    from jupyterhub_gpuworkshop.tools.everybody import Everybody

    return Everybody(
        names=names or read_roster(roster_place(path, workshop)).names(),
        api_url=_api_url(api_url),
        token=token,
        at_once=at_once,
    )


def _refuse_strangers(names: tuple[str, ...], roster: Path) -> None:
    """Refuse names that are on no roster: each would become an account of the hub.

    Where there is no roster, another authenticator says who attends.

    Raises:
        RosterError: the roster cannot be read.
    """
    from jupyterhub_gpuworkshop.hub.roster_file import read_roster

    if not names or not roster.exists():
        return
    known = read_roster(roster)
    strangers = [
        name
        for name in names
        if known.attendee(name) is None and known.organiser(name) is None
    ]
    if strangers:
        raise click.ClickException(
            f"Not on the roster {roster}: {', '.join(strangers)}. See how they are "
            "spelled with `gpuworkshop roster list`, or add them with `gpuworkshop "
            "roster add`. Nobody's server was started."
        )


def _tell(outcomes: "Sequence[Outcome]", well: str, badly: str) -> int:
    failed = [one for one in outcomes if one.problem]
    good = len(outcomes) - len(failed)
    click.echo(f"{good} of {len(outcomes)} {well}." if outcomes else "There is nobody.")
    if failed:
        click.echo(f"{len(failed)} {badly}:")
    for one in failed:
        click.echo(f"  {one.name}: {one.problem}")
    return 1 if failed else 0
