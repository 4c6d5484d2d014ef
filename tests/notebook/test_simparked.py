"""Being parked as a kernel meets it, also on the oldest Python that kernels run on."""

from pathlib import Path

from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.simulated_parking import SimulatedParker
from tests.machine.test_parker_contract import id_of

from .test_simcuda import Start, python, start, state_dir

__all__ = ["python", "start", "state_dir"]  # fixtures


def test_a_kernel_waits_while_it_is_parked_and_others_have_its_memory(
    start: Start, state_dir: Path
) -> None:
    parker = SimulatedParker(state_dir)
    one, other = start(), start()
    one.run("held = simcuda.allocate('3GiB')")
    parker.park(id_of(one.pid))
    one.send("simcuda.allocate('1GiB').size_bytes")
    assert other.run("simcuda.memory_info()[0]") == 4 * GIB
    parker.unpark(id_of(one.pid))
    assert one.receive() == GIB
    assert other.run("simcuda.memory_info()[0]") == GIB
