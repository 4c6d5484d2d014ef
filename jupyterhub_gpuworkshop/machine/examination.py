"""What a deep look at the driver shows: values that `machine.examine` writes.

Owns their shape. The doctor reads them in another process, without NVML.
"""

from dataclasses import dataclass

from pydantic import TypeAdapter

MISMATCH = "mismatch"
ABSENT = "absent"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminedGpu:
    """One GPU, or one of its MIG slices; None for what it does not tell.

    Attributes:
        label: its index, ``0``, or ``0:1`` for a slice.
        uuid: empty where the GPU cannot be opened.
        name: for people.
        minor: the number of its node, /dev/nvidiaN.
        memory_bytes: all of it.
        used_bytes: used now.
        holders: who holds memory: bytes by pid; None where it is not told.
        tells_utilisation: whether its utilisation is told, by process or as a whole.
        problem: what could not be read and why; else empty.
    """

    label: str
    uuid: str = ""
    name: str = ""
    minor: int | None = None
    memory_bytes: int = 0
    used_bytes: int = 0
    holders: dict[int, int | None] | None = None
    tells_utilisation: bool | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What is set on a physical GPU, and what ails it.

    Attributes:
        label: its index.
        compute_mode: default, exclusive-process, exclusive-thread or prohibited.
        persistence: whether the driver stays loaded without clients.
        mig: whether MIG is on.
        mig_pending: whether it will be on after the next reset.
        ecc_uncorrected: errors since the driver was loaded.
        pages_pending: memory pages wait for a reset to be taken out of use.
        remap_pending: rows of memory wait for a reset to be remapped.
        remap_failed: a row could not be remapped.
        slices: how many MIG slices it has.
        compute_capability: what its hardware can, ``(7, 5)`` for Turing.
    """

    label: str
    compute_mode: str | None = None
    persistence: bool | None = None
    mig: bool | None = None
    mig_pending: bool | None = None
    ecc_uncorrected: int | None = None
    pages_pending: bool | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    slices: int = 0
    compute_capability: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What the driver says.

    Attributes:
        driver: its version.
        nvml: the version of its library.
        cuda: the newest CUDA that it serves.
        gpus: what can be given: GPUs, slices in the place of their GPU.
        conditions: of the physical GPUs.
        trouble: `ABSENT` without a driver, `MISMATCH` where library and kernel module
            are of different versions; else empty.
        problem: why nothing can be seen, in a sentence; else empty.
    """

    driver: str = ""
    nvml: str = ""
    cuda: str = ""
    gpus: tuple[ExaminedGpu, ...] = ()
    conditions: tuple[Condition, ...] = ()
    trouble: str = ""
    problem: str = ""


EXAMINATION: TypeAdapter[Examination] = TypeAdapter(Examination)
"""``.dump_json(value)`` gives bytes, ``.validate_json(output)`` reads them."""
