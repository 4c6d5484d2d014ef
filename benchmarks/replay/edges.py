"""What the service sees of a room: its processes, and the attendees' servers.

Owns the stand-ins at the edges where the service touches the world, and what is late
or missing there. All waiting is in simulated time.
"""

import asyncio
import datetime
import random
from collections.abc import Collection, Iterable

from jupyterhub_gpuworkshop.core.attribution import worth_describing
from jupyterhub_gpuworkshop.core.errors import ServerError
from jupyterhub_gpuworkshop.core.leases import Key, Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.snapshot import (
    DeviceSample,
    KernelState,
    ProcessFacts,
    ProcessId,
)
from jupyterhub_gpuworkshop.core.wire import ServerInfo
from jupyterhub_gpuworkshop.service.host import Processes
from jupyterhub_gpuworkshop.service.server_answers import Answer, KernelInfo

from .driver import GPU_BYTES, SEATS_PER_GPU, SHARE_BYTES, Clock, uuid_of
from .living import NEVER, TICKS, LiveKernel, LiveServer, Proc
from .people import Doing
from .room import Room

_EPOCH = datetime.datetime(2026, 11, 26, 9, tzinfo=datetime.timezone.utc)
EPOCH_SECONDS = _EPOCH.timestamp()
_SYSTEM_PROCESSES = 60

_TIMEOUT_SECONDS = 5.0
_TIMES_OUT = 1 / 5000
"""How many answers do not come in time."""
_IS_LATE = 1 / 300
_SLOW_SEATS = 50
"""One in so many servers is slow, always."""


