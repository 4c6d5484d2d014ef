"""Which parked kernels may have their GPU memory back now, and who makes room.

Owns the law of returns (facts: a restore that runs out of memory leaves its process
stuck for good, cuda-checkpoint#44): one at a time on a device, in the order in which
their owners came back, and only with more memory free than is needed.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Generic[K]):
    """A parked kernel whose owner is back.

    Attributes:
        key: which.
        needs_bytes: what it held when it was parked, by device UUID.
        since: since when its owner is back, in monotonic seconds.
    """

    key: K
    needs_bytes: Mapping[str, int]
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(Generic[K]):
    """An idle kernel that may be parked to make room.

    Attributes:
        key: which.
        held_bytes: what it holds, by device UUID.
        idle_seconds: how long all signals have said idle.
    """

    key: K
    held_bytes: Mapping[str, int]
    idle_seconds: float


def who_returns(
    waiting: Sequence[Waiting[K]],
    free_bytes: Mapping[str, int],
    returning_on: Collection[str],
    margin_bytes: int,
) -> list[Waiting[K]]:
    """Return who may come back now.

    A device is left alone while somebody returns to it, and while somebody who came
    back earlier waits for it: a small kernel does not overtake a large one for ever.

    Args:
        waiting: whose owners are back.
        free_bytes: what an allocation could get, by device UUID; a device that is not
            in it cannot be read, and nobody returns to it.
        returning_on: devices to which somebody returns just now.
        margin_bytes: what must be free beyond the need.
    """
    taken = set(returning_on)
    found: list[Waiting[K]] = []
    for each in sorted(waiting, key=lambda x: x.since):
        devices = set(each.needs_bytes)
        if not devices & taken and _fits(each, free_bytes, margin_bytes):
            found.append(each)
        taken |= devices
    return found


def who_makes_room(
    waiting: Waiting[Any],
    free_bytes: Mapping[str, int],
    candidates: Sequence[Candidate[K]],
    margin_bytes: int,
) -> list[K]:
    """Return whom to park for one who waits, longest idle first, and no more.

    Nobody is parked where all of them together would not suffice.
    """
    lacking = {
        uuid: need + margin_bytes - free_bytes[uuid]
        for uuid, need in waiting.needs_bytes.items()
        if uuid in free_bytes and need + margin_bytes > free_bytes[uuid]
    }
    chosen: list[K] = []
    for each in sorted(candidates, key=lambda x: -x.idle_seconds):
        if all(missing <= 0 for missing in lacking.values()):
            break
        if any(
            each.held_bytes.get(uuid, 0) > 0 and missing > 0
            for uuid, missing in lacking.items()
        ):
            chosen.append(each.key)
            lacking = {
                uuid: missing - each.held_bytes.get(uuid, 0)
                for uuid, missing in lacking.items()
            }
    return chosen if all(missing <= 0 for missing in lacking.values()) else []


def _fits(
    waiting: Waiting[K], free_bytes: Mapping[str, int], margin_bytes: int
) -> bool:
    return all(
        free_bytes.get(uuid, -1) >= need + margin_bytes
        for uuid, need in waiting.needs_bytes.items()
    )
