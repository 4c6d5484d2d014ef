"""The usage of one device over time: seconds, minutes, quarters of an hour.

Owns how readings become rows, and which rows there are. It reads no clock and writes
nothing: the instants come with the readings, and a clock may have been set back.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from math import nan

RING_SECONDS = 900
THIN_SECONDS = 5
MINUTE_SECONDS = 60
QUARTER_SECONDS = 900
MINUTES_KEPT_SECONDS = 86_400

Values = tuple[float, ...]
"""In the order of the columns; NaN where a value is unknown."""

READ = ("memory_used_bytes", "utilisation", "temperature_celsius", "power_watts")
"""The columns of a reading."""
MERGED = (
    "memory_used_bytes",
    "memory_used_max_bytes",
    "utilisation",
    "utilisation_max",
    "temperature_celsius",
    "power_watts",
)
"""The columns of an interval: means, but for what is called max and the temperature."""


class Rows:
    """Rows in the order of their instants, in little memory.

    Args:
        step_seconds: between two rows.
        columns: the names of the values.

    Attributes:
        at: the instants: of a reading, or of the beginning of an interval; seconds
            since the epoch.
        columns: the values, by name.
    """

    def __init__(self, step_seconds: int, columns: tuple[str, ...]) -> None:
        self.step_seconds = step_seconds
        self.at = array("d")
        self.columns = {name: array("d") for name in columns}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.at)

    def add(self, at: float, values: Iterable[float]) -> None:
        """Add a row, in the place of those that are not before it."""
        self.cut(bisect_left(self.at, at))
        self.at.append(at)
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)

    def cut(self, length: int) -> None:
        """Let go of all rows but the first ones."""
        if length < len(self.at):
            for column in (self.at, *self.columns.values()):
                del column[length:]

    def forget_before(self, at: float) -> None:
        """Let go of the rows of before an instant."""
        self._drop(bisect_left(self.at, at))

    def keep_last(self, count: int) -> None:
        """Let go of all rows but so many, the last ones."""
        self._drop(len(self) - count)

    def _drop(self, count: int) -> None:
        if count > 0:
            for column in (self.at, *self.columns.values()):
                del column[:count]

    def between(self, first: float, until: float) -> "Rows":
        """Return the rows from an instant on, and before another."""
        part = slice(bisect_left(self.at, first), bisect_left(self.at, until))
        rows = Rows(self.step_seconds, ())
        rows.at = self.at[part]
        rows.columns = {name: column[part] for name, column in self.columns.items()}
        return rows

    def values_at(self, at: float) -> Values | None:
        """Return the row of this very instant, if there is one."""
        index = bisect_left(self.at, at)
        if index == len(self.at) or self.at[index] != at:
            return None
        return tuple(column[index] for column in self.columns.values())

    def merged(self, first: int, last: int) -> Values:
        """Return the values of an interval, the columns `MERGED`.

        Args:
            first: the index of its first row.
            last: the index behind its last row.
        """

        def known(name: str) -> list[float]:
            # A reading is its own maximum.
            source = name if name in self.columns else name.replace("_max", "")
            column = self.columns[source]
            return [value for value in column[first:last] if value == value]

        return (
            _mean(known("memory_used_bytes")),
            max(known("memory_used_max_bytes"), default=nan),
            _mean(known("utilisation")),
            max(known("utilisation_max"), default=nan),
            max(known("temperature_celsius"), default=nan),
            _mean(known("power_watts")),
        )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else nan


class Series:
    """The rows of one device.

    Args:
        keep_seconds: how long quarters are kept.

    Attributes:
        seconds: the readings of the last 15 minutes.
        thin: the same, by 5 seconds.
        minutes: of the last day.
        quarters: of the event.
    """

    def __init__(self, keep_seconds: float) -> None:
        self.seconds = Rows(1, READ)
        self.thin = Rows(THIN_SECONDS, MERGED)
        self.minutes = Rows(MINUTE_SECONDS, MERGED)
        self.quarters = Rows(QUARTER_SECONDS, MERGED)
        self._keep_seconds = keep_seconds
        self._levels = (
            _Level(self.seconds, self.thin),
            _Level(self.seconds, self.minutes),
            _Level(self.minutes, self.quarters),
        )
        self._settles_at = float("-inf")

    def restore(self, rows: Rows, at: float, values: Values) -> None:
        """Add a minute or a quarter of an earlier life; oldest first."""
        rows.add(at, values)
        self._levels[2].go_on()

    def take(self, at: float, values: Values) -> list[tuple[int, float]]:
        """Take a reading in.

        Returns:
            The minutes and quarters that are over by it, as `settle`.
        """
        is_back = bool(self.seconds.at) and at < self.seconds.at[-1]
        closed = self.settle(at) if at >= self._settles_at or is_back else []
        self._settles_at = at // THIN_SECONDS * THIN_SECONDS + THIN_SECONDS
        self.seconds.add(at, values)
        return closed

    def settle(self, now: float) -> list[tuple[int, float]]:
        """Merge what is over, and let go of what lies ahead.

        Returns:
            The steps and beginnings of the minutes and quarters that came of it.
        """
        for rows in (self.seconds, self.thin, self.minutes, self.quarters):
            # A clock that was set back leaves rows of a time that has yet to come.
            rows.cut(bisect_right(rows.at, now))
        closed = [
            (level.into.step_seconds, start)
            for level in self._levels
            for start in level.close(now)
            if level.into is not self.thin
        ]
        # They grow fast, and by a clock in doubt nothing is too old.
        self.seconds.keep_last(RING_SECONDS)
        self.thin.keep_last(RING_SECONDS // THIN_SECONDS)
        return closed

    def forget(self, now: float) -> None:
        """Let go of what is too old, by a clock that is not in doubt."""
        self.seconds.forget_before(now - RING_SECONDS)
        self.thin.forget_before(now - RING_SECONDS)
        self.minutes.forget_before(now - MINUTES_KEPT_SECONDS)
        self.quarters.forget_before(now - self._keep_seconds)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left of it."""
        return not (self.seconds or self.minutes or self.quarters)

    def end_minute(self) -> list[tuple[int, float]]:
        """End the minute that is not over: there will be no more readings.

        Returns:
            Its step and its beginning, as `settle`.
        """
        minute = self.open_minute()
        if minute is None:
            return []
        self.minutes.add(*minute)
        return [(MINUTE_SECONDS, minute[0])]

    def open_minute(self) -> tuple[float, Values] | None:
        """Return the minute that is not over, as far as it has gone."""
        return self._levels[1].open()

    def open_quarter(self) -> tuple[float, Values] | None:
        """Return the quarter that is not over, of the minutes that are."""
        return self._levels[2].open()


