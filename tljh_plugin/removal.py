"""`gpuworkshop tljh remove`: TLJH as it was without the plugin.

Owns what is taken away, in which order, and what is left with a word. Servers that run
go on, and paused kernels come back first; what the organiser wrote stays.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable

from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError, HostError
from jupyterhub_gpuworkshop.service.kept import STATE_FILE
from jupyterhub_gpuworkshop.tools.tljh_places import SECTION, TljhPlaces
from jupyterhub_gpuworkshop.tools.unit import (
    NAME,
    STATE_FOLDER,
    is_ours,
    require_root,
    systemctl,
)
from jupyterhub_gpuworkshop.tools.unpark import UnparkOptions
from jupyterhub_gpuworkshop.tools.unpark import run as unpark

from .installation import COMMAND, command_link, is_our_link
from .lab import set_stop_on_close
from .settings import read_settings

_DISTRIBUTION = "jupyterhub-gpuworkshop"


def remove(
    say: Callable[[str], None],
    places: TljhPlaces | None = None,
    *,
    leave_paused: bool = False,
) -> None:
    """Remove the plugin from TLJH.

    Args:
        say: is told what was done and what is left.
        places: of TLJH; the host's own unless a test says otherwise.
        leave_paused: go on also where kernels stay paused, which then end so.

    Raises:
        HostError: this is not root, there is no TLJH, kernels stay paused, or a step
            failed; what was done until then stays done, and the command can be run
            again.
    """
    places = places or TljhPlaces.here()
    if not places.hub_environment.is_dir():
        raise HostError(
            f"There is no TLJH at {places.prefix}. Where it is elsewhere, name it: "
            "sudo TLJH_INSTALL_PREFIX=/its/folder gpuworkshop tljh remove"
        )
    require_root("gpuworkshop tljh remove")
    _remove_unit(places, say)
    _bring_back_what_is_paused(places, say, leave_paused=leave_paused)
    link, _ = command_link(places)
    if is_our_link(places):
        link.unlink()
        say(f"Removed {link}.")
    set_stop_on_close(False, places)
    secret_file = read_settings(places).workshop.service.secret_file
    if secret_file is not None and secret_file.is_file():
        secret_file.unlink()
        say(f"Removed {secret_file}.")
    if places.state.exists():
        shutil.rmtree(places.state)
        say(f"Removed {places.state}, the secrets with it.")
    _uninstall(say)
    systemctl("restart", "jupyterhub")
    say("The hub has restarted without GPU shares; servers that run go on.")
    say(
        f"Left: `{SECTION}:` in {places.config_file} (sudo tljh-config unset "
        f"{SECTION}), the history in {STATE_FOLDER}, the ledger and records in "
        f"{places.state.parent}/gpuworkshop*, and the packages of the attendees."
    )


def _remove_unit(places: TljhPlaces, say: Callable[[str], None]) -> None:
    unit = places.units / NAME
    if not unit.exists():
        return
    if not is_ours(unit):
        say(f"{unit} is not a file that {COMMAND} wrote, and is left as it is.")
        return
    systemctl("disable", "--now", "--quiet", NAME)
    unit.unlink()
    systemctl("daemon-reload")
    systemctl("reset-failed", NAME, check=False)
    say(f"Stopped and removed {NAME}.")


def _bring_back_what_is_paused(
    places: TljhPlaces, say: Callable[[str], None], *, leave_paused: bool
) -> None:
    """Bring paused kernels back: without the package nobody can."""
    service = read_settings(places).workshop.service
    folder = service.state_dir or STATE_FOLDER
    if not (folder / STATE_FILE).exists():
        return
    options = UnparkOptions(workshop=places.workshop, state_dir=folder)
    why = "Kernels stay paused, as told above."
    try:
        if unpark(options, say) == 0:
            return
    except GpuWorkshopError as error:
        why = f"Whether kernels are paused is not known, or not to be mended: {error}"
    if not leave_paused:
        raise HostError(
            f"{why} The service is stopped, and the rest of the plugin is still there: "
            "without it nobody could bring them back. Run this again, or give them up: "
            "sudo gpuworkshop tljh remove --leave-paused"
        )
    say(f"{why} They are left so.")


def _uninstall(say: Callable[[str], None]) -> None:
    """Take the package out of the hub's environment: its hooks are not called again."""
    command = [sys.executable, "-m", "pip", "uninstall", "--yes", "--quiet"]
    done = subprocess.run(  # noqa: S603  our own name
        [*command, _DISTRIBUTION],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",  # with -m, modules of the current folder, anybody's, would go first
    )
    if done.returncode:
        raise HostError(
            f"pip could not uninstall {_DISTRIBUTION}: {done.stdout.strip()}\nUntil it "
            "can, a restart of the hub would set everything up again. Run this again."
        )
    say(f"Uninstalled {_DISTRIBUTION}.")
