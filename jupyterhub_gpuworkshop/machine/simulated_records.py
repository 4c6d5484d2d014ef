"""What processes on simulated GPUs write down of themselves.

Owns reading their records, of which nothing is taken on trust: any attendee may put
anything into the folder. The format is written down in `notebook.simstate`.
"""

import binascii
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from .processes import read_process
from .simulated_controls import off_device

_RECORD_NAME = re.compile(r"(\d{1,10})-(\d{1,20})-[0-9a-f]{16}\.json")
_RECORD_BYTES = 256 * 1024
_READ_ATTEMPTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a living process says of itself, of which nothing is taken on trust.

    Attributes:
        name: of its file.
        pid: of the process.
        started: its start time.
        uses: by device UUID.
        on_device: false while it is parked, and its memory on no device.
    """

    name: str
    pid: int
    started: int
    uses: Mapping[str, Any]
    on_device: bool = True

    def memory_bytes(self, device: str) -> int:
        """Return what it holds on a device now."""
        return self.needs_bytes(device) if self.on_device else 0

    def needs_bytes(self, device: str) -> int:
        """Return what it holds on a device, or would if it were not parked."""
        size = self._get(device, "memory_bytes")
        return size if type(size) is int and size > 0 else 0

    def is_busy(self, device: str) -> bool:
        """Tell whether it computes."""
        return self.on_device and _is_number(self._get(device, "busy_since"))

    def busy_seconds(self, device: str, now: float) -> float:
        """Return how long it has computed, until now."""
        past, since = self._get(device, "busy_seconds"), self._get(device, "busy_since")
        return (float(past) if _is_number(past) else 0.0) + (
            max(0.0, now - since) if _is_number(since) else 0.0
        )

    def _get(self, device: str, key: str) -> Any:
        use = self.uses.get(device)
        return use.get(key) if isinstance(use, dict) else None


def read_records(state_dir: Path) -> Iterator[Record]:
    """Yield the records of living processes, and remove what dead ones left.

    Raises:
        OSError: the folder cannot be read.
    """
    parked = off_device(state_dir)
    with os.scandir(state_dir) as entries:
        for entry in entries:
            match = _RECORD_NAME.fullmatch(entry.name)
            if match is None:
                continue
            pid, path = int(match[1]), Path(entry.path)
            process = read_process(pid, with_details=False)
            if process is None or process.started != int(match[2]):
                _remove(path)
                continue
            uses = _read_record(path, owner=process.uid)
            if uses:
                yield Record(
                    name=entry.name,
                    pid=pid,
                    started=process.started,
                    uses=uses,
                    on_device=entry.name not in parked,
                )


def _read_record(path: Path, owner: int) -> Mapping[str, Any]:
    """Return the uses by device; nothing where the record does not count.

    Any attendee may put anything in the folder: links, pipes, nonsense.
    """
    for _ in range(_READ_ATTEMPTS):
        try:
            descriptor = os.open(
                path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            )
        except OSError:
            return {}
        try:
            facts = os.fstat(descriptor)
            if facts.st_uid != owner or not stat.S_ISREG(facts.st_mode):
                return {}
            head, _, body = os.read(descriptor, _RECORD_BYTES).partition(b"\n")
        finally:
            os.close(descriptor)
        if head == b"%08x" % binascii.crc32(body):
            break
    else:
        return {}
    try:
        record = json.loads(body)
        uses = record["devices"] if record["name"] == path.name else {}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return uses if isinstance(uses, dict) else {}


def _is_number(value: object) -> TypeGuard[float]:
    # No number of seconds is beyond this; an int may be too great for a float.
    return isinstance(value, (int, float)) and abs(value) < 1e15


def _remove(path: Path) -> None:
    # Who may not remove it leaves it to its owner, or to the folder's.
    try:
        path.unlink()
    except OSError:
        return
