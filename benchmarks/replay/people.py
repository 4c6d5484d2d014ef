"""What attendees do in a workshop, second by second: values, and nothing that happens.

Owns the words of a replay. Times are seconds since the workshop began.
"""

from dataclasses import dataclass
from enum import Enum

Span = tuple[float, float]
"""(begin, end)."""


class Doing(str, Enum):
    """What a piece of work looks like from outside."""

    CELL = "cell"
    """Its kernel is busy."""
    THREAD = "thread"
    """It goes on behind an idle kernel, in its process or in a child of it."""
    MOVE = "move"
    """The owner moves a slider: a callback runs, and no cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One piece of work of one kernel.

    Attributes:
        begin: when it begins.
        end: when it ends.
        doing: what it looks like.
        gpu: the part of its time in which it computes on the GPU.
        cpu: cores, of the process that does it.
        workers: processes below it, which do the same all the time.
        worker_cpu: cores, of each of them.
        child_bytes: where it is set, a child of the kernel does the work and holds so
            much GPU memory.
        prints_every_seconds: a cell that prints so often; 0 for a silent one.
    """

    begin: float
    end: float
    doing: Doing
    gpu: float = 0.0
    cpu: float = 0.0
    workers: int = 0
    worker_cpu: float = 0.0
    child_bytes: int = 0
    prints_every_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One notebook's kernel, as its owner means to use it.

    Attributes:
        id: its Jupyter kernel id.
        memory_bytes: GPU memory that it holds from the first cell on.
        works: what is done with it, by begin; cells never overlap.
        touches: when its page sends what a server may take for activity, by time.
        idle_cpu: cores that it uses while it does nothing.
        chatter: when a widget's page talks to it, at `chatter_cpu` cores.
        chatter_cpu: what that costs.
    """

    id: str
    memory_bytes: int
    works: tuple[Work, ...]
    touches: tuple[float, ...] = ()
    idle_cpu: float = 0.003
    chatter: Span = (0.0, 0.0)
    chatter_cpu: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """A terminal in which a training runs.

    Attributes:
        begin: when the training begins; the terminal is opened right before.
        end: when it ends.
        closed_at: when the terminal is closed: under ``nohup`` the training goes on.
        memory_bytes: GPU memory that the training holds.
        gpu: as of `Work`.
        cpu: as of `Work`.
    """

    begin: float
    end: float
    closed_at: float
    memory_bytes: int
    gpu: float
    cpu: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendee:
    """One attendee with one server.

    Attributes:
        name: at the hub.
        habit: one of `habits.HABITS`.
        begin: when the server is up.
        kernels: its kernels.
        terminals: its terminals.
        tab: when a browser shows it.
        counts_messages: the server takes what a page sends for activity although our
            settings say otherwise, as those before jupyter_server 2.15 do.
    """

    name: str
    habit: str
    begin: float
    kernels: tuple[Kernel, ...]
    terminals: tuple[Terminal, ...]
    tab: tuple[Span, ...]
    counts_messages: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """All of it.

    Attributes:
        seed: what it was made from.
        seconds: how long it lasts.
        attendees: who is there.
        needs: when somebody waits who was refused a share.
    """

    seed: int
    seconds: float
    attendees: tuple[Attendee, ...]
    needs: tuple[Span, ...]
