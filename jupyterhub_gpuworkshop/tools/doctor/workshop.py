"""Judges the workshop file and what it adds up to."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_gpuworkshop.core.doors import Stage
from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError
from jupyterhub_gpuworkshop.hub.look import look_once
from jupyterhub_gpuworkshop.tools.check import add_up_workshop, verdict
from jupyterhub_gpuworkshop.tools.tljh_places import TljhPlaces, host_workshop
from jupyterhub_gpuworkshop.workshop import Workshop

from .check import Check, fail, needs_root, ok, skip, warn
from .reading.hub_facts import HubFacts

_LOOK_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The workshop, and how it was found.

    Attributes:
        workshop: with its defaults where it could not be read.
        source: where it was found, in words.
        problem: what is wrong with it; else empty.
        needs_root: whether root could read it.
    """

    workshop: Workshop
    source: str
    problem: str = ""
    needs_root: bool = False


def find_workshop(file: Path | None, hub: HubFacts) -> Given:
    """Load the file that was given, else what the hub was configured with, else TLJH's.

    A mistake does not end the doctor: the other checks go on with the defaults.
    """
    source: str | Path | dict[str, object]
    if file is not None:
        source, words = str(file), str(file)
    elif hub.workshop:
        source = hub.workshop
        words = source if isinstance(source, str) else f"in {hub.file}"
    elif (found := host_workshop()) is not None:
        source, words = found, found
    else:
        source, words = {}, ""
    try:
        if file is None and hub.workshop and (written := host_workshop()) is not None:
            return _checked_against(written, Workshop.load(source))
        return Given(workshop=Workshop.load(source), source=words)
    except (GpuWorkshopError, OSError) as error:
        return _with_problem(error, words, Workshop.load({}))


def _checked_against(written: str, workshop: Workshop) -> Given:
    """Return what TLJH's hub made of the file, with the mistakes that it left out."""
    try:
        Workshop.load(written)
    except (GpuWorkshopError, OSError) as error:
        return _with_problem(error, written, workshop)
    return Given(workshop=workshop, source=written)


def _with_problem(error: Exception, source: str, workshop: Workshop) -> Given:
    closed = any(x in str(error) for x in ("may not read", "ermission denied"))
    return Given(
        workshop=workshop, source=source, problem=str(error), needs_root=closed
    )


def judge_file(given: Given) -> Check:
    """Judge the workshop file."""
    name = "workshop.file"
    if given.needs_root:
        return needs_root(name, given.problem)
    if given.problem:
        edit = (
            f"$ sudoedit {TljhPlaces.here().config_file}\n$ sudo tljh-config reload"
            if "#" in given.source
            else f"$ sudoedit {given.source}"
        )
        return fail(name, given.problem, f"Mend it:\n{edit}")
    if not given.source:
        return ok(name, "There is none: every key has its default.")
    return ok(name, f"{given.source} has no mistake.")


def judge_places(workshop: Workshop) -> Check:
    """Judge whether there is a place for every attendee, as `gpuworkshop check` does.

    It looks at the devices in a child of its own.
    """
    name = "workshop.places"
    inventory = asyncio.run(look_once(workshop, limit_seconds=_LOOK_SECONDS))
    if not inventory.devices:
        why = inventory.problem.rstrip(".?") or "no GPU was found"
        if workshop.gpus.source == "simulated":
            return fail(
                name,
                f"There is no simulated GPU: {why}.",
                "gpus.simulated_dir must name a folder that holds some; "
                "gpuworkshop demo makes its own.",
            )
        return skip(name, f"There is nothing to add up: {why[:1].lower()}{why[1:]}.")
    total, _ = add_up_workshop(workshop, inventory)
    said = f"A share of {total.share} each. {verdict(total)}"
    if total.enough:
        return ok(name, said)
    return fail(
        name, said.removesuffix(total.remedy).rstrip(), total.remedy or "gpus.exclude"
    )


def judge_doors(workshop: Workshop, now: float) -> Check:
    """Judge whether attendees come in on the day.

    Args:
        workshop: whose doors.
        now: seconds since 1970.
    """
    name, rules = "workshop.doors", workshop.doors
    standing = rules.doors().at(now)
    if not rules.hours:
        return ok(name, "The doors are always open.")
    if standing.stage is Stage.OVER:
        return warn(
            name,
            f"The workshop is over since {rules.hours[-1]} ({rules.timezone}): no "
            "attendee can log in.",
            "Write the days to come as doors.hours, or take the section out.",
        )
    if standing.stage is Stage.OPEN and standing.closes_at is not None:
        closes = rules.in_words(standing.closes_at)
        return ok(name, f"The doors are open, and close on {closes}.")
    if standing.opens_at is not None:
        return ok(name, f"The doors open on {rules.in_words(standing.opens_at)}.")
    return warn(
        name,
        f"The last opening has passed ({rules.hours[-1]}, {rules.timezone}): attendees "
        "find their work, and get no server.",
        "Write the days to come as doors.hours, if there are any.",
    )