def instant(at: float) -> str:
    """Write a time as servers do."""
    moment = _EPOCH + datetime.timedelta(seconds=at)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def lease_of(server: LiveServer) -> Lease:
    """Return the lease of a server."""
    device = LeasedDevice(
        uuid=uuid_of(server.number),
        label=str(server.number // SEATS_PER_GPU),
        memory_bytes=SHARE_BYTES,
        total_bytes=GPU_BYTES,
    )
    return Lease(
        id=f"{server.attendee.name}-{server.life}",
        user=server.attendee.name,
        server="",
        share=f"1/{SEATS_PER_GPU}",
        devices=(device,),
        granted_at=EPOCH_SECONDS + server.main.born,
        engine="systemd" if server.in_unit else "",
        engine_id=_unit(server),
    )


def info_of(server: LiveServer) -> ServerInfo:
    """Return a server as the hub reports it."""
    return ServerInfo(
        lease_id=f"{server.attendee.name}-{server.life}",
        user=server.attendee.name,
        server="",
        url=f"http://127.0.0.1:{20000 + server.number}/user/{server.attendee.name}/",
        token=f"token-{server.number}",
        pid=server.main.pid,
        started=server.main.started,
        uid=_uid(server),
        engine="systemd" if server.in_unit else "",
        engine_id=_unit(server),
    )


def _unit(server: LiveServer) -> str:
    return f"jupyter-{server.attendee.name}.service" if server.in_unit else ""


def _uid(server: LiveServer) -> int:
    return 2000 + server.number


class Machine:
    """The processes, as `service.host.Host` has them.

    Args:
        room: what is there.
        clock: the replay's.
    """

    def __init__(self, room: Room, clock: Clock) -> None:
        self._room = room
        self._clock = clock
        self._system = {
            pid: ProcessFacts(
                pid=pid, started=pid, parent=1, session=pid, uid=0, cpu_seconds=9.0
            )
            for pid in range(1, _SYSTEM_PROCESSES)
        }

    async def processes(
        self, samples: tuple[DeviceSample, ...], servers: tuple[ServerInfo, ...]
    ) -> Processes:
        """Return what Linux vouches for of every process."""
        at = self._clock()
        self._room.advance(at)
        facts, described = dict(self._system), {}
        for server in self._room.running(at):
            for bare, command in _tree(server, at):
                facts[bare.pid] = bare
                described[bare.pid] = (command, server)
        for pid in worth_describing(samples, facts, servers):
            if pid in described:
                command, server = described[pid]
                facts[pid] = _with_details(facts[pid], command, server)
        return Processes(facts=facts)

    async def lives(self, process: ProcessId) -> bool:
        """Tell whether this very process lives."""
        at = self._clock()
        self._room.advance(at)
        return any(
            facts.process == process
            for server in self._room.running(at)
            for facts, _ in _tree(server, at)
        )

    async def cpu_seconds(self, processes: Collection[ProcessId]) -> float | None:
        """Return the processor time that these have used; None where one has ended."""
        at = self._clock()
        self._room.advance(at)
        used = {
            facts.process: facts.cpu_seconds
            for server in self._room.running(at)
            for facts, _ in _tree(server, at)
        }
        if not used.keys() >= set(processes):
            return None
        return sum(used[process] for process in processes)


def _tree(server: LiveServer, at: float) -> Iterable[tuple[ProcessFacts, str]]:
    """Return the processes of a server, each with its command line."""
    uid, main = _uid(server), server.main
    hub = 1 if server.in_unit else 2
    yield _facts(main, hub, main.pid, uid), "python -m jupyterhub.singleuser"
    for kernel in server.kernels:
        if not kernel.exists(at):
            continue
        pid = kernel.main.pid
        yield _facts(kernel.main, main.pid, pid, uid), _kernel_command(kernel)
        for procs in kernel.below.values():
            for proc in procs:
                yield _facts(proc, pid, pid, uid), "python train.py"
    for terminal in server.terminals:
        shell, training = terminal.shell, terminal.training
        is_open = terminal.shell_lives(at)
        if is_open:
            yield _facts(shell, main.pid, shell.pid, uid), "/bin/bash -l"
        if terminal.trains(at):
            parent = shell.pid if is_open else 1
            yield _facts(training, parent, shell.pid, uid), "python train.py"


def _facts(proc: Proc, parent: int, session: int, uid: int) -> ProcessFacts:
    return ProcessFacts(
        pid=proc.pid,
        started=proc.started,
        parent=parent,
        session=session,
        uid=uid,
        cpu_seconds=int(proc.meter.cpu_seconds * TICKS) / TICKS,
    )


def _with_details(
    facts: ProcessFacts, command: str, server: LiveServer
) -> ProcessFacts:
    unit = _unit(server)
    return ProcessFacts(
        pid=facts.pid,
        started=facts.started,
        parent=facts.parent,
        session=facts.session,
        uid=facts.uid,
        cpu_seconds=facts.cpu_seconds,
        cgroup=f"/system.slice/{unit or 'jupyterhub.service'}",
        command=command,
    )


def _kernel_command(kernel: LiveKernel) -> str:
    folder = "/home/attendee/.local/share/jupyter/runtime"
    return f"python -m ipykernel_launcher -f {folder}/kernel-{kernel.kernel.id}.json"


class LiveServers:
    """The attendees' servers, as `service.servers.Servers` calls them.

    Args:
        room: who is there.
        dice: decides how long each takes.
        clock: the replay's.
    """

    def __init__(self, room: Room, dice: random.Random, clock: Clock) -> None:
        self._room = room
        self._dice = dice
        self._clock = clock
        self._checked_at: dict[str, float] = {}
        self._by_user = {s.attendee.name: s for s in room.servers}

    def close(self) -> None:
        """Let go of nothing."""

    async def poll(self, servers: tuple[ServerInfo, ...]) -> dict[Key, Answer]:
        """Ask all servers for their kernels, at once."""
        latest = [(self._latency(info), info) for info in servers]
        latest.sort(key=lambda item: item[0])
        answers: dict[Key, Answer] = {}
        began = self._clock()
        for seconds, info in latest:
            left = began + min(seconds, _TIMEOUT_SECONDS) - self._clock()
            if left > 0:
                await asyncio.sleep(left)
            answers[info.user, info.server] = (
                self._answer(info)
                if seconds < _TIMEOUT_SECONDS
                else Answer(problem="it does not answer (Timeout)")
            )
        return answers

    async def kernel(self, server: ServerInfo, kernel_id: str) -> KernelInfo:
        """Read one kernel again."""
        await self._wait(server)
        for kernel in self._kernels(server):
            if kernel.kernel.id == kernel_id:
                self._checked_at[kernel_id] = self._clock()
                return _kernel_info(kernel, self._clock())
        raise ServerError("it answers with status 404")

    async def is_at_rest(self, server: ServerInfo, kernel_id: str) -> bool:
        """Ask a kernel itself: neither a cell nor a callback has its main thread."""
        await self._wait(server)
        for kernel in self._kernels(server):
            if kernel.kernel.id == kernel_id:
                at = self._checked_at[kernel_id] = self._clock()
                return not kernel.is_busy(at) and not any(
                    work.doing is Doing.MOVE and work.begin <= at < work.end
                    for work in kernel.kernel.works
                )
        raise ServerError("it answers with status 404")

    async def restart(self, server: ServerInfo, kernel_id: str) -> None:
        """Restart a kernel: the id stays, its variables go."""
        await self._take(server, kernel_id, is_gone=False)

    async def stop(self, server: ServerInfo, kernel_id: str) -> None:
        """Stop a kernel."""
        await self._take(server, kernel_id, is_gone=True)

    async def _take(self, server: ServerInfo, kernel_id: str, *, is_gone: bool) -> None:
        checked_at = self._checked_at.get(kernel_id, NEVER)
        await self._wait(server)
        # The kernel is asked to end, and does; then the new one takes its time.
        await asyncio.sleep(self._dice.uniform(0.1, 1.0))
        self._room.take(
            kernel_id, self._clock(), is_gone=is_gone, checked_at=checked_at
        )
        if not is_gone:
            await asyncio.sleep(self._dice.uniform(0.5, 3.0))

    async def _wait(self, server: ServerInfo) -> None:
        seconds = self._latency(server)
        await asyncio.sleep(min(seconds, _TIMEOUT_SECONDS))
        if seconds >= _TIMEOUT_SECONDS:
            raise ServerError("it does not answer (Timeout)")

    def _latency(self, server: ServerInfo) -> float:
        """Return how long an answer takes, in seconds."""
        chance = self._dice.random()
        if chance < _TIMES_OUT:
            return _TIMEOUT_SECONDS
        if chance < _TIMES_OUT + _IS_LATE:
            return self._dice.uniform(0.5, 4.5)
        if self._by_user[server.user].number % _SLOW_SEATS == _SLOW_SEATS // 2:
            return self._dice.uniform(0.5, 2.5)
        # A few for all: each of its own would be a wait of its own.
        return self._dice.choice((0.005, 0.01, 0.02, 0.05))

    def _kernels(self, server: ServerInfo) -> list[LiveKernel]:
        at = self._clock()
        self._room.advance(at)
        live = self._by_user[server.user]
        if not live.runs(at) or live.main.pid != server.pid:
            raise ServerError("it does not answer (Connection refused)")
        return [kernel for kernel in live.kernels if kernel.exists(at)]

    def _answer(self, server: ServerInfo) -> Answer:
        try:
            kernels = self._kernels(server)
        except ServerError as error:
            return Answer(problem=str(error))
        at = self._clock()
        return Answer(
            kernels={k.kernel.id: _kernel_info(k, at) for k in kernels},
            notebooks={k.kernel.id: "work.ipynb" for k in kernels},
        )


def _kernel_info(kernel: LiveKernel, at: float) -> KernelInfo:
    busy = kernel.is_busy(at)
    return KernelInfo(
        kernel_id=kernel.kernel.id,
        state=KernelState.BUSY if busy else KernelState.IDLE,
        last_activity=instant(kernel.last_activity(at)),
        connections=int(kernel.owner.is_shown(at)),
    )
