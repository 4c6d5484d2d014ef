"""One attendee's day in the making.

Owns the words in which habits are told: a cell, a thought, a thread, a closed laptop.
"""

import random
from dataclasses import dataclass, field

from jupyterhub_gpuworkshop.core.units import GIB, MIB

from .people import Doing, Span, Terminal, Work

MINUTE = 60.0


@dataclass(slots=True)
class Notebook:
    """A kernel in the making."""

    memory_bytes: int
    works: list[Work] = field(default_factory=list)
    chatter: Span = (0.0, 0.0)
    chatter_cpu: float = 0.0


@dataclass(slots=True)
class Diary:
    """One attendee's day in the making: every method writes down what comes next.

    Attributes:
        random: what decides.
        end: when the workshop ends.
        now: up to where it is written.
    """

    random: random.Random
    end: float
    now: float
    notebooks: list[Notebook] = field(default_factory=list)
    terminals: list[Terminal] = field(default_factory=list)
    closed: list[Span] = field(default_factory=list)
    at: int = 0

    def between(self, low: float, high: float) -> float:
        """Return anything between two numbers."""
        return self.random.uniform(low, high)

    def minutes(self, low: float, high: float) -> float:
        """Return anything between two numbers of minutes, in seconds."""
        return self.between(low, high) * MINUTE

    def open(self, most_bytes: float = 6.0 * GIB) -> None:
        """Open a notebook and turn to it."""
        size_bytes = int(self.between(768 * MIB, max(most_bytes, 800 * MIB)))
        self.notebooks.append(Notebook(memory_bytes=size_bytes))
        self.at = len(self.notebooks) - 1

    def cell(self, seconds: float, *, workers: int = 0, waits: bool = False) -> None:
        """Run a cell to its end; one that waits is busy and does next to nothing."""
        chatty = not waits and self.random.random() < 0.4
        self._write(
            Work(
                begin=self.now,
                end=self.now + seconds,
                doing=Doing.CELL,
                gpu=0.0 if waits else self.between(0.05, 1.0),
                cpu=0.003 if waits else self.between(0.1, 1.0),
                workers=workers,
                worker_cpu=self.between(0.1, 0.9),
                prints_every_seconds=self.between(1, 30) if chatty else 0.0,
            )
        )
        self.now += seconds

    def think(self) -> None:
        """Read, write the next cell, ask a neighbour."""
        self.now += self.minutes(2, 15)

    def work_until(self, until: float) -> None:
        """Run a cell, think, run the next."""
        while self.now < min(until, self.end):
            self.cell(min(90.0, self.random.lognormvariate(2.3, 1.1)))
            self.think()

    def behind(self, seconds: float, **work: float | int) -> None:
        """Let a thread begin that works on behind the idle kernel."""
        self._write(
            Work(
                begin=self.now,
                end=self.now + seconds,
                doing=Doing.THREAD,
                **work,  # type: ignore[arg-type]  # the numbers of a Work
            )
        )

    def close_laptop(self, seconds: float) -> None:
        """Let no browser show anything for a while, from now on."""
        self.closed.append((self.now, self.now + seconds))

    def move_sliders(self) -> None:
        """Play with a widget for some seconds."""
        until = self.now + self.between(5, 40)
        while self.now < until:
            seconds = self.between(0.1, 0.6)
            self._write(
                Work(
                    begin=self.now,
                    end=self.now + seconds,
                    doing=Doing.MOVE,
                    gpu=self.between(0.0, 0.8),
                    cpu=1.0,
                )
            )
            self.now += seconds + self.between(0.3, 2.5)

    def chat_from_now(self) -> None:
        """Show a widget whose page talks to the kernel for as long as it is open."""
        notebook = self.notebooks[self.at]
        notebook.chatter = (self.now, self.end)
        notebook.chatter_cpu = self.between(0.005, 0.03)

    def _write(self, work: Work) -> None:
        self.notebooks[self.at].works.append(work)
