"""What the organiser has written in TLJH's config.yaml.

Owns reading it, and what stays in force where it has mistakes. It never writes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError
from jupyterhub_gpuworkshop.tools.tljh_places import SECTION, TljhPlaces
from jupyterhub_gpuworkshop.workshop import Workshop
from jupyterhub_gpuworkshop.workshop_reading import read_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The organiser's word.

    Attributes:
        workshop: the `gpuworkshop` section; where it has mistakes, those of its
            sections that have none.
        mistake: what is wrong with it, one line for each; else empty.
        has_cull_timeout: whether the organiser decides how long idle servers live.
    """

    workshop: Workshop
    mistake: str = ""
    has_cull_timeout: bool = False


def read_settings(places: TljhPlaces) -> Settings:
    """Read config.yaml; a mistake in it is a result, not an error."""
    if not places.config_file.exists():
        return Settings(workshop=Workshop())
    try:
        whole = read_file(places.config_file)
    except GpuWorkshopError as error:
        # Who cannot be read may have decided.
        return Settings(workshop=Workshop(), mistake=str(error), has_cull_timeout=True)
    has_cull_timeout = "timeout" in _below(_below(whole, "services"), "cull")
    try:
        workshop = Workshop.load(places.workshop)
    except GpuWorkshopError as error:
        kept = _what_has_no_mistake(_below(whole, SECTION), places)
        return Settings(
            workshop=kept, mistake=str(error), has_cull_timeout=has_cull_timeout
        )
    return Settings(workshop=workshop, has_cull_timeout=has_cull_timeout)


def for_configure(
    workshop: Workshop, places: TljhPlaces
) -> tuple[dict[str, Any], list[str]]:
    """Return the workshop for `configure`, with the service as a unit of its own.

    The hub's own unit hides all devices (facts: jupyterhub 28), so that a service
    which the hub starts would see no GPU. A mapping has no folder, so the roster's
    is said: commands look beside config.yaml for what the hub keeps beside it.

    Returns:
        The workshop as a mapping, and a sentence for each thing that was overruled.
    """
    given = workshop.model_dump(mode="json", exclude_unset=True)
    service = given.setdefault("service", {})
    overruled = []
    if service.get("managed"):
        overruled.append(
            f"{SECTION}.service.managed: true is not heeded on TLJH: its hub may not "
            "open a GPU, and so the GPU service is a systemd unit of its own. Take the "
            f"line out: sudo tljh-config unset {SECTION}.service.managed"
        )
    service["managed"] = False
    roster = given.setdefault("roster", {})
    roster["file"] = str(workshop.roster_file(places.workshop))
    service.setdefault("secret_file", str(places.secret_file))
    return given, overruled


def _below(values: object, key: str) -> Mapping[str, object]:
    found = values.get(key) if isinstance(values, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _what_has_no_mistake(section: Mapping[str, object], places: TljhPlaces) -> Workshop:
    """Return the workshop of those sections that hold up together.

    Where the service listens and where the ledger is must not change because of a
    slip elsewhere: servers that run are accounted for there.
    """
    context = {"folder": places.config_file.parent}
    kept: dict[str, object] = {}
    workshop = Workshop()
    for key, value in section.items():
        try:
            workshop = Workshop.model_validate({**kept, key: value}, context=context)
        except ValidationError:
            continue
        kept[key] = value
    return workshop
