"""Archives of attendees' work: what their files are called, and whose they say to be.

Owns the names, one for each user and never the same for two; and the mark in the head
of a gzip file that tells an account from a later one of the same name. A room's
accounts are called alike at each workshop, and nobody is to find a stranger's work.
"""

import re
from datetime import datetime, timezone

from .units import MIB, format_size

SUFFIX = ".tar.gz"

HEAD_BYTES = 256
"""So much of a file is enough to read its mark."""

_ALIKE_SECONDS = 0.001
_ALIKE_ROUNDED_SECONDS = 1.0
"""Where a database keeps whole seconds only."""

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_LONGEST_STEM = 180
_GZIP, _HAS_COMMENT = b"\x1f\x8b\x08", 0x10
_FIXED_BYTES = 10
_MARK = re.compile(rb"gpuworkshop: account of ([0-9]{1,12}\.[0-9]{6})\0")


def stem_of(user: str) -> str:
    """Return what a user's archive is called, without the suffix.

    Letters, digits, - and _ stand for themselves, a dot too but in front; the rest is
    percent-encoded. Thus no name leads out of a folder, or is another's.

    Raises:
        ValueError: no file can be called so.
    """
    stem = "".join(
        chr(byte) if byte in _PLAIN or (byte == ord(".") and at) else f"%{byte:02X}"
        for at, byte in enumerate(user.encode("utf-8", "surrogateescape"))
    )
    if not stem or len(stem) > _LONGEST_STEM:
        raise ValueError(f"no file can be called {user!r}")
    return stem


def earlier_stem(stem: str, since: float) -> str:
    """Return where an archive goes that an earlier account of this name has left."""
    made = datetime.fromtimestamp(since, tz=timezone.utc)
    return f"{stem}~{made:%Y%m%d-%H%M%S}"


def marked(head: bytes, since: float) -> bytes:
    """Return the first bytes of a gzip file with a mark in them, as its comment.

    Args:
        head: at least the first ten bytes, of a file without a name or a comment.
        since: when the account was made, seconds since 1970; 0 where nobody knows.

    Raises:
        ValueError: they are not.
    """
    if len(head) < _FIXED_BYTES or head[:4] != _GZIP + b"\0":
        raise ValueError("this is no plain head of a gzip file")
    fixed = _GZIP + bytes([_HAS_COMMENT]) + head[4:_FIXED_BYTES]
    mark = f"gpuworkshop: account of {max(0.0, since):.6f}\0".encode()
    return fixed + mark + head[_FIXED_BYTES:]


def since_of(head: bytes) -> float | None:
    """Return when the account was made that a file is of; None where nothing says."""
    if head[:4] != _GZIP + bytes([_HAS_COMMENT]):
        return None
    found = _MARK.match(head, _FIXED_BYTES)
    return float(found[1]) or None if found else None


def is_same_account(one: float | None, other: float | None) -> bool:
    """Tell whether two accounts of one name are one; unknown ones are not."""
    if not one or not other:
        return False
    rounded = one % 1 == 0 or other % 1 == 0
    return abs(one - other) < (_ALIKE_ROUNDED_SECONDS if rounded else _ALIKE_SECONDS)


def file_size(size_bytes: int) -> str:
    """Return a size as one reads those of files, where most are small."""
    if size_bytes < MIB:
        return f"{-(-size_bytes // 1024)} KiB"
    return format_size(size_bytes)
