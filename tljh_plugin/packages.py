"""Installing a GPU stack for attendees.

Owns asking the driver, and running pip in the environment in which attendees' servers
run. Nothing that is installed already is upgraded.
"""

import subprocess
import sys
from collections.abc import Callable

from pydantic import ValidationError

from jupyterhub_gpuworkshop.machine.examination import EXAMINATION
from jupyterhub_gpuworkshop.tools.tljh_places import TljhPlaces
from jupyterhub_gpuworkshop.workshop import Workshop

from .stack import Driver, PipCall, plan

Say = Callable[[str], None]
AGAIN = "sudo gpuworkshop tljh packages"
NVDASHBOARD = "jupyterlab-nvdashboard"
WHAT_NVDASHBOARD_SHOWS = (
    f"dashboard.nvdashboard: attendees get {NVDASHBOARD} in JupyterLab. It shows whole "
    "GPUs, the load of everybody together, and nothing to a server that may open some "
    "of this machine's GPUs and not all. Each attendee's own part is on the GPU "
    "service's page."
)

_EXAMINE = ("-m", "jupyterhub_gpuworkshop.machine.examine")
_EXAMINE_SECONDS = 30.0
_ROOT = "/"
"""With -m, Python looks for modules in the current folder first: it may be anybody's,
and this is root."""
_LINES_OF_A_FAILURE = 5


def install_packages(workshop: Workshop, places: TljhPlaces, say: Say) -> bool:
    """Install what `packages` names, and what `dashboard` does.

    Args:
        workshop: the organiser's.
        places: of TLJH.
        say: is told what is done, what was skipped, and what to run later.

    Returns:
        Whether all of it is installed.
    """
    if not is_anything_wanted(workshop):
        return True
    python = places.user_environment / "bin" / "python"
    if not python.exists():
        say(f"packages: there is no Python at {python} to install them for.")
        return False
    todo = plan(workshop.packages, ask_driver())
    calls = list(todo.calls)
    if workshop.dashboard.nvdashboard:
        say(WHAT_NVDASHBOARD_SHOWS)
        calls.append(PipCall(names=(NVDASHBOARD,), arguments=(NVDASHBOARD,)))
    well = [_pip(call, str(python), say) for call in calls]
    if todo.skipped:
        say(
            f"packages: skipped {', '.join(todo.skipped)}. {todo.reason} Install the "
            f"driver (sudo ubuntu-drivers install --gpgpu), reboot, and run: {AGAIN}"
        )
    return all(well) and not todo.skipped


def is_anything_wanted(workshop: Workshop) -> bool:
    """Whether the organiser names any software for attendees."""
    return bool(workshop.packages) or workshop.dashboard.nvdashboard


def ask_driver() -> Driver:
    """Return what the driver offers, as a short-lived child sees it."""
    try:
        child = subprocess.run(  # noqa: S603  our own module
            [sys.executable, *_EXAMINE],
            check=False,
            capture_output=True,
            timeout=_EXAMINE_SECONDS,
            cwd=_ROOT,
        )
        seen = EXAMINATION.validate_json(child.stdout)
    except subprocess.TimeoutExpired:
        return Driver(
            problem=f"The GPU driver did not answer within {_EXAMINE_SECONDS:.0f} s."
        )
    except (OSError, ValidationError) as error:
        return Driver(problem=f"Asking the GPU driver failed: {error}")
    major, _, minor = seen.cuda.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        return Driver(problem=seen.problem)
    return Driver(
        cuda=(int(major), int(minor)),
        capabilities=tuple(
            c.compute_capability for c in seen.conditions if c.compute_capability
        ),
    )


def _pip(call: PipCall, python: str, say: Say) -> bool:
    """Install what belongs together; a failure is told and stops nothing else."""
    names = ", ".join(call.names)
    say(f"packages: installing {names} ({' '.join(call.arguments)}) ...")
    # Wheels with CUDA in them are gigabytes: they are not kept a second time.
    command = [python, "-m", "pip", "install", "--no-cache-dir", "--quiet"]
    done = subprocess.run(  # noqa: S603  names of the organiser's, who is root here
        [*command, *call.arguments],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=0o022,  # attendees must be able to read it
        cwd=_ROOT,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        last = "\n".join(lines[-_LINES_OF_A_FAILURE:])
        say(f"packages: {names} could not be installed:\n{last}\nThen run: {AGAIN}")
        return False
    for line in lines:
        if line.startswith("ERROR:"):  # what pip breaks without failing
            say(f"packages: {line}")
    return True
