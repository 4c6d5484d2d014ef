"""Against a real Jupyter server: what it says is understood, and it is left alone."""

import asyncio
from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.core.snapshot import KernelState
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import EventKind
from jupyterhub_gpuworkshop.service.asked_acts import AskedActs
from jupyterhub_gpuworkshop.service.web.auth import Viewer

from .parking_world import ParkingWorld
from .real_server import cell
from .real_server import server as server


@pytest.mark.lab
async def test_a_forgotten_kernel_is_restarted_and_watching_left_no_trace(
    world, server
):
    session = await server.ask(
        "api/sessions",
        "POST",
        {
            "path": "work.ipynb",
            "type": "notebook",
            "name": "work",
            "kernel": {"name": "python3"},
        },
    )
    kernel_id = session["kernel"]["id"]
    await server.run(
        kernel_id,
        "from jupyterhub_gpuworkshop.notebook import simcuda\n"
        "held = simcuda.allocate('2GiB')",
    )
    world.report = replace(world.report, servers=(server.info,))
    status = await server.ask("api/status?no_track_activity=1")
    snapshot = await world.look(times=15)
    (kernel,) = snapshot.kernels
    assert (kernel.kernel_id, kernel.notebook) == (kernel_id, "work.ipynb")
    assert kernel.state is KernelState.IDLE
    assert kernel.memory_bytes == 2 * GIB
    # Watching left neither the server's nor the kernel's activity any later.
    after = await server.ask("api/status?no_track_activity=1")
    assert after["last_activity"] == status["last_activity"]

    await world.reap()
    (event,) = world.events()
    assert event.kind is EventKind.KERNEL_RECLAIMED, event.reason
    assert event.details["freed_bytes"] == 2 * GIB
    assert event.details["notebook"] == "work.ipynb"
    assert [k["id"] for k in await server.ask("api/kernels")] == [kernel_id]
    await server.run(kernel_id, "assert 'held' not in globals()")


@pytest.mark.lab
@pytest.mark.parametrize("leaves", ["in mid-output", "the page open"])
async def test_however_it_is_left_a_kernel_without_a_notebook_is_forgotten(
    world, server, leaves
):
    kernel_id = (await server.ask("api/kernels", "POST", {}))["id"]
    done = server.folder / "done"
    page = await server.begin(
        kernel_id,
        "import pathlib, time\n"
        "from jupyterhub_gpuworkshop.notebook import simcuda\n"
        "held = simcuda.allocate('2GiB')\n"
        "for n in range(200):\n"
        "    print('x' * 1000)\n"
        "    time.sleep(0.005)\n"
        f"pathlib.Path({str(done)!r}).touch()",
    )
    await page.socket.read_message()
    if leaves == "in mid-output":
        page.close()
    while True:
        model = await server.ask(f"api/kernels/{kernel_id}")
        if done.exists() and model["execution_state"] == "idle":
            break
        await asyncio.sleep(0.1)
    world.report = replace(world.report, servers=(server.info,))
    for _ in range(15):
        await world.look()
        # What an open page asks every few seconds.
        await server.ask("api/kernels")
        await server.ask("api/sessions")
    await world.reap()
    (event,) = world.events()
    assert event.kind is EventKind.KERNEL_RECLAIMED, event.reason
    assert event.details["freed_bytes"] == 2 * GIB
    page.close()


@pytest.mark.lab
async def test_a_parked_kernel_is_back_when_a_cell_is_run_and_has_lost_nothing(
    tmp_path, server
):
    room = await ParkingWorld(tmp_path / "parking").open()
    server.environment["GPUWORKSHOP_SIMULATED_GPUS"] = str(room.simulation)
    await server.stop()
    await server.start()
    kernel_id = (await server.ask("api/kernels", "POST", {}))["id"]
    await server.run(
        kernel_id,
        "from jupyterhub_gpuworkshop.notebook import simcuda\n"
        "held = simcuda.allocate('2GiB')\nprecious = 42",
    )
    room.report = replace(room.report, servers=(server.info,))
    await room.look()
    await room.returns.step()
    await room.look(times=15)
    await room.reap()
    assert [event.details["done"] for event in room.events()] == ["park"]
    await room.step(3)
    assert len(room.parking.parked) == 1, "nobody came back: it was only looked at"
    page = await server.open(kernel_id)
    await page.send("execute_request", cell("print(simcuda.memory_info(), precious)"))
    while room.parking.parked:
        await room.step()
    written = await page.settled("execute_request")
    page.close()
    assert written["stdout"].endswith(" 42\n")
    await room.look()
    assert room.used_bytes() == 2 * GIB
    await room.close()


@pytest.mark.lab
async def test_a_kernel_is_paused_and_a_busy_one_restarted_at_a_persons_word(
    tmp_path, server
):
    room = await ParkingWorld(tmp_path / "parking").open()
    server.environment["GPUWORKSHOP_SIMULATED_GPUS"] = str(room.simulation)
    await server.stop()
    await server.start()
    paused, busy = [(await server.ask("api/kernels", "POST", {}))["id"] for _ in "12"]
    for kernel_id in (paused, busy):
        await server.run(
            kernel_id,
            "from jupyterhub_gpuworkshop.notebook import simcuda\n"
            "held = simcuda.allocate('1GiB')",
        )
    page = await server.begin(busy, "print('begun', flush=True)\nwhile True: pass")
    room.report = replace(room.report, servers=(server.info,))
    while KernelState.BUSY not in [x.state for x in (await room.look(0.1)).kernels]:
        pass
    await room.returns.step()
    ada = Viewer(name="ada", attendee="ada")
    await _reclaim(room, ada, paused, Action.PARK)
    await room.step(2)
    assert len(room.parking.parked) == 1, "nobody came back"
    await _reclaim(room, Viewer(name="olga", attendee=None), busy, Action.RESTART)
    await _reclaim(room, ada, paused, Action.RESTART)
    await room.step(2)
    assert [(x.kind, x.details["done"]) for x in room.events()] == [
        (EventKind.KERNEL_RECLAIMED, done) for done in ("park", "restart", "restart")
    ]
    assert room.parking.parked == ()
    await room.look()
    assert room.used_bytes() == 0
    page.close()
    for kernel_id in (paused, busy):
        await server.run(kernel_id, "assert 'held' not in globals()")
    await room.close()


async def _reclaim(room, viewer, kernel_id, action):
    (owner,) = [x for x in room.monitor.kernels if x.kernel_id == kernel_id]
    asked = AskedActs(room.monitor, room.actor, room.history)
    await asked.reclaim(viewer, owner, action)
    while room.actor.is_acting_on(owner):
        await room.look(0.5)
        await asyncio.sleep(0)
