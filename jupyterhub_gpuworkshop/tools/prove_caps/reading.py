"""One reading of the devices by a short-lived child, as `hub.look` looks for them.

Owns the child and its time limit: a driver that hangs takes it, and nothing else.
"""

import subprocess
import sys

from pydantic import ValidationError

from jupyterhub_gpuworkshop.machine.sampling import READING, Reading
from jupyterhub_gpuworkshop.workshop import Workshop

_LIMIT_SECONDS = 30.0


def read_devices(workshop: Workshop) -> Reading:
    """Return what a child process reads; a reading with a problem if it fails."""
    gpus = workshop.gpus
    command = [sys.executable, "-m", "jupyterhub_gpuworkshop.machine.sampling"]
    command += ["--source", gpus.source]
    if gpus.simulated_dir is not None:
        command += ["--simulated-dir", str(gpus.simulated_dir)]
    child = subprocess.Popen(  # noqa: S603 - a module of ours
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # With -m, Python looks for modules in the current folder first: it may be
        # anybody's, and this may be root.
        cwd="/",
    )
    try:
        return READING.validate_json(child.communicate(timeout=_LIMIT_SECONDS)[0])
    except subprocess.TimeoutExpired:
        # In an uninterruptible call it dies later: it is not waited for.
        problem = f"the GPU driver did not answer within {_LIMIT_SECONDS:.0f} s."
    except ValidationError:
        problem = f"reading the GPUs failed; `{' '.join(command)}` says why."
    finally:
        child.kill()
    return Reading(problem=problem)
