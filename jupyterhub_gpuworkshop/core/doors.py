"""The doors: when attendees may have a server, and when only their work.

Owns what the opening hours say of an instant. What is shut, stopped or shown then is
the hub's to do.
"""

from dataclasses import dataclass
from enum import Enum


class Stage(Enum):
    """What attendees may do at an instant."""

    BEFORE = "before the first opening: they cannot log in"
    OPEN = "open"
    CLOSING = "closed a moment ago: servers go on, none is started"
    CLOSED = "closed: they may log in for their work, and have no server"
    OVER = "over: they cannot log in any more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """One opening, in seconds since 1970; open at the first instant, not at the last.

    Attributes:
        opens_at: when the doors open.
        closes_at: when they close; later.
    """

    opens_at: float
    closes_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How the doors stand at an instant.

    Attributes:
        stage: what attendees may do.
        closes_at: the next closing while open; else the last, if there was one.
        stops_at: when servers are stopped after that, unless the doors open before.
        opens_at: the next opening, if there is one to come.
        ends_at: until when one may log in for one's work; None without hours.
        tells: whether attendees who work are to be told of the closing.
    """

    stage: Stage
    closes_at: float | None = None
    stops_at: float | None = None
    opens_at: float | None = None
    ends_at: float | None = None
    tells: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """The opening hours of a workshop.

    Attributes:
        hours: in order, without overlap; none: always open.
        grace_seconds: how long servers go on after a closing.
        work_seconds: how long after the last closing one may log in for one's work.
    """

    hours: tuple[Hours, ...] = ()
    grace_seconds: float = 0.0
    work_seconds: float = 0.0

    def at(self, now: float) -> Standing:
        """Return how the doors stand.

        Args:
            now: seconds since 1970.
        """
        if not self.hours:
            return Standing(stage=Stage.OPEN)
        opens_at = next((h.opens_at for h in self.hours if h.opens_at > now), None)
        ends_at = self.hours[-1].closes_at + self.work_seconds
        past = [h for h in self.hours if h.opens_at <= now]
        if not past:
            return Standing(stage=Stage.BEFORE, opens_at=opens_at, ends_at=ends_at)
        last = past[-1]
        after_grace = last.closes_at + self.grace_seconds
        # Where the break is shorter than the grace, servers go on through it.
        goes_on = opens_at is not None and opens_at <= after_grace
        stops_at = None if goes_on else after_grace
        if now < last.closes_at:
            stage = Stage.OPEN
        elif stops_at is None or now < stops_at:
            stage = Stage.CLOSING
        elif opens_at is not None or now < ends_at:
            stage = Stage.CLOSED
        else:
            stage = Stage.OVER
        return Standing(
            stage=stage,
            closes_at=last.closes_at,
            stops_at=stops_at,
            opens_at=opens_at,
            ends_at=ends_at,
            tells=stage in (Stage.OPEN, Stage.CLOSING)
            and stops_at is not None
            and now >= last.closes_at - self.grace_seconds,
        )
