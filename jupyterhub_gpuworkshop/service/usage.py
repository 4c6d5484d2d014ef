"""The usage of the devices over time.

Owns what is remembered of every pulse: by the second for 15 minutes, by the minute for
a day, by the quarter of an hour for the event. Minutes and quarters outlive the process
as far as the disk goes along, through `History`, the file's only writer. Where nothing
was read there is a gap, and never a line across it.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from enum import Enum
from math import nan

from jupyterhub_gpuworkshop.core.snapshot import Glance

from .history import History
from .leaps import Leaps
from .pulse import Pulse, Pulses
from .usage_rows import (
    MERGED,
    MINUTE_SECONDS,
    MINUTES_KEPT_SECONDS,
    READ,
    RING_SECONDS,
    Rows,
    Series,
    Values,
)
from .usage_store import UsageRow

_FEWEST_QUARTERS = 2
"""With fewer, an event that has just begun is shown by the minute: one point is no
line."""

_HOUR_SECONDS = 3600
_MOST_AT_ONCE = 2000
"""Rows: a day's, after a disk was broken for so long, take several minutes."""
_DECIMALS = {
    "utilisation": 3,
    "utilisation_max": 3,
    "temperature_celsius": 1,
    "power_watts": 1,
}
"""All others are whole numbers."""

Column = list[float | int | None]


class Span(str, Enum):
    """How far back."""

    MINUTES = "minutes"
    """15 minutes, by the second."""
    HOUR = "hour"
    """By the minute, and the last 15 minutes by 5 seconds."""
    DAY = "day"
    """By the minute."""
    EVENT = "event"
    """As far as is kept, by the quarter of an hour; by the minute as it begins."""


