"""The calls into NVML about limits by cgroup, as plain values.

Beside `nvml_calls` the only importer of `pynvml`. What is here came with driver 615 and
nvidia-ml-py 13.615.71, and may be missing.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pynvml
from pynvml import NVMLError

from jupyterhub_gpuworkshop.core.errors import SourceUnavailable

from .nvml_calls import source_errors, start, stop

_NO_LIMIT_SET = frozenset(
    {pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_NOT_SUPPORTED}
)
_NO_LIMITS = {
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: (
        "This NVIDIA driver knows no limits by cgroup: they come with driver 615 "
        "(CUDA 13.4)."
    ),
    pynvml.NVML_ERROR_NOT_SUPPORTED: (
        "The NVIDIA driver offers no limits by cgroup on this GPU: they need cgroup "
        "version 2, and a kernel from 6.14 on or the driver's own accounting "
        "(RmMemacctMode)."
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "The NVIDIA driver lets only root set limits by cgroup: run the GPU service as "
        "root."
    ),
    pynvml.NVML_ERROR_NOT_FOUND: (
        "The dmem controller is not enabled on the server's cgroup, and the NVIDIA "
        "driver sets no limit there: boot Linux with cgroup_disable=dmem, and the "
        "driver keeps the limits itself."
    ),
}
"""Why a limit by cgroup cannot be set."""


@contextmanager
def initialised() -> Iterator[None]:
    """Initialise NVML for the calls below, and say what fails.

    Raises:
        SourceUnavailable: no limit can be set or read; its text says why.
        SourceLost: the driver does not answer.
    """
    if not hasattr(pynvml, "nvmlDeviceSetMemoryLimits_v1"):
        raise SourceUnavailable(
            "Limits by cgroup need nvidia-ml-py 13.615.71 or later: pip install -U "
            "nvidia-ml-py where the GPU service runs."
        )
    with source_errors():
        start()
        try:
            yield
        except NVMLError as error:
            if error.value not in _NO_LIMITS:
                raise
            raise SourceUnavailable(_NO_LIMITS[error.value]) from error
        finally:
            stop()


def memory_limit(uuid: str, folder: str) -> int | None:
    """Return a cgroup's hard limit on a GPU, in bytes; None where it has none."""
    gpu = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    limits = pynvml.c_nvmlGetMemoryLimits_v1_t(nameSpace=folder.encode())
    try:
        pynvml.nvmlDeviceGetMemoryLimits_v1(gpu, limits)
    except NVMLError as error:
        if error.value in _NO_LIMIT_SET:
            return None
        raise
    hard = int(limits.hardLimit)
    return None if hard == pynvml.NVML_DEVICE_MEMORY_LIMIT_MAX else hard


def set_memory_limit(uuid: str, folder: str, limit_bytes: int | None) -> None:
    """Set a cgroup's hard limit on a GPU, and no soft one; None lifts it."""
    most = pynvml.NVML_DEVICE_MEMORY_LIMIT_MAX
    limits = pynvml.c_nvmlSetMemoryLimits_v1_t(
        nameSpace=folder.encode(),
        softLimit=0,
        hardLimit=most if limit_bytes is None else limit_bytes,
    )
    gpu = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    pynvml.nvmlDeviceSetMemoryLimits_v1(gpu, limits)
