"""How many may wait for a login at once, in all and from one address.

Owns two bounds, so that a flood from one place costs bounded memory and leaves the
others a way in.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from tornado.web import HTTPError

from jupyterhub_gpuworkshop.core.lock_out import address_key

_MOST = 1000
_MOST_FROM_ONE = 500
"""A room behind one address, all at once and each twice."""


class WaitingRoom:
    """Counts who waits. Not for several threads.

    Args:
        most: how many may wait.
        most_from_one: how many of them from one address, or what one machine has.
    """

    def __init__(self, most: int = _MOST, most_from_one: int = _MOST_FROM_ONE) -> None:
        self._most = most
        self._most_from_one = most_from_one
        self._by_address: Counter[str] = Counter()

    @contextmanager
    def place(self, address: str) -> Iterator[None]:
        """Take a place while something is asked.

        Raises:
            HTTPError: 503, for there is none.
        """
        one = address_key(address)
        is_full = self._by_address.total() >= self._most
        if is_full or self._by_address[one] >= self._most_from_one:
            raise HTTPError(503, "Too many log in at this moment. Try again in 10 s.")
        self._by_address[one] += 1
        try:
            yield
        finally:
            self._by_address[one] -= 1
            if not self._by_address[one]:
                del self._by_address[one]
