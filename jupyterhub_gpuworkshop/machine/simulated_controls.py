"""What the owner of a simulation says about parked processes: the files of ``parked/``.

Owns writing and reading them; `notebook.simstate` has their format, and what processes
make of it. Attendees can write into the folder above, but not here.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import ParkError
from jupyterhub_gpuworkshop.core.snapshot import ProcessId

_FOLDER = "parked"
_FAIL_NEXT = "fail_next"
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Why a process may not call its GPU now.

    Attributes:
        state: ``"locked"``, ``"parked"`` or ``"failed"``.
        on_device: whether its memory is on its devices.
        records: the names of the files in which it says what it holds.
    """

    state: str
    on_device: bool
    records: tuple[str, ...]


def off_device(state_dir: Path) -> frozenset[str]:
    """Return the names of the records whose memory is on no device now."""
    return frozenset(
        record
        for name in _names(state_dir)
        if (control := _read(state_dir / _FOLDER / name)) and not control.on_device
        for record in control.records
    )


def controlled(state_dir: Path) -> Iterator[ProcessId]:
    """Yield the processes that a file is kept about, dead ones too."""
    for name in _names(state_dir):
        pid, _, started = name.removesuffix(".json").partition("-")
        if pid.isdecimal() and started.isdecimal():
            yield ProcessId(pid=int(pid), started=int(started))


def read_control(state_dir: Path, process: ProcessId) -> Control | None:
    """Return why a process may not call its GPU; None where it may."""
    if not _is_owned(state_dir):
        return None
    return _read(_path(state_dir, process))


def write_control(state_dir: Path, process: ProcessId, control: Control) -> None:
    """Keep a process from calling its GPU.

    Raises:
        ParkError: it cannot be written.
    """
    path = _path(state_dir, process)
    _write(state_dir, path, json.dumps(asdict(control)))


def remove_control(state_dir: Path, process: ProcessId) -> None:
    """Let a process call its GPU again."""
    _path(state_dir, process).unlink(missing_ok=True)


def fail_next(state_dir: Path, how: str) -> None:
    """Have the next move fail as a driver does: once, for rehearsals and tests.

    Args:
        state_dir: of the simulation; it must be this user's.
        how: ``"park unharmed"``, ``"park broken"`` or ``"unpark"``.

    Raises:
        ParkError: it cannot be written.
    """
    _write(state_dir, state_dir / _FOLDER / _FAIL_NEXT, how)


def take_fail_next(state_dir: Path, move: str) -> str:
    """Return how this move is to fail, and forget it; empty where it is not to."""
    path = state_dir / _FOLDER / _FAIL_NEXT
    try:
        how = path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
    if how.partition(" ")[0] != move:
        return ""
    path.unlink(missing_ok=True)
    return how


def _path(state_dir: Path, process: ProcessId) -> Path:
    return state_dir / _FOLDER / f"{process.pid}-{process.started}.json"


def _names(state_dir: Path) -> list[str]:
    if not _is_owned(state_dir):
        return []
    try:
        names = os.listdir(state_dir / _FOLDER)  # noqa: PTH208  # names are enough
    except OSError:
        return []
    return [name for name in names if name.endswith(".json")]


def _is_owned(state_dir: Path) -> bool:
    """Tell whether the folder is there, and the owner's: anybody may make one."""
    try:
        folder = (state_dir / _FOLDER).lstat()
        return folder.st_uid == state_dir.stat().st_uid
    except OSError:
        return False


def _read(path: Path) -> Control | None:
    try:
        content = json.loads(path.read_text("utf-8"))
        return Control(
            state=str(content["state"]),
            on_device=bool(content["on_device"]),
            records=tuple(str(name) for name in content["records"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(state_dir: Path, path: Path, text: str) -> None:
    try:
        _make_folder(state_dir)
        new = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
        new.write_text(text + "\n", "utf-8")
        new.chmod(0o644)  # whatever the umask: every attendee's processes read it
        new.replace(path)
    except OSError as error:
        raise ParkError(
            f"Cannot write {path}, so nothing is parked or brought back: {error}"
        ) from error


def _make_folder(state_dir: Path) -> None:
    """Make the folder, in the place of what somebody else may have put there."""
    folder = state_dir / _FOLDER
    for _ in range(_ATTEMPTS):
        try:
            folder.mkdir(mode=0o755)
            folder.chmod(0o755)
        except FileExistsError:
            if folder.is_dir() and not folder.is_symlink() and _is_owned(state_dir):
                return
            # In a sticky folder its owner may rename what is others'.
            folder.rename(state_dir / f"{_FOLDER}.{os.urandom(8).hex()}")
