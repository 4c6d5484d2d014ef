"""The calls into NVML, each with its traps, as plain values.

Owns all talk with the driver, but for limits by cgroup (`nvml_limits`); these two alone
import `pynvml` (nvidia-ml-py).
It remembers nothing between calls: that is `nvml.NvmlSource`'s.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pynvml
from pynvml import NVMLError as NVMLError  # explicitly for others to import

from jupyterhub_gpuworkshop.core.devices import Device, estimated_context_bytes
from jupyterhub_gpuworkshop.core.errors import SourceLost, SourceUnavailable

from .examination import ABSENT, MISMATCH, Condition, Examination

_TRIES = 3

_LOST = frozenset(
    {
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
        pynvml.NVML_ERROR_UNKNOWN,
    }
)
_WHOLE = frozenset(
    {pynvml.NVML_ERROR_UNINITIALIZED, pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH}
)
_TROUBLE = {
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: MISMATCH,
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: ABSENT,
}
_COMPUTE_MODES = {
    pynvml.NVML_COMPUTEMODE_DEFAULT: "default",
    pynvml.NVML_COMPUTEMODE_EXCLUSIVE_THREAD: "exclusive-thread",
    pynvml.NVML_COMPUTEMODE_PROHIBITED: "prohibited",
    pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS: "exclusive-process",
}
_NOT_OFFERED = frozenset(
    {pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}
)
_UNAVAILABLE = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
        "There is no NVIDIA driver here: libnvidia-ml.so.1 cannot be loaded. Install "
        "the driver, or use simulated GPUs."
    ),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
        "The NVIDIA driver is installed but not loaded. Run nvidia-smi to see why; "
        "after an installation the machine must be rebooted."
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "The NVIDIA driver refuses this user. Allow it to open /dev/nvidia*."
    ),
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: (
        "The NVIDIA driver is too old: it lacks functions of driver 450. Upgrade it."
    ),
}
# The library stays loaded for the life of the process: nothing but a new one helps.
_UPGRADED = (
    "The NVIDIA driver was upgraded while it was in use, and only a new process sees "
    "it: the GPU service starts one to read the GPUs. If this goes on, reboot the "
    "machine."
)


def is_lost(error: NVMLError) -> bool:
    """Say whether a device has gone: it takes a new initialisation to see it again."""
    return error.value in _LOST


def is_about_all(error: NVMLError) -> bool:
    """Say whether the error is never about one device, or one reading, alone."""
    return error.value in _WHOLE


@contextmanager
def source_errors() -> Iterator[None]:
    """Translate what NVML raises about the whole machine."""
    try:
        yield
    except NVMLError as error:
        if error.value in _UNAVAILABLE:
            raise SourceUnavailable(_UNAVAILABLE[error.value]) from error
        if error.value == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
            raise SourceLost(_UPGRADED) from error
        raise SourceLost(
            f"The NVIDIA driver does not answer ({error}). It is asked again; if this "
            "goes on, see nvidia-smi and the kernel's log."
        ) from error


def start() -> None:
    """Initialise NVML."""
    pynvml.nvmlInit()


def stop() -> None:
    """Let go of NVML; the library itself stays loaded."""
    pynvml.nvmlShutdown()


def count_gpus() -> int:
    """Return how many GPUs there are, the slices of MIG not counted."""
    return int(pynvml.nvmlDeviceGetCount())


def open_gpu(index: int) -> list[tuple[Device, Any, Any]]:
    """Return the GPU, or its slices, each with its handle and that of its GPU."""
    gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
    minor = _optional(pynvml.nvmlDeviceGetMinorNumber, gpu)
    uuid = pynvml.nvmlDeviceGetUUID(gpu)
    mode = _optional(pynvml.nvmlDeviceGetMigMode, gpu)
    if mode is None or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return [(_describe(gpu, uuid, str(index), minor), gpu, gpu)]
    slices = []
    for slot in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, slot)
        except pynvml.NVMLError_NotFound:
            continue  # slots may be empty in between
        device = _describe(
            handle, pynvml.nvmlDeviceGetUUID(handle), f"{index}:{slot}", minor
        )
        device = replace(
            device,
            parent_uuid=uuid,
            gpu_instance=_optional(pynvml.nvmlDeviceGetGpuInstanceId, handle),
            compute_instance=_optional(pynvml.nvmlDeviceGetComputeInstanceId, handle),
        )
        slices.append((device, handle, gpu))
    return slices


def _describe(handle: Any, uuid: str, label: str, minor: int | None) -> Device:
    has = memory(handle)
    return Device(
        uuid=uuid,
        label=label,
        name=_optional(pynvml.nvmlDeviceGetName, handle) or "NVIDIA GPU",
        memory_bytes=has.total,
        reserved_bytes=has.reserved,
        context_bytes=estimated_context_bytes(has.total),
        minor=minor,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A device's memory in bytes; what is reserved is not in what is used."""

    total: int
    reserved: int
    used: int
    free: int


