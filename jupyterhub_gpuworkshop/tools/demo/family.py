"""Every process that the demo has started, and those that these have started.

Owns finding them all and ending them all, and only them. Servers, kernels and what
runs in them have sessions and parents of their own; as a *subreaper* the demo becomes
the parent of whoever loses his (prctl(2), PR_SET_CHILD_SUBREAPER).
"""

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_STEP_SECONDS = 0.05


class Family:
    """All descendants of this process, from now on.

    Make it before the first process is started, and `reap` now and then.
    """

    def __init__(self) -> None:
        self._me = psutil.Process()
        # A shell that started something before it became us: not ours to end.
        self._strangers = {(p.pid, p.create_time()) for p in self._descendants()}
        _set_subreaper(True)

    def members(self) -> list[psutil.Process]:
        """Return the living ones; those that await reaping do not live."""
        ours = {self._me.pid}
        found = []
        # Parents come before their children. What a stranger starts is his.
        for process in self._descendants():
            with contextlib.suppress(psutil.Error):
                if (process.pid, process.create_time()) in self._strangers:
                    continue
                if process.ppid() in ours:
                    ours.add(process.pid)
                    if process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
        return found

    def reap(self, *, leave: int) -> None:
        """Let the dead go that have become our children.

        Args:
            leave: the child whose exit status somebody else waits for.
        """
        for child in self._children():
            with contextlib.suppress(psutil.Error, ChildProcessError):
                dead = child.status() == psutil.STATUS_ZOMBIE
                if dead and child.pid != leave:
                    os.waitpid(child.pid, os.WNOHANG)

    async def end(self, *, leave: int, patience_seconds: float) -> bool:
        """End them all: asked first, then not.

        Args:
            leave: see `reap`.
            patience_seconds: how long they may take to end by themselves.

        Returns:
            Whether none is left.
        """
        if patience_seconds:
            self._each(psutil.Process.terminate)
            await self._gone(leave, patience_seconds)
        # Who is being started just now is seen at the next look.
        for _ in range(100):
            self._each(psutil.Process.kill)
            if await self._gone(leave, _STEP_SECONDS):
                _set_subreaper(False)
                return True
        return False

    async def _gone(self, leave: int, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        # Twice: whose parent dies during a look is missed by that look.
        while self.members() or self.members():
            self.reap(leave=leave)
            if loop.time() >= until:
                return False
            await asyncio.sleep(_STEP_SECONDS)
        self.reap(leave=leave)
        return True

    def _each(self, act: Callable[[psutil.Process], None]) -> None:
        for process in self.members():
            # psutil compares the start time first: never another of that number.
            with contextlib.suppress(psutil.Error):
                act(process)

    def _descendants(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return self._me.children(recursive=True)
        return []

    def _children(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            return self._me.children()
        return []


def _set_subreaper(on: bool) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)
