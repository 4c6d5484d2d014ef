"""The roster on disk: one JSON file, an attendee a line, readable by its owner alone.

Owns how it is read, changed and followed. A change is whole or not at all, two changes
at once wait for each other, and a hub that runs sees it without a restart.
"""

import json
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from jupyterhub_gpuworkshop.core.errors import RosterError
from jupyterhub_gpuworkshop.core.roster import (
    Attendee,
    Organiser,
    Room,
    Roster,
    share_from,
)
from jupyterhub_gpuworkshop.machine.stamps import stamp_of

from .own_files import alone_with, replace_closed

_LOG = logging.getLogger(__name__)
_VERSION = 2
"""The newest that is read. A roster with a room, or with somebody who joined, has it:
a hub that knows of neither would drop them at its next change. Others have 1."""

_LARGEST_BYTES = 16 * 2**20
_TEXTS = ("name", "full_name", "email", "group", "code_hash")


def read_roster(path: Path) -> Roster:
    """Read a roster.

    Raises:
        RosterError: there is none, or what is there is none; with what to do.
    """
    return _parsed(_bytes_of(path), path)


def change_roster(
    path: Path, change: Callable[[Roster], Roster], *, new: bool = False
) -> Roster:
    """Change a roster, and return what it is now.

    Args:
        path: the roster file.
        change: from what it was to what it shall be. What it raises leaves the file as
            it was.
        new: whether there must be no roster yet, and one is begun.

    Raises:
        RosterError: the file cannot be read or written.
    """
    path = path.resolve()
    with _alone(path):
        if new and path.exists():
            raise RosterError(
                f"{path}: is there already, and its codes would be lost. Add people "
                "with `gpuworkshop roster add`, or move the file away."
            )
        before = Roster() if new else read_roster(path)
        after = change(before)
        _write(path, _written(after))
    return after


class LiveRoster:
    """The roster of a hub that runs: the last good one, read again when it changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._roster = Roster()
        self._seen: tuple[int, ...] | None = None
        self._turn = threading.Lock()
        self.problem = ""

    def current(self) -> Roster:
        """Return the roster in force; a broken file leaves the last good one."""
        with self._turn:
            return self._current()

    def _current(self) -> Roster:
        seen = stamp_of(self.path)
        if seen is not None and seen == self._seen:
            return self._roster
        try:
            self._roster = read_roster(self.path)
        except RosterError as error:
            told = f"{error} Until then the last good roster is in force."
            if told != self.problem:
                _LOG.error("%s", told)
            self.problem = told
        else:
            _LOG.info("Read the roster %s: %s", self.path, _sum(self._roster))
            self.problem = ""
        self._seen = seen
        return self._roster


def _sum(roster: Roster) -> str:
    return f"{len(roster.attendees)} attendees, {len(roster.organisers)} organisers"


def _bytes_of(path: Path) -> bytes:
    try:
        # Without O_NONBLOCK a FIFO would be waited for.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise RosterError(f"{path}: is no file. Give the path of a roster.")
            data = file.read(_LARGEST_BYTES + 1)
    except FileNotFoundError:
        raise RosterError(
            f"{path}: there is no roster yet. `gpuworkshop roster make` makes one."
        ) from None
    except PermissionError:
        raise RosterError(
            f"{path}: this user may not read it. Run the command as the hub's user, "
            "on most hosts with sudo in front of it."
        ) from None
    except OSError as error:
        raise RosterError(
            f"{path}: cannot be read: {error.strerror}. Give the path of a roster."
        ) from None
    if len(data) > _LARGEST_BYTES:
        raise RosterError(f"{path}: is too large for a roster. Give another path.")
    return data


def _parsed(data: bytes, path: Path) -> Roster:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        where = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise RosterError(
            f"{path}: is no roster{where}. Put a copy of an earlier one back; only "
            "`gpuworkshop roster` should change it."
        ) from None
    if not isinstance(found, dict) or not isinstance(found.get("version"), int):
        raise RosterError(f"{path}: is no roster. Give the path of one.")
    if found["version"] > _VERSION:
        raise RosterError(
            f"{path}: was written by a newer version of this package. Upgrade it here."
        )
    try:
        return Roster(
            attendees=tuple(_attendee(one) for one in found.get("attendees", ())),
            organisers=tuple(_organiser(one) for one in found.get("organisers", ())),
            room=_room(found["room"]) if "room" in found else None,
        )
    except RosterError as error:
        raise RosterError(f"{path}: {error}") from None
    except (TypeError, KeyError, AttributeError, ValueError):
        raise RosterError(
            f"{path}: an entry of it is damaged. Put a copy of an earlier one back."
        ) from None


def _attendee(kept: dict[str, Any]) -> Attendee:
    texts = {key: kept.get(key, "") for key in _TEXTS}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError(kept)
    joined = kept.get("joined", False)
    if not isinstance(joined, bool):
        raise TypeError(kept)
    share = share_from(str(kept.get("share", "")))
    return Attendee(**texts, share=share, joined=joined)


def _room(kept: dict[str, Any]) -> Room:
    code_hash, at_most = kept["code_hash"], kept["at_most"]
    if not isinstance(code_hash, str) or type(at_most) is not int:
        raise TypeError(kept)
    return Room(code_hash=code_hash, at_most=at_most)


def _organiser(kept: dict[str, Any]) -> Organiser:
    name, password_hash = kept["name"], kept["password_hash"]
    if not isinstance(name, str) or not isinstance(password_hash, str):
        raise TypeError(kept)
    return Organiser(name=name, password_hash=password_hash)


def _written(roster: Roster) -> bytes:
    attendees = [
        {key: getattr(one, key) for key in _TEXTS if getattr(one, key)}
        | ({"share": str(one.share)} if one.share is not None else {})
        | ({"joined": True} if one.joined else {})
        for one in roster.attendees
    ]
    organisers = [
        {"name": one.name, "password_hash": one.password_hash}
        for one in roster.organisers
    ]
    room = roster.room
    version = 2 if room is not None or roster.joined else 1
    kept = (
        {} if room is None else {"code_hash": room.code_hash, "at_most": room.at_most}
    )
    parts = [
        f'{{"version": {version},\n',
        f'"room": {json.dumps(kept)},\n' if kept else "",
        '"organisers": [',
        _lines(organisers),
        '],\n"attendees": [',
        _lines(attendees),
        "]}\n",
    ]
    return "".join(parts).encode()


def _lines(entries: list[dict[str, Any]]) -> str:
    # ASCII alone, so that no name can break a line or an editor.
    return ",".join(f"\n  {json.dumps(entry)}" for entry in entries) + "\n"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other changes of this roster out; say what cannot be written, and why."""
    with ExitStack() as held:
        try:
            held.enter_context(alone_with(path))
        except OSError as error:
            raise RosterError(_unwritable(path, error)) from None
        yield


def _write(path: Path, data: bytes) -> None:
    try:
        replace_closed(path, data)
    except OSError as error:
        raise RosterError(_unwritable(path, error)) from None


def _unwritable(path: Path, error: OSError) -> str:
    return (
        f"{path}: cannot be written: {error.strerror}. What was there is as it was. "
        "Make room, or run the command as who owns the folder."
    )
