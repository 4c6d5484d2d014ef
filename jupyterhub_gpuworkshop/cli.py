"""The `gpuworkshop` command: arguments only.

What a command does is in `tools` and `service`, imported when it runs: `--help` stays
quick, and one command's missing extra does not break another.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from jupyterhub_gpuworkshop import __version__
from jupyterhub_gpuworkshop.cli_collect import collect
from jupyterhub_gpuworkshop.cli_day import prestart, remove_attendees, stop_all
from jupyterhub_gpuworkshop.cli_material import material
from jupyterhub_gpuworkshop.cli_roster import roster
from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError, UnitError
from jupyterhub_gpuworkshop.core.units import parse_duration, parse_size


class _Commands(click.Group):
    """Commands whose expected errors are a sentence on stderr and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GpuWorkshopError as error:
            raise click.ClickException(str(error)) from error


_Callback = Callable[[click.Context, click.Parameter, str | None], float | None]


def _with_unit(parse: Callable[[str], float]) -> _Callback:
    """Return a callback that reads an option's size or duration."""

    def read(
        ctx: click.Context, param: click.Parameter, text: str | None
    ) -> float | None:
        if text is None:
            return None
        try:
            number = parse(text)
        except UnitError as error:
            raise click.BadParameter(str(error), ctx, param) from None
        if number <= 0:
            raise click.BadParameter(f"{text!r} is too small.", ctx, param)
        return number

    return read


_size_option = partial(click.option, metavar="SIZE", callback=_with_unit(parse_size))
_duration_option = partial(
    click.option, metavar="DURATION", callback=_with_unit(parse_duration)
)
_COUNT = click.IntRange(min=1, max=1024)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.version_option(__version__, prog_name="gpuworkshop")
def main() -> None:
    """Share a server's GPUs fairly among the attendees of a JupyterHub workshop."""


@main.command()
@click.argument(
    "file",
    required=False,
    type=click.Path(path_type=Path),
)
@click.option("--gpus", type=_COUNT, help="Plan for so many GPUs, not for those here.")
@_size_option("--gpu-memory", help="Memory of each planned GPU, such as 16GiB.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def check(
    ctx: click.Context,
    file: Path | None,
    gpus: int | None,
    gpu_memory: int | None,
    as_json: bool,
) -> None:
    """Print the sum before the day: GPUs, shares, and whether it is enough.

    FILE is the workshop file; CONFIG#SECTION where it is a section of a larger file.
    Without it on The Littlest JupyterHub: the gpuworkshop section of its config.yaml.
    Without it elsewhere, or with -: every key has its default. Exit status: 0 enough,
    1 not enough or a mistake.
    """
    from jupyterhub_gpuworkshop.tools.check import CheckOptions, run
    from jupyterhub_gpuworkshop.tools.tljh_places import host_workshop

    if (gpus is None) != (gpu_memory is None):
        raise click.UsageError(
            "--gpus and --gpu-memory belong together: --gpus 4 --gpu-memory 16GiB."
        )
    options = CheckOptions(
        workshop_file=None if str(file) == "-" else file or host_workshop(),
        gpus=gpus,
        gpu_memory_bytes=gpu_memory or 0,
        json=as_json,
    )
    ctx.exit(run(options))


