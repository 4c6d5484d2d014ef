"""`gpuworkshop material`: arguments only. What its commands do is in `tools`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from jupyterhub_gpuworkshop.workshop import Workshop

_Command = Callable[..., Any]


def with_workshop(command: _Command) -> _Command:
    """Add the option that says which workshop is meant."""
    return click.option(
        "--workshop",
        "workshop_file",
        type=click.Path(path_type=Path, readable=False),
        help="The workshop file. Without it on The Littlest JupyterHub the gpuworkshop "
        "section of its config.yaml; elsewhere workshop.yaml of this folder.",
    )(command)


@click.group()
def material() -> None:
    """Notebooks and data sets: bring them here, and to attendees."""


@material.command("install")
@with_workshop
@click.pass_context
def install_(ctx: click.Context, workshop_file: Path | None) -> None:
    """Fetch what the workshop file names under material, and put it in place.

    A download that broke goes on where it ended. What is there already and unchanged
    is left as it is, and what the workshop file names no more is removed. Exit status:
    0 all of it is there, 1 some of it failed; each is listed with the reason.
    """
    ctx.exit(_run(workshop_file, again=False))


@material.command()
@with_workshop
@click.pass_context
def update(ctx: click.Context, workshop_file: Path | None) -> None:
    """Look at every source again, and fetch what has changed.

    A running hub brings new and changed notebooks to everyone, and never overwrites
    what an attendee has edited. Exit status as for install.
    """
    ctx.exit(_run(workshop_file, again=True))


@material.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@with_workshop
def list_(workshop_file: Path | None, as_json: bool) -> None:
    """Print what the workshop file names, and what of it is installed."""
    from rich.console import Console

    from jupyterhub_gpuworkshop.tools.material.report import run_list

    console = Console(highlight=False)
    run_list(
        given_workshop(workshop_file), as_json=as_json, say=click.echo, console=console
    )


def given_workshop(file: Path | None) -> "Workshop":
    """Return the workshop that the option means.

    Raises:
        WorkshopFileError: it has mistakes, or there is none.
    """
    from jupyterhub_gpuworkshop.tools.tljh_places import host_workshop
    from jupyterhub_gpuworkshop.workshop import Workshop

    return Workshop.load(file or host_workshop() or Path("workshop.yaml"))


def _run(file: Path | None, *, again: bool) -> int:
    from rich.console import Console

    from jupyterhub_gpuworkshop.tools.material.report import run_install

    console = Console(stderr=True)
    return run_install(
        given_workshop(file), again=again, say=click.echo, console=console
    )
