"""``python -m jupyterhub_gpuworkshop.machine.look``: look at the devices once.

The hub's one short-lived child. It prints an `Inventory` as JSON and exits with 0, also
where there is nothing to see: then the inventory says why. A driver that hangs hangs
this process, and whoever started it kills it: it must own nothing worth keeping.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from jupyterhub_gpuworkshop.core.devices import Inventory
from jupyterhub_gpuworkshop.core.errors import SourceError
from jupyterhub_gpuworkshop.core.wire import INVENTORY

from .source import open_source


def look(name: str, simulated_dir: Path | None) -> Inventory:
    """Return what a source sees; where it sees nothing, no devices and the reason."""
    try:
        # Never closed: a driver that hangs on the way out would keep the answer back.
        return open_source(name, simulated_dir=simulated_dir).inventory()
    except SourceError as error:
        return Inventory(taken_at=time.time(), source=name, problem=str(error))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the inventory of the source that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m jupyterhub_gpuworkshop.machine.look",
        description="Print the GPUs of this machine as one JSON object.",
    )
    parser.add_argument("--source", choices=("nvml", "simulated"), default="nvml")
    parser.add_argument(
        "--simulated-dir", type=Path, help="where the simulated GPUs live"
    )
    options = parser.parse_args(arguments)
    inventory = look(options.source, options.simulated_dir)
    sys.stdout.write(INVENTORY.dump_json(inventory).decode() + "\n")


if __name__ == "__main__":
    main()
