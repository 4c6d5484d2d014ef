"""Notes to a kernel's owner: the first cell run in it says what has happened to it.

Owns leaving them: in the kernel itself, over its websocket, since nothing may be put
into an attendee's home. Only IPython's kernels take one. Notes that wait for somebody
to connect are forgotten when the service stops.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from jupyterhub_gpuworkshop.core.errors import ServerError
from jupyterhub_gpuworkshop.core.leases import Key
from jupyterhub_gpuworkshop.core.wire import ServerInfo
from jupyterhub_gpuworkshop.machine.timeouts import timeout

from .kernel_channel import kernel_channel
from .server_answers import Answer

_LOG = logging.getLogger(__name__)
_OPEN_SECONDS = 60.0
"""A server waits for so long for a kernel that starts."""

_REPLY_SECONDS = 30.0
_MOST_TRIES = 5
_MOST_AT_ONCE = 20
_GONE = Answer(kernels={})

_REGISTER = """
import sys
from IPython import get_ipython
from jupyterhub_gpuworkshop.machine.timeouts import timeout

shell = get_ipython()

def tell(info=None):
    try:
        print(text, file=sys.stderr, flush=True)
    finally:
        shell.events.unregister("pre_run_cell", tell)

shell.events.register("pre_run_cell", tell)
"""


def note_code(text: str) -> str:
    """Return a cell that has the next one say `text` first, and leaves no name.

    IPython runs `pre_run_cell` for what people run, and not for silent requests, such
    as this one and those of pages.
    """
    return f"exec({_REGISTER!r}, {{'text': {text!r}}})"


async def leave_note(
    server: ServerInfo,
    kernel_id: str,
    text: str,
    *,
    open_seconds: float = _OPEN_SECONDS,
    reply_seconds: float = _REPLY_SECONDS,
) -> bool:
    """Have the next cell that is run in a kernel say something first, once.

    Only for a kernel that somebody is connected to (`kernel_channel`).

    Args:
        server: the kernel's.
        kernel_id: the Jupyter kernel id.
        text: what to say; anything.
        open_seconds: how long the kernel may take to start.
        reply_seconds: how long it may take to answer.

    Returns:
        False where the kernel is none of IPython's, or would not have it.

    Raises:
        ServerError: it cannot be talked to; nothing was left.
    """
    async with kernel_channel(server, kernel_id, open_seconds) as channel:
        await channel.send("kernel_info_request", {})
        try:
            async with timeout(reply_seconds):
                info = await channel.reply_to("kernel_info_request")
        except asyncio.TimeoutError:
            raise ServerError("its kernel is busy") from None
        language = info.get("language_info")
        if (
            info.get("implementation") != "ipython"
            or not isinstance(language, dict)
            or language.get("name") != "python"
        ):
            return False
        await channel.send(
            "execute_request",
            {
                "code": note_code(text),
                "silent": True,
                "store_history": False,
                "user_expressions": {},
                "allow_stdin": False,
                # Else a failure of ours would drop the owner's cells that wait.
                "stop_on_error": False,
            },
        )
        try:
            async with timeout(reply_seconds):
                done = await channel.reply_to("execute_request")
        except (asyncio.TimeoutError, ServerError):
            return True  # it waits behind a cell of the owner's, and is run after it
        return done.get("status") == "ok"


@dataclass(slots=True)
class _Note:
    """One that waits."""

    server: ServerInfo
    text: str
    tries: int = 0


class KernelNotes:
    """Leaves notes in kernels, each as soon as somebody is connected to its kernel.

    Before that nobody could run a cell; and a websocket of ours would cost the owner
    what the kernel said after the page lost its connection.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], _Note] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    def add(self, server: ServerInfo, kernel_id: str, text: str) -> None:
        """Take a note on for a kernel; a newer one replaces it."""
        self._waiting[server.lease_id, kernel_id] = _Note(server, text)

    @property
    def waiting(self) -> frozenset[tuple[str, str]]:
        """(lease id, kernel id) of the kernels with a note that is not yet left."""
        return frozenset(self._waiting)

    def step(self, answers: Mapping[Key, Answer]) -> None:
        """Begin to leave the notes that can be left, and forget the others.

        Args:
            answers: what every server that runs says of its kernels.
        """
        for owner, note in list(self._waiting.items()):
            answer = answers.get((note.server.user, note.server.server), _GONE)
            if answer.kernels is None or owner in self._tasks:
                continue
            kernel = answer.kernels.get(owner[1])
            if kernel is None:
                del self._waiting[owner]
            elif kernel.connections and len(self._tasks) < _MOST_AT_ONCE:
                task = asyncio.ensure_future(self._leave(owner, note))
                self._tasks[owner] = task
                task.add_done_callback(partial(self._left, owner))

    async def close(self) -> None:
        """Let go of what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _left(self, owner: tuple[str, str], task: "asyncio.Task[None]") -> None:
        del self._tasks[owner]

    async def _leave(self, owner: tuple[str, str], note: _Note) -> None:
        note.tries += 1
        problem = ""
        try:
            if not await leave_note(note.server, owner[1], note.text):
                problem = "it is none of IPython's, or would not have it"
        except ServerError as error:
            problem = str(error)
            if note.tries < _MOST_TRIES:
                return
        if problem:
            _LOG.info(
                "No note is left in kernel %s of %s: %s",
                owner[1],
                note.server.user,
                problem,
            )
        if self._waiting.get(owner) is note:
            del self._waiting[owner]
