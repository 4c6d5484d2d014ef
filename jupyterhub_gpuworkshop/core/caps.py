"""Caps: what a lease means to each framework, as environment variables.

Owns the table of docs/reference/environment-and-caps.md. All caps here are soft: a
framework reads them and the attendee can undo them.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .leases import Lease, LeasedDevice
from .units import MIB

_SMALLEST_CAP = 64 * MIB
"""Below this no framework starts; a lease so small is the organiser's mistake."""

_FRACTION_STEPS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The variables of a server, after the lease has had its say.

    Attributes:
        variables: all of them.
        overruled: sentences for the log, one for each of the admin's variables that
            would have broken the lease.
    """

    variables: Mapping[str, str]
    overruled: tuple[str, ...]


def cap_bytes(lease: Lease) -> int:
    """Return what a framework may allocate, in bytes, on the tightest device.

    A framework counts its own allocator only, so the CUDA context comes off first
    (pytorch#58466: 6509 MB held under a limit of 5494 MB).
    """
    return min(
        (
            max(_SMALLEST_CAP, device.memory_bytes - device.context_bytes)
            for device in lease.devices
        ),
        default=0,
    )


def cap_fraction(lease: Lease) -> float:
    """Return the cap as a part of the device's memory, rounded down to 1/10000.

    So small a step, for 1/1000 of a large device is more than the smallest cap, and a
    fraction of zero means *no limit* to some frameworks.
    """
    parts = [
        max(_SMALLEST_CAP, device.memory_bytes - device.context_bytes)
        * _FRACTION_STEPS
        // device.total_bytes
        for device in lease.devices
    ]
    return max(1, min(parts)) / _FRACTION_STEPS if parts else 0.0


def is_slice(device: LeasedDevice) -> bool:
    """Say whether a device is a MIG slice, which the hardware keeps apart."""
    return device.uuid.startswith("MIG-")


def needs_no_fraction(lease: Lease) -> bool:
    """Say whether nobody else's memory is left for the import hook to guard.

    Several devices are whole ones, and to cap PyTorch on each would open a CUDA context
    on each, in every process of a training run. Beyond a slice that is one attendee's
    alone, the hardware lets nobody reach.
    """
    return len(lease.devices) != 1 or (lease.exclusive and is_slice(lease.devices[0]))


def visible_devices(lease: Lease, *, by_index: bool = False) -> str:
    """Return CUDA_VISIBLE_DEVICES for a lease.

    Args:
        lease: without devices it gives ``-1``, which hides every GPU. An empty value
            does so for CUDA too, but some programs take it for unset.
        by_index: indices for software that cannot read UUIDs; a MIG slice keeps its
            UUID, since it has no index.
    """
    if not lease.devices:
        return "-1"
    indices = [device.label for device in lease.devices]
    if by_index and not any(":" in label for label in indices):
        return ",".join(indices)
    return ",".join(lease.uuids)


def lease_variables(lease: Lease, *, by_index: bool = False) -> dict[str, str]:
    """Return what names the lease's devices: nobody else may set these."""
    variables = {
        "CUDA_VISIBLE_DEVICES": visible_devices(lease, by_index=by_index),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "NVIDIA_VISIBLE_DEVICES": ",".join(lease.uuids) or "void",
        "GPUWORKSHOP_SHARE": lease.share,
    }
    if lease.devices:
        limit = min(device.memory_bytes for device in lease.devices)
        variables["GPUWORKSHOP_MEMORY_LIMIT_BYTES"] = str(limit)
    if not needs_no_fraction(lease):
        variables["GPUWORKSHOP_MEMORY_FRACTION"] = f"{cap_fraction(lease):.4f}"
        variables["GPUWORKSHOP_MEMORY_CAP_BYTES"] = str(cap_bytes(lease))
    return variables


def framework_variables(lease: Lease) -> dict[str, str]:
    """Return the frameworks' own variables, computed from the lease.

    PyTorch, TensorFlow from 2.15 on and ONNX Runtime read none that caps them: the
    import hook does it, with GPUWORKSHOP_MEMORY_FRACTION and _CAP_BYTES.
    """
    if not lease.devices:
        return {}
    limit = cap_bytes(lease)
    megabytes = str(limit // MIB)
    to_leave = max(device.total_bytes for device in lease.devices) - limit
    return {
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        # Caps TensorFlow up to 2.14; from 2.15 on it bounds one allocation only.
        "TF_PER_DEVICE_MEMORY_LIMIT_MB": megabytes,
        "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{cap_fraction(lease):.4f}",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "CUPY_GPU_MEMORY_LIMIT": str(limit),
        "FLAGS_gpu_memory_limit_mb": megabytes,
        # No cap, but it keeps cuDF's pool from taking 80 % of the device.
        "CUDF_PANDAS_RMM_MODE": "cuda",
        "OLLAMA_GPU_OVERHEAD": str(to_leave),
    }


def _fraction_at_most(theirs: str, ours: str) -> bool:
    try:
        number = float(theirs)
    except ValueError:
        return False
    return 0 < number <= float(ours)


def _integer(text: str) -> int | None:
    """Read what every framework reads alike: digits that 64 bits can hold."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _at_most(theirs: str, ours: str) -> bool:
    number = _integer(theirs)
    # Zero means no limit.
    return number is not None and 0 < number <= int(ours)


def _at_least(theirs: str, ours: str) -> bool:
    number = _integer(theirs)
    return number is not None and number >= int(ours)


def _true(theirs: str, _ours: str) -> bool:
    # TensorFlow compares with "true" and takes anything else for unset.
    return theirs == "true"


def _anything(_theirs: str, _ours: str) -> bool:
    return True


_KEEPS_THE_LEASE: Mapping[str, Callable[[str, str], bool]] = {
    "TF_FORCE_GPU_ALLOW_GROWTH": _true,
    "TF_PER_DEVICE_MEMORY_LIMIT_MB": _at_most,
    "XLA_PYTHON_CLIENT_MEM_FRACTION": _fraction_at_most,
    # Preallocating within the fraction takes memory early, not too much of it.
    "XLA_PYTHON_CLIENT_PREALLOCATE": _anything,
    "CUPY_GPU_MEMORY_LIMIT": _at_most,
    "FLAGS_gpu_memory_limit_mb": _at_most,
    "CUDF_PANDAS_RMM_MODE": _anything,
    "OLLAMA_GPU_OVERHEAD": _at_least,
}
"""Whether a value that the admin set still keeps to the lease."""


_UNCAPPED_ALLOCATORS = {
    "TF_GPU_ALLOCATOR": "cuda_malloc_async",
    # XLA then allocates from CUDA directly and never reads JAX's fraction
    # (xla/pjrt/gpu/se_gpu_pjrt_client.cc).
    "XLA_PYTHON_CLIENT_ALLOCATOR": "platform",
}
"""Allocators that ignore every limit of their framework's."""


def _keeps_the_lease(name: str, theirs: str, ours: str, lease: Lease) -> bool:
    if name == "CUPY_GPU_MEMORY_LIMIT" and theirs.endswith("%"):
        percent = str(100 * cap_fraction(lease))
        # Less than a byte is 0 to CuPy, and 0 is no limit.
        return _fraction_at_most(theirs[:-1], percent) and all(
            float(theirs[:-1]) / 100 * x.total_bytes >= 1 for x in lease.devices
        )
    return _KEEPS_THE_LEASE[name](theirs, ours)


def apply_lease(
    environment: Mapping[str, str],
    lease: Lease,
    *,
    admin: Mapping[str, str],
    by_index: bool = False,
) -> Environment:
    """Lay a lease over a server's environment.

    Args:
        environment: the variables as the spawner computed them.
        lease: the lease of the server.
        admin: the part of them that the admin set (`Spawner.environment`): it stays,
            except where it would break the lease.
        by_index: see `visible_devices`.
    """
    result = dict(environment)
    overruled: list[str] = []

    def overrule(name: str, ours: str | None) -> None:
        instead = f"{ours!r} is set" if ours is not None else "it is left out"
        overruled.append(
            f"Spawner.environment sets {name}={admin[name]!r}, which would break the "
            f"lease of {lease.owner} ({lease.share}): {instead} instead."
        )

    for name, ours in lease_variables(lease, by_index=by_index).items():
        if name in admin and admin[name] != ours:
            overrule(name, ours)
        result[name] = ours

    ours_by_name = framework_variables(lease)
    _settle_jax(ours_by_name, admin, result, overrule)
    for name, ours in ours_by_name.items():
        if name in admin and _keeps_the_lease(name, str(admin[name]), ours, lease):
            continue
        if name in admin:
            overrule(name, ours)
        result[name] = ours

    for allocator, value in _UNCAPPED_ALLOCATORS.items():
        # XLA takes it in capitals too.
        if lease.devices and str(result.get(allocator)).lower() == value:
            if allocator in admin:
                overrule(allocator, None)
            del result[allocator]
    return Environment(variables=result, overruled=tuple(overruled))


def _settle_jax(
    ours_by_name: dict[str, str],
    admin: Mapping[str, str],
    result: dict[str, str],
    overrule: Callable[[str, str | None], None],
) -> None:
    """Keep to one of JAX's two names for its fraction: both at once are an error."""
    short, long = "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"
    if short not in result or long not in ours_by_name:
        return
    if short in admin and _fraction_at_most(str(admin[short]), ours_by_name[long]):
        del ours_by_name[long]
        if long in result:
            if long in admin:
                overrule(long, None)
            del result[long]
        return
    if short in admin:
        overrule(short, None)
    del result[short]
