"""Whether a file is another than it was, for the price of one look at its name.

Owns what tells one version of a file from the next. It opens nothing.
"""

import os
from pathlib import Path

Stamp = tuple[int, ...]


def stamp_of(path: Path) -> Stamp | None:
    """Return what tells one version of a file from the next; None without a file."""
    try:
        found = os.stat(path)  # noqa: PTH116  asked for at each page of the hub's
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns)
