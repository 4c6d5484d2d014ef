"""Kernels, terminals and servers as they run, with their processes.

Owns the processes, their memory and their time. What was begun before a kernel was
taken is gone; whoever comes back to it runs the notebook again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from .people import Attendee, Doing, Kernel, Terminal, Work
from .truth import KernelTruth

NEVER = float("-inf")
TICKS = 100
"""Clock ticks a second."""


@dataclass(slots=True)
class Meter:
    """The time that one process has used, up to `at`.

    Attributes:
        at: up to when it is known.
        cpu_seconds: of a processor.
        gpu_seconds: of its GPU.
    """

    at: float
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0

    def add(self, cpu_seconds: float, gpu_seconds: float = 0.0) -> None:
        """Count more."""
        self.cpu_seconds += cpu_seconds
        self.gpu_seconds += gpu_seconds


@dataclass(slots=True)
class Proc:
    """One process.

    Attributes:
        pid: its number, never given twice.
        born: when it began.
        meter: what it has used.
        memory_bytes: GPU memory.
    """

    pid: int
    born: float
    meter: Meter
    memory_bytes: int = 0

    @property
    def started(self) -> int:
        """When it began, in clock ticks since boot."""
        return round(self.born * TICKS)


NewProc = Callable[[float], Proc]
"""Makes a process that begins then."""


@dataclass(slots=True)
class LiveKernel:
    """A kernel with the processes of its present life.

    Attributes:
        kernel: what is meant to be done with it.
        truth: when it is in use.
        owner: whose it is.
        main: its process.
        taken_at: when its memory was last taken: what began before is gone.
        counts_messages: its server takes all messages of a page for activity.
        is_gone: it was stopped, and is there again when its owner is.
        below: the processes of each work that has some, by its place in `works`.
    """

    kernel: Kernel
    truth: KernelTruth
    owner: "LiveServer"
    main: Proc
    counts_messages: bool = False
    taken_at: float = NEVER
    is_gone: bool = False
    below: dict[int, list[Proc]] = field(default_factory=dict)
    _active: list[int] = field(default_factory=list)
    _cell: Work | None = None
    _next: int = 0
    _touched: int = 0

    def exists(self, at: float) -> bool:
        """Say whether its server lists it."""
        since = self.taken_at if self.is_gone else NEVER
        return self.truth.last_begin(at) > since

    def own_bytes(self, at: float) -> int:
        """Return the GPU memory that its main process holds."""
        if self.truth.last_begin(at) > self.taken_at:
            return self.kernel.memory_bytes
        return 0

    def held_bytes(self, at: float) -> int:
        """Return the GPU memory of the kernel with all that is below it."""
        works = self.kernel.works
        return self.own_bytes(at) + sum(
            works[n].child_bytes for n in self.below if works[n].end > at
        )

    def is_busy(self, at: float) -> bool:
        """Say whether a cell runs."""
        return self._cell is not None and at < self._cell.end

    def last_activity(self, at: float) -> float:
        """Return when its server last saw it active."""
        last, cell = max(self.taken_at, self.main.born), self._cell
        if cell is not None and at >= cell.end:
            last = max(last, cell.end)
        elif cell is not None:
            every = cell.prints_every_seconds
            printed = (at - cell.begin) // every * every if every else 0.0
            last = max(last, cell.begin + printed)
        if not self.counts_messages:
            return last
        touches = self.kernel.touches
        while self._touched < len(touches) and touches[self._touched] <= at:
            self._touched += 1
        return max(last, touches[self._touched - 1]) if self._touched else last

    def advance(self, at: float, new_proc: NewProc) -> None:
        """Let its processes live on up to now."""
        works = self.kernel.works
        while self._next < len(works) and works[self._next].begin <= at:
            # A thread is gone with the kernel whose cell began it.
            if self.truth.last_begin(works[self._next].begin) > self.taken_at:
                self._begin(self._next, new_proc)
            self._next += 1
        if at <= self.main.meter.at:
            return
        self._live(at)
        for number in [n for n in self._active if works[n].end <= at]:
            self._active.remove(number)
            self.below.pop(number, None)

    def _live(self, at: float) -> None:
        works, meter = self.kernel.works, self.main.meter
        since, meter.at = meter.at, at
        meter.cpu_seconds += self.kernel.idle_cpu * (at - since)
        chat_begin, chat_end = self.kernel.chatter
        if self.kernel.chatter_cpu and self.owner.is_shown(at):
            chat_seconds = max(0.0, min(at, chat_end) - max(since, chat_begin))
            meter.cpu_seconds += self.kernel.chatter_cpu * chat_seconds
        for number in self._active:
            work = works[number]
            if not work.child_bytes:
                seconds = max(0.0, min(at, work.end) - max(since, work.begin))
                meter.add(work.cpu * seconds, work.gpu * seconds)
            for proc in self.below.get(number, ()):
                seconds = max(0.0, min(at, work.end) - proc.meter.at)
                proc.meter.at = at
                if work.child_bytes:
                    proc.meter.add(work.cpu * seconds, work.gpu * seconds)
                else:
                    proc.meter.add(work.worker_cpu * seconds)

    def _begin(self, number: int, new_proc: NewProc) -> None:
        work = self.kernel.works[number]
        self._active.append(number)
        if work.doing is Doing.CELL:
            self._cell = work
        if work.child_bytes:
            child = new_proc(work.begin)
            child.memory_bytes = work.child_bytes
            self.below[number] = [child]
        elif work.workers:
            self.below[number] = [new_proc(work.begin) for _ in range(work.workers)]

    def end_life(self, at: float, main: Proc, *, is_gone: bool) -> None:
        """Let all its processes end, and the next one begin."""
        self.taken_at, self.main, self.is_gone = at, main, is_gone
        self._cell = None
        self._active.clear()
        self.below.clear()


@dataclass(slots=True)
class LiveTerminal:
    """A terminal's shell and the training in it."""

    terminal: Terminal
    shell: Proc
    training: Proc
    killed_at: float = float("inf")

    def shell_lives(self, at: float) -> bool:
        """Say whether the terminal is open."""
        until = min(self.terminal.closed_at, self.killed_at)
        return self.terminal.begin <= at < until

    def trains(self, at: float) -> bool:
        """Say whether the training runs."""
        return self.terminal.begin <= at < min(self.terminal.end, self.killed_at)

    def advance(self, at: float) -> None:
        """Let the training live on up to now."""
        meter, end = self.training.meter, min(self.terminal.end, self.killed_at)
        if at > meter.at:
            seconds = max(0.0, min(at, end) - meter.at)
            meter.at = at
            meter.add(self.terminal.cpu * seconds, self.terminal.gpu * seconds)


