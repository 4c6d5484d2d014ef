"""One process, held by a handle that never comes to mean another.

Owns signalling a process that is to end, and waiting for its end, by pidfd: once the
handle is open and the start time is right, a later process of the same number cannot
be hit, however long the wait.
"""

import asyncio
import os
import signal

from .processes import is_alive
from .timeouts import timeout


class HeldProcess:
    """A process, for as long as the handle is open.

    Args:
        pidfd: the handle; `close` closes it.
    """

    def __init__(self, pidfd: int) -> None:
        self._pidfd = pidfd

    @classmethod
    def open(cls, pid: int, started: int) -> "HeldProcess | None":
        """Take hold of this very process; None where it has ended.

        Raises:
            OSError: this kernel has no pidfd (Linux before 5.3).
        """
        try:
            held = cls(os.pidfd_open(pid))
        except ProcessLookupError:
            return None
        # From here on it means one process for good; is it the right one?
        if not is_alive(pid, started):
            held.close()
            return None
        return held

    def send(self, signum: int) -> bool:
        """Send a signal; False where the process has ended.

        Raises:
            PermissionError: the process is somebody else's.
        """
        try:
            signal.pidfd_send_signal(self._pidfd, signum)
        except ProcessLookupError:
            return False
        return True

    async def ends_within(self, seconds: float) -> bool:
        """Wait for the end of the process; say whether it came in time."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._pidfd, ended.set)
        try:
            async with timeout(seconds):
                await ended.wait()
        except asyncio.TimeoutError:
            return False
        finally:
            loop.remove_reader(self._pidfd)
        return True

    def close(self) -> None:
        """Let go of it."""
        os.close(self._pidfd)
