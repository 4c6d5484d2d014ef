"""How many may wait for a login at once, in all and from one address.

Owns two bounds, so that a flood from one place costs bounded memory and leaves the
others a way in.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tornado.web import HTTPError

_MOST = 1000
_MOST_FROM_ONE = 500
"""A room behind one address, all at once and each twice."""


class WaitingRoom:
    """Counts who waits. Not for several threads."""

    def __init__(self) -> None:
        self._by_address: Counter[str] = Counter()

    @contextmanager
    def place(self, address: str) -> Iterator[None]:
        """Take a place while something is asked.

        Raises:
            HTTPError: 503, for there is none.
        """
        is_full = self._by_address.total() >= _MOST
        if is_full or self._by_address[address] >= _MOST_FROM_ONE:
            raise HTTPError(503, "Too many log in at this moment. Try again in 10 s.")
        self._by_address[address] += 1
        try:
            yield
        finally:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]
