"""The end of an installation or an upgrade of TLJH.

Owns the command on everybody's PATH and the order of the rest. It runs as root in
TLJH's installer, and a failure of ours does not fail the installation.
"""

import logging
import os
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError
from jupyterhub_gpuworkshop.tools.tljh_places import TljhPlaces
from jupyterhub_gpuworkshop.tools.unit import NAME, systemctl

from .packages import install_packages
from .settings import read_settings

COMMAND = "gpuworkshop"

_log = logging.getLogger("tljh")
"""The installer's own: what is said there is seen, and kept in installer.log."""


def finish(places: TljhPlaces | None = None) -> None:
    """Do what remains once the hub runs; never raise.

    Args:
        places: of TLJH; the host's own unless a test says otherwise.
    """
    places = places or TljhPlaces.here()
    try:
        _link_command(places)
        settings = read_settings(places)
        if settings.mistake:
            _log.error("GPU workshop: %s", settings.mistake)
        if (places.units / NAME).exists():  # the hub may still be on its way to it
            # After an upgrade the old code is still running.
            systemctl("try-restart", "--no-block", NAME)
        install_packages(settings.workshop, places, _log.info)
    except GpuWorkshopError as error:
        _log.error("GPU workshop: %s", error)
    except Exception:
        _log.exception("GPU workshop: the installation is not finished")


def command_link(places: TljhPlaces) -> tuple[Path, Path]:
    """Return the link on everybody's PATH, and what it leads to."""
    return places.commands / COMMAND, places.hub_environment / "bin" / COMMAND


def is_our_link(places: TljhPlaces) -> bool:
    """Tell whether the command on the PATH is ours."""
    link, target = command_link(places)
    return link.is_symlink() and link.readlink() == target


def _link_command(places: TljhPlaces) -> None:
    """Put the command beside `tljh-config`; what is there and not ours stays.

    The hub's environment is on nobody's PATH, and sudo looks in /usr/bin.
    """
    link, target = command_link(places)
    if is_our_link(places):
        return
    if os.path.lexists(link):
        _log.warning(
            "GPU workshop: %s is there already and not ours, so it is left alone. The "
            "command is %s.",
            link,
            target,
        )
        return
    link.symlink_to(target)
