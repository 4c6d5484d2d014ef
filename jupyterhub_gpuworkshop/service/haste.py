"""How often an attendee may ask for something that costs others.

Owns the counting. Who has memory taken or a server stopped has everything looked at
anew and leaves an event, and the history is bounded: who asks without end would push
out what happened to others. Who pins has a file written for each, which those who park
kernels wait for.
"""

import time
from collections import deque
from collections.abc import Callable

from jupyterhub_gpuworkshop.core.errors import ActRefused

from .web.auth import Viewer

_MOST = 12
_WITHIN_SECONDS = 60.0


class Haste:
    """Counts who asks.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[str, deque[float]] = {}

    def count(self, viewer: Viewer) -> None:
        """Count one more; organisers may ask as often as they like.

        Raises:
            ActRefused: it is too much.
        """
        if viewer.is_organiser:
            return
        since = self._clock() - _WITHIN_SECONDS
        self._asked = {x: at for x, at in self._asked.items() if at[-1] > since}
        asked = self._asked.get(viewer.name, deque())
        while asked and asked[0] <= since:
            asked.popleft()
        if len(asked) >= _MOST:
            raise ActRefused(
                f"You have asked for {_MOST} things within a minute: wait a little."
            )
        asked.append(self._clock())
        self._asked[viewer.name] = asked
