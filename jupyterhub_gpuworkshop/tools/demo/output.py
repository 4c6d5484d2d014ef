"""Where the demo's lines and its table go.

Owns writing to stdout without ever holding up the demo: a pipe that nobody reads and a
terminal that is paused would otherwise keep it from ending.
"""

import contextlib
import os
import queue
import select
import threading
from collections.abc import Callable

from rich.console import Console
from rich.live import Live

from .table import View, render

_LAST_WORDS_SECONDS = 1.0
_FRAMES_PER_SECOND = 2.0


class Lines:
    """Writes lines to a file descriptor, from a thread of its own.

    Args:
        descriptor: of the file, pipe or terminal.
        lost: called, from that thread, when nobody can read any more.
    """

    def __init__(self, descriptor: int, lost: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._lost = lost
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Write a line, soon."""
        self._queue.put(line)

    def close(self) -> None:
        """Write what is left, as far as somebody reads it."""
        self._queue.put(None)
        self._thread.join(_LAST_WORDS_SECONDS)

    def _write_all(self) -> None:
        while (line := self._queue.get()) is not None:
            left = (line + "\n").encode()
            try:
                while left:
                    left = left[os.write(self._descriptor, left) :]
            except OSError:
                self._lost()
                return


class LiveTable:
    """Shows a table that is drawn anew twice a second, from a thread of rich's."""

    def __init__(self, view: View) -> None:
        self.view = view
        """What is shown from the next frame on."""
        self._console = Console()
        self._live = Live(
            console=self._console,
            screen=True,
            refresh_per_second=_FRAMES_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=self._frame,
        )

    def start(self) -> None:
        """Take over the terminal."""
        self._live.start(refresh=True)

    def stop(self) -> None:
        """Give the terminal back, unless it is gone or paused."""

        def stop() -> None:
            with contextlib.suppress(OSError):
                self._live.stop()

        thread = threading.Thread(target=stop, daemon=True)
        thread.start()
        thread.join(_LAST_WORDS_SECONDS)

    def _frame(self):  # type: ignore[no-untyped-def]  # rich's type is an alias of Any
        size = self._console.size
        return render(self.view, size.width, size.height)


def is_lost(descriptor: int) -> bool:
    """Return whether the reader of a pipe, or a terminal, has gone away."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(
        happened & (select.POLLERR | select.POLLHUP | select.POLLNVAL)
        for _, happened in poll.poll(0)
    )
