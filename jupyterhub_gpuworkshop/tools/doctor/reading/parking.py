"""What there is to know of parking: whether the machine can, where it is wanted."""

import asyncio
from dataclasses import dataclass

from jupyterhub_gpuworkshop.core.errors import ParkError
from jupyterhub_gpuworkshop.hub.look import look_once
from jupyterhub_gpuworkshop.machine.parking import open_parker
from jupyterhub_gpuworkshop.workshop import Workshop

_PARK = "park"
"""The workshop file's word."""
_LOOK_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parking:
    """Whether idle kernels can be parked.

    Attributes:
        wanted: whether anybody's are to be.
        problem: why nothing can be parked here, in a sentence; else empty.
        refused: why nothing on a device can be, a sentence for each such device.
    """

    wanted: bool
    problem: str = ""
    refused: tuple[str, ...] = ()


def read_parking(workshop: Workshop) -> Parking:
    """Ask who would park, where the workshop file says that anything is to be."""
    if _PARK not in (workshop.idle.action, *workshop.idle.groups.values()):
        return Parking(wanted=False)
    source, folder = workshop.gpus.source, workshop.gpus.simulated_dir
    try:
        parker = open_parker(source, simulated_dir=folder)
        problem = parker.unavailable()
    except ParkError as error:
        problem = str(error)
    if problem:
        return Parking(wanted=True, problem=problem)
    devices = asyncio.run(look_once(workshop, limit_seconds=_LOOK_SECONDS)).devices
    refused = [parker.cannot_park(device) for device in devices]
    return Parking(wanted=True, refused=tuple(x for x in refused if x))