class _Level:
    """Rows that come of finer ones.

    Args:
        source: the finer ones.
        into: where they go.
    """

    def __init__(self, source: Rows, into: Rows) -> None:
        self.into = into
        self._source = source
        self._closed_until = float("-inf")

    def go_on(self) -> None:
        """Leave what is there as it is: an earlier life has made it."""
        if self.into.at:
            self._closed_until = self.into.at[-1] + self.into.step_seconds

    def close(self, now: float) -> Iterator[float]:
        """Merge the intervals that are over, and yield their beginnings."""
        step = self.into.step_seconds
        self._closed_until = min(self._closed_until, now // step * step)
        source = self._source
        first = bisect_left(source.at, self._closed_until)
        while first < len(source):
            start = source.at[first] // step * step
            if start + step > now:
                return
            last = bisect_left(source.at, start + step, first)
            self.into.add(start, source.merged(first, last))
            self._closed_until = start + step
            yield start
            first = last

    def open(self) -> tuple[float, Values] | None:
        """Return the interval that is not over; None where nothing is known of it."""
        source, step = self._source, self.into.step_seconds
        if not source or source.at[-1] < self._closed_until:
            return None
        start = source.at[-1] // step * step
        first = bisect_left(source.at, max(start, self._closed_until))
        return start, source.merged(first, len(source))
