"""Machines with processes of which the truth is known: the hidden side of attribution.

What happens on them is what Linux does: forks inherit session, user, terminal and
cgroup; who loses a parent is taken in by the nearest process above that takes such in;
a terminal ends with its session's leader; numbers are given anew. What a process says
of itself is whatever it likes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from jupyterhub_gpuworkshop.core.leases import Key, Lease
from jupyterhub_gpuworkshop.core.snapshot import ProcessFacts, ProcessId
from jupyterhub_gpuworkshop.core.wire import ServerInfo

SHARED, OWN, SYSTEMD, DOCKER = MODES = ("shared uid", "own uid", "systemd", "docker")
KEYS: tuple[Key, ...] = (("ada", ""), ("ada", "second"), ("bob", ""))
KERNELS = tuple(f"{n}0000000-0000-4000-8000-000000000000" for n in range(4))
FOREIGN_UID = 77
LIES = (
    "jupyterhub-singleuser --port=1",
    "python -m jupyterhub.singleuser",
    "/system.slice/jupyter-bob.service",
    "0::/system.slice/jupyter-ada.service",
    "JUPYTERHUB_USER=bob JUPYTERHUB_SERVER_NAME=second python train.py",
    "systemd --user",
    "[kworker/0:1]",
)


@dataclass(frozen=True)
class Truth:
    """Whose a process really is.

    Attributes:
        key: the server below which it began; None for nobody's.
        lease_id: that server's lease.
        kernel_id: the kernel below which it began, whatever it did since.
        is_itself: whether it is the server or its wrapper.
    """

    key: Key | None = None
    lease_id: str = ""
    kernel_id: str = ""
    is_itself: bool = False


NOBODY = Truth()


@dataclass
class Server:
    """A server as the hub knows it, and what its attendee has claimed in it."""

    info: ServerInfo
    main: ProcessId
    lies: bool = False


@dataclass
class World:
    """One machine."""

    mode: str
    is_wrapped: bool = False
    under_manager: bool = False
    processes: dict[int, ProcessFacts] = field(default_factory=dict)
    truth: dict[ProcessId, Truth] = field(default_factory=dict)
    reapers: set[int] = field(default_factory=lambda: {1})
    firsts: set[ProcessId] = field(default_factory=set)
    servers: dict[Key, Server] = field(default_factory=dict)
    listed: dict[Key, frozenset[str]] = field(default_factory=dict)
    clock: int = 100
    next_pid: int = 1
    next_tty: int = 0x8800
    lives: int = 0

    def __post_init__(self) -> None:
        self._add(ProcessFacts(pid=1, parent=0, session=1, uid=0, **self._now()))
        above = 1
        if self.under_manager:
            above = self.begin(1, NOBODY, setsid=True, uid=self._hub_uid).pid
            self.reapers.add(above)
        hub = self.begin(above, NOBODY, setsid=True, uid=self._hub_uid)
        self.begin(hub.pid, NOBODY)  # its proxy
        self.hub = hub.pid
        shim = self.begin(1, NOBODY, setsid=True, uid=0)
        self.shim = self.begin(shim.pid, NOBODY).pid
        for key in KEYS:
            self.start_server(key)

    @property
    def _hub_uid(self) -> int:
        return 1000 if self.mode == SHARED else 0

    def _now(self) -> dict[str, float]:
        return {"started": self.clock, "cpu_seconds": 0.5}

    def _add(self, process: ProcessFacts) -> None:
        self.processes[process.pid] = process
        self.next_pid = max(self.next_pid, process.pid + 1)

    def begin(self, parent, truth, *, setsid=False, pid=None, **facts):
        """Fork, maybe setsid, maybe exec something."""
        pid = pid or self.next_pid
        above = self.processes[parent]
        born = replace(
            above,
            pid=pid,
            parent=parent,
            session=pid if setsid else above.session,
            tty=0 if setsid else above.tty,
            **self._now(),
        )
        born = replace(born, **facts)
        self._add(born)
        self.truth[born.process] = truth
        return born

    def truth_of(self, process: ProcessFacts) -> Truth:
        return self.truth.get(process.process, NOBODY)

    def start_server(self, key: Key) -> None:
        user, name = key
        self.lives += 1
        truth = Truth(key=key, lease_id=f"lease-{self.lives}", is_itself=True)
        index = KEYS.index(key)
        uid = {SHARED: 1000, OWN: 5000 + (user == "bob"), SYSTEMD: 5000 + index}
        engine_id = {
            SYSTEMD: f"jupyter-{user}{name}.service",
            DOCKER: f"{self.lives:064x}",
        }.get(self.mode, "")
        cgroup = {
            SYSTEMD: f"/system.slice/{engine_id}",
            DOCKER: f"/system.slice/docker-{engine_id}.scope",
        }.get(self.mode, "/system.slice/jupyterhub.service")
        above = {SYSTEMD: 1, DOCKER: self.shim}.get(self.mode, self.hub)
        self.clock += 1
        first = main = self.begin(
            above,
            truth,
            setsid=True,
            uid=uid.get(self.mode, 1000),
            cgroup=cgroup,
            command="tini -- jupyterhub-singleuser",
        )
        if self.mode == DOCKER:
            self.reapers.add(first.pid)
        if engine_id:
            self.firsts.add(first.process)
        if self.is_wrapped and self.mode in (SYSTEMD, DOCKER):
            main = self.begin(first.pid, truth, command="python jupyterhub-singleuser")
        local = not engine_id
        info = ServerInfo(
            lease_id=truth.lease_id,
            user=user,
            server=name,
            url="http://127.0.0.1:1/",
            token="t",
            pid=first.pid if local else 0,
            started=first.started if local else 0,
            uid=first.uid if self.mode in (OWN, SYSTEMD) else None,
            engine=self.mode if engine_id else "",
            engine_id=engine_id,
        )
        self.servers[key] = Server(info=info, main=main.process)
        self.listed.setdefault(key, frozenset())

    def restart_server(self, key: Key) -> None:
        """The hub ends it and starts it again; an engine ends all that was in it."""
        old = self.servers[key]
        for process in list(self.processes.values()):
            of_it = self.truth_of(process).lease_id == old.info.lease_id
            is_main = process.process == old.main
            ends = is_main or (of_it and self.mode in (SYSTEMD, DOCKER))
            if ends and process.pid in self.processes:
                self.end(process.pid)
        self.listed[key] = frozenset()
        self.start_server(key)

    def start_kernel(self, key: Key, kernel_id: str, *, behind_script: bool) -> None:
        server = self.servers[key]
        alive = self.processes.get(server.main.pid)
        if alive is None or alive.process != server.main:
            return
        if any(x.kernel_id == kernel_id for x in self._living_truths(server)):
            return
        truth = Truth(key=key, lease_id=server.info.lease_id, kernel_id=kernel_id)
        wanted = f"python -m ipykernel_launcher -f /r/kernel-{kernel_id}.json"
        command = f"/bin/sh /kernels/r/run.sh {wanted}" if behind_script else wanted
        main = self.begin(alive.pid, truth, setsid=True, command=command)
        self.listed[key] |= {kernel_id}
        if behind_script:  # exec
            self.processes[main.pid] = replace(main, command=wanted)

    def _living_truths(self, server: Server) -> Iterator[Truth]:
        for process in self.processes.values():
            truth = self.truth_of(process)
            if truth.lease_id == server.info.lease_id:
                yield truth

    def fork(self, pid: int, *, setsid: bool, in_terminal: bool, command: str) -> None:
        """A worker, a Popen, a nohup, a shell: whatever begins below a process."""
        process = self.processes[pid]
        truth = replace(self.truth_of(process), is_itself=False)
        tty = {}
        if in_terminal:
            self.next_tty += 1
            tty = {"tty": self.next_tty}
        self.begin(pid, truth, setsid=setsid or in_terminal, command=command, **tty)
        self._note_lie(truth, command)

    def rename(self, pid: int, command: str) -> None:
        process = self.processes[pid]
        self.processes[pid] = replace(process, command=command)
        self._note_lie(self.truth_of(process), command)

    def _note_lie(self, truth: Truth, command: str) -> None:
        if truth.key is not None and ("kernel-" in command or "single" in command):
            self.servers[truth.key].lies = True

    def end(self, pid: int) -> None:
        dead = self.processes.pop(pid)
        if dead.process in self.firsts:
            # The end of its first process ends a unit, and a container.
            for child in list(self.processes.values()):
                if child.cgroup == dead.cgroup and child.pid in self.processes:
                    del self.processes[child.pid]
        reaper = dead.parent
        while reaper not in self.reapers or reaper not in self.processes:
            reaper = self.processes[reaper].parent if reaper in self.processes else 1
        self.reapers.discard(pid)
        for child in list(self.processes.values()):
            changed = child
            if child.parent == pid:
                changed = replace(changed, parent=reaper)
            if dead.session == pid and child.session == pid:
                changed = replace(changed, tty=0)
            self.processes[child.pid] = changed

    def begin_elsewhere(self, *, pid: int | None, command: str, uid: int) -> None:
        """Something of nobody's: a unit of the system's."""
        self.clock += 1
        self.begin(
            1,
            NOBODY,
            setsid=True,
            pid=pid,
            uid=uid,
            cgroup="/system.slice/other.service",
            command=command,
        )

    def free_pids(self) -> list[int]:
        """Numbers that Linux may give anew: no process's, and no session's."""
        taken = set(self.processes) | {p.session for p in self.processes.values()}
        return [pid for pid in range(2, self.next_pid) if pid not in taken]

    def mortals(self) -> list[int]:
        """Whoever may end: anybody of attendees' or of nobody's, but the host's own."""
        kept = {1, self.hub, self.shim, self.processes[self.hub].parent}
        kept.add(self.processes[self.shim].parent)
        return [pid for pid in self.processes if pid not in kept]

    @property
    def infos(self) -> list[ServerInfo]:
        return [server.info for server in self.servers.values()]

    @property
    def leases(self) -> list[Lease]:
        return [
            Lease(
                id=info.lease_id,
                user=info.user,
                server=info.server,
                share="1/5",
                granted_at=0.0,
            )
            for info in self.infos
        ]

    def facts(self, described=None) -> dict[int, ProcessFacts]:
        """What is read of it: command and cgroup only of those that are described."""
        return {
            pid: process
            if described is not None and pid in described
            else replace(process, cgroup="", command="")
            for pid, process in self.processes.items()
        }