def memory(handle: Any) -> Memory:
    """Read the memory; drivers before 510 count what they reserve as used."""
    try:
        info = pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
        reserved = info.reserved
    except NVMLError as error:
        _raise_if_gone(error)
        info, reserved = pynvml.nvmlDeviceGetMemoryInfo(handle), 0
    return Memory(total=info.total, reserved=reserved, used=info.used, free=info.free)


def versions() -> Examination:
    """Read the versions of the driver, of NVML and of the CUDA that it offers."""
    cuda = _optional(pynvml.nvmlSystemGetCudaDriverVersion_v2)
    return Examination(
        driver=_optional(pynvml.nvmlSystemGetDriverVersion) or "",
        nvml=_optional(pynvml.nvmlSystemGetNVMLVersion) or "",
        cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
    )


def trouble(error: BaseException | None) -> str:
    """Return an examination's word for why the driver does not answer, or nothing."""
    return _TROUBLE.get(error.value, "") if isinstance(error, NVMLError) else ""


def condition(index: int) -> Condition:
    """Read what is set on a GPU, and what ails it.

    Raises:
        NVMLError: the GPU cannot be opened, or is lost.
    """
    gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
    mode = _optional(pynvml.nvmlDeviceGetComputeMode, gpu)
    persistence = _optional(pynvml.nvmlDeviceGetPersistenceMode, gpu)
    mig = _optional(pynvml.nvmlDeviceGetMigMode, gpu)
    pages = _optional(pynvml.nvmlDeviceGetRetiredPagesPendingStatus, gpu)
    remapped = _optional(pynvml.nvmlDeviceGetRemappedRows, gpu)
    capability = _optional(pynvml.nvmlDeviceGetCudaComputeCapability, gpu)
    return Condition(
        label=str(index),
        compute_mode=_COMPUTE_MODES.get(mode),
        persistence=None if persistence is None else bool(persistence),
        mig=None if mig is None else bool(mig[0]),
        mig_pending=None if mig is None else bool(mig[1]),
        ecc_uncorrected=_optional(
            pynvml.nvmlDeviceGetTotalEccErrors,
            gpu,
            pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            pynvml.NVML_VOLATILE_ECC,
        ),
        pages_pending=None if pages is None else bool(pages),
        remap_pending=None if remapped is None else bool(remapped[2]),
        remap_failed=None if remapped is None else bool(remapped[3]),
        compute_capability=None if capability is None else tuple(capability),
    )


def temperature_celsius(gpu: Any) -> float | None:
    """Return the temperature of a GPU; None where it does not tell."""
    value = _optional(pynvml.nvmlDeviceGetTemperature, gpu, pynvml.NVML_TEMPERATURE_GPU)
    return None if value is None else float(value)


def power_watts(gpu: Any) -> float | None:
    """Return what a GPU draws; None where it does not tell."""
    milliwatts = _optional(pynvml.nvmlDeviceGetPowerUsage, gpu)
    return None if milliwatts is None else milliwatts / 1000


