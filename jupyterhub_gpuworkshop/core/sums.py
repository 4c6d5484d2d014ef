"""The sum before the day: how many shares there are, how large, and is it enough.

Owns the arithmetic of `gpuworkshop check`, by the same rules as `placement`, so that
what is promised here is what is granted there. It reads no workshop file.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from .devices import Device, Inventory
from .placement import is_excluded
from .shares import Share, ShareKind
from .units import format_size

MOST_PARTS = 1000
"""A share is at least this part of a device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSum:
    """What one device comes to.

    Attributes:
        device: which.
        shares: how many fit; of a share of several whole devices, 1.
        memory_bytes: what each gets of this device.
        after_context_bytes: what is left of it for one process's data, after that
            process's CUDA context.
        unusable: why no share is given on it; empty where shares are.
    """

    device: Device
    shares: int
    memory_bytes: int
    after_context_bytes: int
    unusable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """What all devices come to.

    Attributes:
        share: what each attendee gets.
        devices: one for each device of the inventory, in its order.
        places: how many attendees can have the share at once; None where there is
            no limit, for a share of ``cpu``.
        expected: how many are expected; None where nobody said.
        remedy: what to change to make it enough; empty where it is.
        notes: what else the organiser should know, in sentences.
    """

    share: Share
    devices: tuple[DeviceSum, ...]
    places: int | None
    expected: int | None = None
    remedy: str = ""
    notes: tuple[str, ...] = ()

    @property
    def usable_devices(self) -> int:
        """How many devices shares are given on."""
        return sum(not each.unusable for each in self.devices)

    @property
    def missing(self) -> int:
        """How many attendees find no place; at least 1 where there is no place."""
        if self.places is None:
            return 0
        return max(0, (self.expected or 1) - self.places)

    @property
    def enough(self) -> bool:
        """Whether everyone expected finds a place; where nobody said, anyone."""
        return self.missing == 0


def usable_devices(inventory: Inventory, exclude: Collection[str]) -> list[Device]:
    """Return the devices that shares are given on, see `gpus.exclude`."""
    return [device for device, why in _with_obstacle(inventory, exclude) if not why]


def parts_for(attendees: int, device_count: int, oversubscribe: float) -> int:
    """Return into how many equal parts to cut each device so that all find a place.

    Args:
        attendees: how many are expected.
        device_count: how many devices can be given, at least 1.
        oversubscribe: how often each device's memory is promised.

    Returns:
        1 to `MOST_PARTS`, where a share ends and not all may find a place.
    """
    a_device = math.ceil(Fraction(attendees, device_count))
    # As the organiser wrote it: the float 1.15 is a little less than 23/20, and
    # rounding up would cut one part more than needed.
    parts = math.ceil(a_device / Fraction(str(oversubscribe)))
    return min(max(parts, 1), MOST_PARTS)


def add_up(
    *,
    inventory: Inventory,
    share: Share,
    keep_free_bytes: int,
    oversubscribe: float = 1.0,
    exclude: Collection[str] = (),
    expected: int | None = None,
    share_from: str = "",
) -> Sum:
    """Add up what an inventory comes to for one share each.

    Args:
        inventory: what exists.
        share: what each attendee gets.
        keep_free_bytes: `gpus.keep_free_per_gpu`.
        oversubscribe: `gpus.oversubscribe`.
        exclude: `gpus.exclude`.
        expected: how many attendees are expected; None where nobody said.
        share_from: the key of the workshop file that sets the share, for the remedy.
    """
    devices = tuple(
        _one_device(device, share, keep_free_bytes, oversubscribe, unusable)
        for device, unusable in _with_obstacle(inventory, exclude)
    )
    total = Sum(
        share=share,
        devices=devices,
        places=_places(share, devices),
        expected=expected,
        notes=_notes(inventory, share, devices, exclude),
    )
    if total.enough:
        return total
    if not inventory.devices:
        remedy = inventory.problem or "There is no GPU on this machine."
    elif not total.usable_devices:
        remedy = "No GPU is left to share: take one out of gpus.exclude."
    else:
        parts = parts_for(expected or 1, total.usable_devices, oversubscribe)
        smaller = tuple(
            _one_device(
                device, Share.nth(parts), keep_free_bytes, oversubscribe, unusable
            )
            for device, unusable in _with_obstacle(inventory, exclude)
        )
        remedy = _remedy(expected or 1, parts, smaller, share_from)
    return replace(total, remedy=remedy)


