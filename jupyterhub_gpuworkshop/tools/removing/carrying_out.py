"""Removing the attendees that were listed.

Owns the order, in which a run that was killed can be begun again: first the code, so
that nobody comes back meanwhile; servers; the account with its tokens; the home; what
names them elsewhere; and last the line of the roster, without which nobody would know
of the rest.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError
from jupyterhub_gpuworkshop.core.roster import Roster, joining_name
from jupyterhub_gpuworkshop.hub import homes as homes_file
from jupyterhub_gpuworkshop.hub.homes import Home
from jupyterhub_gpuworkshop.hub.lock_outs import LockOuts, file_beside
from jupyterhub_gpuworkshop.hub.roster_file import change_roster
from jupyterhub_gpuworkshop.tools.everybody import Outcome, stop_servers
from jupyterhub_gpuworkshop.tools.hub_calls import HubCalls, said, user_path

from .disk import remove_home
from .history import History
from .homes import Fate
from .planning import Going, user_model, why_powerful

_TRIES = 20
_ASK_AGAIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where what is removed is written down.

    Attributes:
        roster: the file.
        homes: everybody's, as they were read for the list.
        service: the GPU service's name at the hub.
    """

    roster: Path
    homes: Mapping[str, Home]
    service: str


async def carry_out(
    hub: HubCalls,
    going: Sequence[Going],
    places: Places,
    *,
    at_once: int,
    end_processes: bool,
    advance: Callable[[], None],
) -> list[Outcome]:
    """Remove attendees; return what became of each, in that order.

    Args:
        hub: to ask.
        going: whom.
        places: where they are written down.
        at_once: so many at a time.
        end_processes: whether to end what runs as their Unix users still.
        advance: called after each.

    Raises:
        RosterError: the roster cannot be changed; nobody is removed.
    """
    names = [one.name for one in going]
    change_roster(places.roster, lambda before: _without_codes(before, names))
    turn = asyncio.Semaphore(at_once)
    # One `userdel` at a time has the lock of /etc/passwd.
    disk = asyncio.Lock()

    async def one(person: Going) -> Outcome:
        async with turn:
            try:
                problem = await _remove(hub, person, places, disk, end_processes)
            except GpuWorkshopError as error:
                problem = str(error)
        advance()
        return Outcome(name=person.name, problem=problem)

    outcomes = await asyncio.gather(*(one(person) for person in going))
    problems = {one.name: one.problem for one in outcomes if one.problem}
    gone = [name for name in names if name not in problems]
    problems |= await History(hub, places.service).forget(gone)
    gone = [name for name in gone if name not in problems]
    if gone:
        _cross_off(places.roster, gone)
    return [Outcome(name=name, problem=problems.get(name, "")) for name in names]


async def _remove(
    hub: HubCalls,
    person: Going,
    places: Places,
    disk: asyncio.Lock,
    end_processes: bool,
) -> str:
    """Remove all of somebody but the line of the roster; return why not.

    Raises:
        GpuWorkshopError: it did not go.
    """
    model = await user_model(hub, person.name)
    if model is not None:
        # The list was made some minutes ago, perhaps.
        if why := why_powerful(model, ()):
            return f"left: {why}"
        if problem := await stop_servers(hub, person.name):
            return f"a server does not stop: {problem}"
        if problem := await _delete(hub, person.name):
            return f"the account is still there: {problem}"
    if person.home.fate is Fate.GOES:
        async with disk:
            await asyncio.to_thread(
                remove_home,
                person.name,
                places.homes,
                person.home,
                end_processes=end_processes,
            )
    if await user_model(hub, person.name) is not None:
        return "the account is there again: it has logged in meanwhile. Run this again"
    await asyncio.to_thread(_forget_beside, places.roster, person.name)
    return ""


async def _delete(hub: HubCalls, name: str) -> str:
    """Delete an account, with its tokens; return why not, or nothing."""
    for _ in range(_TRIES):
        answer = await hub.call("DELETE", user_path(name))
        if answer.code in (204, 404):
            return ""
        if answer.code != 400 or "stopping" not in said(answer):
            break
        await asyncio.sleep(_ASK_AGAIN_SECONDS)
    return said(answer)


def _forget_beside(roster: Path, name: str) -> None:
    """Take somebody out of the files beside the roster."""
    path = file_beside(roster.absolute())
    if path.exists():
        lock_outs = LockOuts(path)
        for key in (name, joining_name(name)):
            lock_outs.forget(key)
        problem = lock_outs.problem
        lock_outs.close()
        if problem:
            raise GpuWorkshopError(problem)
    homes_file.forget(homes_file.file_beside(roster.absolute()), {name})


def _without_codes(roster: Roster, names: Sequence[str]) -> Roster:
    """Let nobody of them log in any more; who is off the roster cannot anyway."""
    known = [name for name in names if roster.attendee(name) is not None]
    return roster.with_codes(dict.fromkeys(known, ""))


def _cross_off(path: Path, names: Sequence[str]) -> None:
    def change(before: Roster) -> Roster:
        return before.without(
            name for name in names if before.attendee(name) is not None
        )

    change_roster(path, change)
