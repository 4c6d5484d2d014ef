"""Whether a folder is one to keep material in.

Owns what is read of the machine for that: file systems, owners and modes.
"""

import os
import stat
from pathlib import Path

import psutil

from jupyterhub_gpuworkshop.core.errors import MaterialError

_CLEARED = tuple(
    Path(name)
    for name in ("/tmp", "/var/tmp", "/run", "/var/run", "/dev/shm")  # noqa: S108
)
_IN_MEMORY = ("tmpfs", "ramfs")


def why_not_lasting(folder: Path) -> str:
    """Return why what is in a folder may be gone after a reboot; empty if it stays."""
    real = folder.resolve()
    for cleared in _CLEARED:
        if real == cleared or cleared in real.parents:
            return f"{folder} is below {cleared}, which is cleared at a boot or by age"
    mounts = {
        Path(mount.mountpoint): mount.fstype
        for mount in psutil.disk_partitions(all=True)
    }
    for above in (real, *real.parents):
        kind = mounts.get(above)
        if kind in _IN_MEMORY:
            return f"{folder} is on {kind}, which is memory: a reboot clears it"
        if kind is not None:
            return ""
    return ""


def closed_above(folder: Path) -> tuple[Path, ...]:
    """Return the folders on the way that not everybody may pass, itself included."""
    return tuple(
        part
        for part in (*reversed(folder.absolute().parents), folder)
        if part.exists() and not part.stat().st_mode & stat.S_IXOTH
    )


def why_not_ours(folder: Path) -> str:
    """Return why others may change what is in a folder; empty if they may not."""
    # Both ways to it: whoever may change a link on the way may change where it leads.
    for way in {folder.absolute(), folder.resolve()}:
        for part in (way, *way.parents):
            if not part.exists():
                continue
            seen = part.stat()
            if seen.st_uid not in (0, os.geteuid()):
                return f"{part} belongs to another user (uid {seen.st_uid})"
            if seen.st_mode & stat.S_IWOTH and not (
                part != way and seen.st_mode & stat.S_ISVTX
            ):
                return f"everybody may write in {part}"
    return ""


def make_folder(folder: Path) -> None:
    """Make the folder of material, where it is not there, for all to read.

    Raises:
        MaterialError: it cannot be made, or others could change what is in it.
    """
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    try:
        if why := why_not_ours(folder):
            raise MaterialError(
                f"{why}: attendees could change the material there. Name another place "
                "as material.folder, /var/lib/gpuworkshop-material say."
            )
        for part in reversed(missing):
            part.mkdir(mode=0o755)
            part.chmod(0o755)  # whatever the umask
        if stat.S_IMODE(folder.stat().st_mode) != 0o755:
            folder.chmod(0o755)
    except FileExistsError:
        raise MaterialError(f"{folder} is no folder. Move it away.") from None
    except PermissionError:
        raise may_not_write(folder) from None
    except OSError as error:
        raise MaterialError(
            f"{folder} cannot be made: {error.strerror}. Name another place as "
            "material.folder."
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise may_not_write(folder)


def may_not_write(folder: Path) -> MaterialError:
    """Return the error for who may not."""
    return MaterialError(
        f"You may not write in {folder}, where material is kept. Run it as root: sudo "
        "gpuworkshop material install."
    )
