"""What the plugin sets in the hub's configuration, at each start of the hub.

Owns the order of it, and that nothing of it stops the hub: what fails is told to the
organisers on the hub's pages, and GPU shares are refused where it matters.
"""

from collections.abc import Callable
from typing import Any

from traitlets.log import get_logger

from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError, ShareRefused
from jupyterhub_gpuworkshop.hub.setup import configure, is_only_read
from jupyterhub_gpuworkshop.tools.tljh_places import SECTION, TljhPlaces

from .culling import outlast_idle_rules
from .lab import set_stop_on_close
from .notices import announce
from .service_unit import ensure_unit
from .settings import Settings, for_configure, read_settings
from .spawner import with_shares

REFUSAL = (
    "GPU shares cannot be granted: the workshop's settings have a mistake. Tell the "
    "organiser, who reads at the top of the hub's pages what it is."
)
"""What the attendee reads; which mistake it is, is the organisers' to see."""

_MEND = (
    "No attendee's server starts until this is mended; organisers' do, without a GPU. "
    f"Mend it with `sudo tljh-config set {SECTION}.KEY VALUE`, or in {{file}}, and "
    "then: sudo tljh-config reload"
)


def apply(c: Any, places: TljhPlaces | None = None) -> None:
    """Set everything; never raise.

    Args:
        c: the hub's configuration, as far as TLJH has set it.
        places: of TLJH; the host's own unless a test says otherwise.
    """
    places = places or TljhPlaces.here()
    log = get_logger()
    notices: list[str] = []

    def attempt(what: str, step: Callable[[], None]) -> bool:
        try:
            step()
        except GpuWorkshopError as error:
            notices.append(f"{what}: {error}")
        except Exception as error:
            log.exception("%s", what)
            notices.append(f"{what}: {error!r}. The hub's log has more.")
        else:
            return True
        return False

    settings = read_settings(places)
    if settings.mistake:
        notices.append(settings.mistake)
    # For `auth.type: gpuworkshop-roster`. `configure` is handed no file, so it cannot
    # tell what lies beside it.
    roster = settings.workshop.roster_file(places.workshop)
    c.RosterAuthenticator.setdefault("roster_file", str(roster))
    # So that opening hours are heeded as they stand in the file, without a reload.
    c.DoorKeeper.setdefault("workshop", places.workshop)
    shares = attempt(
        "GPU shares cannot be granted", lambda: _share(c, settings, places, notices)
    )
    if settings.mistake or not shares:
        attempt("GPU shares cannot be refused", lambda: _refuse(c))
        notices.append(_MEND.format(file=places.config_file))
    if not is_only_read():
        attempt(
            "The GPU service is not in place",
            lambda: ensure_unit(
                c, settings.workshop, places, has_mistake=bool(settings.mistake)
            ),
        )
    if not settings.has_cull_timeout:
        attempt(
            "The idle culler's timeout is as it was",
            lambda: outlast_idle_rules(c, settings.workshop.idle.after),
        )
    if not settings.mistake and not is_only_read():
        wanted = settings.workshop.kernels.stop_on_close
        attempt(
            "JupyterLab's settings are as they were",
            lambda: set_stop_on_close(wanted, places),
        )
    for notice in notices:
        log.error("GPU workshop: %s", notice)
    if notices:
        attempt("No announcement", lambda: announce(c, notices))


def _share(c: Any, settings: Settings, places: TljhPlaces, notices: list[str]) -> None:
    c.JupyterHub.spawner_class = with_shares(c)
    if not is_only_read():
        places.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    given, overruled = for_configure(settings.workshop, places)
    notices += overruled
    configure(c, given)


def _refuse(c: Any) -> None:
    """Let no attendee have a share; organisers have a server to mend it from.

    Set on the spawner's very class, which goes before `c.GpuSpawnerMixin.share`.
    """
    c[with_shares(c).__name__].share = _refused


def _refused(spawner: Any) -> str:
    if spawner.user.admin:
        return "cpu"
    raise ShareRefused(REFUSAL)
