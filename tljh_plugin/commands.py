"""What `gpuworkshop tljh` does beside removal.

Owns reading TLJH's configuration for a command, where a mistake is an error.
"""

from collections.abc import Callable

from jupyterhub_gpuworkshop.tools.tljh_places import TljhPlaces
from jupyterhub_gpuworkshop.tools.unit import require_root
from jupyterhub_gpuworkshop.workshop import Workshop

from .packages import install_packages, is_anything_wanted


def packages(say: Callable[[str], None], places: TljhPlaces | None = None) -> int:
    """Install what `packages` names, and what `dashboard` does.

    Args:
        say: is told what was done and what was not.
        places: of TLJH; the host's own unless a test says otherwise.

    Returns:
        The exit status: 0 where all of it is installed, else 1.

    Raises:
        HostError: this is not root.
        WorkshopFileError: config.yaml has a mistake.
    """
    require_root("gpuworkshop tljh packages")
    places = places or TljhPlaces.here()
    workshop = Workshop.load(places.workshop)
    if not is_anything_wanted(workshop):
        say(
            "packages: none are named. Name one, and run this again: "
            "sudo tljh-config add-item gpuworkshop.packages torch"
        )
    return 0 if install_packages(workshop, places, say) else 1
