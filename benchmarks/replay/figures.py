"""What came of a replay, in figures.

Owns the sums over kernels and seeds, and the printed lines.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import Event, EventKind

from .edges import EPOCH_SECONDS
from .room import Room, Taken
from .truth import KernelTruth, Spell, Truth

_AIM = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one ruler did in one workshop, or in several.

    Attributes:
        taken: how often memory was taken.
        false: how often that was false, each with attendee, habit and reason.
        raced: how often a kernel was used again between the last look at it and its
            end, which takes up to a second: not false, for nobody could know.
        returned: how often a kernel that was rightly taken was used again, without
            the variables it had.
        due_hours: idle memory-hours (GiB x h) that the oracle has free while memory
            is needed.
        freed_hours: those of them that were free.
        delays: seconds from the instant at which the oracle acts until the memory was
            seen free, of each spell in which both did.
        ended_trainings: trainings in terminals that were ended.
    """

    taken: int = 0
    false: tuple[str, ...] = ()
    raced: int = 0
    returned: int = 0
    due_hours: float = 0.0
    freed_hours: float = 0.0
    delays: tuple[float, ...] = ()
    ended_trainings: int = 0

    @property
    def share(self) -> float:
        """The part of the idle memory-hours that was taken back."""
        return self.freed_hours / self.due_hours if self.due_hours else 1.0

    @classmethod
    def sum(cls, figures: Iterable["Figures"]) -> "Figures":
        """Return those of several workshops together."""
        all_of_them = list(figures)
        return cls(
            taken=sum(x.taken for x in all_of_them),
            false=tuple(line for x in all_of_them for line in x.false),
            raced=sum(x.raced for x in all_of_them),
            returned=sum(x.returned for x in all_of_them),
            due_hours=sum(x.due_hours for x in all_of_them),
            freed_hours=sum(x.freed_hours for x in all_of_them),
            delays=tuple(delay for x in all_of_them for delay in x.delays),
            ended_trainings=sum(x.ended_trainings for x in all_of_them),
        )


@dataclass(slots=True)
class _Sums:
    due_hours: float = 0.0
    freed_hours: float = 0.0
    delays: list[float] = field(default_factory=list)


def figures_of(room: Room, events: Iterable[Event] = ()) -> Figures:
    """Return what came of a room.

    Args:
        room: after the workshop.
        events: those of ours: when memory was seen to be free again.
    """
    sums = _Sums()
    takes: dict[str, list[Taken]] = {}
    for taken in room.taken:
        takes.setdefault(taken.kernel.id, []).append(taken)
    seen: dict[str, list[float]] = {}
    for event in events:
        if event.kind is EventKind.KERNEL_RECLAIMED:
            kernel_id = str(event.details["kernel_id"])
            seen.setdefault(kernel_id, []).append(event.at - EPOCH_SECONDS)
    for kernel_id, truth in room.truth.kernels.items():
        times = [taken.at for taken in takes.get(kernel_id, ())]
        for spell in truth.spells:
            _add(sums, room.truth, truth, spell, times, seen.get(kernel_id, []))
    return Figures(
        taken=len(room.taken),
        false=tuple(
            f"seed {room.workshop.seed}, {x.attendee.name} ({x.attendee.habit}), "
            f"at {x.at:.0f} s: {x.false}"
            for x in room.taken
            if x.false
        ),
        raced=sum(x.raced for x in room.taken),
        returned=sum(
            room.truth.kernels[x.kernel.id].next_begin(x.at) < room.workshop.seconds
            for x in room.taken
            if not (x.false or x.raced)
        ),
        due_hours=sums.due_hours,
        freed_hours=sums.freed_hours,
        delays=tuple(sums.delays),
        ended_trainings=room.ended_trainings,
    )


def _add(
    sums: _Sums,
    truth: Truth,
    kernel: KernelTruth,
    spell: Spell,
    takes: Sequence[float],
    seen: Sequence[float],
) -> None:
    due_at = truth.due_at(spell)
    if due_at is None:
        return
    filled_at = kernel.last_begin(spell.begin)
    # What was taken before, falsely, is free in this spell too.
    taken_at = min((x for x in takes if filled_at < x < spell.end), default=spell.end)
    size = kernel.kernel.memory_bytes / GIB / 3600
    sums.due_hours += size * truth.needed_seconds((due_at, spell.end))
    free = (max(due_at, taken_at), spell.end)
    sums.freed_hours += size * truth.needed_seconds(free)
    seen_at = next((x for x in seen if taken_at <= x), None)
    if spell.begin <= taken_at < spell.end and seen_at is not None:
        sums.delays.append(seen_at - due_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line for people: a ruler and its figures.

    Attributes:
        who: who rules.
        figures: what came of it.
        has_aims: whether the issue's aims are about it.
    """

    who: str
    figures: Figures
    has_aims: bool = False

    def __str__(self) -> str:
        """Write it."""
        f = self.figures
        parts = [
            f"{self.who}: {len(f.false)} false of {f.taken} reclaims",
            f"{f.share:.1%} of {f.due_hours:.0f} idle GiB-hours taken back when needed",
            f"{f.returned} came back to a kernel without its variables",
        ]
        if f.raced:
            parts.append(f"{f.raced} more while it was about to end")
        if f.ended_trainings:
            parts.append(f"{f.ended_trainings} trainings in terminals ended")
        if f.delays:
            parts.append(
                f"{statistics.median(f.delays):.0f} s from the end of the timeout to "
                f"free memory (95 %: {percentile(f.delays, 0.95):.0f} s, "
                f"most: {max(f.delays):.0f} s)"
            )
        if self.has_aims:
            met = not f.false and f.share >= _AIM
            aim = f"aims: no false reclaim and at least {_AIM:.0%}"
            parts.append(f"{aim}, {'met' if met else 'missed'}")
        return "  ".join(parts)


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value that so large a part of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
