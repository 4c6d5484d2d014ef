"""`gpuworkshop check`: the sum before the day.

Owns looking at this machine's devices, or planning some, and showing what
`core.sums` makes of them. It changes nothing.
"""

import asyncio
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jupyterhub_gpuworkshop.core.devices import (
    Device,
    Inventory,
    estimated_context_bytes,
)
from jupyterhub_gpuworkshop.core.errors import SourceUnavailable
from jupyterhub_gpuworkshop.core.sums import Sum, add_up, usable_devices
from jupyterhub_gpuworkshop.core.units import format_size
from jupyterhub_gpuworkshop.hub.look import look_once
from jupyterhub_gpuworkshop.workshop import Workshop

_LOOK_SECONDS = 30.0
_PLAN = "To plan on a machine without them: --gpus 4 --gpu-memory 16GiB."
_COLUMNS: tuple[tuple[str, Literal["left", "right"]], ...] = (
    ("GPU", "right"),
    ("name", "left"),
    ("memory", "right"),
    ("shares", "right"),
    ("memory each", "right"),
    ("after the CUDA context", "right"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What to check.

    Attributes:
        workshop_file: None for an empty workshop.
        gpus: plan for so many devices; None to look at this machine's.
        gpu_memory_bytes: of each planned device.
        json: print one JSON object instead of a table.
    """

    workshop_file: Path | str | None = None
    gpus: int | None = None
    gpu_memory_bytes: int = 0
    json: bool = False


def run(options: CheckOptions, console: Console | None = None) -> int:
    """Print the sum.

    Returns:
        The exit status: 0 where there is a place for everyone, else 1.

    Raises:
        WorkshopFileError: the workshop file has mistakes.
        SourceUnavailable: there is no device to look at.
    """
    workshop = Workshop.load({} if (f := options.workshop_file) is None else f)
    if options.gpus is None:
        inventory = look(workshop)
    else:
        inventory = plan(options.gpus, options.gpu_memory_bytes)
    total, share_from = add_up_workshop(workshop, inventory)
    console = console or Console(highlight=False)
    if options.json:
        document = as_document(total, share_from, inventory)
        console.file.write(json.dumps(document) + "\n")
    else:
        show(total, share_from, inventory, console)
    return 0 if total.enough else 1


def plan(count: int, memory_bytes: int) -> Inventory:
    """Return devices that are not here yet."""
    return Inventory(
        devices=tuple(
            Device(
                uuid=f"planned-{index}",
                label=str(index),
                name="planned GPU",
                memory_bytes=memory_bytes,
                context_bytes=estimated_context_bytes(memory_bytes),
            )
            for index in range(count)
        ),
        taken_at=time.time(),
        source="planned",
    )


def look(workshop: Workshop) -> Inventory:
    """Look at this machine's devices once, as the hub would.

    Raises:
        SourceUnavailable: there is none, or the driver does not answer in time.
    """
    inventory = asyncio.run(look_once(workshop, limit_seconds=_LOOK_SECONDS))
    if inventory.devices:
        return inventory
    problem = inventory.problem.rstrip(".") or "No GPU was found on this machine"
    raise SourceUnavailable(f"{problem[0].upper()}{problem[1:]}. {_PLAN}")


def add_up_workshop(workshop: Workshop, inventory: Inventory) -> tuple[Sum, str]:
    """Return the sum for who has no share of their own, and what sets that share."""
    gpus = workshop.gpus
    usable = usable_devices(inventory, gpus.exclude)
    share, share_from = workshop.default_share_from(len(usable))
    total = add_up(
        inventory=inventory,
        share=share,
        keep_free_bytes=gpus.keep_free_per_gpu,
        oversubscribe=gpus.oversubscribe,
        exclude=gpus.exclude,
        expected=workshop.attendees,
        share_from=share_from,
    )
    if workshop.shares.groups or workshop.shares.users:
        note = (
            "shares.groups and shares.users are not in this sum, which takes everyone "
            "to have the default share."
        )
        total = replace(total, notes=(*total.notes, note))
    return total, share_from


def verdict(total: Sum) -> str:
    """Say in a sentence or two whether it is enough, and what to do where not."""
    if total.places is None:
        return "Enough: nobody takes a GPU."
    places = "1 place" if total.places == 1 else f"{total.places} places"
    if total.expected is None:
        if total.places:
            return f"{places}. To compare, write attendees: N in the workshop file."
        return f"There is no place at all. {total.remedy}"
    if total.enough:
        spare = total.places - total.expected
        left = f"{spare} to spare" if spare else "none to spare"
        return f"Enough: {places} for {total.expected} attendees, {left}."
    return (
        f"Not enough: {places} for {total.expected} attendees, {total.missing} find "
        f"none. {total.remedy}"
    )


def as_document(total: Sum, share_from: str, inventory: Inventory) -> dict[str, Any]:
    """Return the sum as a JSON document."""
    return {
        "share": str(total.share),
        "share_from": share_from,
        "source": inventory.source,
        "places": total.places,
        "attendees": total.expected,
        "missing": total.missing,
        "enough": total.enough,
        "verdict": verdict(total),
        "notes": list(total.notes),
        "devices": [
            {
                **asdict(each.device),
                "shares": each.shares,
                "share_bytes": each.memory_bytes,
                "share_bytes_after_context": each.after_context_bytes,
                "unusable": each.unusable,
            }
            for each in total.devices
        ],
    }


def show(total: Sum, share_from: str, inventory: Inventory, console: Console) -> None:
    """Print the sum as a table and a sentence."""
    table = Table(title=f"A share of {total.share} each (from {escape(share_from)})")
    for heading, justify in _COLUMNS:
        table.add_column(heading, justify=justify)
    for each in total.devices:
        cells = (
            ["-", "-", each.unusable]
            if each.unusable
            else [
                str(each.shares),
                format_size(each.memory_bytes),
                format_size(each.after_context_bytes),
            ]
        )
        table.add_row(
            each.device.label,
            escape(each.device.name),
            format_size(each.device.memory_bytes),
            *cells,
        )
    if total.devices:
        console.print(table)
    console.print(verdict(total), markup=False, soft_wrap=True)
    for note in total.notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
