"""What goes wrong while kernels are parked costs nobody a kernel that could be kept."""

import pytest


from .parking_world import ParkingWorld
from .test_parking import cell, has_ended

CHILD = (
    "import subprocess; child = subprocess.Popen([sys.executable, '-c', "
    "'from jupyterhub_gpuworkshop.notebook import simcuda; import sys; "
    'held = simcuda.allocate("{size}"); print("up", flush=True); sys.stdin.read()\'], '
    "stdin=subprocess.PIPE, stdout=subprocess.PIPE); child.stdout.readline()"
)


@pytest.fixture
async def room(tmp_path):
    """Return a world whose service parks idle kernels."""
    made = await ParkingWorld(tmp_path).open()
    yield made
    await made.close()


async def test_a_second_process_does_not_take_the_place_of_what_is_parked(room):
    kernel_id = await room.hold()
    kernel = await room.park(kernel_id)
    (before,) = room.parking.parked
    # A thread of the paused kernel goes on, and starts a process of its own.
    kernel.run(CHILD.format(size="1GiB"))
    await room.look(times=15)
    await room.reap()
    assert set(before.processes) <= set(room.parking.parked[0].processes)
    cell(kernel, "simcuda.compute(0)")
    await room.step(3)
    assert has_ended(kernel)
