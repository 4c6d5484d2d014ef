"""What the roster's commands do: make, add, reset, remove, split.

Owns the order of things: new codes, their hashes, the handout, and last the roster, so
that no attendee is ever without a card and no card is ever good for nothing.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import RosterError
from jupyterhub_gpuworkshop.core.people import Person, named
from jupyterhub_gpuworkshop.core.roster import (
    LONGEST_TYPED,
    Attendee,
    Organiser,
    Roster,
    readable_code,
)
from jupyterhub_gpuworkshop.hub.codes import hash_code, hash_password, new_code
from jupyterhub_gpuworkshop.hub.roster_file import change_roster, read_roster

from .cards import Card
from .papers import Handout, take_away

SHORTEST_PASSWORD = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a change has made.

    Attributes:
        roster: as it is now.
        names: whose codes are new, or who is gone.
        written: the files with the codes.
    """

    roster: Roster
    names: tuple[str, ...]
    written: tuple[Path, ...] = ()


def make(path: Path, people: Sequence[Person], prefix: str, handout: Handout) -> Done:
    """Begin a roster.

    Raises:
        RosterError: there is one already, or it cannot be written.
    """
    return _add(path, people, prefix, handout, new=True)


def add(path: Path, people: Sequence[Person], prefix: str, handout: Handout) -> Done:
    """Add people to a roster; those who are there keep their codes.

    Raises:
        RosterError: a name is there already, or the roster cannot be written.
    """
    return _add(path, people, prefix, handout, new=False)


def reset(path: Path, names: Iterable[str], handout: Handout) -> Done:
    """Give attendees new codes; the earlier ones are good for nothing from then on.

    Raises:
        RosterError: there is no such attendee.
    """
    wanted = tuple(dict.fromkeys(names))

    def change(before: Roster) -> tuple[Roster, list[Card]]:
        known = before.with_codes(dict.fromkeys(wanted, "")).attendees
        attendees, cards = _with_new_codes([one for one in known if one.name in wanted])
        after = before.with_codes({one.name: one.code_hash for one in attendees})
        return after, cards

    return _change(path, change, handout, new=False)


def remove(path: Path, names: Iterable[str]) -> Done:
    """Take attendees or organisers off a roster: they cannot log in any more.

    Raises:
        RosterError: there is no such attendee.
    """
    gone = tuple(dict.fromkeys(names))
    after = change_roster(path, lambda before: before.without(gone))
    return Done(roster=after, names=gone)


def set_organiser(path: Path, name: str, password: str) -> Done:
    """Let somebody log in as an organiser, with a password of their own.

    Raises:
        RosterError: the password is too short, or the name an attendee's.
    """
    if len(password) < SHORTEST_PASSWORD:
        raise RosterError(
            f"{SHORTEST_PASSWORD} characters are the least for a password of an "
            "organiser, who can see and stop everything."
        )
    if len(password) > LONGEST_TYPED:
        raise RosterError(f"{LONGEST_TYPED} characters are the most for a password.")
    organiser = Organiser(name=name, password_hash=hash_password(password))
    after = change_roster(path, lambda before: before.with_organiser(organiser))
    return Done(roster=after, names=(name,))


def split(path: Path, addresses: Sequence[str], handout: Handout) -> list[Done]:
    """Deal the attendees out to several servers, each with a roster and cards.

    Their codes are new, since the old ones are known to nobody. The roster that is
    split stays as it is. None of them has its room, whose poster names one server.

    Raises:
        RosterError: there are fewer attendees than servers, or a file is in the way.
    """
    whole = read_roster(path)
    if len(whole.attendees) < len(addresses):
        raise RosterError(
            f"{len(whole.attendees)} attendees are too few for {len(addresses)} "
            "servers. Name fewer servers."
        )
    parts: list[Done] = []
    made: list[Path] = []
    try:
        for number, address in enumerate(addresses, 1):
            part = replace(
                whole,
                attendees=whole.attendees[number - 1 :: len(addresses)],
                room=None,
            )
            target = path.with_name(f"{path.stem}-{number}{path.suffix}")
            done = _change(
                target,
                partial(_with_codes_of, part),
                handout.numbered(number, address),
                new=True,
            )
            parts.append(done)
            made += [target, *done.written]
    except BaseException:
        take_away(made)
        raise
    return parts


def _add(
    path: Path, people: Sequence[Person], prefix: str, handout: Handout, *, new: bool
) -> Done:
    def change(before: Roster) -> tuple[Roster, list[Card]]:
        taken = (*before.names(), *(one.name for one in before.organisers))
        fresh = [
            Attendee(
                name=name,
                code_hash="",
                full_name=person.full_name,
                email=person.email,
                group=person.group,
                share=person.share,
            )
            for name, person in named(people, taken, prefix)
        ]
        before.plus(fresh)  # refused before the codes are made, which takes a while
        attendees, cards = _with_new_codes(fresh)
        return before.plus(attendees), cards

    return _change(path, change, handout, new=new)


def _change(
    path: Path,
    change: Callable[[Roster], tuple[Roster, list[Card]]],
    handout: Handout,
    *,
    new: bool,
) -> Done:
    written: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()

    def with_handout(before: Roster) -> Roster:
        nonlocal written, names
        after, cards = change(before)
        written = handout.write(cards)
        names = tuple(card.name for card in cards)
        return after

    try:
        after = change_roster(path, with_handout, new=new)
    except BaseException:
        take_away(written)
        raise
    return Done(roster=after, names=names, written=written)


def _with_codes_of(part: Roster, _: Roster) -> tuple[Roster, list[Card]]:
    attendees, cards = _with_new_codes(part.attendees)
    return replace(part, attendees=tuple(attendees)), cards


def _with_new_codes(
    attendees: Sequence[Attendee],
) -> tuple[list[Attendee], list[Card]]:
    codes = [new_code() for _ in attendees]
    # argon2 lets go of Python's lock.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        hashes = list(pool.map(hash_code, codes))
    cards = [
        Card(
            name=one.name,
            code=readable_code(code),
            full_name=one.full_name,
            email=one.email,
        )
        for one, code in zip(attendees, codes, strict=True)
    ]
    hashed = [
        replace(one, code_hash=kept)
        for one, kept in zip(attendees, hashes, strict=True)
    ]
    return hashed, cards
