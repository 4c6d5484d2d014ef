"""Sizes of simulated GPU memory, as people write and read them."""

from __future__ import annotations

import re
from fractions import Fraction

_SIZE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([a-zA-Z]+)\s*")
_SIZE_UNITS = {"b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4}
for _power, _letter in enumerate("kmgt", start=1):
    _SIZE_UNITS[_letter] = _SIZE_UNITS[_letter + "ib"] = 1024**_power


def parse_size(size: int | str) -> int:
    """Read a number of bytes, or a text such as ``2GiB``."""
    if isinstance(size, str):
        match = _SIZE.fullmatch(size)
        factor = _SIZE_UNITS.get(match.group(2).lower()) if match else None
        if match is None or factor is None:
            raise ValueError(
                f"{size!r} is not a size. Write for example 2GiB or 512MiB."
            )
        return int(Fraction(match.group(1)) * factor)
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"A size is a number of bytes or a text, not {size!r}.")
    if size < 0:
        raise ValueError(f"{size} bytes is no size.")
    return size


def say(size_bytes: int) -> str:
    """Write a size for people: ``3.25 GiB``, ``512 MiB``."""
    for unit, factor in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.2f}".rstrip("0").rstrip(".") + " " + unit
    return f"{size_bytes} bytes"
