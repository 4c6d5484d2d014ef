"""An open event: whoever has the room's code takes a name, first come first served.

Owns the page, what is asked there in which order, and which names are nobody's. What
an open room is, is `core.roster`'s; how the roster is changed, `roster_file`'s.
"""

import asyncio
import grp
import hashlib
import pwd
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jinja2 import ChoiceLoader, FileSystemLoader
from jupyterhub.handlers.base import BaseHandler
from tornado.web import HTTPError

from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError, RosterError
from jupyterhub_gpuworkshop.core.people import fold
from jupyterhub_gpuworkshop.core.roster import (
    LONGEST_TYPED,
    Attendee,
    Room,
    Roster,
    joining_name,
    name_mistake,
    readable_code,
)

from . import homes
from .addresses import address_of, come_back, shown_name
from .codes import hash_code, is_code, new_code
from .doors import DoorKeeper
from .lock_outs import LockOuts
from .roster_file import LiveRoster, change_roster
from .seats import NO_SEAT, Seats, account_names
from .waiting import WaitingRoom

if TYPE_CHECKING:
    from .authenticator import RosterAuthenticator

T = TypeVar("T")

_MOST_WAITING, _MOST_FROM_ONE = 300, 200
_LONGEST_CHOSEN = 64
_TEMPLATES = "gpuworkshop_join_templates"
_TLJH_LONGEST = 26

_NO_ROOM = "No room is open here: ask the organisers."
_FULL = "The room is full: ask the organisers."
_TAKEN = (
    "This name is taken. Choose another. If it is yours, sign in with the code that "
    "you were shown with it, or ask the organisers for a new one."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """Who has joined, and the only word of the code.

    Attributes:
        name: of the new attendee.
        code: to log in with, as `readable_code` writes it.
    """

    name: str
    code: str


class _Refused(RosterError):
    """Somebody does not join; the message is for them."""

    def __init__(self, status: int, told: str) -> None:
        super().__init__(told)
        self.status = status


class Joining:
    """Lets people join a roster's room. One per authenticator.

    Args:
        authenticator: which knows the hub's names.
        live: the roster.
        lock_outs: where wrong codes are counted.
        seats: of the workshop.
    """

    def __init__(
        self,
        authenticator: "RosterAuthenticator",
        live: LiveRoster,
        lock_outs: LockOuts,
        seats: Seats,
    ) -> None:
        self._authenticator = authenticator
        self._live = live
        self._lock_outs = lock_outs
        self._seats = seats
        self._waiting = WaitingRoom(_MOST_WAITING, _MOST_FROM_ONE)
        # One, and apart from those for logins: whoever floods this page with guesses
        # keeps nobody from logging in.
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="joining")
        self._looking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="room")

    def room(self) -> Room | None:
        """Return the open room; None where there is none, or the roster is broken."""
        roster = self._live.current()
        return None if self._live.problem else roster.room

    async def is_open(self) -> bool:
        """Whether there is anything to show, found out off the hub's loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._looking, self.room) is not None

    async def join(self, handler: Any, chosen: str, typed: str) -> Joined:
        """Give somebody a name on the roster, and a code.

        Args:
            handler: of the request.
            chosen: the name as it was typed.
            typed: the room's code as it was typed.

        Raises:
            _Refused: with what to tell, and the status.
        """
        name = name_from(chosen)
        if (mistake := name_mistake(name)) is not None:
            raise _Refused(400, mistake)
        with ExitStack() as place:
            try:
                place.enter_context(self._waiting.place(address_of(handler)))
            except HTTPError as full:
                raise _Refused(
                    full.status_code, "Too many join at this moment. Try again in 10 s."
                ) from None
            return await self._join(handler, name, typed)

    async def _join(self, handler: Any, name: str, typed: str) -> Joined:
        room = await self._with_right_code(handler, name, typed)
        # Only who has the code is told anything of the roster, the hub and the doors.
        if no := DoorKeeper.of(handler.settings).no_login():
            raise _Refused(403, no)
        roster = await self._do(self._live.current)
        accounts = account_names(handler.db)
        taken = roster.attendee(name) is not None or name in accounts
        if taken or _is_kept(self._authenticator, name):
            raise _Refused(409, _TAKEN)
        if not self._seats.take(name, roster.names(), accounts):
            raise _Refused(403, NO_SEAT)
        code = new_code()
        try:
            await self._do(lambda: _write_down(self._live.path, room, name, code))
        except BaseException:
            self._seats.release(name)
            raise
        self._authenticator.log.info(
            "%s joined with the room's code, from %s", name, address_of(handler)
        )
        return Joined(name=name, code=readable_code(code))

    async def _with_right_code(self, handler: Any, name: str, typed: str) -> Room:
        """Return the room whose code was typed."""
        address, counted = address_of(handler), joining_name(name)
        log = self._authenticator.log
        # Counted before it is looked at, as at a login.
        wait = await self._do(lambda: self._lock_outs.attempt(counted, address))
        if wait > 0:
            log.warning("Refused to join: %s from %s", shown_name(name), address)
            raise _Refused(429, come_back(wait))
        room = await self._do(self.room)
        if room is None:
            raise _Refused(404, _NO_ROOM)
        kept = room.code_hash
        if not await self._do(lambda: is_code(kept, typed)):
            log.warning("Wrong room code: %s from %s", shown_name(name), address)
            raise _Refused(
                403,
                "The room code is wrong. Type it as it stands in the room; dashes and "
                "capital letters do not matter.",
            )
        await self._do(lambda: self._lock_outs.succeeded(counted, address))
        return room

    async def _do(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, call)


def name_from(chosen: str) -> str:
    """Return the name that somebody means: small letters, - between words.

    What looks different and reads the same becomes the same, and letters that only
    look like those of a to z stay what they are: `name_mistake` refuses them.
    """
    words = re.split(r"[\s._-]+", fold(chosen[: _LONGEST_CHOSEN + 1].strip()))
    return "-".join(word for word in words if word)


def _write_down(path: Path, room: Room, name: str, code: str) -> None:
    """Put somebody on the roster, if the name is free there and on this host.

    Raises:
        _Refused: it is not, or the room takes nobody.
        GpuWorkshopError: a file cannot be read or written.
    """
    # Who had the name before may be off the roster and the hub: the home is there.
    if _is_on_host(name) or name in homes.read_homes(homes.file_beside(path)):
        raise _Refused(409, _TAKEN)
    code_hash = hash_code(code)

    def change(before: Roster) -> Roster:
        # The room may have been closed, or given another code, a moment ago.
        if before.room is None or before.room.code_hash != room.code_hash:
            raise _Refused(403, "The room was closed: ask the organisers.")
        if before.attendee(name) is not None or before.organiser(name) is not None:
            raise _Refused(409, _TAKEN)
        if before.is_full:
            raise _Refused(403, _FULL)
        return before.plus([Attendee(name=name, code_hash=code_hash, joined=True)])

    change_roster(path, change)


def _is_kept(authenticator: "RosterAuthenticator", name: str) -> bool:
    """Whether the hub's configuration has the name for somebody."""
    names = authenticator.username_map
    return (
        name in authenticator.admin_users
        or name in authenticator.blocked_users
        or name in authenticator.reserved_names
        # Mapped names are two people's otherwise: who has the one logs in as the other.
        or name in names
        or name in names.values()
        or authenticator.normalize_username(name) != name
        or not authenticator.validate_username(name)
    )


