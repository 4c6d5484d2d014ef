"""The folder that simulated GPUs live in, as a kernel sees it.

Owns its format, and what is read and written there for one process. What a process
may take is decided in `simcuda`.

The format on disk
==================
`machine.simulated` makes and reads the same folder, which GPUWORKSHOP_SIMULATED_GPUS
names. Neither module imports the other; tests hold them together. All processes must
be in one PID namespace and see each other in /proc.

The folder belongs to whoever made it, with mode 1777: each process writes its own
record, and nobody removes another user's.

``devices.json``
    ``{"version": 1, "devices": [{"uuid", "name", "memory_bytes",
    "reserved_bytes"}, ...]}`` in the order of the indices. Replaced as a whole.
    ``"parkable": false`` on a device: the memory of nobody who holds some there can be
    parked, as on a MIG slice; true where it is missing.

``lock``
    An empty file under whose flock(2) memory is taken: whoever holds it adds up all
    records and writes its own before letting go. Processes are parked and brought
    back under it, too. Giving memory back and being busy need no lock.

``PID-STARTED-TOKEN.json``
    The record of one process: its pid, its start time (stat field 22) and 16 random
    hex digits, so that nobody can take the name first. The first line is the CRC-32
    of all that follows, in hex: a record is written in place, with one write, and who
    reads half of it reads again. (Replacing it by a rename would let a concurrent
    listing of the folder miss it.) Then, padded with spaces::

        {"name": "<its own file name>", "devices": {"<uuid>":
            {"memory_bytes": 0, "busy_seconds": 0.0, "busy_since": null}}}

    ``busy_seconds`` adds up the past; ``busy_since`` is on CLOCK_MONOTONIC and null
    while nothing is computed.

    A record counts while that process is alive (not a zombie, and of that start time)
    and the file is owned by the process's effective user. Whoever sees that the
    process is gone removes the record, if the folder lets him.

``parked/``
    A folder of the same owner, with mode 0755 and made by whoever parks first: only
    the owner of the simulation writes here, and a folder of this name that belongs to
    somebody else does not count. ``PID-STARTED.json``, replaced as a whole, says that
    a process may not call its GPU now; once it may, the file is gone::

        {"state": "locked", "on_device": true, "records": ["<file name>", ...]}

    ``state`` is locked, parked or failed, which it stays. Where ``on_device`` is false
    the memory in those records counts for nothing. The process looks here before each
    call, and waits while its own record is named. ``fail_next`` is an order to fail,
    for rehearsals and tests; see `machine.simulated_parking`.
"""

from __future__ import annotations

import binascii
import contextlib
import errno
import json
import os
import re
import stat
from pathlib import Path
from typing import Any, Iterator, NamedTuple

from .simparked import off_device

_RECORD_NAME = re.compile(r"(\d{1,10})-(\d{1,20})-[0-9a-f]{16}\.json")
_RECORD_BYTES = 256 * 1024
_PADDED_TO_BYTES = 512
_READ_ATTEMPTS = 20


class SimulationError(RuntimeError):
    """There is no such simulated GPU here; the message says why."""


class Device(NamedTuple):
    """A simulated GPU; usable is what is not reserved."""

    uuid: str
    total_bytes: int
    usable_bytes: int


def visible_devices(devices: list[Device], visible: str | None) -> list[Device]:
    """Choose devices as CUDA reads CUDA_VISIBLE_DEVICES.

    The first entry says whether it lists UUIDs (or what they begin with, as far as
    it is unique) or indices; the first that is neither ends the list; a device that
    is named twice makes it empty. (CUDA's programming guide, and torch.cuda's
    `_parse_visible_devices`, which repeats it.)
    """
    if visible is None:
        return devices
    by_uuid = visible.startswith(("GPU-", "MIG-"))
    chosen: list[Device] = []
    for entry in visible.split(","):
        if by_uuid:
            found = [d for d in devices if entry.strip() and _begins(d, entry.strip())]
        else:
            # As strtoul: "1gpu" is 1.
            number = re.match(r"\s*\+?(\d+)", entry)
            found = devices[int(number.group(1)) :][:1] if number else []
        if len(found) != 1:
            break
        if found[0] in chosen:
            return []
        chosen += found
    return chosen