@dataclass(slots=True)
class LiveServer:
    """An attendee's server.

    Attributes:
        number: the seat.
        attendee: whose it is.
        main: its process.
        kernels: all that its attendee will ever have.
        terminals: likewise.
        life: how many servers the attendee had before this one.
        stopped_at: when it was last stopped.
    """

    number: int
    attendee: Attendee
    main: Proc
    kernels: list[LiveKernel] = field(default_factory=list)
    terminals: list[LiveTerminal] = field(default_factory=list)
    life: int = 0
    stopped_at: float = NEVER

    @property
    def in_unit(self) -> bool:
        """Whether it runs in a unit of systemd's, or as a mere process."""
        return self.number % 2 == 0

    def runs(self, at: float) -> bool:
        """Say whether it is up: stopped, it is up again when its owner is back."""
        if at < self.attendee.begin:
            return False
        return self.stopped_at == NEVER or self.comes_back_at() <= at

    def comes_back_at(self) -> float:
        """Return when its owner, after it was stopped, does something again."""
        begins = [k.truth.next_begin(self.stopped_at) for k in self.kernels]
        begins += [
            t.terminal.begin
            for t in self.terminals
            if t.terminal.begin > self.stopped_at
        ]
        return min(begins, default=float("inf"))

    def is_shown(self, at: float) -> bool:
        """Say whether a browser shows it."""
        return any(begin <= at < end for begin, end in self.attendee.tab)

    def last_activity(self, at: float) -> float:
        """Return the hub's `last_activity` of this server.

        A page that is open counts, since JupyterLab asks its server for kernels and
        terminals every few seconds, through the proxy.
        """
        shown = [min(at, end) for begin, end in self.attendee.tab if begin <= at]
        kernels = [k.last_activity(at) for k in self.kernels if k.exists(at)]
        return max([*shown, *kernels, self.main.born])
