"""`gpuworkshop prestart` and `stop-all`: arguments only."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jupyterhub_gpuworkshop.cli_roster import roster_place, with_roster

if TYPE_CHECKING:
    from jupyterhub_gpuworkshop.tools.everybody import Everybody, Outcome

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
    from jupyterhub_gpuworkshop.tools.tljh_places import host_workshop

    # TLJH's hub has a port of its own.
    port = 15001 if host_workshop() else 8081
    return Everybody(
        names=names or read_roster(roster_place(path, workshop)).names(),
        api_url=api_url or f"http://127.0.0.1:{port}/hub/api",
        token=token,
        at_once=at_once,
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
