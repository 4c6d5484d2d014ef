"""Loops that run for ever, and blocking calls that may not hold one up.

Owns the one way in which this process runs a loop, and the one way in which it makes
a call that may hang: into the driver, into /proc, onto a disk.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from jupyterhub_gpuworkshop.core.errors import CallHangs
from jupyterhub_gpuworkshop.machine.timeouts import timeout

T = TypeVar("T")
_Job = Callable[[], None]


async def forever(
    name: str,
    step: Callable[[], Awaitable[None]],
    *,
    interval_seconds: float,
    log: "logging.Logger | logging.LoggerAdapter[logging.Logger]",
) -> None:
    """Run a step again and again, whatever it raises.

    Args:
        name: what the step does, for the log.
        step: one round.
        interval_seconds: from the start of one round to the start of the next, which
            never overlap.
        log: where an error goes: each new one once, not at every round.
    """
    last_error = ""
    while True:
        began = time.monotonic()
        try:
            await step()
            last_error = ""
        except Exception as error:
            if repr(error) != last_error:
                last_error = repr(error)
                log.exception("%s failed; it goes on", name)
        await asyncio.sleep(max(0.0, began + interval_seconds - time.monotonic()))


class OneThread:
    """Makes blocking calls in one thread of its own, one at a time.

    A call that hangs keeps this thread and nothing else: no second thread piles up
    behind it, and the process can exit.

    Args:
        what: what does not answer when a call hangs, for the message.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy_since: float | None = None
        # Who waits here waits for a call that is on time, never for one that hangs.
        self._turn = asyncio.Lock()

    async def call(self, function: Callable[[], T], timeout_seconds: float) -> T:
        """Return what the function returns.

        Raises:
            CallHangs: it, or the call before it, has not come back.
        """
        async with self._turn:
            if self._busy_since is not None:
                raise self._hangs(time.monotonic() - self._busy_since)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=f"gpuworkshop: {self._what}", daemon=True
                )
                self._thread.start()
            loop = asyncio.get_running_loop()
            future: asyncio.Future[T] = loop.create_future()
            self._busy_since = time.monotonic()
            self._jobs.put(lambda: self._do(function, loop, future))
            try:
                async with timeout(timeout_seconds):
                    return await future
            except asyncio.TimeoutError:
                raise self._hangs(timeout_seconds) from None

    def _hangs(self, seconds: float) -> CallHangs:
        return CallHangs(f"{self._what} has not answered for {seconds:.0f} s.")

    def _run(self) -> None:
        while True:
            self._jobs.get()()

    def _do(
        self,
        function: Callable[[], T],
        loop: asyncio.AbstractEventLoop,
        future: "asyncio.Future[T]",
    ) -> None:
        """Make one call, in the thread."""
        try:
            result = function()
        except Exception as error:
            self._hand_over(loop, self._failed, future, error)
        else:
            self._hand_over(loop, self._succeeded, future, result)

    @staticmethod
    def _hand_over(
        loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: object
    ) -> None:
        # A call that came back after the loop was closed interests nobody.
        if not loop.is_closed():
            loop.call_soon_threadsafe(function, *args)

    def _succeeded(self, future: "asyncio.Future[T]", result: T) -> None:
        self._busy_since = None
        if not future.done():
            future.set_result(result)

    def _failed(self, future: "asyncio.Future[T]", error: Exception) -> None:
        self._busy_since = None
        if not future.done():
            future.set_exception(error)
