"""One reading of the devices by a short-lived child, as `hub.look` looks for them.

``python -m jupyterhub_gpuworkshop.tools.prove_caps.sampling`` is the child. A driver
that hangs hangs it, and nothing else.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from jupyterhub_gpuworkshop.core.errors import SourceError
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample
from jupyterhub_gpuworkshop.machine.source import open_source
from jupyterhub_gpuworkshop.workshop import Workshop

_LIMIT_SECONDS = 30.0


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


_READING = TypeAdapter(Reading)


def read_devices(workshop: Workshop) -> Reading:
    """Return what a child process reads; a reading with a problem if it fails."""
    gpus = workshop.gpus
    command = [sys.executable, "-m", __name__, "--source", gpus.source]
    if gpus.simulated_dir is not None:
        command += ["--simulated-dir", str(gpus.simulated_dir)]
    child = subprocess.Popen(  # noqa: S603 - this module
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return _READING.validate_json(child.communicate(timeout=_LIMIT_SECONDS)[0])
    except subprocess.TimeoutExpired:
        # In an uninterruptible call it dies later: it is not waited for.
        child.kill()
        problem = f"the GPU driver did not answer within {_LIMIT_SECONDS:.0f} s."
    except ValidationError:
        problem = f"reading the GPUs failed; `{' '.join(command)}` says why."
    return Reading(problem=problem)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one reading as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", required=True)
    parser.add_argument("--simulated-dir", type=Path)
    options = parser.parse_args(arguments)
    try:
        source = open_source(options.source, simulated_dir=options.simulated_dir)
        reading = Reading(samples=source.sample())
    except SourceError as error:
        reading = Reading(problem=str(error))
    sys.stdout.write(_READING.dump_json(reading).decode() + "\n")


if __name__ == "__main__":
    main()
