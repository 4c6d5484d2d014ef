"""Sizes and durations as people write them, and back.

Owns the two notations that the workshop file, the command line and messages share.
"""

import re
from fractions import Fraction

from .errors import UnitError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_SIZE_UNITS = {
    "b": 1,
    "kib": KIB,
    "mib": MIB,
    "gib": GIB,
    "tib": TIB,
    # People who write "16G" mean what the GPU's label says: binary, as nvidia-smi.
    "k": KIB,
    "m": MIB,
    "g": GIB,
    "t": TIB,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
}
# The length is bounded: attendees may send sizes too, and no GPU needs more digits.
_NUMBER = r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([a-zA-Z]+)\s*"
_SIZE = re.compile(_NUMBER)

_DURATION_UNITS = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "seconds": 1,
    "min": 60,
    "m": 60,
    "minute": 60,
    "minutes": 60,
    "h": 3600,
    "hour": 3600,
    "hours": 3600,
    "d": 86400,
    "day": 86400,
    "days": 86400,
}
_DURATION_PART = re.compile(_NUMBER)


def parse_size(text: str) -> int:
    """Read a size such as ``16GiB``, ``512 MiB`` or ``8GB``.

    Returns:
        The size in bytes.

    Raises:
        UnitError: the text is not a number with a unit of bytes.
    """
    match = _SIZE.fullmatch(text)
    factor = _SIZE_UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise UnitError(f"{text!r} is not a size. Write for example 8GiB or 512MiB.")
    return int(Fraction(match[1]) * factor)


def format_size(size_bytes: int) -> str:
    """Write a size for people: ``3.2 GiB``, ``512 MiB``, ``0 MiB``."""
    if abs(size_bytes) >= GIB:
        return f"{size_bytes / GIB:.1f} GiB".replace(".0 ", " ")
    return f"{size_bytes / MIB:.0f} MiB"


def parse_duration(text: str) -> float:
    """Read a duration such as ``20 min``, ``2h``, ``90s`` or ``1 h 30 min``.

    Returns:
        The duration in seconds.

    Raises:
        UnitError: the text is not a series of numbers with units of time.
    """
    seconds, position = 0.0, 0
    while position < len(text):
        match = _DURATION_PART.match(text, position)
        factor = _DURATION_UNITS.get(match[2].lower()) if match else None
        if match is None or factor is None:
            break
        seconds += float(match[1]) * factor
        position = match.end()
    if position == 0 or position < len(text):
        raise UnitError(
            f"{text!r} is not a duration. Write for example 90s, 20 min or 2 h."
        )
    return seconds


def format_duration(seconds: float) -> str:
    """Write a duration for people: ``45 s``, ``20 min``, ``1 h 30 min``."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"