def _begins(device: Device, prefix: str) -> bool:
    return prefix[:4] in ("GPU-", "MIG-") and device.uuid.startswith(prefix)


class OwnRecord:
    """The record of this process."""

    def __init__(self, folder: Path):
        self._folder = folder
        alive = living(os.getpid())
        if alive is None:
            raise SimulationError("/proc does not show this process: is it mounted?")
        prefix = f"{os.getpid()}-{alive[0]}-"
        # An exec makes a new program of a process: what the old one held is gone.
        for path in list(folder.glob(prefix + "*.json")):
            _remove(path)
        self.name = f"{prefix}{os.urandom(8).hex()}.json"
        self._written_bytes = 0

    def write(self, uses: dict[str, dict[str, object]], *, create: bool) -> None:
        """Write what this process does, by device.

        Args:
            uses: as the format has it.
            create: make the file where it is missing; who only gives back does not,
                for the simulation may be over.

        Raises:
            OSError: it cannot be written.
        """
        body = json.dumps({"name": self.name, "devices": uses}).encode()
        # Never shorter than before: nothing of an earlier record may stand behind it.
        blocks = -(-len(body) // _PADDED_TO_BYTES)
        length = max(self._written_bytes, blocks * _PADDED_TO_BYTES)
        body = body.ljust(length)
        content = b"%08x\n" % binascii.crc32(body) + body
        descriptor = os.open(
            self._folder / self.name,
            os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0),
            0o644,
        )
        try:
            if create:
                os.fchmod(descriptor, 0o644)  # whatever the umask: others must read it
            if os.write(descriptor, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.name)
        finally:
            os.close(descriptor)
        self._written_bytes = length

    def remove(self) -> None:
        """Take it away, at the end of the process."""
        _remove(self._folder / self.name)


def others(folder: Path, own_name: str) -> Iterator[dict[str, Any]]:
    """Yield the uses of all other living processes, and remove what dead ones left.

    Those that are parked hold nothing.
    """
    parked = off_device(folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            match = _RECORD_NAME.fullmatch(entry.name)
            if not match or entry.name == own_name:
                continue
            alive = living(int(match.group(1)))
            if alive is None or alive[0] != int(match.group(2)):
                _remove(Path(entry.path))
                continue
            if entry.name not in parked:
                yield _read_record(Path(entry.path), owner=alive[1])


def _read_record(path: Path, owner: int) -> dict[str, Any]:
    """Return the uses by device; nothing where the record does not count.

    Anybody may put anything in the folder: links, pipes, nonsense.
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


def memory_bytes(use: object) -> int:
    """Return what a record says of a device's memory, where it can be believed."""
    size = use.get("memory_bytes") if isinstance(use, dict) else 0
    return size if type(size) is int and size > 0 else 0


def living(pid: int) -> tuple[int, int] | None:
    """Return a living process's start time and effective user, or None."""
    try:
        # The directory's owner, unlike its files', is always the effective user.
        uid = Path(f"/proc/{pid}").stat().st_uid
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    # A zombie is dead, unless only its first thread has ended (num_threads).
    if len(fields) < 20 or (fields[0] in (b"Z", b"X") and int(fields[17]) <= 1):
        return None
    return int(fields[19]), uid


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def read_devices(folder: Path) -> list[Device]:
    """Return all devices, in the order of the indices."""
    path = folder / "devices.json"
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["version"] != 1:
            raise ValueError(f"its version is {content['version']}, not 1")
        return [
            Device(
                uuid=str(device["uuid"]),
                total_bytes=int(device["memory_bytes"]),
                usable_bytes=int(device["memory_bytes"] - device["reserved_bytes"]),
            )
            for device in content["devices"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SimulationError(
            f"Cannot read the simulated GPUs from {path}: {error}"
        ) from error
