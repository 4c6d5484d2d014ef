"""Share: what one server is entitled to.

Owns the notation (``1/5``, ``8GiB``, ``2 gpus``, ``cpu``) and what a share comes to
on a device.
"""

import re
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from .devices import Device
from .errors import ShareError, UnitError
from .units import format_size, parse_size

_FRACTION = re.compile(r"(\d{1,9})\s*/\s*(\d{1,9})")
_WHOLE = re.compile(r"(\d{1,9})\s*(?:whole\s+)?(?:gpus?|devices?)", re.IGNORECASE)
_MOST_DEVICES = 1024
_MOST_BYTES = 10**18
_SMALLEST = 1000


class ShareKind(str, Enum):
    """The four ways to state a share."""

    FRACTION = "fraction"
    MEMORY = "memory"
    WHOLE = "whole"
    CPU = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A part of one device, one or more whole devices, or no device.

    Attributes:
        kind: which of the other three attributes counts.
        fraction: the part of a device's shareable memory, for ``FRACTION``.
        memory_bytes: an amount of memory on one device, for ``MEMORY``.
        devices: how many devices, alone on each, for ``WHOLE``.
    """

    kind: ShareKind
    fraction: Fraction = Fraction(0)
    memory_bytes: int = 0
    devices: int = 0

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Read a share as organisers write it.

        Args:
            text: ``"1/5"``, ``"8GiB"``, ``"1 gpu"``, ``"2 gpus"``, ``"cpu"`` or
                ``"none"``.

        Raises:
            ShareError: it is none of these, or of no size.
        """
        text = str(text).strip()
        if text.lower() in ("cpu", "none"):
            return cls(kind=ShareKind.CPU)
        if match := _FRACTION.fullmatch(text):
            part, whole = int(match[1]), int(match[2])
            if not 0 < part <= whole or whole > _SMALLEST:
                raise ShareError(
                    f"{text!r} is not a part of a GPU: write for example 1/5, "
                    f"between 1/{_SMALLEST} and 1/1."
                )
            return cls(kind=ShareKind.FRACTION, fraction=Fraction(part, whole))
        if match := _WHOLE.fullmatch(text):
            count = int(match[1])
            if not 0 < count <= _MOST_DEVICES:
                raise ShareError(
                    f"{text!r} is no number of GPUs: write 1 gpu, 2 gpus, or cpu "
                    "for none."
                )
            return cls(kind=ShareKind.WHOLE, devices=count)
        try:
            memory_bytes = parse_size(text)
        except UnitError:
            memory_bytes = -1
        if 0 < memory_bytes < _MOST_BYTES:
            return cls(kind=ShareKind.MEMORY, memory_bytes=memory_bytes)
        raise ShareError(
            f"{text!r} is not a share. Write a part of a GPU (1/5), an amount of its "
            "memory (8GiB), whole GPUs (1 gpu, 2 gpus), or cpu for no GPU."
        )

    @classmethod
    def nth(cls, parts: int) -> "Share":
        """Return one of ``parts`` equal parts of a device."""
        return cls(kind=ShareKind.FRACTION, fraction=Fraction(1, parts))

    @property
    def device_count(self) -> int:
        """How many devices a lease of this share names."""
        if self.kind is ShareKind.CPU:
            return 0
        return self.devices if self.kind is ShareKind.WHOLE else 1

    @property
    def is_exclusive(self) -> bool:
        """Whether nobody else may have a lease on the same device."""
        return self.kind is ShareKind.WHOLE

    def bytes_on(self, device: Device, keep_free_bytes: int) -> int:
        """Return the memory that this share comes to on a device, in bytes."""
        shareable = device.shareable_bytes(keep_free_bytes)
        if self.kind is ShareKind.CPU:
            return 0
        if self.kind is ShareKind.WHOLE:
            return shareable
        if self.kind is ShareKind.MEMORY:
            return self.memory_bytes
        return shareable * self.fraction.numerator // self.fraction.denominator

    def __str__(self) -> str:
        """Write the share so that `parse` reads it again."""
        if self.kind is ShareKind.FRACTION:
            return f"{self.fraction.numerator}/{self.fraction.denominator}"
        if self.kind is ShareKind.WHOLE:
            return "1 gpu" if self.devices == 1 else f"{self.devices} gpus"
        if self.kind is ShareKind.MEMORY:
            exact = format_size(self.memory_bytes).replace(" ", "")
            return (
                exact
                if parse_size(exact) == self.memory_bytes
                else f"{self.memory_bytes}B"
            )
        return "cpu"
