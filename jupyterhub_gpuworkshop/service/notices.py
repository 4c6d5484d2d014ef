"""The notices that stand: given, seen, withdrawn.

Owns which notices there are. Each is told to the hub for its banner, shown on the page
and handed out by the API; who puts one before an attendee's eyes says so here, for
nothing may claim that somebody was warned who was not. They live in memory: after a
restart of the service every window begins anew, and so does every notice.
"""

import time
import uuid
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from jupyterhub_gpuworkshop.core.notices import Notice, NoticeKind

_PAST = frozenset(
    {
        NoticeKind.KERNEL_TAKEN,
        NoticeKind.SERVER_STOPPED,
        NoticeKind.PROCESS_ENDED,
        NoticeKind.FROM_ORGANISER,
    }
)
"""What has happened, or was said: such a notice ends by itself."""
_SEEN_FOR_SECONDS = 5 * 60.0
_UNSEEN_FOR_SECONDS = 12 * 60 * 60.0

Subject = tuple[NoticeKind, str, str, str]
"""What a notice is about: (kind, user, server name, kernel id)."""


@dataclass(frozen=True, slots=True)
class _Standing:
    notice: Notice
    since: float


class Notices:
    """Every notice that stands.

    Args:
        clock: monotonic seconds, the monitor's.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._standing: dict[Subject, _Standing] = {}

    @property
    def standing(self) -> tuple[Notice, ...]:
        """All of them, in the order in which they were given."""
        return tuple(each.notice for each in self._standing.values())

    def give(
        self,
        kind: NoticeKind,
        *,
        user: str,
        server: str = "",
        kernel_id: str = "",
        text: str,
        acts_in_seconds: float | None = None,
    ) -> Notice:
        """Put up a notice, in place of an earlier one about the same."""
        now = self._wall()
        notice = Notice(
            id=uuid.uuid4().hex,
            kind=kind,
            user=user,
            server=server,
            kernel_id=kernel_id,
            text=text,
            given_at=now,
            acts_at=None if acts_in_seconds is None else now + acts_in_seconds,
        )
        subject = (kind, user, server, kernel_id)
        self._standing.pop(subject, None)
        self._standing[subject] = _Standing(notice, self._clock())
        return notice

    def about(self, subject: Subject) -> Notice | None:
        """Return the notice that stands about this, or None."""
        found = self._standing.get(subject)
        return found.notice if found is not None else None

    def given_at(self, subject: Subject) -> float | None:
        """Return when it was given, in monotonic seconds; None where none stands."""
        found = self._standing.get(subject)
        return found.since if found is not None else None

    def withdraw(self, subject: Subject) -> None:
        """Take a notice down; one that does not stand does no harm."""
        self._standing.pop(subject, None)

    def keep_only(self, kind: NoticeKind, subjects: Collection[Subject]) -> None:
        """Take down the notices of one kind that have no cause any more."""
        self._standing = {
            subject: each
            for subject, each in self._standing.items()
            if subject[0] is not kind or subject in subjects
        }

    def mark_seen(self, ids: Iterable[str]) -> None:
        """Note that these were put before their attendees' eyes, now."""
        seen, now = frozenset(ids), self._wall()
        for subject, each in self._standing.items():
            if each.notice.id in seen and each.notice.seen_at is None:
                notice = replace(each.notice, seen_at=now)
                self._standing[subject] = _Standing(notice, each.since)

    def expire(self) -> None:
        """Take down what tells of the past, or was said, and is read, or is old."""
        now = self._wall()
        self._standing = {
            subject: each
            for subject, each in self._standing.items()
            if not _is_over(each.notice, now)
        }


def _is_over(notice: Notice, now: float) -> bool:
    if notice.kind not in _PAST:
        return False
    if notice.seen_at is not None and now - notice.seen_at > _SEEN_FOR_SECONDS:
        return True
    return now - notice.given_at > _UNSEEN_FOR_SECONDS
