"""``python -m jupyterhub_gpuworkshop.machine.sampling``: read the devices once.

Prints a `Reading` as JSON and exits with 0, also where there is nothing to see: then it
says why. A driver that hangs hangs this process, and whoever started it kills it.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from jupyterhub_gpuworkshop.core.errors import SourceError
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample

from .source import open_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the devices say at an instant.

    Attributes:
        samples: one for each device that answers.
        problem: why there are none, in a sentence; else empty.
    """

    samples: tuple[DeviceSample, ...] = ()
    problem: str = ""

    def of(self, uuid: str) -> DeviceSample | None:
        """Return the sample of one device, or None."""
        return next((x for x in self.samples if x.uuid == uuid), None)


READING = TypeAdapter(Reading)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one reading of the source that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m jupyterhub_gpuworkshop.machine.sampling",
        description="Print what the GPUs of this machine say as one JSON object.",
    )
    parser.add_argument("--source", choices=("nvml", "simulated"), default="nvml")
    parser.add_argument(
        "--simulated-dir", type=Path, help="where the simulated GPUs live"
    )
    options = parser.parse_args(arguments)
    try:
        # Never closed: a driver that hangs on the way out would keep the answer back.
        source = open_source(options.source, simulated_dir=options.simulated_dir)
        reading = Reading(samples=source.sample())
    except SourceError as error:
        reading = Reading(problem=str(error))
    sys.stdout.write(READING.dump_json(reading).decode() + "\n")


if __name__ == "__main__":
    main()
