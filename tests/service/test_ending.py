"""An organiser ends a process that uses a GPU: that very one, and no other."""

import asyncio
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.errors import ActForbidden, ActRefused, NothingThere
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.server_trees import ServerTree
from jupyterhub_gpuworkshop.core.snapshot import Holder, HolderKind, ProcessId
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import EventKind
from jupyterhub_gpuworkshop.machine.ending import HeldProcess
from jupyterhub_gpuworkshop.machine.processes import read_process
from jupyterhub_gpuworkshop.service.ending import Endings
from jupyterhub_gpuworkshop.service.server_answers import Answer
from jupyterhub_gpuworkshop.service.web.auth import Viewer

OLGA = Viewer(name="olga", attendee=None)
ADA = Viewer(name="ada", attendee="ada")
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
WAIT = "print(flush=True)\nimport sys; sys.stdin.read()"

SHELL = 'exec 3<&0; "$@" <&3 & echo $!; wait'


@pytest.fixture
def start():
    """Return a way to start a process whose parent is not this one."""
    shells = []

    def started(program=WAIT):
        shell = subprocess.Popen(  # noqa: S603 - runs this very module's text
            ["/bin/sh", "-c", SHELL, "sh", sys.executable, "-S", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        shells.append(shell)
        # Its pid, and the line that says it is ready; in whichever order.
        lines = [shell.stdout.readline().strip() for _ in range(2)]
        return read_process(int("".join(lines))).process

    yield started
    for shell in shells:
        shell.stdin.close()
        shell.kill()
        shell.wait()
        shell.stdout.close()


def holder(process, kind=HolderKind.SERVER, user="ada", **more):
    return Holder(
        process=process,
        device="GPU-0",
        memory_bytes=2 * GIB,
        utilisation=0.0,
        kind=kind,
        command="python train.py",
        user=user,
        **more,
    )


def see(world, *holders):
    world.monitor.snapshot = replace(world.monitor.snapshot, holders=holders)


def endings(world, **more):
    return Endings(world.monitor, world.history, **{"patience_seconds": 60, **more})


async def outcome(made):
    await asyncio.gather(*made._under_way.values())


async def test_a_process_is_asked_to_end_and_its_owner_is_told(world, start):
    process = start()
    see(world, holder(process), replace(holder(process), device="GPU-1"))
    made = endings(world)
    said = await made.end(process, OLGA)
    assert "asked to end" in said
    await outcome(made)
    assert HeldProcess.open(process.pid, process.started) is None
    (event,) = world.events()
    assert event.kind is EventKind.PROCESS_ENDED
    assert (event.user, event.devices) == ("ada", ("GPU-0", "GPU-1"))
    assert event.details["pid"] == process.pid
    assert event.details["by"] == "olga"
    assert event.details["memory_bytes"] == 4 * GIB
    assert "SIGTERM" in event.reason
    (notice,) = world.monitor.notices.standing
    assert (notice.kind, notice.user) == (NoticeKind.PROCESS_ENDED, "ada")
    assert "python train.py" in notice.text


async def test_one_that_does_not_end_is_killed_and_a_foreign_one_tells_nobody(
    world, start
):
    process = start(STUBBORN + WAIT)
    see(world, holder(process, HolderKind.FOREIGN, user=""))
    made = endings(world, patience_seconds=0.05)
    await made.end(process, OLGA)
    with pytest.raises(ActRefused, match="already"):
        await made.end(process, OLGA)
    await outcome(made)
    (event,) = world.events()
    assert (event.kind, event.user) == (EventKind.PROCESS_ENDED, "")
    assert "SIGKILL" in event.reason
    assert world.monitor.notices.standing == ()


async def test_an_attendee_ends_nothing_not_even_their_own(world, start):
    process = start()
    see(world, holder(process))
    with pytest.raises(ActForbidden):
        await endings(world).end(process, ADA)
    assert read_process(process.pid).process == process


async def test_only_what_uses_a_gpu_now_is_ended(world, start):
    process = start()
    see(world)
    with pytest.raises(NothingThere, match="uses a GPU now"):
        await endings(world).end(process, OLGA)
    assert read_process(process.pid).process == process


async def test_a_later_process_of_the_same_number_is_never_hit(world, start):
    process = start()
    before = ProcessId(pid=process.pid, started=process.started - 1)
    see(world, holder(before))
    with pytest.raises(NothingThere, match="ended already"):
        await endings(world).end(before, OLGA)
    assert read_process(process.pid).process == process
    assert world.events() == []


async def test_a_process_of_a_kernel_is_its_servers_to_restart(world, start):
    process = start()
    see(world, holder(process, HolderKind.KERNEL, kernel_id="k"))
    with pytest.raises(ActRefused, match="notebook's kernel"):
        await endings(world).end(process, OLGA)
    assert read_process(process.pid).process == process


async def test_init_hub_service_and_servers_are_spared(world, start, monkeypatch):
    # Were one of them not spared, it must be this test that ends.
    monkeypatch.setattr(HeldProcess, "send", lambda *_: pytest.fail("not spared"))
    hub = start()
    me = read_process(os.getpid()).process
    above = read_process(os.getppid()).process
    init = ProcessId(pid=1, started=read_process(1).started)
    for process in (hub, me, above, init):
        see(world, holder(process, HolderKind.FOREIGN))
        with pytest.raises(ActRefused, match="not ended here"):
            await endings(world, spared={hub.pid}).end(process, OLGA)
    await world.look()
    server = start()
    info = replace(world.attendee.info, pid=server.pid, started=server.started)
    world.link.hear(replace(world.report, servers=(info,)))
    see(world, holder(server))
    with pytest.raises(ActRefused, match="stop that server"):
        await endings(world).end(server, OLGA)
    child = await asyncio.create_subprocess_exec("/bin/cat", stdin=subprocess.PIPE)
    ours = read_process(child.pid).process
    see(world, holder(ours, HolderKind.FOREIGN))
    with pytest.raises(ActRefused, match="service's own"):
        await endings(world).end(ours, OLGA)
    await child.communicate(b"")
    assert child.returncode == 0


async def test_a_server_behind_a_wrapper_is_spared_too(world, start, monkeypatch):
    monkeypatch.setattr(HeldProcess, "send", lambda *_: pytest.fail("not spared"))
    await world.look()
    server = start()
    tree = ServerTree(lease_id="lease-ada", main=read_process(server.pid))
    servers = {("ada", ""): tree}
    world.monitor.attribution = replace(world.monitor.attribution, servers=servers)
    see(world, holder(server))
    with pytest.raises(ActRefused, match="stop that server"):
        await endings(world).end(server, OLGA)


async def test_of_a_server_whose_kernels_are_unknown_nothing_is_ended(world, start):
    process = start()
    world.monitor.answers = {("ada", ""): Answer(problem="It does not answer.")}
    see(world, holder(process))
    with pytest.raises(ActRefused, match="may be a notebook's kernel"):
        await endings(world).end(process, OLGA)
    assert read_process(process.pid).process == process
    # In a terminal there is no kernel.
    see(world, holder(process, HolderKind.TERMINAL))
    made = endings(world)
    await made.end(process, OLGA)
    await outcome(made)


async def test_without_permission_it_says_what_to_do(world, start, monkeypatch):
    process = start()
    see(world, holder(process, HolderKind.FOREIGN))

    def denied(self, signum):
        raise PermissionError

    monkeypatch.setattr(HeldProcess, "send", denied)
    with pytest.raises(ActRefused, match=rf"sudo kill {process.pid}"):
        await endings(world).end(process, OLGA)
    assert world.events() == []


async def test_one_that_hangs_is_told_as_not_ended(world, start, monkeypatch):
    process = start()
    see(world, holder(process))

    async def never(self, seconds):
        return False

    monkeypatch.setattr(HeldProcess, "ends_within", never)
    made = endings(world)
    await made.end(process, OLGA)
    await outcome(made)
    (event,) = world.events()
    assert event.kind is EventKind.END_FAILED
    assert world.monitor.notices.standing == ()


async def test_a_service_that_is_not_the_one_that_acts_ends_nothing(world, start):
    process = start()
    see(world, holder(process))
    made = endings(world, why_not_act=lambda: "Another one.")
    with pytest.raises(ActRefused, match=r"Another one\."):
        await made.end(process, OLGA)
    assert read_process(process.pid).process == process
