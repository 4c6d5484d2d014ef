"""An open event: the room's code, and the poster that shows it.

Owns `open-room` and `close-room`; `templates/room.html` owns how a poster looks. Who
joins with the code is the hub's to let in.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import RosterError
from jupyterhub_gpuworkshop.core.roster import Room, Roster, readable_code
from jupyterhub_gpuworkshop.hub.codes import hash_code, new_code
from jupyterhub_gpuworkshop.hub.roster_file import change_roster

from .cards import Paper, check_address, join_address, room_page
from .papers import take_away, write_closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Poster:
    """What to write, and where.

    Attributes:
        address: the hub's, as people type it.
        poster: the page to print.
        title: at its top.
        paper: what it is printed on.
    """

    address: str
    poster: Path = Path("room.html")
    title: str = "GPU workshop"
    paper: str = Paper.A4.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A room that is open.

    Attributes:
        code: as people type it; the roster has its hash only.
        page: where people join.
        poster: the file that shows both.
        joined: how many have joined before.
        was_open: whether it had another code before.
    """

    code: str
    page: str
    poster: Path
    joined: int
    was_open: bool


def open_room(path: Path, at_most: int, poster: Poster) -> Opened:
    """Let people join a roster by themselves; an earlier code ends.

    Args:
        path: the roster file, which is begun where there is none.
        at_most: how many may join, with those who have.
        poster: of the room.

    Raises:
        RosterError: the roster or the poster cannot be written; then nothing is.
    """
    address = check_address(poster.address)
    code = new_code()
    room = Room(code_hash=hash_code(code), at_most=at_most)
    shown = readable_code(code)
    page = room_page(
        shown, address=address, title=poster.title, paper=Paper(poster.paper)
    )
    written: tuple[Path, ...] = ()
    was_open = False

    def change(before: Roster) -> Roster:
        nonlocal written, was_open
        if before.joined > at_most:
            raise RosterError(
                f"{before.joined} have joined already, which is more than {at_most}. "
                "Give --at-most a larger number, or take some off with `gpuworkshop "
                "roster remove`."
            )
        was_open = before.room is not None
        # Before the roster: nothing else ever knows the code.
        written = write_closed([(poster.poster, page)], "--poster")
        return replace(before, room=room)

    try:
        after = change_roster(path, change, new=not path.exists())
    except BaseException:
        take_away(written)
        raise
    return Opened(
        code=shown,
        page=join_address(address),
        poster=written[0],
        joined=after.joined,
        was_open=was_open,
    )


def close_room(path: Path) -> int:
    """Let nobody join any more; return how many have.

    Raises:
        RosterError: no room is open, or the roster cannot be written.
    """

    def change(before: Roster) -> Roster:
        if before.room is None:
            raise RosterError(
                f"{path}: no room is open. `gpuworkshop roster open-room` opens one."
            )
        return replace(before, room=None)

    return change_roster(path, change).joined
