"""What a probe finds in its environment."""

import pytest

from jupyterhub_gpuworkshop.core.caps import framework_variables
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.hub.memory_hook import FOLDER
from jupyterhub_gpuworkshop.tools.prove_caps.environment import (
    leased_environment,
    undone_environment,
)

LEASE = Lease(
    id="1",
    user="ada",
    server="",
    share="1/5",
    granted_at=0.0,
    devices=(
        LeasedDevice(
            uuid="GPU-0",
            label="0",
            memory_bytes=16 * GIB,
            total_bytes=80 * GIB,
            context_bytes=512 * MIB,
        ),
    ),
)
PLAIN = {"PATH": "/bin", "HOME": "/home/ada"}


def test_a_lease_is_laid_over_as_a_server_has_it() -> None:
    variables = leased_environment(PLAIN, {"PYTHONPATH": "/theirs", "A": "b"}, LEASE)
    assert variables["CUDA_VISIBLE_DEVICES"] == "GPU-0"
    assert variables["PYTHONPATH"] == f"{FOLDER}:/theirs"
    assert variables["HOME"] == "/home/ada"
    assert variables["A"] == "b"
    assert framework_variables(LEASE).items() <= variables.items()


@pytest.mark.parametrize(
    "admin",
    [{}, {"PYTHONPATH": "/theirs"}, {"XLA_CLIENT_MEM_FRACTION": "0.1"}],
)
def test_undone_nothing_caps_and_everything_else_stays(admin: dict[str, str]) -> None:
    leased = leased_environment(PLAIN, admin, LEASE)
    undone = undone_environment(PLAIN, admin, LEASE)
    assert undone.get("PYTHONPATH") == admin.get("PYTHONPATH")
    gone = {name for name in leased if name not in undone}
    assert gone >= {
        "GPUWORKSHOP_MEMORY_FRACTION",
        "GPUWORKSHOP_MEMORY_LIMIT_BYTES",
        "TF_PER_DEVICE_MEMORY_LIMIT_MB",
        "CUPY_GPU_MEMORY_LIMIT",
    }
    assert "XLA_CLIENT_MEM_FRACTION" not in undone
    assert float(undone["XLA_PYTHON_CLIENT_MEM_FRACTION"]) > 0.9
    same = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HOME", "PATH")
    assert [undone[name] for name in same] == [leased[name] for name in same]


def test_undone_no_framework_takes_the_whole_device_at_once() -> None:
    undone = undone_environment(PLAIN, {}, LEASE)
    assert undone["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
    assert undone["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert undone["CUDF_PANDAS_RMM_MODE"] == "cuda"
