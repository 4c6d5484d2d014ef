"""What people read on the hub's pages: announcements, and attendees' own notices.

Owns the banner. What is announced is for everybody, also for who has yet to log in; a
notice of the service is for one attendee. Nothing may claim that somebody was warned
who was not: a notice counts as seen when a page with it has gone to its own attendee,
in a browser that asked for a page to show.
"""

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextvars import ContextVar
from html import escape
from typing import Any

from jupyterhub.user import User

from jupyterhub_gpuworkshop.core.announcements import Announcement
from jupyterhub_gpuworkshop.core.notices import Notice
from jupyterhub_gpuworkshop.core.units import format_duration

_STANDS_SECONDS = 60.0
"""After that much silence of the service its notices may be void."""

_MOST = 5

_EVERY_PAGE = "announcement"
_INSTEAD = tuple(
    f"announcement_{page}" for page in ("home", "spawn", "login", "logout")
)
"""What these pages show in place of `announcement`, where an admin has set it."""

_ON_THIS_PAGE: ContextVar[tuple[str, ...]] = ContextVar("_ON_THIS_PAGE", default=())
"""Ids on the page of the request at hand: each is handled in a task of its own."""


class Banner:
    """What stands, for whoever asks for a page.

    Args:
        changed: called when a notice was seen for the first time.
        clock: monotonic seconds.
        wall: seconds since the epoch.
    """

    def __init__(
        self,
        *,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._changed = changed
        self._clock = clock
        self._wall = wall
        self._announced: tuple[Announcement, ...] = ()
        self._notices: tuple[Notice, ...] = ()
        self._heard_at = clock()
        self._seen: dict[str, None] = {}
        self._page = ""

    def hear(self, notices: tuple[Notice, ...]) -> None:
        """Take in all that stand, from the service's answer of this moment."""
        self._notices = notices
        self._heard_at = self._clock()

    def announce(self, announced: tuple[Announcement, ...]) -> None:
        """Take in all that is announced; it stands however silent the service is."""
        self._announced = announced

    @property
    def seen(self) -> tuple[str, ...]:
        """Ids of the notices that were seen, where the service does not know it yet."""
        return tuple(self._seen)

    def told(self, ids: Iterable[str]) -> None:
        """Forget ids that the service has answered to."""
        for notice_id in ids:
            self._seen.pop(notice_id, None)

    def install(self, app: Any, service: str) -> None:
        """Show it on the hub's pages, above whatever the admin had announced there.

        The hub's configuration is all read by now, so nothing in it can come after
        this and take its place.

        Args:
            app: the hub, about to listen or listening.
            service: the service's name, for the link to its page.
        """
        known = app.tornado_settings["services"].get(service)
        self._page = known.href if known is not None else ""
        settings = app.tornado_application.settings
        variables = settings["template_vars"]
        variables[_EVERY_PAGE] = self._above(variables.get(_EVERY_PAGE, ""))
        for name in _INSTEAD:
            if name in variables:
                variables[name] = self._above(variables[name])
        settings["log_function"] = self._counting(settings["log_function"])

    def of(self, user: str) -> list[Notice]:
        """Return what stands for an attendee, the most pressing first."""
        if self._clock() - self._heard_at > _STANDS_SECONDS:
            return []
        mine = [notice for notice in self._notices if notice.user == user]
        return sorted(mine, key=_how_pressing)

    @property
    def announced(self) -> list[Announcement]:
        """What stands for everybody at this moment."""
        now = self._wall()
        return [one for one in self._announced if one.stands_at(now)]

    def _above(self, theirs: Any) -> Callable[[Any], Any]:
        """Return what JupyterHub calls for each page, with who looks at it or None."""

        def announcement(user: Any) -> Any:
            other = theirs(user) if callable(theirs) else theirs
            # A service has a name too, and it may be an attendee's.
            notices = self.of(user.name) if isinstance(user, User) else []
            parts = [announced_as_html(one) for one in self.announced]
            if notices:
                parts.append(as_html(notices, self._page, self._wall()))
            if not parts or not (other is None or isinstance(other, str)):
                return other
            return _Announcement(
                "<hr>".join([*parts, other] if other else parts),
                [notice.id for notice in notices[:_MOST] if notice.seen_at is None],
            )

        return announcement

    def _counting(self, log: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return what JupyterHub calls when it has written a page."""

        def log_and_count(handler: Any) -> None:
            log(handler)
            if is_for_eyes(handler.request):
                self._count(_ON_THIS_PAGE.get())

        return log_and_count

    def _count(self, ids: Collection[str]) -> None:
        if not self._seen.keys() >= set(ids):
            self._seen.update(dict.fromkeys(ids))
            self._changed()


class _Announcement(str):
    """HTML that knows when a template puts it onto a page.

    It may be made in vain: a page can show another announcement, or none.
    """

    _ids: tuple[str, ...]

    def __new__(cls, text: str, ids: Iterable[str]) -> "_Announcement":
        made = super().__new__(cls, text)
        made._ids = tuple(ids)
        return made

    def __html__(self) -> str:
        """Return the HTML; Jinja asks for it where it is shown."""
        _ON_THIS_PAGE.set(self._ids)
        return str(self)


def _how_pressing(notice: Notice) -> tuple[float, float]:
    soon = float("inf") if notice.acts_at is None else notice.acts_at
    return soon, -notice.given_at


def as_html(notices: Sequence[Notice], page: str, now: float) -> str:
    """Return notices as HTML, with every word of theirs escaped.

    Args:
        notices: one line each, for the first of them.
        page: the service's; empty where it has none.
        now: wall-clock seconds since the epoch.
    """
    lines = [escape(_line(notice, now)) for notice in notices[:_MOST]]
    if len(notices) > _MOST:
        lines.append(f"and {len(notices) - _MOST} more")
    if page:
        lines.append(f'<a href="{escape(page)}">Your GPU share</a>')
    return "<br>".join(lines)


def _line(notice: Notice, now: float) -> str:
    text = " ".join(notice.text.split())
    since = now - notice.given_at
    # "In 2 min" counts from when it was given.
    if notice.acts_at is None or since < 1.0:
        return text
    return f"{format_duration(since)} ago: {text}"


def announced_as_html(announcement: Announcement) -> str:
    """Return an announcement as HTML, with its lines, and every word escaped."""
    return "<br>".join(escape(line) for line in announcement.text.split("\n"))


def is_for_eyes(request: Any) -> bool:
    """Whether a browser asks for a page that it will show.

    Notebooks that are left open ask for much of a server that is gone, and are answered
    with pages that nobody sees, as are favicons; and a browser may fetch a page ahead.
    """
    headers = request.headers
    ahead = headers.get("Sec-Purpose", headers.get("Purpose", ""))
    return (
        request.method != "HEAD"
        and "text/html" in headers.get("Accept", "")
        and "prefetch" not in ahead
    )