def _with_obstacle(
    inventory: Inventory, exclude: Collection[str]
) -> Iterator[tuple[Device, str]]:
    """Yield each device with why no share is given on it; empty where shares are."""
    cut = {device.parent_uuid for device in inventory.devices}
    for device in inventory.devices:
        if device.uuid in cut:
            yield device, "cut into MIG slices"
        elif is_excluded(device, exclude):
            yield device, "excluded by gpus.exclude"
        elif device.lost:
            yield device, "lost by its driver"
        else:
            yield device, ""


def _one_device(
    device: Device,
    share: Share,
    keep_free_bytes: int,
    oversubscribe: float,
    unusable: str,
) -> DeviceSum:
    need = share.bytes_on(device, keep_free_bytes)
    capacity = device.capacity_bytes(keep_free_bytes, oversubscribe)
    if unusable or share.kind is ShareKind.CPU or need <= 0:
        fit = 0
    else:
        fit = min(1, capacity // need) if share.is_exclusive else capacity // need
    return DeviceSum(
        device=device,
        shares=fit,
        memory_bytes=need,
        after_context_bytes=max(0, need - device.context_bytes),
        unusable=unusable,
    )


def _places(share: Share, devices: Collection[DeviceSum]) -> int | None:
    if share.kind is ShareKind.CPU:
        return None
    return sum(each.shares for each in devices) // share.device_count


def _notes(
    inventory: Inventory,
    share: Share,
    devices: Collection[DeviceSum],
    exclude: Collection[str],
) -> tuple[str, ...]:
    notes = []
    if share.kind is ShareKind.CPU:
        notes.append("A share of cpu takes no GPU: there is a place for everyone.")
    elif contexts := sorted({d.context_bytes for d in inventory.devices} - {0}):
        notes.append(
            f"A CUDA context is estimated at {format_size(contexts[-1])}. "
            "Each notebook that uses the GPU has one of its own."
        )
    notes += [
        f"gpus.exclude names {name}, which is none of these GPUs. Correct it or take "
        "it out."
        for name in exclude
        if not any(is_excluded(device, [name]) for device in inventory.devices)
    ]
    notes += [
        f"A CUDA context takes all of a share on GPU {each.device.label}: nothing is "
        "left for data. Make the shares larger."
        for each in devices
        if each.shares and not each.after_context_bytes
    ]
    return tuple(notes)


def _remedy(
    expected: int, parts: int, smaller: Collection[DeviceSum], share_from: str
) -> str:
    """Say what to write in the workshop file, if that does make it enough."""
    without = "gpus.when_full: cpu gives who finds no place a server without a GPU."
    usable = [each for each in smaller if not each.unusable]
    left = min(each.after_context_bytes for each in usable)
    if sum(each.shares for each in usable) < expected or not left:
        return (
            f"{_gpus(len(usable))} cannot be shared by {expected}: nothing would be "
            f"left after the CUDA context. Bring more GPUs; or {without}"
        )
    instead = f" in place of {share_from}" if share_from else ""
    return (
        f"Write gpus.attendees_per_gpu: {parts}{instead}: everyone then gets "
        f"{Share.nth(parts)} of a GPU, {format_size(left)} after the CUDA context. Or "
        f"{without}"
    )


def _gpus(count: int) -> str:
    return "1 GPU" if count == 1 else f"{count} GPUs"
