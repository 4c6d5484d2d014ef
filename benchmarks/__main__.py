"""`python -m benchmarks [NAME ...]`: arguments, and the printed report."""

import inspect
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from . import (
    attribution,
    ledger,
    load,
    loading,
    machine,
    replay,
    sampling,
    startup,
    storm,
    viewers,
)

BENCHMARKS: dict[str, Callable[..., Iterator[object]]] = {
    "ledger": ledger.run,
    "loading": loading.run,
    "attribution": attribution.run,
    "sampling": sampling.run,
    "load": load.run,
    "replay": replay.run,
    "startup": startup.run,
    "viewers": viewers.run,
    "storm": storm.run,
}

# Not /tmp, which is in memory on many machines: fsync costs nothing there.
_FOLDER = "/var/tmp"  # noqa: S108  # a folder of our own is made in it


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(BENCHMARKS)))
@click.option("--turns", type=click.IntRange(1), help="Pairs of turns for each row.")
@click.option("--leases", type=click.IntRange(1), help="That stand in the ledger.")
@click.option("--devices", type=click.IntRange(1), help="Of all but storms.")
@click.option("--holders", type=click.IntRange(1), help="Processes using the GPU.")
@click.option("--attendees", type=click.IntRange(1), help="Each with a kernel.")
@click.option("--times", type=click.IntRange(1), help="How much sampling grows.")
@click.option("--seeds", type=click.IntRange(1), help="Workshops that are played.")
@click.option("--hours", type=click.FloatRange(0.1), help="That each of them lasts.")
@click.option("--viewers", type=click.IntRange(2), help="Who look at one process.")
@click.option("--seconds", type=click.FloatRange(1), help="That they are measured.")
@click.option("--servers", type=click.IntRange(0), help="JupyterLab servers a storm.")
@click.option("--stubs", type=click.IntRange(0), help="Stub servers a storm.")
@click.option(
    "--folder",
    default=_FOLDER,
    show_default=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where to write, in a folder of its own: on a real disk.",
)
def main(names: tuple[str, ...], folder: Path, **sizes: float | None) -> None:
    """Compare the plugin with the least that could be done, and print the ratios.

    Without NAMES all of them, one after another. What is not given has the size that
    each benchmark is meant for.
    """
    print(machine.name(folder), flush=True)
    if machine.file_system(folder) in ("tmpfs", "ramfs"):
        print("This folder is in memory: fsync costs nothing there (--folder).")
    print("Medians of paired turns (interval), ours against bare.")
    for name in names or BENCHMARKS:
        print(f"\n{name}", flush=True)
        busy = machine.wait_until_quiet()
        if busy > machine.QUIET_PERCENT:
            print(f"  The machine is {busy:.0f} % busy with something else.")
        with tempfile.TemporaryDirectory(dir=folder, prefix="gpuworkshop-bench-") as at:
            work = BENCHMARKS[name]
            for row in work(Path(at), **_sizes(work, sizes)):
                print(f"  {row}", flush=True)
    print(f"\nAt the end: {machine.load()}")


def _sizes(
    work: Callable[..., Any], sizes: dict[str, float | None]
) -> dict[str, float]:
    """Return the sizes that were given and that this benchmark has."""
    has = inspect.signature(work).parameters
    return {k: v for k, v in sizes.items() if v is not None and k in has}


if __name__ == "__main__":
    # Hubs and servers that were started end with this, however it is asked to end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
