"""Runs checks side by side, each with a time limit, none able to end the others.

Owns what becomes of a check that hangs or breaks. Threads are daemons: the doctor
ends although one of them never comes back.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .check import Check, fail, skip

T = TypeVar("T")

LIMIT_SECONDS = 100.0
"""The last resort: what is asked has shorter limits of its own."""


class Once(Generic[T]):
    """A reading that several checks need, taken once, by whoever asks first.

    Args:
        read: takes it; what it raises is raised for everyone who asks.
    """

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._taken: T
        self._error: Exception | None = None
        self._done = False

    def __call__(self) -> T:
        """Return the reading."""
        with self._lock:
            if not self._done:
                try:
                    self._taken = self._read()
                except Exception as error:
                    self._error = error
                self._done = True
        if self._error is not None:
            raise self._error
        return self._taken


@dataclass(frozen=True, slots=True)
class Probe:
    """Something to look at, which answers for one or more checks.

    Attributes:
        names: the checks that it answers for.
        look: reads and judges.
    """

    names: tuple[str, ...]
    look: Callable[[], Sequence[Check]]


@dataclass(slots=True)
class _Look:
    probe: Probe
    checks: list[Check] = field(default_factory=list)
    error: Exception | None = None
    done: bool = False

    def __call__(self) -> None:
        try:
            self.checks = list(self.probe.look())
        except Exception as error:
            self.error = error
        self.done = True


def consult(
    probes: Sequence[Probe], limit_seconds: float = LIMIT_SECONDS
) -> list[Check]:
    """Run all probes at once; return their checks in the probes' order."""
    looks = [_Look(probe) for probe in probes]
    threads = [
        threading.Thread(target=look, name=look.probe.names[0], daemon=True)
        for look in looks
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + limit_seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return [check for look in looks for check in _outcome(look, limit_seconds)]


def _outcome(look: _Look, limit_seconds: float) -> list[Check]:
    if not look.done:
        finding = (
            f"It did not come back within {limit_seconds:.0f} s: something that it "
            "asks hangs."
        )
        remedy = "See which process hangs, and in what:\n$ ps -eo pid,stat,wchan:30,cmd"
        return [fail(name, finding, remedy) for name in look.probe.names]
    if look.error is not None:
        finding = (
            f"The check itself broke: {type(look.error).__name__}: {look.error}. "
            "Nothing is known; please report it."
        )
        return [skip(name, finding) for name in look.probe.names]
    return look.checks
