"""Names that become numbers: what happened stays known, to whom does not.

Owns what of an event names somebody, and which number takes the place of a name. That
it is done on disk as in memory is `service.history`'s.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from .wire import Event

_NUMBERED = re.compile(r"attendee ([1-9][0-9]{0,8})")
_LEAST_TO_CHOOSE_FROM = 100
_CHOICES_A_NAME = 10
_SERVER = "server"
_NOTEBOOK_KEY = "notebook"
_UNIX_PREFIX = "jupyter-"


def numbered(number: int) -> str:
    """Return what somebody is called whose name is forgotten; no name of the hub's."""
    return f"attendee {number}"


def number_of(user: str) -> int | None:
    """Return the number of somebody whose name was forgotten before, else None."""
    found = _NUMBERED.fullmatch(user)
    return int(found[1]) if found else None


def choose_numbers(
    names: Collection[str], taken: Collection[int], pick: Callable[[int], int]
) -> dict[str, int]:
    """Return a number for each name, which says nothing of it.

    Counting up would: who reads the roster beside it would find everybody again.

    Args:
        names: whom to number.
        taken: numbers that others have.
        pick: returns a number below another that nobody can foresee.
    """
    used = set(taken)
    count = len(used) + len(names)
    most = max(_LEAST_TO_CHOOSE_FROM, _CHOICES_A_NAME * count, *used, 0)
    chosen: dict[str, int] = {}
    for name in names:
        number = 1 + pick(most)
        while number in used:
            number = 1 + pick(most)
        used.add(number)
        chosen[name] = number
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgetting:
    """Whom to forget.

    A name is found in a text where it stands for itself, also as the Unix user, unit
    or container that is made of it; ``ann`` is not found in ``anna`` or ``ann-2``. A
    name that is a word of the language too is taken out wherever the word stands.

    Attributes:
        numbers: by name.
        servers: names of servers that each of them has had.
        others: everybody's names: ``jupyter-ann`` may be another's.
    """

    numbers: Mapping[str, int]
    servers: Mapping[str, Collection[str]] = field(default_factory=dict)
    others: Collection[str] = ()
    _pattern: re.Pattern[str] = field(init=False, repr=False)
    _meant: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the pattern, once for all texts."""
        meant = {name: name for name in self.numbers}
        for name in self.numbers:
            # As Docker's names have it.
            meant.setdefault(name.replace("-", "-2d"), name)
        longest_first = sorted(meant, key=len, reverse=True)
        servers = sorted(
            {server for named in self.servers.values() for server in named if server},
            key=len,
            reverse=True,
        )
        known = [rf"/{re.escape(server)}(?![\w.-])" for server in servers]
        after = "|".join([*known, r"/[^\s,;:()'\"]*"])
        pattern = re.compile(
            rf"(?<![\w-])({_UNIX_PREFIX})?"
            rf"({'|'.join(map(re.escape, longest_first)) or '(?!)'})"
            rf"(?!\w|-\w)(?:--[\w-]+)?(?:{after})?"
        )
        object.__setattr__(self, "_pattern", pattern)
        object.__setattr__(self, "_meant", meant)

    def text(self, text: str) -> str:
        """Return a text without the names."""
        return self._pattern.sub(self._instead, text)

    def user(self, user: str) -> str:
        """Return what a user is called from now on."""
        return numbered(self.numbers[user]) if user in self.numbers else user

    def server(self, user: str, server: str) -> str:
        """Return what a server is called from now on: its attendee chose the name."""
        return _SERVER if server and user in self.numbers else server

    def event(self, event: Event) -> Event:
        """Return an event without the names, and without what their owners named."""
        gone = event.user in self.numbers
        details = dict(event.details)
        notebook = str(details.get(_NOTEBOOK_KEY) or "") if gone else ""

        def cleaned(text: str) -> str:
            if notebook:
                text = text.replace(notebook, "a notebook")
            return self.text(text)

        told = {
            key: cleaned(value) if isinstance(value, str) else value
            for key, value in details.items()
        }
        if notebook:
            told[_NOTEBOOK_KEY] = ""
        return replace(
            event,
            user=self.user(event.user),
            server=self.server(event.user, event.server),
            reason=cleaned(event.reason),
            details=told,
        )

    def _instead(self, found: re.Match[str]) -> str:
        prefix, name = found[1], self._meant[found[2]]
        if prefix and prefix + name in self.numbers:
            return numbered(self.numbers[prefix + name])
        if prefix and prefix + name in self.others:
            return found[0]
        return numbered(self.numbers[name])


def servers_of(
    pairs: Iterable[tuple[str, str]], names: Collection[str]
) -> dict[str, set[str]]:
    """Return the names of the servers of some people, from (user, server) pairs."""
    found: dict[str, set[str]] = {}
    for user, server in pairs:
        if user in names and server:
            found.setdefault(user, set()).add(server)
    return found
