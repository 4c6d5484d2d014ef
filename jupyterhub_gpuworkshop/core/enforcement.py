"""What holds a lease to its memory, and whether that is soft or hard.

Owns the words for it, which the log, the API and the page use. A limit is *hard* where
the driver or the hardware refuses more, and *soft* where a program was asked to keep to
it: whoever owns the program can undo it, each process counts by itself, and nobody is
isolated from anybody by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from .caps import cap_bytes, is_slice, needs_no_fraction
from .leases import Lease
from .units import format_size


class LimitKind(str, Enum):
    """What a limit is worth."""

    HARD = "hard"
    SOFT = "soft"
    NONE = "none"


EVERYTHING = "all programs together"
"""What a hard limit applies to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HardCap:
    """What the driver was found to hold one lease's server to.

    Attributes:
        lease_id: the lease.
        cgroup: the server's, as a path in the tree; empty where none is known.
        by_device: the limits as read back, in bytes by UUID.
        problem: why the driver does not hold it on each device that is no MIG slice, in
            a sentence for organisers; else empty.
    """

    lease_id: str
    cgroup: str = ""
    by_device: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One thing that holds a lease to its memory, or does not.

    Attributes:
        applies_to: the programs.
        kind: hard, soft or none.
        limit_bytes: on the tightest device; None without a limit.
        enforced_by: who refuses more.
    """

    applies_to: str
    kind: LimitKind
    limit_bytes: int | None
    enforced_by: str


def limits_in_force(lease: Lease, hard: HardCap | None = None) -> tuple[Limit, ...]:
    """Return what holds a lease to its memory: what is hard first, then by framework.

    Args:
        lease: without devices there is nothing to limit.
        hard: what the driver holds it to, where somebody has looked.
    """
    if not lease.devices:
        return ()
    return (_hard_limit(lease, hard), *_soft_limits(lease), *_without_limit())


def overall(lease: Lease, hard: HardCap | None = None) -> LimitKind:
    """Return what the limit of a lease as a whole is worth.

    It is hard where nothing that its server runs can take more than the lease says, on
    any of its devices.
    """
    if not lease.devices:
        return LimitKind.NONE
    held = hard.by_device if hard else {}
    is_hard = all(
        (is_slice(device) and lease.exclusive)
        or held.get(device.uuid, device.memory_bytes + 1) <= device.memory_bytes
        for device in lease.devices
    )
    return LimitKind.HARD if is_hard else LimitKind.SOFT


def in_words(lease: Lease, hard: HardCap | None = None) -> str:
    """Return what holds a lease, as one line for the log."""
    limits = limits_in_force(lease, hard)
    parts = [
        f"hard: {format_size(x.limit_bytes)} for {x.applies_to}, by {x.enforced_by}"
        for x in limits
        if x.kind is LimitKind.HARD and x.limit_bytes is not None
    ]
    soft = [x.applies_to for x in limits if x.kind is LimitKind.SOFT]
    if soft:
        most = format_size(cap_bytes(lease))
        parts.append(f"soft: {most} for each process of {', '.join(soft)}")
    return "; ".join(parts) or "none, for it has no GPU"


def _hard_limit(lease: Lease, hard: HardCap | None) -> Limit:
    held = hard.by_device if hard else {}
    slices = [device for device in lease.devices if is_slice(device)]
    others = [device.uuid for device in lease.devices if not is_slice(device)]
    if any(uuid not in held for uuid in others):
        return Limit(
            applies_to=EVERYTHING,
            kind=LimitKind.NONE,
            limit_bytes=None,
            enforced_by="nothing",
        )
    by = []
    if others and hard is not None:
        by.append(f"the driver, on cgroup {hard.cgroup}")
    if slices:
        by.append("the hardware: a MIG slice has no more")
    limits = [held[uuid] for uuid in others] + [x.total_bytes for x in slices]
    return Limit(
        applies_to=EVERYTHING,
        kind=LimitKind.HARD,
        limit_bytes=min(limits),
        enforced_by="; ".join(by),
    )


_BY_HOOK = {
    "PyTorch": "its allocator, told by the import hook",
    "TensorFlow": "its allocator, told by the import hook",
    "ONNX Runtime": "the arena of each session, told by the import hook",
}
_BY_VARIABLE = {
    "JAX": "its allocator, told by XLA_PYTHON_CLIENT_MEM_FRACTION",
    "CuPy": "its memory pool, told by CUPY_GPU_MEMORY_LIMIT",
    "Paddle": "its allocator, told by FLAGS_gpu_memory_limit_mb",
    "Ollama": "its own sums, told by OLLAMA_GPU_OVERHEAD",
}
_UNKNOWN = "cuDF and RMM, Numba, XGBoost, LightGBM, llama.cpp, vLLM"


def _soft_limits(lease: Lease) -> list[Limit]:
    """Return what frameworks were asked to keep to (facts/gpu.md, its table)."""
    limit_bytes = cap_bytes(lease)
    why_not = ""
    if not lease.hook:
        why_not = "nothing: the server has no import hook"
    elif needs_no_fraction(lease):
        why_not = "nothing: the devices are this server's alone"
    limits = [
        Limit(
            applies_to=name,
            kind=LimitKind.NONE if why_not else LimitKind.SOFT,
            limit_bytes=None if why_not else limit_bytes,
            enforced_by=why_not or by,
        )
        for name, by in _BY_HOOK.items()
    ]
    limits += [
        Limit(
            applies_to=name,
            kind=LimitKind.SOFT,
            limit_bytes=limit_bytes,
            enforced_by=by,
        )
        for name, by in _BY_VARIABLE.items()
    ]
    return limits


def _without_limit() -> tuple[Limit]:
    return (
        Limit(
            applies_to=_UNKNOWN,
            kind=LimitKind.NONE,
            limit_bytes=None,
            enforced_by="nothing: no setting is known",
        ),
    )
