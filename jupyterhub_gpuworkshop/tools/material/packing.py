"""Taking an archive from a process that nobody vouches for.

Owns the bounds: how much it may send, for how long, and how long it may be silent. It
ends with the process, whatever happens.
"""

import json
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.machine.archives import Incoming

_SILENCE_SECONDS = 300.0
_LOOK_SECONDS = 0.5
_END_SECONDS = 30.0
_PIECE_BYTES = 256 * 1024
_MOST_SAID_BYTES = 64 * 1024
_HEAD_BYTES = 10
_EXTRA_BYTES = 256 * 1024**2
"""For the names and headers of a great many small files."""

_ADVICE = ("Run 'docker", "See 'docker")
_MOST_FIRST = 3
_LONGEST = 200


class StoppedError(Exception):
    """Whoever asked for it wants it no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a packer may take.

    Attributes:
        largest_bytes: of the files it packs.
        seconds: until it is ended.
    """

    largest_bytes: int
    seconds: float

    @property
    def archive_bytes(self) -> int:
        """More than any archive of such files has."""
        return self.largest_bytes + self.largest_bytes // 64 + _EXTRA_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a packer says of its archive; for people's eyes only.

    Attributes:
        files: how many are in it.
        left_out: how many things are not, or not as they should be.
        first: some of those, and why.
    """

    files: int = 0
    left_out: int = 0
    first: tuple[tuple[str, str], ...] = ()


def pack_into(
    incoming: Incoming,
    line: Sequence[str],
    given: dict[str, Any],
    limits: Limits,
    since: float,
    stop: threading.Event,
) -> Told:
    """Run a packer, and write what it sends.

    Args:
        incoming: where to.
        line: the packer's command line.
        given: keywords to start it with.
        limits: its bounds.
        since: the mark of the archive.
        stop: ends it.

    Raises:
        HostError: it failed, or keeps to no bounds.
        ValueError: what it sends is no archive.
        OSError: there is no room for it.
        StoppedError: it was stopped.
    """
    process = subprocess.Popen(  # noqa: S603  of `run_as_attendee`, or of Docker
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, **given
    )
    with process:
        try:
            said = _take(process, incoming, limits, since, stop)
            status = process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise HostError("Packing does not come to an end.") from None
        finally:
            process.kill()
    if status == -signal.SIGALRM:
        raise HostError(f"Packing has not ended within {limits.seconds:.0f} s.")
    if status != 0:
        raise HostError(f"Packing failed: {_last_line(said) or f'status {status}'}")
    return read_told(said)


def _take(
    process: "subprocess.Popen[bytes]",
    incoming: Incoming,
    limits: Limits,
    since: float,
    stop: threading.Event,
) -> bytes:
    """Write what it sends; return what it says."""
    began = heard = time.monotonic()
    head, said = b"", b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(_of(process.stdout), selectors.EVENT_READ, "archive")
        waiting.register(_of(process.stderr), selectors.EVENT_READ, "words")
        while waiting.get_map():
            ready = waiting.select(_LOOK_SECONDS)
            now = time.monotonic()
            heard = now if ready else heard
            _check(limits, stop, now - began, now - heard, incoming.size_bytes)
            for key, _ in ready:
                data = os.read(key.fd, _PIECE_BYTES)
                if not data:
                    waiting.unregister(key.fileobj)
                elif key.data == "words":
                    said = (said + data)[:_MOST_SAID_BYTES]
                elif incoming.size_bytes:
                    incoming.write(data)
                else:
                    head += data
                    if len(head) >= _HEAD_BYTES:
                        incoming.write_head(head, since)
    if not incoming.size_bytes and process.wait(_END_SECONDS) == 0:
        raise ValueError("Packing sent no archive.")
    return said


def _check(
    limits: Limits,
    stop: threading.Event,
    seconds: float,
    silent_seconds: float,
    sent_bytes: int,
) -> None:
    if stop.is_set():
        raise StoppedError("Stopped.")
    if sent_bytes > limits.archive_bytes:
        raise HostError("Packing sends more than it may.")
    if seconds > limits.seconds + _END_SECONDS or silent_seconds > _SILENCE_SECONDS:
        raise HostError(
            "Packing does not go on: a file in the home is read without end, or a "
            "mounted file system does not answer."
        )


def read_told(said: bytes) -> Told:
    """Read what a packer says of its archive, who may say anything."""
    try:
        found = json.loads(_last(said))
        first = [
            (str(path)[:_LONGEST], str(why)[:_LONGEST])
            for path, why in found["first"][:_MOST_FIRST]
        ]
        return Told(
            files=int(found["files"]),
            left_out=int(found["left_out"]),
            first=tuple(first),
        )
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return Told()


def _last(said: bytes) -> str:
    """Return its last line; Docker ends with an advice that helps nobody."""
    lines = [line.strip() for line in said.decode(errors="replace").split("\n")]
    said_something = [x for x in lines if x and not x.startswith(_ADVICE)]
    return said_something[-1] if said_something else ""


def _last_line(said: bytes) -> str:
    return "".join(x if x.isprintable() else "?" for x in _last(said))[:_LONGEST]


def _of(stream: Any) -> Any:
    assert stream is not None  # noqa: S101  it was asked for
    return stream
