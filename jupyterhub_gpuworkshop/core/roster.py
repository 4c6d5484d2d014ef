"""Who may attend: attendees, their codes, and which names are fit.

Owns what a roster holds and what makes a name or a code a good one. Where a roster is
kept is `hub.roster_file`'s; which names people get is `core.people`'s.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .errors import RosterError, ShareError
from .shares import Share

LONGEST_NAME = 24
"""With TLJH's ``jupyter-`` in front it is a Unix name still: 32 characters at most."""

MOST_ATTENDEES = 5000

CODE_LETTERS = "23456789BCDFGHJKMNPQRSTVWXYZ"
"""No 0 and O, no 1, I and L, and no vowels: nothing to mistake, and no words."""

CODE_LENGTH = 8
"""28 letters to the 8th: 38 bits. Whoever guesses is locked out long before."""

LONGEST_TYPED = 256
"""Of a code or password as somebody typed it; what is longer is not looked at."""

_SHARE_GROUP = "gpu-share:"

_NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9]))*")

_OF_THE_SYSTEM = (
    "root daemon bin sys sync games man lp mail news uucp proxy www-data backup list "
    "irc gnats nobody messagebus syslog sshd admin adm sudo wheel docker lxd ubuntu "
    "debian ec2-user centos rocky fedora azureuser postgres mysql redis nginx apache "
    "caddy traefik slurm munge nvidia-persistenced jupyterhub jupyter gpuworkshop "
    "halt shutdown operator ftp tss landscape pollinate polkitd uuidd tcpdump dnsmasq "
    "usbmux kernoops avahi cups colord geoclue saned rtkit whoopsie ntp chrony staff "
    "users shadow tty disk video render audio kvm kmem input crontab ssh"
)
"""Accounts and groups of a Unix host: a hub whose names are Unix names would hand
them out."""
_SYSTEM_NAMES = frozenset(_OF_THE_SYSTEM.split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendee:
    """One line of the roster.

    Attributes:
        name: the hub's name of the user.
        code_hash: argon2id of the code, as `tidy_code` writes it.
        full_name: as it stands on the card, or ``""``.
        email: for a mail merge, or ``""``.
        group: a group at the hub, or ``""``.
        share: what the attendee is entitled to; None for the workshop's default.
        joined: whether the attendee took the name with the room's code.
    """

    name: str
    code_hash: str
    full_name: str = ""
    email: str = ""
    group: str = ""
    share: Share | None = None
    joined: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Organiser:
    """Somebody who organises, and logs in with a password of their own."""

    name: str
    password_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """An open event: whoever has the room's code may take a name, until it is full.

    Attributes:
        code_hash: argon2id of the code, as `tidy_code` writes it.
        at_most: how many may have joined; `Roster.joined` of them have.
    """

    code_hash: str
    at_most: int

    def __post_init__(self) -> None:
        """Refuse a bound that is none.

        Raises:
            RosterError: with what it may be.
        """
        if not 1 <= self.at_most <= MOST_ATTENDEES:
            raise RosterError(
                f"{self.at_most} is no number of people for a room. Write 1 to "
                f"{MOST_ATTENDEES}."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """All who may log in, in the order in which they were added.

    Attributes:
        attendees: with a code each.
        organisers: with a password each.
        room: where people may join by themselves; None where they may not.
    """

    attendees: tuple[Attendee, ...] = ()
    organisers: tuple[Organiser, ...] = ()
    room: Room | None = None

    def __post_init__(self) -> None:
        """Refuse what no roster may hold.

        Raises:
            RosterError: a name that is unfit or given twice, or too many of them.
        """
        if len(self.attendees) > MOST_ATTENDEES:
            raise RosterError(
                f"{len(self.attendees)} attendees are more than a roster takes: "
                f"{MOST_ATTENDEES}. Split them over several servers."
            )
        seen: set[str] = set()
        for name in (*self.names(), *(one.name for one in self.organisers)):
            if (mistake := name_mistake(name)) is not None:
                raise RosterError(mistake)
            if name in seen:
                raise RosterError(f"{name} is there twice. Keep one of the two.")
            seen.add(name)
        for one in self.attendees:
            if (mistake := group_mistake(one.group)) is not None:
                raise RosterError(f"{one.name}: {mistake}")

    def names(self) -> tuple[str, ...]:
        """Return the attendees' names."""
        return tuple(attendee.name for attendee in self.attendees)

    @property
    def joined(self) -> int:
        """How many have joined by themselves, and are on it still."""
        return sum(one.joined for one in self.attendees)

    @property
    def is_full(self) -> bool:
        """Whether nobody more may join."""
        if self.room is None or self.joined >= self.room.at_most:
            return True
        return len(self.attendees) >= MOST_ATTENDEES

    def attendee(self, name: str) -> Attendee | None:
        """Return the attendee of a name, if there is one."""
        return next((one for one in self.attendees if one.name == name), None)

    def organiser(self, name: str) -> Organiser | None:
        """Return the organiser of a name, if there is one."""
        return next((one for one in self.organisers if one.name == name), None)

    def plus(self, attendees: Iterable[Attendee]) -> "Roster":
        """Return it with more attendees.

        Raises:
            RosterError: one of the names is there already.
        """
        return replace(self, attendees=(*self.attendees, *attendees))

    def without(self, names: Iterable[str]) -> "Roster":
        """Return it without some of its attendees or organisers.

        Raises:
            RosterError: there is nobody of one of these names.
        """
        gone = set(names)
        self._must_know(gone - {one.name for one in self.organisers})
        return replace(
            self,
            attendees=tuple(one for one in self.attendees if one.name not in gone),
            organisers=tuple(one for one in self.organisers if one.name not in gone),
        )

    def with_codes(self, hashes: "dict[str, str]") -> "Roster":
        """Return it with new codes for some of its attendees.

        Args:
            hashes: the hash of the new code by name.

        Raises:
            RosterError: there is no attendee of one of these names.
        """
        self._must_know(hashes)
        changed = tuple(
            replace(one, code_hash=hashes.get(one.name, one.code_hash))
            for one in self.attendees
        )
        return replace(self, attendees=changed)

    def with_organiser(self, organiser: Organiser) -> "Roster":
        """Return it with an organiser, in the place of an earlier one of that name."""
        others = (one for one in self.organisers if one.name != organiser.name)
        return replace(self, organisers=(*others, organiser))

    def _must_know(self, names: Iterable[str]) -> None:
        missing = sorted(set(names) - set(self.names()))
        if missing:
            raise RosterError(
                f"The roster has no attendee {', '.join(missing)}. "
                "`gpuworkshop roster list` prints whom it has."
            )


def name_mistake(name: str) -> str | None:
    """Say what makes a name unfit for a hub and a Unix host; None if it is fit."""
    if not name:
        return "A name is empty. Write small letters, digits and -."
    shown = name if name.isprintable() and len(name) <= 64 else ascii(name[:64])
    if len(name) > LONGEST_NAME:
        return f"{shown} is too long for a name: {LONGEST_NAME} characters at most."
    if not _NAME.fullmatch(name):
        return (
            f"{shown} is unfit as a name. Write small letters of a to z, digits and "
            "single -, a letter first and no - at the end."
        )
    if name in _SYSTEM_NAMES or name.startswith("systemd-"):
        return f"{shown} is an account of the system on many hosts. Choose another."
    return None


def joining_name(name: str) -> str:
    """Return under what wrong room codes of somebody who wants a name are counted.

    By name and address, so that nobody makes a whole room wait; and not under the name
    itself, which may be somebody's who wants to log in with it. Nobody has this name.
    """
    return f"joining {name}"


def numbered_names(prefix: str, count: int, taken: Iterable[str] = ()) -> list[str]:
    """Return names with a number behind a prefix: ``attendee-07``, say.

    Args:
        prefix: what they begin with.
        count: how many.
        taken: names that are not to be given again; their numbers are left out.

    Raises:
        RosterError: the prefix makes no fit name.
    """
    used = set(taken)
    width = max(2, len(str(count)))
    names: list[str] = []
    number = 0
    while len(names) < count:
        number += 1
        name = f"{prefix.rstrip('-')}-{number:0{width}d}"
        if (mistake := name_mistake(name)) is not None:
            raise RosterError(mistake)
        if name not in used:
            names.append(name)
    return names


def share_from(text: str) -> Share | None:
    """Read a share as a list of people gives it; ``""`` is none of one's own.

    Raises:
        RosterError: with what to write instead.
    """
    if not text:
        return None
    try:
        return Share.parse(text)
    except ShareError as error:
        raise RosterError(str(error)) from None


def group_mistake(group: str) -> str | None:
    """Say what makes a group unfit; None if it is fit, as ``""`` is for none."""
    if group.strip().lower().startswith(_SHARE_GROUP):
        return (
            f"a group {_SHARE_GROUP}... would give a share. Write the share into the "
            "column share."
        )
    return None


def share_group(share: Share) -> str:
    """Return the hub's group that entitles its members to a share."""
    return f"{_SHARE_GROUP}{share}"


def share_of(groups: Iterable[str]) -> tuple[Share, str] | None:
    """Return the share that one of somebody's groups entitles to, and which does.

    Groups that an admin made look alike and cannot be read are passed over.
    """
    for group in sorted(groups):
        if group.startswith(_SHARE_GROUP):
            try:
                return Share.parse(group.removeprefix(_SHARE_GROUP)), group
            except ShareError:
                continue
    return None


def code_from(picks: Iterable[int]) -> str:
    """Return the code that random numbers below ``len(CODE_LETTERS)`` spell.

    Args:
        picks: `CODE_LENGTH` of them, from a source that nobody can foresee.
    """
    return "".join(CODE_LETTERS[pick] for pick in picks)


def readable_code(code: str) -> str:
    """Return a code in groups of four, as cards show it."""
    return "-".join(code[at : at + 4] for at in range(0, len(code), 4))


def tidy_code(typed: str) -> str:
    """Return what was meant: case, spaces and dashes do not matter."""
    return re.sub(r"[\s\-\u2010-\u2015_.]", "", typed).upper()
