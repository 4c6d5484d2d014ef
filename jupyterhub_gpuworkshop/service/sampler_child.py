"""One child process that answers a line with a line.

Owns its pipes and its end. What is asked, and what an answer means, is `sampler`'s.
"""

import asyncio
import contextlib
import signal
from asyncio import SubprocessTransport, WriteTransport
from collections.abc import Sequence
from typing import cast

from jupyterhub_gpuworkshop.core.errors import SourceLost

_DIES_WITHIN_SECONDS = 1.0
_ROUNDS = 5
_MOST_BYTES = 64 * 2**20
"""Of an answer: 64 devices with 1,000 processes each take 6 MB."""


async def see_end(endings: "Sequence[asyncio.Future[None]]") -> None:
    """Wait a while until all have ended.

    In rounds: of a machine that was suspended meanwhile the clock has gone on, and
    what had a moment to end had none.
    """
    for _ in range(_ROUNDS):
        _, still = await asyncio.wait(endings, timeout=_DIES_WITHIN_SECONDS / _ROUNDS)
        if not still:
            return


class Child(asyncio.SubprocessProtocol):
    """One child, which answers a line with a line.

    Attributes:
        asked: how many requests it was sent.
        ended: done when it has ended.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pid = 0
        self._buffer = bytearray()
        self._line: asyncio.Future[bytes] | None = None
        self._is_silent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(SubprocessTransport, transport)
        self.pid = self._transport.get_pid()

    def write(self, line: bytes) -> None:
        """Send a line."""
        cast(WriteTransport, self._transport.get_pipe_transport(0)).write(line)

    async def line(self) -> bytes:
        """Return the next line; nothing may have been said before it was waited for.

        Raises:
            SourceLost: the child has ended, or says more than one line.
        """
        self._line = asyncio.get_running_loop().create_future()
        self._look_for_line()
        try:
            return await self._line
        except EOFError:
            await see_end([self.ended])
            raise SourceLost(
                f"The process that reads the GPUs has ended ({self._how()}); a new one "
                "is started."
            ) from None
        finally:
            self._line = None

    def kill(self) -> None:
        """Kill it, and wait for nothing."""
        with contextlib.suppress(ProcessLookupError):
            self._transport.kill()
        for descriptor in (0, 1):
            pipe = self._transport.get_pipe_transport(descriptor)
            if pipe is not None:
                pipe.close()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keep what it says."""
        self._buffer += data
        if len(self._buffer) > _MOST_BYTES:
            self.kill()  # it would fill this process's memory
        self._look_for_line()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """Notice that it says nothing more."""
        if fd == 1:
            self._is_silent = True
            self._look_for_line()
            self._close_when_over()

    def process_exited(self) -> None:
        """Notice its end."""
        if not self.ended.done():
            self.ended.set_result(None)
        self._close_when_over()

    def _close_when_over(self) -> None:
        if self._is_silent and self.ended.done():
            self._transport.close()

    def _look_for_line(self) -> None:
        if self._line is None or self._line.done():
            return
        if self._buffer.endswith(b"\n"):
            line = bytes(self._buffer)
            self._buffer.clear()
            self._line.set_result(line)
        elif self._is_silent:
            self._line.set_exception(EOFError())

    def _how(self) -> str:
        code = self._transport.get_returncode()
        if code is None:
            return "its pipe is closed"
        if code >= 0:
            return f"exit status {code}"
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
