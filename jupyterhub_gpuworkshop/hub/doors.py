"""The doors as the hub keeps them: the hours in force, and what is told of them.

Owns reading them again when the workshop file changes, and every sentence about them.
When they are open is `core.doors`'; what is stopped when they close is `closing`'s.
"""

import time
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any, cast

from jupyterhub.utils import url_path_join
from traitlets import Dict, Unicode, Union
from traitlets.config import LoggingConfigurable

from jupyterhub_gpuworkshop.core.doors import Doors, Stage, Standing
from jupyterhub_gpuworkshop.core.errors import WorkshopFileError
from jupyterhub_gpuworkshop.machine.stamps import Stamp, stamp_of
from jupyterhub_gpuworkshop.workshop import Workshop
from jupyterhub_gpuworkshop.workshop_event import DoorsSettings
from jupyterhub_gpuworkshop.workshop_reading import (
    read_file,
    read_section,
    split_source,
)

from .organisers import is_organiser

_SETTING = "gpuworkshop_doors"
_EVERY_PAGE = "announcement"
_INSTEAD = ("announcement_home", "announcement_spawn", "announcement_login")
"""What these pages show in place of `announcement`, where an admin has set it."""


class DoorKeeper(LoggingConfigurable):
    """Knows when attendees may log in and have a server. One per hub."""

    workshop = Union(
        [Unicode(), Dict()],
        help="""
        The workshop whose `doors` are kept: its path or content, set by
        `configure(c, workshop)`. A file is read again when it changes. Empty means
        that the doors are always open.

        Example::

            c.DoorKeeper.workshop = "/etc/jupyterhub/workshop.yaml"
        """,
    ).tag(config=True)

    clock: Callable[[], float] = staticmethod(time.time)

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "DoorKeeper":
        """Return the keeper of the hub with these tornado settings."""
        keeper = settings.get(_SETTING)
        if keeper is None:
            keeper = settings[_SETTING] = cls(parent=settings["app"])
        return cast("DoorKeeper", keeper)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._path: Path | None = None
        self._stamp: Stamp | None = None
        if self.workshop and not isinstance(self.workshop, Mapping):
            self._path = split_source(self.workshop)[0]
        self._rules = Workshop().doors
        self._doors = Doors()
        self._read()

    def standing(self) -> Standing:
        """Return how the doors stand at this moment."""
        if self._path is not None and stamp_of(self._path) != self._stamp:
            self._read()
        return self._doors.at(self.clock())

    def _read(self) -> None:
        if self._path is not None:
            self._stamp = stamp_of(self._path)
        try:
            rules = _doors_of(self.workshop or {})
        except WorkshopFileError as error:
            self.log.error("The opening hours stay as they were: %s", error)
            return
        if rules != self._rules and rules.hours:
            self.log.info(
                "Opening hours: %s (%s)", ", ".join(rules.hours), rules.timezone
            )
        self._rules, self._doors = rules, rules.doors()

    def no_login(self) -> str:
        """Return why attendees cannot log in at this moment; empty when they can."""
        standing = self.standing()
        if standing.stage is Stage.BEFORE:
            return self._opens(standing)
        return _OVER if standing.stage is Stage.OVER else ""

    def no_server(self) -> str:
        """Return why attendees get no server at this moment; empty when they do."""
        standing = self.standing()
        if standing.stage is Stage.OPEN:
            return ""
        if standing.stage is Stage.BEFORE:
            return self._opens(standing)
        if standing.stage is Stage.OVER:
            return _OVER
        return f"The doors are closed. {self._what_now(standing)}"

    def news(self, *, has_server: bool) -> str:
        """Return what an attendee is to know of the doors; empty for nothing.

        Args:
            has_server: whether it is one whose server runs.
        """
        standing = self.standing()
        if has_server and standing.tells and standing.stops_at is not None:
            assert standing.closes_at is not None  # noqa: S101  core.doors says so
            closes = "close" if standing.stage is Stage.OPEN else "closed"
            at = self._rules.in_words(standing.closes_at)
            stops = self._rules.then_in_words(
                standing.stops_at, after=standing.closes_at
            )
            return (
                f"The doors {closes} on {at}, and "
                f"your server is stopped {stops}: save your notebooks. What is saved "
                "stays."
            )
        return self.no_server()

    def _opens(self, standing: Standing) -> str:
        assert standing.opens_at is not None  # noqa: S101  core.doors says so
        return f"The doors open on {self._rules.in_words(standing.opens_at)}."

    def _what_now(self, standing: Standing) -> str:
        if standing.opens_at is not None:
            return f"They open again on {self._rules.in_words(standing.opens_at)}."
        assert standing.ends_at is not None  # noqa: S101  core.doors says so
        return (
            "You can log in and download your work until "
            f"{self._rules.in_words(standing.ends_at)}."
        )

    def install(self, app: Any, service: str) -> None:
        """Tell of the doors on the hub's pages, above whatever is announced there.

        Args:
            app: the hub, about to listen or listening.
            service: the GPU service's name, for the link to the page of one's work.
        """
        known = app.tornado_settings["services"].get(service)
        page = url_path_join(known.href, "work") if known is not None else ""
        variables = app.tornado_application.settings["template_vars"]
        variables[_EVERY_PAGE] = self._above(variables.get(_EVERY_PAGE, ""), page)
        for name in _INSTEAD:
            if name in variables:
                variables[name] = self._above(variables[name], page)

    def _above(self, theirs: Any, page: str) -> Callable[[Any], Any]:
        """Return what JupyterHub calls for each page, with who looks at it or None."""

        def announcement(user: Any) -> Any:
            other = theirs(user) if callable(theirs) else theirs
            ours = self._as_html(user, page)
            if not ours or not (other is None or isinstance(other, str)):
                return other
            return f"{ours}<hr>{other}" if other else ours

        return announcement

    def _as_html(self, user: Any, page: str) -> str:
        # A service that asks has no roles of a user's; nobody has, either.
        orm_user = getattr(user, "orm_user", None)
        if orm_user is not None and is_organiser(user):
            return ""
        if orm_user is None and user is not None:
            return ""
        news = self.news(has_server=bool(user is not None and user.active))
        if not news or user is None or not page:
            return escape(news)
        shut = self.standing().stage in (Stage.CLOSING, Stage.CLOSED)
        link = f' <a href="{escape(page)}">Your work</a>' if shut else ""
        return escape(news) + link


