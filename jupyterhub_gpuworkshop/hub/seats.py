"""Seats: how many of the roster's attendees get in, the first that come.

Owns who has one. An attendee with an account at the hub has; who is about to get an
account holds one until then, so that of two who come at once for the last seat one
gets it. It makes no account and takes none away.
"""

import time
from collections.abc import Callable, Collection
from typing import Any

from jupyterhub import orm

HELD_SECONDS = 60.0
"""How long a seat waits for its account, which the hub makes at once unless a hook of
an admin's fails."""

NO_SEAT = (
    "All seats are taken: the workshop has no room for more attendees. Ask the "
    "organisers."
)


class Seats:
    """The seats of one hub; to be asked on its loop only.

    Args:
        most: how many there are; 0 for no limit.
        clock: seconds that only go forward.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self._clock = clock
        self._held: dict[str, float] = {}

    def take(
        self, name: str, attendees: Collection[str], accounts: Collection[str]
    ) -> bool:
        """Hold a seat for an attendee, who may have one already.

        Args:
            name: the attendee's.
            attendees: who may have one: all on the roster but organisers.
            accounts: the names of the hub's users.

        Returns:
            Whether there is one. What is held for somebody else may come free again
            within `HELD_SECONDS`.
        """
        if not self.most or name in accounts:
            return True
        holders = self._holders(accounts)
        with_account = set(attendees).intersection(accounts)
        if name not in holders and len(with_account | holders) >= self.most:
            return False
        self._held[name] = self._clock()
        return True

    def release(self, name: str) -> None:
        """Take back a seat that was held for nobody."""
        self._held.pop(name, None)

    def _holders(self, accounts: Collection[str]) -> set[str]:
        """Return who holds a seat and has no account yet."""
        since = self._clock() - HELD_SECONDS
        self._held = {
            name: at
            for name, at in self._held.items()
            if at > since and name not in accounts
        }
        return set(self._held)


def account_names(db: Any) -> set[str]:
    """Return the names of the hub's users."""
    return {name for (name,) in db.query(orm.User.name)}