def _is_on_host(name: str) -> bool:
    """Whether a Unix user or group has the name, or the one that TLJH makes of it.

    Some spawners run a server as the Unix user of that name: whoever took `ubuntu`
    would have that user's files. On TLJH an earlier attendee's home is still there.
    """
    unix = f"jupyter-{name}"
    if len(unix) >= _TLJH_LONGEST:  # as TLJH's normalize.py shortens it
        digest = hashlib.sha256(unix.encode()).hexdigest()
        unix = f"{unix[:_TLJH_LONGEST]}-{digest[:5]}"
    return any(
        _has(look_up, one)
        for look_up in (pwd.getpwnam, grp.getgrnam)
        for one in (name, unix)
    )


def _has(look_up: Callable[[str], object], name: str) -> bool:
    try:
        look_up(name)
    except KeyError:
        return False
    return True


class JoinPage(BaseHandler):
    """The page of an open room: code and name in, name and code out."""

    def initialize(self, joining: Joining) -> None:
        """Take what the authenticator gives all of these pages."""
        self._joining = joining

    async def prepare(self) -> None:
        """Be there only while a room is open, and leave no copy anywhere."""
        await super().prepare()
        self.set_header("Cache-Control", "no-store")
        if not await self._joining.is_open():
            self.set_status(404)
            await self._show(told=_NO_ROOM, is_closed=True)

    def check_xsrf_cookie(self) -> None:
        """Refuse a form of another site's, or too old a one, in words for people."""
        try:
            super().check_xsrf_cookie()
        except HTTPError as error:
            self.log.warning("XSRF error on the page to join: %s", error)
            raise HTTPError(
                error.status_code, "This form is too old. Open the page again."
            ) from None

    def get_template(self, name: str, sync: bool = False) -> Any:
        """Return a template: the admin's of that name, or the hub's, or ours."""
        if sync:
            return super().get_template(name, sync)
        made = self.settings.get(_TEMPLATES)
        if made is None:
            hubs = self.settings["jinja2_env"]
            ours = FileSystemLoader(Path(__file__).parent / "templates")
            made = hubs.overlay(loader=ChoiceLoader([hubs.loader, ours]))
            self.settings[_TEMPLATES] = made
        return made.get_template(name)

    async def get(self) -> None:
        """Show the form."""
        await self._show()

    async def post(self) -> None:
        """Take name and code, and show the attendee's own."""
        if self.current_user:
            self.set_status(403)
            await self._show()
            return
        chosen = self.get_body_argument("username", "")
        typed = self.get_body_argument("room_code", "")
        try:
            if len(typed) > LONGEST_TYPED or len(chosen) > _LONGEST_CHOSEN:
                raise _Refused(400, "Name or room code is too long.")
            joined = await self._joining.join(self, chosen, typed)
        except _Refused as no:
            self.set_status(no.status)
            await self._show(
                chosen[:_LONGEST_CHOSEN],
                typed[:LONGEST_TYPED],
                str(no),
                other_name=no.status in (400, 409),
            )
        except GpuWorkshopError as error:
            self.log.error("Nobody can join: %s", error)
            self.set_status(500)
            await self._show(
                chosen,
                typed,
                "The name could not be written down: tell the organisers.",
            )
        else:
            self.finish(await self.render_template("joined.html", joined=joined))

    async def _show(
        self,
        chosen: str = "",
        typed: str = "",
        told: str = "",
        *,
        other_name: bool = False,
        is_closed: bool = False,
    ) -> None:
        page = await self.render_template(
            "join.html",
            chosen=chosen,
            typed=typed,
            told=told,
            other_name=other_name,
            is_closed=is_closed,
            url=self.request.path,
        )
        self.finish(page)