def utilisation(gpu: Any, since: int) -> tuple[float | None, int]:
    """Return a GPU's mean utilisation since a time stamp of the driver's.

    The driver keeps about 14 s of it, five samples a second (seen with driver 580).

    Returns:
        The mean, 0.0 to 1.0, None where it is not told; and the stamp for next time.
    """
    try:
        _, rows = pynvml.nvmlDeviceGetSamples(
            gpu, pynvml.NVML_GPU_UTILIZATION_SAMPLES, since
        )
    except NVMLError as error:
        _raise_if_gone(error)
        rows = []
    rows = [row for row in rows if row.timeStamp > since]
    if rows:
        percents = [row.sampleValue.uiVal for row in rows]
        mean = min(1.0, sum(percents) / len(percents) / 100)
        return mean, max(row.timeStamp for row in rows)
    # Nothing new, or no such buffer: what the driver says of the last instant.
    try:
        return pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100, since
    except NVMLError as error:
        _raise_if_gone(error)
        return None, since


def processes_at_work(
    gpu: Any, since: int
) -> tuple[dict[int, float | None] | None, int]:
    """Return who worked since a time stamp of the driver's.

    Who is missing did not work, says the driver; but it samples five times a second and
    charges each sample to one process. Beside one that fills the GPU, another that
    computed for a few of every 100 ms was missing for 14 s on end (one H200, driver
    580): only a window of minutes proves a process idle.

    Returns:
        The utilisation by pid, 0.0 to 1.0, None where the driver talks nonsense; or
        None where it tells nothing of processes. And the stamp for next time.
    """
    try:
        rows = _retried(pynvml.nvmlDeviceGetProcessUtilization, gpu, since)
    except NVMLError as error:
        _raise_if_gone(error)
        # NOT_FOUND says that nobody worked; so does success without a sample, which
        # pynvml raises as the error of that number.
        idle = (pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_SUCCESS)
        return ({} if error.value in idle else None), since
    at_work: dict[int, float | None] = {}
    until = since
    for row in rows:
        if not row.pid or row.timeStamp <= since:
            continue  # padding, or told before
        percent = max(row.smUtil, row.memUtil, row.encUtil, row.decUtil)
        known = at_work.get(row.pid, 0.0)
        nonsense = percent > 100 or known is None
        at_work[row.pid] = None if nonsense else max(known or 0.0, percent / 100)
        until = max(until, row.timeStamp)
    return at_work, until


def processes(handle: Any) -> dict[int, int | None]:
    """Unite the three process lists: one process may stand in several of them.

    Returns:
        Bytes by pid: the most that any list states; None where none states it.

    Raises:
        NVMLError: one of the lists cannot be read.
    """
    memory_bytes: dict[int, int | None] = {}
    for kind in ("Compute", "Graphics", "MPSCompute"):
        name = f"nvmlDeviceGet{kind}RunningProcesses"
        try:
            listed = _list_with_fallback(name, handle)
        except NVMLError as error:
            # Who cannot run graphics or MPS has no such processes.
            if kind == "Compute" or error.value not in _NOT_OFFERED:
                raise
            continue
        for process in listed:
            stated = (memory_bytes.get(process.pid), process.usedGpuMemory)
            memory_bytes[process.pid] = max(
                (size for size in stated if size is not None), default=None
            )
    return memory_bytes


def _list_with_fallback(name: str, handle: Any) -> list[Any]:
    """List with the driver's newest function; before driver 510 that is _v2."""
    try:
        return _retried(getattr(pynvml, name), handle)
    except pynvml.NVMLLibraryMismatchError:
        return _retried(getattr(pynvml, f"{name}_v2"), handle)


def _retried(call: Callable[..., list[Any]], *arguments: Any) -> list[Any]:
    """Call again while the answer outgrows the buffer between its two calls."""
    for _ in range(_TRIES - 1):
        try:
            return call(*arguments)
        except pynvml.NVMLError_InsufficientSize:
            continue
    return call(*arguments)


def _optional(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return a reading that nothing depends on, or None where there is none."""
    try:
        return call(*arguments)
    except NVMLError as error:
        if error.value in _WHOLE:
            raise
        return None


def _raise_if_gone(error: NVMLError) -> None:
    """Raise what says more than that one reading is not to be had."""
    if is_lost(error) or is_about_all(error):
        raise error
