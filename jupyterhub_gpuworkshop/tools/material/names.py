"""Which names and links of an archive may become files. Pure.

Owns what is refused. Everything that writes material asks here first: whatever an
archive says, nothing may land, or lead, outside of the part's own folder.
"""

import posixpath
import unicodedata

from jupyterhub_gpuworkshop.core.errors import MaterialError
from jupyterhub_gpuworkshop.core.units import KIB, MIB, format_size

MOST_NAME_BYTES = 255
MOST_PATH_BYTES = 1024
_LEFT_OUT = frozenset({".git", ".ipynb_checkpoints"})
_SHOWN = 100


def printable(text: str) -> str:
    """Return somebody else's text so that a terminal shows it, on one line."""
    kept = "".join(letter if letter.isprintable() else "?" for letter in text)
    return kept if len(kept) <= _SHOWN else f"{kept[:_SHOWN]}…"


def size_words(size: int) -> str:
    """Return a size for people, whose files may be small: `3 KiB`, `1.2 GiB`."""
    return f"{-(-size // KIB)} KiB" if size < MIB else format_size(size)


def checked(name: str) -> tuple[str, ...]:
    """Return the parts of a name; none for the top folder itself.

    Raises:
        MaterialError: nothing may have that name.
    """
    if name.startswith("/"):
        raise _refused(name, "starts at the root of the disk")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise _refused(name, "leads out of the folder")
    try:
        size = len(name.encode())
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        raise _refused(name, "is not UTF-8 text") from None
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        raise _refused(name, "holds control characters")
    if "\\" in name:
        raise _refused(name, "holds a backslash")
    if size > MOST_PATH_BYTES or max(sizes, default=0) > MOST_NAME_BYTES:
        raise _refused(name, "is too long")
    return parts


def is_left_out(parts: tuple[str, ...]) -> bool:
    """Say whether something is no material: a repository's insides, a checkpoint."""
    return not _LEFT_OUT.isdisjoint(parts)


def check_link(name: str, target: str, top: tuple[str, ...]) -> None:
    """Refuse a symbolic link that leads out, or on its way leaves.

    This looks at the text alone, as if nothing on the way were a link; where it ends
    on disk is to be asked as well.

    Args:
        name: of the link.
        target: what it says.
        top: the parts of the folder that it may not leave.

    Raises:
        MaterialError: it does.
    """
    depth = len(checked(name)) - 1 - len(top)
    if depth < 0 or not target or target.startswith("/"):
        raise _leads_out(name, target)
    for part in target.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            depth += 1
        if depth < 0:
            raise _leads_out(name, target)
    checked(posixpath.normpath(posixpath.join(posixpath.dirname(name), target)))


def _leads_out(name: str, target: str) -> MaterialError:
    return MaterialError(
        f"{printable(name)} is a link to {printable(target)}, outside of the part. Put "
        "the file itself there."
    )


def leads_out(name: str, target: str) -> MaterialError:
    """Return the error for a link that ends outside on disk."""
    return _leads_out(name, target)


def _refused(name: str, why: str) -> MaterialError:
    return MaterialError(
        f"The name {printable(name)!r} {why}. Rename it, and pack again."
    )
