"""One look at the devices by a short-lived child, for as long as no service answers.

Owns the child and its time limit. The hub never calls NVML in its own process: a
driver that hangs takes the child with it and nothing else (design, rule 3).
"""

import asyncio
import contextlib
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, create_subprocess_exec

from pydantic import ValidationError

from jupyterhub_gpuworkshop.core.devices import Inventory
from jupyterhub_gpuworkshop.core.wire import INVENTORY
from jupyterhub_gpuworkshop.machine.timeouts import timeout
from jupyterhub_gpuworkshop.workshop import Workshop

LIMIT_SECONDS = 10.0
"""A driver that answers takes well under a second."""

_DIES_WITHIN_SECONDS = 1.0


async def look_once(
    workshop: Workshop, *, limit_seconds: float | None = None
) -> Inventory:
    """Return what a child process sees; an inventory with a problem if it fails."""
    limit_seconds = limit_seconds or LIMIT_SECONDS
    gpus = workshop.gpus
    command = [sys.executable, "-m", "jupyterhub_gpuworkshop.machine.look"]
    command += ["--source", gpus.source]
    if gpus.simulated_dir is not None:
        command += ["--simulated-dir", str(gpus.simulated_dir)]
    try:
        child = await create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=DEVNULL,
            start_new_session=True,
            # With -m, Python looks for modules in the current folder first: it may be
            # anybody's.
            cwd="/",
        )
    except OSError as error:
        problem = f"the hub could not start a process to look for them: {error}"
        return Inventory(taken_at=time.time(), source=gpus.source, problem=problem)
    try:
        async with timeout(limit_seconds):
            output, _ = await child.communicate()
        return INVENTORY.validate_json(output)
    except asyncio.TimeoutError:
        problem = (
            f"the GPU driver did not answer within {limit_seconds:.0f} s; "
            "run nvidia-smi on the machine, and reboot it if that hangs too"
        )
    except ValidationError:
        problem = (
            "looking for GPUs failed; run "
            f"`{' '.join(command)}` on the machine to see why"
        )
    finally:
        if child.returncode is None:
            child.kill()
            # One in an uninterruptible call dies later, and is not waited for.
            with contextlib.suppress(asyncio.TimeoutError):
                async with timeout(_DIES_WITHIN_SECONDS):
                    await child.wait()
    return Inventory(taken_at=time.time(), source=gpus.source, problem=problem)
