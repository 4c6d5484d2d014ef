"""Parking of simulated GPU memory, as a kernel meets it.

Owns reading what the owner of the simulation's folder says about parked processes: the
files of ``parked/``, whose format is written down in `simstate`. Nothing is written
there from here, for only the folder's owner may park.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from pathlib import Path
from typing import Any, Iterator

_FOLDER = "parked"
_FILE_BYTES = 64 * 1024
_LOOK_SECONDS = 0.02


class Gate:
    """What holds this process's calls back while it is parked.

    Args:
        folder: of the simulation.
        record: the name of this process's record.
    """

    def __init__(self, folder: Path, record: str):
        self._folder = folder
        self._record = record
        self._pid = os.getpid()
        pid, started, _ = record.split("-")
        self._name = f"{pid}-{started}.json"

    def is_closed(self) -> bool:
        """Tell whether calls have to wait; in a forked child they never do."""
        if self._pid != os.getpid():
            return False
        with _control_folder(self._folder) as controls:
            if controls is None:
                return False
            control = _read(controls, self._name)
        return self._record in _records(control)

    def wait(self) -> None:
        """Come back when calls need not wait any longer."""
        while self.is_closed():
            time.sleep(_LOOK_SECONDS)


def off_device(folder: Path) -> set[str]:
    """Return the names of the records whose memory is on no device now."""
    with _control_folder(folder) as controls:
        if controls is None:
            return set()
        names = []
        with contextlib.suppress(OSError):
            names = os.listdir(controls)  # noqa: PTH208  # a descriptor, no path
        read = [_read(controls, name) for name in names if name.endswith(".json")]
    return {
        record
        for control in read
        if control.get("on_device") is False
        for record in _records(control)
    }


@contextlib.contextmanager
def _control_folder(folder: Path) -> Iterator[int | None]:
    """Open it; None where it is not there, or is not of the simulation's owner."""
    try:
        descriptor = os.open(
            folder / _FOLDER,
            os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY,
        )
    except OSError:
        yield None
        return
    try:
        try:
            owned = os.fstat(descriptor).st_uid == folder.stat().st_uid
        except OSError:
            owned = False
        yield descriptor if owned else None
    finally:
        os.close(descriptor)


def _read(controls: int, name: str) -> dict[str, Any]:
    """Return what a file says; nothing where it is gone."""
    try:
        descriptor = os.open(
            name,
            os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
            dir_fd=controls,
        )
    except OSError:
        return {}
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return {}
        content = json.loads(os.read(descriptor, _FILE_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    finally:
        os.close(descriptor)
    return content if isinstance(content, dict) else {}


def _records(control: dict[str, Any]) -> list[Any]:
    records = control.get("records")
    return records if isinstance(records, list) else []
