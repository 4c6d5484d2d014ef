"""Paired turns, the median of their ratios, and how sure it is.

Owns the statistics and the printed lines. It knows nothing of what is measured.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison.

    Attributes:
        what: what is compared with what.
        ours: the cost of each turn of ours, in seconds.
        bare: the cost of the bare turn beside it, in seconds.
        aim: the most that the median should be, in what the row shows; None where
            there is no aim.
        added_per: where it is set, the row shows what ours adds, in milliseconds for
            each of so many, in place of the ratio.
    """

    what: str
    ours: tuple[float, ...]
    bare: tuple[float, ...]
    aim: float | None = None
    added_per: int = 0

    @property
    def values(self) -> tuple[float, ...]:
        """What is compared, pair by pair."""
        pairs = list(zip(self.ours, self.bare, strict=True))
        if self.added_per:
            return tuple(1000 * (a - b) / self.added_per for a, b in pairs)
        return tuple(a / b for a, b in pairs)

    @property
    def median(self) -> float:
        """The median over the pairs."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        """Write the row for people."""
        low, high, confidence = interval(self.values)
        unit = " ms" if self.added_per else ""
        digits = 1 if self.added_per or self.median >= 10 else 3
        parts = [
            f"{self.what}: {self.median:.{digits}f}{unit}",
            f"({low:.{digits}f} to {high:.{digits}f}, {confidence:.0%} "
            f"of {len(self.values)} pairs)",
            f"{_duration(statistics.median(self.ours))} against "
            f"{_duration(statistics.median(self.bare))}",
        ]
        if self.aim is not None:
            outcome = "met" if self.median <= self.aim else "missed"
            parts.append(f"aim: at most {self.aim:g}, {outcome}")
        return "  ".join(parts)


def paired(
    ours: Callable[[], float], bare: Callable[[], float], turns: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Let both take turns; who is first alternates, so that drift favours neither.

    Args:
        ours: does it once and returns the cost in seconds.
        bare: the same for what ours is compared with.
        turns: how many pairs.

    Returns:
        The costs of ours and those of bare, pair by pair.
    """
    first: list[float] = []
    second: list[float] = []
    for turn in range(turns):
        if turn % 2:
            b, a = bare(), ours()
        else:
            a, b = ours(), bare()
        first.append(a)
        second.append(b)
    return tuple(first), tuple(second)


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """Return the wall seconds that one of so many calls takes."""
    begin = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begin) / times


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the narrowest interval of order statistics around the median.

    It assumes nothing of the distribution: the median lies between the k-th smallest
    and the k-th largest value unless fewer than k values fall on one side of it.

    Returns:
        The ends, and the confidence: 95 % or the next above it, and less than that
        only where so few values allow no more (five pairs: 94 %).
    """
    ordered = sorted(values)
    count = len(ordered)
    outside = [
        2 * sum(math.comb(count, i) for i in range(k)) / 2**count
        for k in range(1, (count + 1) // 2 + 1)
    ]
    k = max((k for k, p in enumerate(outside, 1) if p <= 1 - _CONFIDENCE), default=1)
    return ordered[k - 1], ordered[count - k], max(0.0, 1 - outside[k - 1])


def _duration(value: float) -> str:
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"