def _doors_of(source: Any) -> DoorsSettings:
    """Read the hours of a workshop, whatever mistakes are elsewhere in it.

    Raises:
        WorkshopFileError: a mistake in the hours, or nothing can be read.
    """
    try:
        return Workshop.load(source).doors
    except WorkshopFileError:
        values = source
        if isinstance(source, str):
            path, section = split_source(source)
            values = read_section(path, section) if section else read_file(path)
        if not isinstance(values, Mapping):
            raise
        return Workshop.load({"doors": values.get("doors")}).doors


_OVER = "The workshop is over. Ask the organisers if you need something of your work."


def first_page(keeper: Callable[[Any], DoorKeeper], service: str, theirs: Any) -> Any:
    """Return `JupyterHub.default_url` that leads to one's work when doors are closed.

    Args:
        keeper: from a handler to the doors.
        service: the GPU service's name.
        theirs: what the admin has set: a URL, a callable, or nothing.
    """

    def default_url(handler: Any) -> str:
        user = handler.current_user
        if user is not None and not user.active and not is_organiser(user):
            doors = keeper(handler)
            if doors.standing().stage in (Stage.CLOSING, Stage.CLOSED):
                return url_path_join(handler.base_url, "services", service, "work")
        return str(theirs(handler) if callable(theirs) else theirs or "")

    return default_url
