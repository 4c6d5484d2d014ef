"""How long somebody who gave wrong codes has to wait.

Owns the rules, and what failures become under them. Where they are kept is
`hub.lock_outs`'s.

Three rules, each with somebody innocent in mind:

* A name from one address has a few tries, then waits, longer each time. A room behind
  one address (NAT) has as many tries as it has names, whatever is done to one of them.
* A name has tries over all addresses, which come back with time. When they are used
  up, an address from which it has logged in before does not notice; one from which
  somebody else has logged in, as a workshop's room, has some more; only strange ones
  wait.
* An address with many failures has fewer tries for each name, but never none.

The arithmetic: a code is one of 28**8, which is 3.8e11. A day admits fewer than 400
guesses at a name from one address, and from all addresses that are not good for it
100 + 86,400 / 30 = 2,980 together. With the ten addresses that may be good for a name
that is fewer than 7,000, which hit a code once in 50 million days; all the names of
the largest roster, once in 10,000. Without any rule, a hub that hashes 50 codes a
second would be guessed into once in 87,000 days. So the limits can be generous, and
what they protect most is an organiser's password, which somebody has thought up.

Two things they cannot do. Whoever sits behind the same address as an attendee can make
that attendee wait: an organiser unlocks. And a name that has never logged in waits at
a strange address while many others guess at it.
"""

from dataclasses import dataclass
from enum import Enum
from ipaddress import AddressValueError, IPv4Address, IPv6Address

UNKNOWN_ADDRESS = "unknown"
"""For all that cannot be read as an address: it is one of its own."""

CLOCK_SLACK_SECONDS = 60.0
"""A clock may be set back by this much. What is later still is from a clock that was
wrong, and is as if it had never been: nobody waits for a date."""

LONGEST_KEPT_NAME = 64
"""Names are longer than any attendee's only if they are invented."""

ANY_STRANGE_ADDRESS = ""
"""The address of a `Locked` whose name waits wherever nobody has logged in."""

_INSTANT_SECONDS = 0.001
_DAY_SECONDS = 86400.0
_MOST_DOUBLINGS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class LockOutRules:
    """How many wrong codes are too many, and for how long.

    Attributes:
        window_seconds: failures count while none is longer than this after the one
            before; and the tries of a name come back within it.
        pair_failures: so many of one name from one address, and they wait.
        first_wait_seconds: how long, from the last failure; each time twice as long.
        longest_wait_seconds: ... up to this.
        forget_seconds: after this long without a failure the first wait is short again.
        address_failures: with so many from one address over all names, it is busy.
        pair_failures_if_busy: in the place of `pair_failures` at a busy address.
        name_failures: so many of one name within the window, and strange addresses
            wait.
        name_failures_if_known: ... and addresses from which others have logged in.
        good_seconds: how long an address stays good for who has logged in from there.
        most_pairs: of a name and an address that are kept; the oldest go first.
        most_pairs_per_address: of them from one address: who invents names at one
            pushes out what is kept of that address, and nobody else's.
        most_names: whose failures over all addresses are kept. Pushing one out before
            its tries are back takes as many failures within the window.
        most_good: of a name and an address that are good; the oldest go first.
        most_good_per_name: of them of one name.
    """

    window_seconds: float = 900.0
    pair_failures: int = 5
    first_wait_seconds: float = 300.0
    longest_wait_seconds: float = 3600.0
    forget_seconds: float = _DAY_SECONDS
    address_failures: int = 100
    pair_failures_if_busy: int = 2
    name_failures: int = 30
    name_failures_if_known: int = 100
    good_seconds: float = 30 * _DAY_SECONDS
    most_pairs: int = 10_000
    most_pairs_per_address: int = 1_000
    most_names: int = 20_000
    most_good: int = 20_000
    most_good_per_name: int = 10

    @property
    def forget_name_seconds(self) -> float:
        """How long it takes until all tries of a name are back."""
        most = max(self.name_failures, self.name_failures_if_known)
        return self.window_seconds * most / self.name_failures


DEFAULT_RULES = LockOutRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """Somebody who has to wait.

    Attributes:
        name: as it was given; it need not be anybody's.
        address: from where, as it is counted; or `ANY_STRANGE_ADDRESS`.
        until: seconds since the epoch.
    """

    name: str
    address: str
    until: float


