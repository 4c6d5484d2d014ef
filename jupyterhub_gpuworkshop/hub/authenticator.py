"""Who may log in: attendees by the code on their card, organisers by a password.

Owns the order of what is asked at a login. Who is on the roster is `roster_file`'s, how
a code is compared `codes`', and who has guessed too often `lock_outs`'.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from jupyterhub.auth import Authenticator, NullAuthenticator
from jupyterhub.traitlets import EntryPointType
from jupyterhub.utils import maybe_future
from tornado.web import HTTPError
from traitlets import Bool, Int, Set, Unicode, default

from jupyterhub_gpuworkshop.core.errors import RosterError
from jupyterhub_gpuworkshop.core.roster import (
    LONGEST_TYPED,
    Attendee,
    Roster,
    share_group,
)

from .addresses import address_of, come_back, shown_name
from .codes import is_code, is_password
from .doors import DoorKeeper
from .joining import Joining, JoinPage
from .lock_outs import LockOuts, file_beside
from .organisers import is_organiser
from .roster_file import LiveRoster
from .seats import NO_SEAT, Seats, account_names
from .waiting import WaitingRoom

T = TypeVar("T")


class RosterAuthenticator(Authenticator):
    """Name and code from the workshop's roster.

    Attendees lose at each login what made them admins. Organisers are admins.
    """

    roster_file = Unicode(
        "roster.json",
        help="""
        The file that `gpuworkshop roster make` writes; a relative path starts at the
        folder in which the hub runs. The default is `roster.file` of the workshop file
        where `configure(c, ...)` is used. Edits are heeded without a restart.

        Example::

            c.RosterAuthenticator.roster_file = "/srv/jupyterhub/roster.json"
        """,
    ).tag(config=True)

    organiser_authenticator = EntryPointType(
        klass=Authenticator,
        entry_point_group="jupyterhub.authenticators",
        default_value=NullAuthenticator,
        help="""
        Who checks the password of organisers that the roster does not name: any
        authenticator that asks for name and password in the hub's own form. It is
        asked about the names of `c.Authenticator.admin_users` only. The default lets
        nobody in but those whom the roster names.

        Example::

            c.RosterAuthenticator.organiser_authenticator = "pam"
        """,
    ).tag(config=True)

    # The roster says who is in which group, and with which share.
    manage_groups = Bool(
        True,
        help="""
        Whether an attendee's group and share on the roster become groups at the hub,
        in the place of those set by hand. True or False; True unless set.

        Example::

            c.RosterAuthenticator.manage_groups = False
        """,
    ).tag(config=True)

    seats = Int(
        0,
        min=0,
        help="""
        How many attendees get in, the first that come; organisers need no seat. An
        attendee has one as long as the hub has an account of that name. 0 means no
        limit. The default is `roster.seats` of the workshop file where
        `configure(c, ...)` is used.

        Example::

            c.RosterAuthenticator.seats = 40
        """,
    ).tag(config=True)

    reserved_names = Set(
        Unicode(),
        help="""
        Names that nobody may choose who joins with the room's code, beside those of
        organisers, of the roster, of the hub's users and of this host's. Those of
        `shares.users` in the workshop file and of users in `c.JupyterHub.load_roles`
        are among them where `configure(c, ...)` is used. None unless set.

        Example::

            c.RosterAuthenticator.reserved_names = {"teacher", "help"}
        """,
    ).tag(config=True)

    @default("any_allow_config")
    def _allows_by_the_roster(self) -> bool:
        # Or the hub warns at each start that perhaps nobody can log in.
        return True

    @default("custom_html")
    def _form(self) -> str:
        return (files(__package__) / "templates" / "login_form.html").read_text()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        path = Path(self.roster_file).absolute()
        self._live = LiveRoster(path)
        self._lock_outs = LockOuts(file_beside(path))
        if issubclass(self.organiser_authenticator, RosterAuthenticator):
            raise RosterError(
                "c.RosterAuthenticator.organiser_authenticator is for another one than "
                "this. Leave it unset: `gpuworkshop roster organiser NAME` lets an "
                "organiser in."
            )
        self._organisers = self.organiser_authenticator(parent=self)
        # It is asked about admins only, and need not be told again who they are.
        self._organisers.allow_all = True
        # Hashing lets go of Python's lock. What reads files does not queue behind it:
        # a flood of guesses must not slow the pages of who is logged in.
        self._hashing = ThreadPoolExecutor(
            max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="login"
        )
        self._reading = ThreadPoolExecutor(max_workers=2, thread_name_prefix="roster")
        self._waiting = WaitingRoom()
        self._seats = Seats(self.seats)
        self._joining = Joining(self, self._live, self._lock_outs, self._seats)

    def get_handlers(self, app: Any) -> list[Any]:
        """Return the hub's own pages for a login, and the one to join an open room."""
        page = (r"/join/?", JoinPage, {"joining": self._joining})
        return [*super().get_handlers(app), page]

    @property
    def lock_outs(self) -> LockOuts:
        """Who has given wrong codes; reading it blocks."""
        return self._lock_outs

    def names(self) -> frozenset[str]:
        """Return whom the roster knows, organisers too; it may read a file."""
        roster = self._live.current()
        return frozenset((*roster.names(), *(one.name for one in roster.organisers)))

    @property
    def has_open_room(self) -> bool:
        """Whether the form for a login shows the way to join."""
        return self._joining.room() is not None

    async def authenticate(
        self, handler: Any, data: dict[str, str]
    ) -> dict[str, Any] | None:
        """Return who it is; None for a wrong name or code, and no word which.

        Raises:
            HTTPError: 429 to who has guessed too often, 503 when too many wait.
        """
        name = data.get("username", "").strip().lower()
        typed = data.get("password", "")
        with self._waiting.place(address_of(handler)):
            model = await self._judge(handler, name, typed)
            if model is not None and not model["admin"]:
                await self._seat(handler, name)
            return model

    async def _seat(self, handler: Any, name: str) -> None:
        """Refuse an attendee without a seat; asked last, when the code was right."""
        if not self.seats:
            return
        roster = await self._read(self._live.current)
        attendees = set(roster.names()) - self.admin_users
        if not self._seats.take(name, attendees, account_names(handler.db)):
            self.log.warning("Refused %s: all %d seats are taken", name, self.seats)
            raise HTTPError(403, NO_SEAT)

    async def _judge(
        self, handler: Any, name: str, typed: str
    ) -> dict[str, Any] | None:
        address = address_of(handler)
        # Counted before it is looked at: of many guesses at once none slips past.
        wait = await self._read(lambda: self._lock_outs.attempt(name, address))
        if wait > 0:
            self.log.warning(
                "Refused %s from %s: locked out", shown_name(name), address
            )
            raise HTTPError(429, come_back(wait))
        model = await self._check(handler, name, typed)
        if model is None:
            self.log.warning(
                "Wrong name or code: %s from %s", shown_name(name), address
            )
        else:
            await self._read(lambda: self._lock_outs.succeeded(name, address))
            self._ask_the_doors(handler, model)
        return model

    def _ask_the_doors(self, handler: Any, model: dict[str, Any]) -> None:
        """Refuse an attendee outside the opening hours.

        After the code, so that organisers come in; and a right one is no guess.
        """
        no = "" if model["admin"] else DoorKeeper.of(handler.settings).no_login()
        if no:
            self.log.info("Refused %s: the doors are not open", model["name"])
            raise HTTPError(403, no)

    async def _check(
        self, handler: Any, name: str, typed: str
    ) -> dict[str, Any] | None:
        roster = await self._read(self._live.current)
        organiser = roster.organiser(name)
        if organiser is not None:
            kept = organiser.password_hash
            if await self._hash(lambda: is_password(kept, typed)):
                return {"name": name, "admin": True, "groups": None}
            return None
        attendee = self._attendee(roster, name)
        # Nobody of that name takes as long, and gets the same answer.
        hashed = None if attendee is None else attendee.code_hash
        right = await self._hash(lambda: is_code(hashed, typed))
        if attendee is None and name in self.admin_users:
            return await self._ask_the_other(handler, name, typed)
        return _model(attendee) if right and attendee is not None else None

    def _attendee(self, roster: Roster, name: str) -> Attendee | None:
        """Return the attendee of a name, unless the name is an organiser's."""
        attendee = roster.attendee(name)
        if attendee is not None and name in self.admin_users:
            self.log.error(
                "The roster has an attendee %s, which is an organiser's name: take it "
                "off with `gpuworkshop roster remove %s`",
                *(name, name),
            )
            return None
        return attendee

    async def _ask_the_other(
        self, handler: Any, name: str, typed: str
    ) -> dict[str, Any] | None:
        if len(typed) > LONGEST_TYPED:
            return None
        answer = await self._organisers.get_authenticated_user(
            handler, {"username": name, "password": typed}
        )
        if answer is None or answer["name"] != name:
            return None
        return {**answer, "admin": True, "groups": None}

    def check_allowed(self, username: str, authentication: Any = None) -> bool:
        """Whoever `authenticate` let in is allowed; nobody else is."""
        return authentication is not None

    async def add_user(self, user: Any) -> None:
        """Give a user whom the hub has just made the groups that the roster says.

        A server may be started for somebody who has not logged in yet.
        """
        await maybe_future(super().add_user(user))
        # At its start the hub hands over its database's records, which have theirs.
        sync_groups = getattr(user, "sync_groups", None)
        if sync_groups is None or not self.manage_groups:
            return
        attendee = self._attendee(await self._read(self._live.current), user.name)
        if attendee is not None:
            sync_groups(_model(attendee)["groups"])

    async def refresh_user(
        self, user: Any, handler: Any = None, **kwargs: Any
    ) -> bool | dict[str, Any]:
        """Log out who was taken off the roster; bring groups up to date.

        Tokens are left alone, as JupyterHub 6 does: a server's own is one.
        """
        if getattr(handler, "_token_authenticated", False):
            return True
        roster = await self._read(self._live.current)
        if self._live.problem or user.name in self.admin_users:
            return True
        if roster.organiser(user.name) is not None:
            return True
        if not is_organiser(user) and DoorKeeper.of(user.settings).no_login():
            return False
        attendee = self._attendee(roster, user.name)
        return False if attendee is None else _model(attendee)

    async def _hash(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._hashing, call)

    async def _read(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, call)


def _model(attendee: Attendee) -> dict[str, Any]:
    groups = [attendee.group] if attendee.group else []
    if attendee.share is not None:
        groups.append(share_group(attendee.share))
    return {"name": attendee.name, "admin": False, "groups": groups}
