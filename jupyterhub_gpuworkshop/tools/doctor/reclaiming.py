"""Judges what taking memory back from idle kernels rests on."""

from jupyterhub_gpuworkshop.machine.examination import Examination

from .check import Check, ok, skip, warn
from .reading.parking import Parking

_INSTEAD = "are restarted instead, and their variables are gone."


def judge_utilisation(seen: Examination, *, without_utilisation: bool) -> Check:
    """Judge whether the driver tells when a kernel's GPU is idle.

    Args:
        seen: what the driver says.
        without_utilisation: whether `idle.without_utilisation` is true.
    """
    name = "gpus.utilisation"
    untold = [gpu.label for gpu in seen.gpus if gpu.tells_utilisation is False]
    if not untold:
        return ok(name, "The driver tells how busy each GPU is.")
    found = (
        f"The driver does not tell the utilisation of GPU {', '.join(untold)}, neither "
        "by process nor as a whole: so it is with MIG slices"
    )
    if not without_utilisation:
        return warn(
            name,
            f"{found}. Nothing is reclaimed there unless idle.without_utilisation: "
            "true.",
            "Leave it so, or have kernel state and CPU time trusted, in the workshop "
            "file:\nidle: {without_utilisation: true}",
        )
    return warn(
        name,
        f"{found}. As idle.without_utilisation is true, kernel state and CPU time "
        "suffice there: a kernel that computes on the GPU from a background thread, "
        "with its cell ended and next to no CPU time, is taken for idle.",
        "Where attendees' kernels may do that, in the workshop file:\n"
        "idle: {without_utilisation: false}",
    )


def judge_parking(parking: Parking) -> Check:
    """Judge whether idle kernels can be parked, where that is wanted."""
    name = "gpus.parking"
    if not parking.wanted:
        return skip(name, "The workshop file has nothing parked (idle.action).")
    restart = "Or say so in the workshop file:\nidle: {action: restart}"
    if parking.problem:
        return warn(
            name,
            f"{parking.problem} Idle kernels {_INSTEAD}",
            f"Mend that where the GPU service runs. {restart}",
        )
    if parking.refused:
        return warn(
            name,
            f"{' '.join(parking.refused)} Idle kernels there {_INSTEAD}",
            "Give shares of whole GPUs where variables must stay. " + restart,
        )
    return ok(name, "Idle kernels can be parked, and keep their variables.")
