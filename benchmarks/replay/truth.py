"""What is true of each kernel, whatever anybody can see of it.

Owns what a false reclaim is, and what an oracle would do.

*In use* is a kernel while a cell runs in it, while a thread or a child of it works
(between the bursts of one thread, too), and while its owner moves a slider. Page
loads, the chatter of widgets and what runs in a terminal beside it are no use of it.

A *false reclaim* takes memory from a kernel that is in use, or was in use less than
the limit ago: `needed_after` while somebody waits for a share, else `after`. Whoever
was away for longer than the organiser's limit is not hit falsely, and may all the
same come back and miss variables: that is counted by itself.

The *oracle* knows all this and takes memory the instant the limit is reached. Where
somebody begins to wait while a kernel is idle for long already, it gives the notice
that the organiser promised first.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from jupyterhub_gpuworkshop.core.rules import IdleRules

from .people import Doing, Kernel, Span, Workshop

_AFTERWARDS_SECONDS = 30.0
"""A take that was decided while memory was needed may end a moment later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spell:
    """A time in which nobody uses a kernel that holds memory.

    Attributes:
        begin: when it was used last.
        end: when it is used again, or the workshop ends.
        returns: whether it is used again.
    """

    begin: float
    end: float
    returns: bool


class KernelTruth:
    """One kernel's uses.

    Attributes:
        kernel: the kernel.
        begins: when its owner does something that fills its memory, by time.
        spells: when nobody uses it, by time.
    """

    def __init__(self, kernel: Kernel, seconds: float) -> None:
        self.kernel = kernel
        self.begins = [w.begin for w in kernel.works if w.doing is not Doing.THREAD]
        self._uses = _merged([(w.begin, w.end) for w in kernel.works], seconds)
        self._use_begins = [begin for begin, _ in self._uses]
        ends = [*self._use_begins[1:], seconds]
        self.spells = [
            Spell(begin=use_end, end=end, returns=number < len(self._uses) - 1)
            for number, ((_, use_end), end) in enumerate(
                zip(self._uses, ends, strict=True)
            )
            if use_end < end
        ]

    def last_use(self, at: float) -> float:
        """Return when it was used last, `at` where it is in use."""
        found = bisect_right(self._use_begins, at) - 1
        return min(at, self._uses[found][1]) if found >= 0 else float("-inf")

    def last_begin(self, at: float) -> float:
        """Return when its owner last did something that fills its memory."""
        found = bisect_right(self.begins, at) - 1
        return self.begins[found] if found >= 0 else float("-inf")

    def next_begin(self, at: float) -> float:
        """Return when its owner next does something that fills its memory."""
        found = bisect_left(self.begins, at)
        return self.begins[found] if found < len(self.begins) else float("inf")


class Truth:
    """What is true of a workshop.

    Args:
        workshop: what happens.
        rules: the organiser's.

    Attributes:
        kernels: by kernel id.
    """

    def __init__(self, workshop: Workshop, rules: IdleRules) -> None:
        self.kernels = {
            kernel.id: KernelTruth(kernel, workshop.seconds)
            for attendee in workshop.attendees
            for kernel in attendee.kernels
        }
        self._needs = workshop.needs
        self._rules = rules

    def is_needed(self, at: float, for_seconds: float = 0.0) -> bool:
        """Say whether somebody waits for a share, or did up to so long ago."""
        return any(begin <= at < end + for_seconds for begin, end in self._needs)

    def needed_seconds(self, span: Span) -> float:
        """Return how long of a span somebody waits for a share."""
        return sum(_overlap(span, need) for need in self._needs)

    def why_false(self, kernel_id: str, at: float, *, at_once: bool = False) -> str:
        """Say why taking a kernel's memory now is false; empty where it is not.

        Args:
            kernel_id: the kernel.
            at: when.
            at_once: judge as though somebody waited for a share: for who cannot know.
        """
        unused = at - self.kernels[kernel_id].last_use(at)
        needed = at_once or self.is_needed(at, _AFTERWARDS_SECONDS)
        limit = self._rules.limit_seconds(needed)
        if unused >= limit:
            return ""
        return f"it was in use {unused:.0f} s ago, and the limit is {limit:.0f} s"

    def due_at(self, spell: Spell) -> float | None:
        """Return when the oracle takes the memory of an idle kernel, or None."""
        due = spell.begin + self._rules.after_seconds
        for begin, end in self._needs:
            at = max(
                spell.begin + self._rules.needed_after_seconds,
                begin + self._rules.notice_seconds,
            )
            if at < end:
                due = min(due, at)
        return due if due < spell.end else None


def _merged(spans: list[Span], until: float) -> list[Span]:
    """Join what overlaps, and leave out what begins too late."""
    merged: list[Span] = []
    for begin, end in sorted(spans):
        if begin >= until:
            break
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], min(end, until)))
        else:
            merged.append((begin, min(end, until)))
    return merged


def _overlap(one: Span, other: Span) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
