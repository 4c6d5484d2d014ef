"""Which devices are out of service, as the service said last.

Owns the file of them. The service knows, and tells all of them with each reply. The hub
starts before its first reply: until then it goes by the file, so that a restart puts
nobody on a drained device. One that was drained while the hub was away is not in the
file, and a server that starts before the first reply, a moment after the hub's start,
may be placed on it.
"""

import json
import logging
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .allocator import Allocator

_NAME = "drained-devices.json"


class Drains:
    """The devices that are out of service, kept beside the servers' records.

    Args:
        directory: for the file; it must exist.
        allocator: gives these devices no new lease.
        log: the hub's.
    """

    def __init__(
        self,
        directory: Path,
        allocator: Allocator,
        log: "logging.Logger | logging.LoggerAdapter[Any]",
    ) -> None:
        self._path = directory / _NAME
        self._allocator = allocator
        self._log = log
        kept = self._read()
        allocator.drain(kept)
        self._on_disk = frozenset(kept)

    def hear(self, devices: Collection[str]) -> None:
        """Take in what the service says; write it down where the file differs."""
        drained = frozenset(devices)
        is_news = drained != self._allocator.drained
        if is_news:
            self._allocator.drain(devices)
        if drained == self._on_disk:
            return
        try:
            self._write(sorted(devices))
            self._on_disk = drained
        except OSError as error:
            self._log.log(
                logging.WARNING if is_news else logging.DEBUG,
                "%s cannot be written: %s. When the hub is started anew, it learns "
                "which GPUs are out of service from the GPU service alone.",
                self._path,
                error.strerror,
            )

    def _read(self) -> tuple[str, ...]:
        try:
            kept = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return ()
        except (OSError, ValueError) as error:
            self._log.warning("%s cannot be read: %s", self._path, error)
            return ()
        listed = kept if isinstance(kept, list) else []
        return tuple(device for device in listed if isinstance(device, str))

    def _write(self, devices: list[str]) -> None:
        new = self._path.with_suffix(".new")
        with new.open("w") as file:
            json.dump(devices, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
