"""What the tests of NvmlSource share."""

from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, ProcessUse
from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.machine.source import DeviceSource

NOT_SUPPORTED, NO_PERMISSION, TOO_SMALL, GPU_IS_LOST, MISMATCH = 3, 4, 7, 15, 18
LISTING = "nvmlDeviceGetComputeRunningProcesses_v3"
WORKING = "nvmlDeviceGetProcessUtilization"


def gpu(
    uuid: str = "GPU-a", *, used: int = GIB, minor: int = 0, percent: int = 0, mig=0
) -> str:
    """Return the statement of a GPU of 16 GiB."""
    return f"gpu {uuid} {minor} {16 * GIB} {512 * MIB} {used} {percent} {mig}"


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def only(samples: tuple[DeviceSample, ...]) -> DeviceSample:
    """Return the one sample."""
    (sample,) = samples
    return sample


def processes(source: DeviceSource) -> dict[int, ProcessUse]:
    """Sample the one device, and return its processes by pid."""
    return {p.pid: p for p in only(source.sample()).processes or ()}
