"""Whether the wall clock has leapt ahead.

Owns how far, and for how long it is in doubt then: a clock that is wrong for a minute
must not cost all that happened.
"""

from collections.abc import Callable

_LEAP_SECONDS = 3600.0
_DOUBTED_SECONDS = 86_400.0
"""So long a clock that leapt ahead must stay there before it says what is too old."""


class Leaps:
    """Compares the wall clock with one that nobody sets.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._offset: float | None = None
        self._leapt_at: float | None = None

    def has_leapt(self, now: float) -> bool:
        """Whether it has leapt ahead: then nothing is too old, for a day.

        Args:
            now: wall-clock seconds since the epoch.
        """
        at = self._clock()
        offset, before = now - at, self._offset
        if before is not None and offset > before + _LEAP_SECONDS:
            self._leapt_at = at if self._leapt_at is None else self._leapt_at
            if at - self._leapt_at < _DOUBTED_SECONDS:
                return True
        self._offset, self._leapt_at = offset, None
        return False
