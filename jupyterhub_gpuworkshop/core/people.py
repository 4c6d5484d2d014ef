"""People of an organiser's list, and the usernames that are made of their names.

Owns what a person is, and how each gets a name that is fit and nobody else's. How a
list is read is `core.people_csv`'s.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from .errors import RosterError
from .roster import LONGEST_NAME, name_mistake, numbered_names
from .shares import Share

MOST_MISTAKES = 20
"""Told at once: whoever has more has the wrong file."""

# Straight, curly, Hawaiian, as an accent and as a prime: keyboards differ.
_APOSTROPHES = re.compile("['\u2018\u2019\u02bb\u02bc`\xb4\u2032]")
_FORMULA = re.compile(r"\s*[=+\-@]")
_IN_ASCII = "ß=ss ø=o ł=l đ=d ð=d æ=ae œ=oe þ=th \u0131=i ħ=h ŧ=t ŋ=ng ə=e"
"""Of the letters that are more than one with an accent."""
_FOLDED = str.maketrans(dict(pair.split("=") for pair in _IN_ASCII.split()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One row of an organiser's list.

    Attributes:
        line: where it begins in the file, as an editor counts.
        name: the username that the list gives, or ``""`` for `named` to find one.
        full_name: as it is to stand on the card, or ``""``.
        email: for a mail merge, or ``""``.
        group: a group at the hub, or ``""``.
        share: what the person is entitled to; None for the workshop's default.
    """

    line: int
    name: str = ""
    full_name: str = ""
    email: str = ""
    group: str = ""
    share: Share | None = None


def named(
    people: Sequence[Person], taken: Iterable[str] = (), prefix: str = "attendee"
) -> tuple[tuple[str, Person], ...]:
    """Give each person a username: the list's own, or one of their name or e-mail.

    Args:
        people: in the order in which the names are to be given.
        taken: names that others have.
        prefix: what the numbered names of the others begin with: those whose name has
            no letter of a to z, for example.

    Returns:
        The people in the same order, each behind a name that is fit and nobody else's.

    Raises:
        RosterError: a name that the list gives is unfit, taken or given twice, or the
            prefix makes no fit name.
    """
    others = set(taken)
    given: dict[str, int] = {}
    mistakes: list[tuple[int, str]] = []
    for person in people:
        if not person.name:
            continue
        name = fold(person.name)
        mistake = given_name_mistake(person.name, given)
        if mistake is None and name in others:
            mistake = f"{name} is somebody else's already. Choose another username."
        if mistake is not None:
            mistakes.append((person.line, mistake))
        given.setdefault(name, person.line)
    refuse(mistakes)
    names = _Names(others | set(given))
    found = [fold(person.name) or names.of(person) for person in people]
    numbered = iter(numbered_names(prefix, found.count(""), names.used))
    return tuple(
        (name or next(numbered), person)
        for name, person in zip(found, people, strict=True)
    )


class _Names:
    """Usernames made of names: none twice."""

    def __init__(self, used: set[str]) -> None:
        self.used = used
        # Where to go on counting: from 2 each time would be slow for equal names.
        self._next: dict[tuple[str, int], int] = {}

    def of(self, person: Person) -> str:
        """Return a new name for somebody; ``""`` if nothing of theirs makes one."""
        local_part = person.email.partition("@")[0]
        for base in (_base(person.full_name), _base(local_part)):
            if base:
                name = self._free(base)
                self.used.add(name)
                return name
        return ""

    def _free(self, base: str) -> str:
        if base not in self.used and name_mistake(base) is None:
            return base
        digits = 0
        while True:
            digits += 1
            stem = base[: LONGEST_NAME - 1 - digits].rstrip("-")
            first = self._next.get((stem, digits), max(2, 10 ** (digits - 1)))
            for number in range(first, 10**digits):
                self._next[stem, digits] = number + 1
                name = f"{stem}-{number}"
                if name not in self.used:
                    return name


def _base(text: str) -> str:
    """Return the name that a text makes: fit, or fit with a number behind it."""
    if _FORMULA.match(unicodedata.normalize("NFKD", text)):
        return ""
    words = re.findall("[a-z0-9]+", fold(_APOSTROPHES.sub("", text)))
    base = "-".join(words).lstrip("0123456789-")[:LONGEST_NAME].rstrip("-")
    # "systemd" is one whose numbered names belong to the system too.
    if base and name_mistake(f"{base[: LONGEST_NAME - 2].rstrip('-')}-2") is None:
        return base
    return ""


def fold(text: str) -> str:
    """Return a text in small letters without accents."""
    small = unicodedata.normalize("NFKD", text).lower()
    plain = "".join(letter for letter in small if not unicodedata.combining(letter))
    return plain.translate(_FOLDED)


def given_name_mistake(given: str, names: dict[str, int]) -> str | None:
    """Say what is wrong with a username that the list gives; None if nothing is."""
    name = fold(given)
    if (mistake := name_mistake(name)) is not None:
        hint = " A column full name is for people's names." if " " in name else ""
        return mistake + hint
    if (line := names.get(name)) is not None:
        return f"{name} is the username in line {line} already. Choose another."
    return None


def shown(text: str) -> str:
    """Return a text as a message may hold it: printable, and not a page of it."""
    if text.isprintable() and len(text) <= 64:
        return text
    return ascii(text[:64])


def refuse(mistakes: Sequence[tuple[int, str]]) -> None:
    """Raise an error with the mistakes, each behind its line, if there are any.

    Raises:
        RosterError: with `MOST_MISTAKES` of them at most.
    """
    if not mistakes:
        return
    told = (f"line {line}: {mistake}" for line, mistake in mistakes[:MOST_MISTAKES])
    more = len(mistakes) - MOST_MISTAKES
    rest = (f"and {more} more",) if more > 0 else ()
    raise RosterError("\n".join(chain(told, rest)))