@main.command()
@click.option("--gpus", type=_COUNT, default=4, help="Simulated GPUs.")
@_size_option("--gpu-memory", default="16GiB", help="Memory of each.")
@click.option(
    "--attendees",
    type=click.IntRange(0, 1000),
    default=8,
    help="Robot attendees; 0 leaves the room to you.",
)
@click.option(
    "--attendees-per-gpu",
    type=click.IntRange(1, 1000),
    default=5,
    help="Into how many shares each GPU is cut.",
)
@_duration_option(
    "--idle-timeout",
    default="60s",
    help="After how long a forgotten kernel is reclaimed.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    help="Where the hub listens on 127.0.0.1; 0 for any port that is free.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.option("--seed", type=int, help="Makes the robots' plans repeatable.")
@click.pass_context
def demo(
    ctx: click.Context,
    gpus: int,
    gpu_memory: int,
    attendees: int,
    attendees_per_gpu: int,
    idle_timeout: float,
    port: int,
    as_json: bool,
    seed: int | None,
) -> None:
    """Watch a GPU workshop happen on this machine, with simulated GPUs."""
    from jupyterhub_gpuworkshop.tools.demo import run
    from jupyterhub_gpuworkshop.tools.demo.options import DemoOptions

    options = DemoOptions(
        gpus=gpus,
        gpu_memory_bytes=gpu_memory,
        attendees=attendees,
        attendees_per_gpu=attendees_per_gpu,
        idle_timeout_seconds=idle_timeout,
        port=port,
        json=as_json,
        seed=seed,
    )
    ctx.exit(run(options))


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--install", is_flag=True, help="Put it in place and start it; as root.")
@click.option("--base-url", default="/", help="Of the hub.")
@click.option(
    "--api-url",
    default="http://127.0.0.1:8081/hub/api",
    help="Where the hub's API is.",
)
def unit(file: Path, install: bool, base_url: str, api_url: str) -> None:
    """Print a systemd unit for the GPU service, or put it in place.

    FILE is the workshop file, with service.managed: false in it. The TLJH plugin does
    this by itself. Before the unit is removed for good, stop it and run `gpuworkshop
    unpark --all`.
    """
    from jupyterhub_gpuworkshop.tools import unit as units

    made = units.for_workshop(str(file), base_url=base_url, api_url=api_url)
    if install:
        units.install(made, click.echo)
    else:
        click.echo(made.text(), nl=False)


@main.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, readable=False))
@click.option("--all", "everything", is_flag=True, help="All of them; must be given.")
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False, readable=False),
    help="The service's state folder, where neither the workshop file names it nor it "
    "is this folder or /var/lib/gpuworkshop.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def unpark(
    ctx: click.Context,
    file: Path | None,
    everything: bool,
    state_dir: Path | None,
    as_json: bool,
) -> None:
    """Bring paused kernels back to the GPU, once the GPU service is stopped for good.

    FILE is the workshop file; without it on The Littlest JupyterHub the gpuworkshop
    section of its config.yaml. Kernels stay paused when the service ends, and nobody
    else brings them back. Each comes back where its memory fits; what does not is
    listed, with what to do, and stays paused. Run it before the package is removed, as
    who ran the service. Exit status: 0 nothing is left paused, 1 something is.
    """
    from jupyterhub_gpuworkshop.tools.tljh_places import host_workshop
    from jupyterhub_gpuworkshop.tools.unpark import UnparkOptions, run

    if not everything:
        raise click.UsageError("It brings back all or nothing: write --all.")
    source = str(file) if file is not None else host_workshop()
    options = UnparkOptions(workshop=source, state_dir=state_dir, json=as_json)
    ctx.exit(run(options, click.echo))


material.add_command(collect)
main.add_command(material)
main.add_command(roster)
main.add_command(prestart)
main.add_command(stop_all)
main.add_command(remove_attendees)


@main.group()
def tljh() -> None:
    """What the plugin of The Littlest JupyterHub can do beside TLJH's own commands."""


@tljh.command("packages")
@click.pass_context
def tljh_packages(ctx: click.Context) -> None:
    """Install what gpuworkshop.packages names, for attendees.

    To be run after a change of it, or once the driver is there. Exit status: 0 all of
    it is installed, 1 some of it is not.
    """
    from tljh_plugin.commands import packages

    ctx.exit(packages(click.echo))


@tljh.command("remove")
@click.option(
    "--leave-paused",
    is_flag=True,
    help="Go on also where paused kernels cannot be brought back; their variables are "
    "lost.",
)
def tljh_remove(leave_paused: bool) -> None:
    """Take the plugin out of TLJH: unit, secrets, command and package.

    Servers that run go on, paused kernels come back first, and what was written in
    config.yaml stays.
    """
    from tljh_plugin.removal import remove

    remove(click.echo, leave_paused=leave_paused)


@main.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, readable=False))
@click.option(
    "--hub-config",
    type=click.Path(path_type=Path, readable=False),
    help="The hub's jupyterhub_config.py, where it is not found.",
)
@click.option(
    "--url", help="What attendees will type, such as https://hub.example.org."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.option(
    "--prove-caps",
    is_flag=True,
    help="Run each framework past its cap as well; takes minutes, on a GPU that "
    "nobody uses.",
)
@click.option(
    "--python",
    metavar="PATH",
    help="With --prove-caps: the Python of attendees' kernels.",
)
@click.option(
    "--as-user",
    metavar="NAME",
    help="With --prove-caps: the Unix user to run as. Root runs it as nobody.",
)
@click.option(
    "--force", is_flag=True, help="With --prove-caps: also on a GPU that is in use."
)
@click.pass_context
def doctor(
    ctx: click.Context,
    file: Path | None,
    hub_config: Path | None,
    url: str | None,
    as_json: bool,
    prove_caps: bool,
    python: str | None,
    as_user: str | None,
    force: bool,
) -> None:
    """Say whether this machine is ready for the workshop, and what to mend.

    FILE is the workshop file; without it the one that the hub's configuration names.
    Some checks need root. It changes nothing, but it runs the hub's configuration file
    to read it. Exit status: 0 nothing fails, 1 something does.
    """
    from jupyterhub_gpuworkshop.tools.doctor import DoctorOptions, run

    if not prove_caps and (python or as_user or force):
        raise click.UsageError(
            "--python, --as-user and --force belong to --prove-caps."
        )
    options = DoctorOptions(
        workshop_file=file,
        hub_config=hub_config,
        url=url,
        json=as_json,
        prove_caps=prove_caps,
        python=python,
        as_user=as_user,
        force=force,
    )
    ctx.exit(run(options))


@main.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def service(arguments: tuple[str, ...]) -> None:
    """Run the GPU service; `service --help-all` lists its own options."""
    from jupyterhub_gpuworkshop.service.app import GpuService

    GpuService.launch_instance(list(arguments))