class Standing(Enum):
    """What is known of an address for a name."""

    STRANGE = "strange"
    """Nobody has logged in from there."""
    KNOWN = "known"
    """Others have."""
    GOOD = "good"
    """This name has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What is kept of one name from one address.

    Attributes:
        failures: since its last wait began, or since nothing was for a window.
        in_window: all of them, for the count of the address.
        waits: how often it has had to wait.
        at: when it failed last, in seconds since the epoch.
        until: until when it waits; 0.0 for not at all.
    """

    failures: int
    in_window: int
    waits: int
    at: float
    until: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How many of a name's tries are used up; they come back one by one.

    Attributes:
        tries: at that time.
        at: seconds since the epoch.
    """

    tries: float
    at: float


def wait_seconds(
    *,
    pair: Pair | None,
    level: Level | None,
    address_failures: int,
    standing: Standing,
    now: float,
    rules: LockOutRules = DEFAULT_RULES,
) -> float:
    """Return how long a name has to wait at an address; 0.0 for not at all.

    Args:
        pair: what is kept of the name from there.
        level: what is kept of the name.
        address_failures: from there within the window, over all names.
        standing: what is known of the address for the name.
        now: in seconds since the epoch.
        rules: the limits.
    """
    return max(
        pair_wait_seconds(pair, address_failures, now, rules),
        name_wait_seconds(level, standing, now, rules),
    )


def pair_wait_seconds(
    pair: Pair | None, address_failures: int, now: float, rules: LockOutRules
) -> float:
    """Return how long a name has to wait for its failures from the same address."""
    if pair is None or _is_forgotten(pair.at, now, rules):
        return 0.0
    until = pair.until
    if (
        address_failures >= rules.address_failures
        and pair.failures >= rules.pair_failures_if_busy
        and _is_in_window(pair.at, now, rules)
    ):
        until = max(until, pair.at + _length_seconds(pair.waits, rules))
    return _soon(min(until - now, rules.longest_wait_seconds))


def name_wait_seconds(
    level: Level | None, standing: Standing, now: float, rules: LockOutRules
) -> float:
    """Return how long a name has to wait for its failures from anywhere."""
    if standing is Standing.GOOD:
        return 0.0
    is_known = standing is Standing.KNOWN
    most = rules.name_failures_if_known if is_known else rules.name_failures
    too_many = _tries_now(level, now, rules) + 1 - most
    return _soon(too_many * rules.window_seconds / rules.name_failures)


def pair_after_failure(
    pair: Pair | None,
    address_failures: int,
    now: float,
    rules: LockOutRules = DEFAULT_RULES,
) -> Pair:
    """Return what is kept of a name from an address after one more failure.

    Args:
        pair: what was kept.
        address_failures: from there within the window, without this one.
        now: in seconds since the epoch.
        rules: the limits.
    """
    if pair is None or _is_forgotten(pair.at, now, rules):
        pair = Pair(failures=0, in_window=0, waits=0, at=now)
    goes_on = _is_in_window(pair.at, now, rules)
    failures = pair.failures + 1 if goes_on else 1
    in_window = pair.in_window + 1 if goes_on else 1
    is_busy = address_failures >= rules.address_failures
    most = rules.pair_failures_if_busy if is_busy else rules.pair_failures
    waits, until = pair.waits, pair.until
    if failures >= most:
        until = now + _length_seconds(waits, rules)
        failures, waits = 0, waits + 1
    return Pair(
        failures=failures, in_window=in_window, waits=waits, at=now, until=until
    )


def level_after_failure(
    level: Level | None, now: float, rules: LockOutRules = DEFAULT_RULES
) -> Level:
    """Return what is kept of a name after one more failure, wherever it was."""
    # More than the most would make it wait longer, for tries that nobody has had.
    most = float(max(rules.name_failures, rules.name_failures_if_known))
    return Level(tries=min(most, _tries_now(level, now, rules) + 1), at=now)


def level_after_success(
    level: Level | None, now: float, rules: LockOutRules = DEFAULT_RULES
) -> Level:
    """Return what is kept of a name after a success: that try is given back.

    Not all of them: who guesses at the name elsewhere would begin anew with them.
    """
    return Level(tries=max(0.0, _tries_now(level, now, rules) - 1), at=now)


def address_key(text: str) -> str:
    """Return under what an address is counted.

    An IPv6 address counts by its /64, which one machine can have all of.
    """
    try:
        return str(IPv4Address(text))
    except AddressValueError:
        pass
    try:
        address = IPv6Address(text.partition("%")[0])
    except AddressValueError:
        return UNKNOWN_ADDRESS
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


def name_key(name: str) -> str:
    """Return under what a name is counted: short, and fit to be written down."""
    kept = name[:LONGEST_KEPT_NAME]
    return kept.encode("utf-8", "backslashreplace").decode("utf-8")


def _is_from_a_wrong_clock(at: float, now: float) -> bool:
    return at > now + CLOCK_SLACK_SECONDS


def _is_forgotten(at: float, now: float, rules: LockOutRules) -> bool:
    return _is_from_a_wrong_clock(at, now) or now - at >= rules.forget_seconds


def _is_in_window(at: float, now: float, rules: LockOutRules) -> bool:
    return now - at < rules.window_seconds


def _tries_now(level: Level | None, now: float, rules: LockOutRules) -> float:
    if level is None or _is_from_a_wrong_clock(level.at, now):
        return 0.0
    per_second = rules.name_failures / rules.window_seconds
    return max(0.0, level.tries - max(0.0, now - level.at) * per_second)


def _length_seconds(waits: int, rules: LockOutRules) -> float:
    doubled = rules.first_wait_seconds * 2.0 ** min(waits, _MOST_DOUBLINGS)
    return min(doubled, rules.longest_wait_seconds)


def _soon(seconds: float) -> float:
    """Return a wait, and none for what is left of one by rounding."""
    return seconds if seconds >= _INSTANT_SECONDS else 0.0
