"""Robot attendees: they do with browser and kernel what people do.

Owns the carrying out of a plan, and how a robot takes it when something fails: a share
is refused, memory runs out, a kernel was restarted while it was away.
"""

import asyncio
import itertools
import logging
from collections.abc import Iterator

import aiohttp

from .browser import Browser, BrowserError, Kernel, KernelGone
from .habits import Compute, Forget, Habit, Hold, Step, Think, plan

_SETUP = "from jupyterhub_gpuworkshop.notebook import simcuda"
_CELL_SECONDS = 60.0
"""How long a cell may take beyond what it computes; starting a kernel counts."""
_LONGEST_PAUSE_SECONDS = 600.0

log = logging.getLogger(__name__)


class Robot:
    """One attendee.

    Args:
        name: the attendee's.
        password: every attendee's.
        base_url: the hub's public URL; ends in ``/``.
        habit: what it is like.
        share_bytes: what it may hold.
        idle_seconds: after how long an idle kernel is reclaimed.
    """

    def __init__(
        self,
        *,
        name: str,
        password: str,
        base_url: str,
        habit: Habit,
        share_bytes: int,
        idle_seconds: float,
    ) -> None:
        self._name = name
        self._password = password
        self._base_url = base_url
        self._habit = habit
        self._idle_seconds = idle_seconds
        self._steps: Iterator[Step] = plan(habit, share_bytes, idle_seconds)

    async def live(self) -> None:
        """Attend the workshop until cancelled."""
        await asyncio.sleep(self._habit.arrival_seconds)
        for attempt in itertools.count(1):
            try:
                async with Browser(self._base_url) as browser:
                    await self._attend(browser)
            except (BrowserError, aiohttp.ClientError, asyncio.TimeoutError) as error:
                log.info("%s tries again later: %s", self._name, error)
            except Exception:
                # One attendee's mishap is not the end of the workshop.
                log.exception("%s tries again later", self._name)
            # Who was sent away several times asks less often.
            pause = self._habit.patience_seconds * min(attempt, 4)
            await asyncio.sleep(min(pause, _LONGEST_PAUSE_SECONDS))

    async def _attend(self, browser: Browser) -> None:
        await browser.log_in(self._name, self._password)
        await browser.start_server()
        while True:
            kernel = await browser.open_notebook(self._habit.notebook)
            try:
                away_seconds = await self._work(kernel)
            except KernelGone as error:
                log.info("%s opens the notebook again: %s", self._name, error)
                away_seconds = self._habit.patience_seconds / 2
            finally:
                await kernel.close()
            await asyncio.sleep(away_seconds)

    async def _work(self, kernel: Kernel) -> float:
        """Run cells until the robot forgets its notebook.

        Returns:
            For how many seconds it is forgotten.
        """
        await kernel.run(_SETUP, _CELL_SECONDS)
        for step in self._steps:
            if isinstance(step, Forget):
                return step.seconds
            await self._carry_out(kernel, step)
        raise AssertionError("plans have no end")

    async def _carry_out(self, kernel: Kernel, step: Step) -> None:
        if isinstance(step, Think):
            await asyncio.sleep(step.seconds)
            return
        code, seconds = cell_of(step)
        failed = await kernel.run(code, seconds + _CELL_SECONDS)
        if failed == "NameError":  # it was restarted: what it knew is gone
            await kernel.run(_SETUP, _CELL_SECONDS)
            failed = await kernel.run(code, seconds + _CELL_SECONDS)
        if failed:
            log.info("%s met %s in: %s", self._name, failed, code)
            await asyncio.sleep(self._habit.patience_seconds / 2)


def cell_of(step: Step) -> tuple[str, float]:
    """Return the code of a step's cell, and for how many seconds it computes."""
    if isinstance(step, Hold):
        # What was held before goes first, as a person would restart a cell.
        return f"weights = None; weights = simcuda.allocate({step.memory_bytes})", 0.0
    if isinstance(step, Compute):
        return f"simcuda.compute({step.seconds:.2f})", step.seconds
    raise TypeError(f"{step!r} has no cell")
