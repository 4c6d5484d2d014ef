"""The workshop as it runs: who holds what, and what is gone once it was taken.

Owns everybody's servers and what is taken from them. What attendees mean to do is the
same whoever rules; what is taken is not, so each ruler has a room of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from .living import NEVER, LiveKernel, LiveServer, LiveTerminal, Meter, Proc
from .people import Attendee, Kernel, Workshop
from .truth import Truth

_FIRST_PID = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Memory that was taken.

    Attributes:
        attendee: from whom.
        kernel: from which kernel.
        at: when.
        memory_bytes: how much it held.
        false: why that was false; empty where it was not.
        raced: whether it was used again only after it had been looked at last, while
            it was about to end.
    """

    attendee: Attendee
    kernel: Kernel
    at: float
    memory_bytes: int
    false: str
    raced: bool


class Room:
    """Everybody's servers.

    Args:
        workshop: what happens.
        truth: what is true of it.
        is_ours: whether the service rules here: it is told when somebody waits for a
            share, and its settings keep most servers from counting messages of pages.

    Attributes:
        servers: each attendee's.
        kernels: by kernel id.
        taken: all that was taken, in order.
        ended_trainings: how many trainings in terminals were ended.
    """

    def __init__(
        self, workshop: Workshop, truth: Truth, *, is_ours: bool = True
    ) -> None:
        self.workshop = workshop
        self.truth = truth
        self.taken: list[Taken] = []
        self.ended_trainings = 0
        self._is_ours = is_ours
        self._last_pid = _FIRST_PID
        self._at = 0.0
        self.servers = [
            self._new_server(number, attendee)
            for number, attendee in enumerate(workshop.attendees)
        ]
        self.kernels = {k.kernel.id: k for s in self.servers for k in s.kernels}

    def _new_server(self, number: int, attendee: Attendee) -> LiveServer:
        server = LiveServer(
            number=number, attendee=attendee, main=self.new_proc(attendee.begin)
        )
        for kernel in attendee.kernels:
            truth = self.truth.kernels[kernel.id]
            main = self.new_proc(truth.next_begin(0.0))
            server.kernels.append(
                LiveKernel(
                    kernel=kernel,
                    truth=truth,
                    owner=server,
                    main=main,
                    counts_messages=attendee.counts_messages or not self._is_ours,
                )
            )
        for terminal in attendee.terminals:
            training = self.new_proc(terminal.begin)
            training.memory_bytes = terminal.memory_bytes
            server.terminals.append(
                LiveTerminal(
                    terminal=terminal,
                    shell=self.new_proc(terminal.begin),
                    training=training,
                )
            )
        return server

    def new_proc(self, born: float) -> Proc:
        """Return a process that begins then."""
        self._last_pid += 1
        return Proc(pid=self._last_pid, born=born, meter=Meter(at=born))

    def advance(self, at: float) -> None:
        """Let everything live on up to now."""
        if at <= self._at:
            return
        self._at = at
        for server in self.servers:
            for kernel in server.kernels:
                kernel.advance(at, self.new_proc)
            for terminal in server.terminals:
                terminal.advance(at)

    def procs(self) -> Iterator[Proc]:
        """Return every process that may ever compute on a GPU, and now is known."""
        for server in self.servers:
            for kernel in server.kernels:
                yield kernel.main
                for procs in kernel.below.values():
                    yield from procs
            for terminal in server.terminals:
                yield terminal.training

    def running(self, at: float) -> Iterator[LiveServer]:
        """Return the servers that are up."""
        for server in self.servers:
            if server.stopped_at != NEVER and server.comes_back_at() <= at:
                self._start_again(server)
            if server.runs(at):
                yield server

    def _start_again(self, server: LiveServer) -> None:
        server.main = self.new_proc(server.comes_back_at())
        server.life += 1
        server.stopped_at = NEVER

    def take(
        self, kernel_id: str, at: float, *, is_gone: bool, checked_at: float = NEVER
    ) -> None:
        """Restart a kernel, or stop it.

        Args:
            kernel_id: the kernel.
            at: when.
            is_gone: it is stopped.
            checked_at: when it was looked at last, by who looks before.
        """
        self.advance(at)
        kernel = self.kernels[kernel_id]
        held_bytes = kernel.held_bytes(at)
        if held_bytes:
            false = self._why_false(kernel_id, at)
            raced = checked_at > NEVER and not self._why_false(kernel_id, checked_at)
            self.taken.append(
                Taken(
                    attendee=kernel.owner.attendee,
                    kernel=kernel.kernel,
                    at=at,
                    memory_bytes=held_bytes,
                    false="" if raced else false,
                    raced=bool(false) and raced,
                )
            )
        born = kernel.truth.next_begin(at) if is_gone else at
        kernel.end_life(at, self.new_proc(born), is_gone=is_gone)

    def _why_false(self, kernel_id: str, at: float) -> str:
        return self.truth.why_false(kernel_id, at, at_once=not self._is_ours)

    def stop_server(self, server: LiveServer, at: float) -> None:
        """End everything of a server; outside a unit ``nohup`` outlives it."""
        for kernel in server.kernels:
            if kernel.exists(at):
                self.take(kernel.kernel.id, at, is_gone=True)
        for terminal in server.terminals:
            if terminal.shell_lives(at) or (server.in_unit and terminal.trains(at)):
                self.ended_trainings += terminal.trains(at)
                terminal.killed_at = at
        server.stopped_at = at