class Usage:
    """Remembers what the pulse has read.

    Args:
        pulses: what is remembered.
        history: writes it down.
        clock: monotonic seconds.
        wall: seconds since the epoch.

    Attributes:
        rounds: how many pulses were taken in, for whoever keeps what it has drawn.
    """

    def __init__(
        self,
        pulses: Pulses,
        history: History,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.rounds = 0
        self._pulses = pulses
        self._history = history
        self._wall = wall
        self._leaps = Leaps(clock)
        self._series: dict[str, Series] = {}
        self._last = Pulse()
        self._seen = 0
        self._is_open = False
        self._settled_in = float("-inf")
        self._unwritten: set[tuple[int, float]] = set()
        self._is_due = asyncio.Event()

    async def step(self) -> None:
        """Wait for a pulse and take it in, after what earlier lives have written."""
        if not self._is_open:
            await self._open()
            self._is_open = True
        await self._pulses.newer_than(self._seen)
        self._seen = self._pulses.rounds
        self.take(self._pulses.latest)

    async def write_when_due(self) -> None:
        """Write what is over, once a minute; what cannot be, with the next minute's."""
        await self._is_due.wait()
        self._is_due.clear()
        await self.write()

    async def write(self) -> None:
        """Write the minutes and quarters that are not written yet."""
        rows: list[UsageRow] = []
        taken: set[tuple[int, float]] = set()
        for step, at in sorted(self._unwritten, key=lambda key: -key[1]):
            if len(rows) >= _MOST_AT_ONCE:
                break
            taken.add((step, at))
            for uuid, series in self._series.items():
                values = _rows_of(series, step).values_at(at)
                if values is not None:
                    rows.append(
                        UsageRow(
                            step_seconds=step, at=int(at), device=uuid, values=values
                        )
                    )
        if await self._history.write_usage(rows, self._wall()):
            self._unwritten -= taken

    async def close(self) -> None:
        """Write what is known, also of the minute that is not over."""
        if not self._is_open:
            return  # the history may not be open either, and will never be
        for series in self._series.values():
            self._note(series.end_minute())
        await self.write()

    def take(self, pulse: Pulse) -> None:
        """Take a pulse in; one that shows nothing new may end a minute."""
        if pulse is not self._last and pulse.readings:
            for uuid, glance in pulse.readings.items():
                series = self._series.get(uuid)
                if series is None:
                    series = self._series[uuid] = Series(self._history.keep_seconds)
                self._note(series.take(pulse.taken_at, _values(glance)))
            self.rounds += 1
        self._last = pulse
        minute = self._wall() // MINUTE_SECONDS
        if minute != self._settled_in:
            self._settle(self._wall())
            self._settled_in = minute

    def columns(
        self, span: Span, devices: Collection[str] | None = None
    ) -> dict[str, dict[str, Column]]:
        """Return what is known of each device.

        Args:
            span: how far back.
            devices: only of these; None for all of which anything is known.

        Returns:
            By UUID the columns, ``at`` among them, all of one length and in the order
            of time. A row without any value breaks the line: before it and after it
            something is known, and in between nothing is.
        """
        now = self._wall()
        return {
            uuid: _columns(_parts(series, span, now), _names(span), now)
            for uuid, series in self._series.items()
            if devices is None or uuid in devices
        }

    @staticmethod
    def no_columns(span: Span) -> dict[str, Column]:
        """Return the columns of a device of which nothing is known yet."""
        return _columns([], _names(span), 0.0)

    @property
    def devices(self) -> list[str]:
        """The UUIDs of those of which anything is known."""
        return list(self._series)

    def knows(self, device: str) -> bool:
        """Whether anything is known of a device, also of one that is gone."""
        return device in self._series

    async def _open(self) -> None:
        loaded = await self._history.load_usage(self._wall())
        for count, row in enumerate(loaded):
            if count % _MOST_AT_ONCE == 0:
                await asyncio.sleep(0)  # others have their turn
            series = self._series.get(row.device)
            if series is None:
                series = self._series[row.device] = Series(self._history.keep_seconds)
            series.restore(_rows_of(series, row.step_seconds), row.at, row.values)
        self._settle(self._wall())

    def _settle(self, now: float) -> None:
        """End what is over also of devices that cannot be read, and forget old ones."""
        is_in_doubt = self._leaps.has_leapt(now)
        for uuid, series in list(self._series.items()):
            self._note(series.settle(now))
            if not is_in_doubt:
                series.forget(now)
            if series.is_empty:
                del self._series[uuid]
        if self._is_open:
            self._is_due.set()

    def _note(self, closed: Iterable[tuple[int, float]]) -> None:
        self._unwritten.update(closed)


def _rows_of(series: Series, step_seconds: int) -> Rows:
    is_minute = step_seconds == MINUTE_SECONDS
    return series.minutes if is_minute else series.quarters


def _values(glance: Glance) -> Values:
    """Return a reading in the order of `READ`."""
    told = (glance.utilisation, glance.temperature_celsius, glance.power_watts)
    return (
        float(glance.memory_used_bytes),
        *(nan if value is None else value for value in told),
    )


def _names(span: Span) -> tuple[str, ...]:
    return READ if span is Span.MINUTES else MERGED


def _parts(series: Series, span: Span, now: float) -> list[Rows]:
    """Return what a span is made of, in the order of time."""
    # Nothing of what lies ahead: the clock may have been set back since.
    until = now + 1
    if span is Span.MINUTES:
        return [series.seconds.between(now - RING_SECONDS, until)]
    if span is Span.EVENT and not _is_young(series.quarters, now):
        since = float("-inf")
        return _with_open(series.quarters, series.open_quarter(), since, until)
    if span in (Span.DAY, Span.EVENT):
        since = now - MINUTES_KEPT_SECONDS
        return _with_open(series.minutes, series.open_minute(), since, until)
    thin = series.thin.between(now - _HOUR_SECONDS, until)
    begins = thin.at[0] if thin else until
    return [series.minutes.between(now - _HOUR_SECONDS, begins), thin]


def _is_young(quarters: Rows, now: float) -> bool:
    """Whether an event has just begun, and all of it is there by the minute."""
    if len(quarters) >= _FEWEST_QUARTERS:
        return False
    return not quarters.at or quarters.at[0] > now - _HOUR_SECONDS


def _with_open(
    rows: Rows, open_: tuple[float, Values] | None, since: float, until: float
) -> list[Rows]:
    """Return intervals that are over, and the one that is not."""
    if open_ is None or not since <= open_[0] < until:
        return [rows.between(since, until)]
    last = Rows(rows.step_seconds, MERGED)
    last.add(*open_)
    return [rows.between(since, open_[0]), last]


def _columns(
    parts: list[Rows], names: tuple[str, ...], now: float
) -> dict[str, Column]:
    columns: dict[str, Column] = {
        "at": [round(at, 1) for part in parts for at in part.at],
        **{
            name: [
                None if value != value else round(value, _DECIMALS.get(name))
                for part in parts
                for value in part.columns[name]
            ]
            for name in names
        },
    }
    for index, at in reversed(_gaps(parts, now)):
        columns["at"].insert(index, round(at, 1))
        for name in names:
            columns[name].insert(index, None)
    return columns


def _gaps(parts: list[Rows], now: float) -> list[tuple[int, float]]:
    """Return before which rows nothing is known, and since when."""
    gaps: list[tuple[int, float]] = []
    last_at, step, index = None, 0, 0
    for part in parts:
        for at in part.at:
            if last_at is not None and at - last_at > _patience_seconds(step):
                gaps.append((index, last_at + step))
            last_at, step, index = at, part.step_seconds, index + 1
    if last_at is not None and now - last_at > _patience_seconds(step) + 2 * step:
        gaps.append((index, last_at + step))
    return gaps


def _patience_seconds(step_seconds: int) -> float:
    """Return how far apart two rows may be that belong together."""
    # Rounds drift, and one may wait for a sample; an interval is either there or not.
    return 3.5 if step_seconds == 1 else 1.5 * step_seconds
