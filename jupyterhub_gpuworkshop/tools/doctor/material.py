"""Judges the material: whether it is installed, and in a good place."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import MaterialError
from jupyterhub_gpuworkshop.core.units import format_size
from jupyterhub_gpuworkshop.tools.material.places import (
    closed_above,
    why_not_lasting,
    why_not_ours,
)
from jupyterhub_gpuworkshop.tools.material.report import listed
from jupyterhub_gpuworkshop.tools.material.writing import free_bytes
from jupyterhub_gpuworkshop.workshop import Workshop

from .check import Check, fail, needs_root, ok, skip, warn

_INSTALL = "$ sudo gpuworkshop material install"
_NONE = "The workshop file names no material."


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where material is kept.

    Attributes:
        folder: `material.folder`, there or not.
        fleeting: why what is in it may go; else empty.
        foreign: why others may change it; else empty.
        closed: folders on the way that attendees may not pass.
        free_bytes: on its disk.
        largest_bytes: of the largest part that is installed.
    """

    folder: Path
    fleeting: str = ""
    foreign: str = ""
    closed: Sequence[Path] = ()
    free_bytes: int = 0
    largest_bytes: int = 0


def judge_installed(workshop: Workshop) -> Check:
    """Judge whether all that the workshop file names is there."""
    name = "workshop.material"
    try:
        rows = listed(workshop)
    except MaterialError as error:
        return fail(name, str(error), _INSTALL)
    except PermissionError as error:
        return needs_root(name, f"{error.filename} is closed.")
    missing = [row["part"] for row in rows if row["state"] == "not installed"]
    other = [row["part"] for row in rows if row["state"] == "another source"]
    past = [row["part"] for row in rows if row["state"] == "not in the workshop file"]
    if missing:
        return fail(name, f"Not installed: {', '.join(missing)}.", _INSTALL)
    if other:
        said = f"Installed from where the workshop file does not say: {_all(other)}."
        return warn(name, said, _INSTALL)
    if past:
        said = f"Installed, and not in the workshop file any more: {_all(past)}."
        return warn(name, said, _INSTALL)
    if not rows:
        return ok(name, _NONE)
    return ok(name, f"Installed: {_all([row['part'] for row in rows])}.")


def read_place(workshop: Workshop) -> Place:
    """Look at the folder of material, or where it will be.

    Raises:
        OSError: it cannot be looked at.
    """
    folder = workshop.material.folder
    there = next(part for part in (folder, *folder.parents) if part.exists())
    try:
        largest = max((row["bytes"] for row in listed(workshop)), default=0)
    except MaterialError:
        largest = 0  # `workshop.material` says so
    return Place(
        folder=folder,
        fleeting=why_not_lasting(folder),
        foreign=why_not_ours(folder),
        closed=closed_above(folder),
        free_bytes=free_bytes(there),
        largest_bytes=largest,
    )


def judge_place(place: Place, *, named: bool, simulated: bool) -> Check:
    """Judge where material is kept.

    Args:
        place: what was seen of it.
        named: whether the workshop file names any.
        simulated: whether this is a rehearsal, which may be gone tomorrow.
    """
    name = "host.material"
    elsewhere = (
        "Name another place as material.folder, /var/lib/gpuworkshop-material say, "
        f"then:\n{_INSTALL}"
    )
    if not named:
        return skip(name, _NONE)
    if place.foreign:
        return fail(name, f"{place.foreign}: material could be changed.", elsewhere)
    if place.closed:
        shut = " ".join(map(str, place.closed))
        return fail(
            name,
            f"Attendees cannot get to {place.folder}: closed to them is {shut}.",
            f"$ sudo chmod o+x {shut}",
        )
    if place.fleeting:
        say = warn if simulated else fail
        return say(name, f"{place.fleeting}.", elsewhere)
    free = f"{format_size(place.free_bytes)} are free on the disk of {place.folder}"
    if place.free_bytes < place.largest_bytes:
        return warn(
            name,
            f"{free}: an update of the largest part needs "
            f"{format_size(place.largest_bytes)} beside it, and more while it is "
            "unpacked.",
            "Make room on it.",
        )
    return ok(name, f"{free}, and everybody can read there.")


def judge_archives(folder: Path) -> Check:
    """Judge where archives of attendees' work go."""
    name = "host.archives"
    if fleeting := why_not_lasting(folder):
        return warn(
            name,
            f"{fleeting}: work that was collected may be gone before it is downloaded.",
            "Name another place as material.archives, /var/lib/gpuworkshop-work say.",
        )
    return ok(name, f"Work is collected in {folder}, which stays through a reboot.")


def _all(parts: Sequence[str]) -> str:
    return ", ".join(parts)
