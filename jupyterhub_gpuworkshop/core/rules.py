"""What the organiser decided about taking memory back, as values.

Owns the words for what may be done and the numbers that say when. `workshop_reclaim`
reads them from the workshop file; `reclaim`, `over_share` and `returns` decide by them.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum

from .units import GIB, MIB


class Action(str, Enum):
    """What reclaim may do to a kernel."""

    PARK = "park"
    """Its GPU memory goes to host memory and its variables stay; where that cannot
    be, it is restarted."""
    RESTART = "restart"
    STOP_KERNEL = "stop_kernel"


class OverShareAction(str, Enum):
    """What is done about a lease whose processes use more than its share."""

    NOTICE = "notice"
    IDLE_KERNELS = "idle_kernels"
    """Its idle kernels are reclaimed, the largest first."""
    RESTART = "restart"
    """Its idle kernels, and where those do not suffice, the largest busy one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleRules:
    """The organiser's rules, from the workshop file's `idle`.

    Attributes:
        needed_after_seconds: idle that long, memory that is needed is taken back.
        after_seconds: idle that long, memory is taken back in any case.
        notice_seconds: how long before that the attendee is told; 0 tells nothing.
        min_memory_bytes: a kernel that holds less is left alone.
        max_cpu: processor time that still counts as idle, as a part of one core.
        action: what is done.
        group_actions: what is done to those in a group of the hub; the first of an
            attendee's groups that stands here counts.
        without_utilisation: whether kernel state and processor time suffice where the
            driver tells no utilisation at all.
        server_after_seconds: idle that long, a server without GPU memory is stopped
            when its share is needed.
        pin_max_seconds: how long attendees may pin their kernels; 0 forbids it.
        dry_run: only say what would be done.
        max_gap_seconds: readings further apart than this do not add up to a window.
    """

    needed_after_seconds: float = 20 * 60
    after_seconds: float = 2 * 60 * 60
    notice_seconds: float = 5 * 60
    min_memory_bytes: int = 256 * MIB
    max_cpu: float = 0.05
    action: Action = Action.RESTART
    group_actions: Mapping[str, Action] = field(default_factory=dict)
    without_utilisation: bool = False
    server_after_seconds: float = 60 * 60
    pin_max_seconds: float = 2 * 60 * 60
    dry_run: bool = False
    max_gap_seconds: float = 30.0

    def limit_seconds(self, needed: bool) -> float:
        """Return how long memory may be held idle."""
        if needed:
            return min(self.after_seconds, self.needed_after_seconds)
        return self.after_seconds

    @property
    def may_park(self) -> bool:
        """Whether anybody's kernels are to be parked."""
        return Action.PARK in (self.action, *self.group_actions.values())

    def action_for(self, groups: Collection[str]) -> Action:
        """Return what is done to the kernels of an attendee in these groups."""
        for group, action in self.group_actions.items():
            if group in groups:
                return action
        return self.action


@dataclass(frozen=True, slots=True, kw_only=True)
class OverShareRules:
    """The organiser's rules, from the workshop file's `over_share`.

    Attributes:
        grace_seconds: how long a lease may exceed its share before its attendee is
            told, and after that again before anything is done.
        action: what is done then.
    """

    grace_seconds: float = 60.0
    action: OverShareAction = OverShareAction.IDLE_KERNELS


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkingRules:
    """The organiser's rules, from the workshop file's `parking`.

    Attributes:
        margin_bytes: GPU memory that must be free beyond what a return needs.
        keep_free_host_bytes: host memory that parking leaves for everything else.
        make_room_after_seconds: how long a kernel must have been idle to be parked,
            without notice, for one whose owner is back.
    """

    margin_bytes: int = 256 * MIB
    keep_free_host_bytes: int = 4 * GIB
    make_room_after_seconds: float = 120.0
