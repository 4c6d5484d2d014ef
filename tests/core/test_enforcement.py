"""What holds a lease to its memory is said as it is: soft, hard, or nothing."""

import pytest

from jupyterhub_gpuworkshop.core.enforcement import (
    HardCap,
    Limit,
    LimitKind,
    in_words,
    limits_in_force,
    overall,
)
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.units import GIB

CGROUP = "/system.slice/jupyter-ada.service"


def part(uuid: str, memory: int = 4 * GIB, total: int = 16 * GIB) -> LeasedDevice:
    return LeasedDevice(
        uuid=uuid,
        label="0",
        memory_bytes=memory,
        total_bytes=total,
        context_bytes=GIB,
    )


def lease(*devices: LeasedDevice, exclusive: bool = False, hook: bool = True) -> Lease:
    return Lease(
        id="l",
        user="ada",
        server="",
        share="1/4",
        exclusive=exclusive,
        devices=devices,
        granted_at=0.0,
        hook=hook,
    )


def held(**by_device: int) -> HardCap:
    by_uuid = {uuid.replace("_", "-"): size for uuid, size in by_device.items()}
    return HardCap(lease_id="l", cgroup=CGROUP, by_device=by_uuid)


QUARTER = lease(part("GPU-a"))


def by_name(of: Lease, hard: HardCap | None = None) -> dict[str, Limit]:
    return {x.applies_to: x for x in limits_in_force(of, hard)}


def test_without_a_driver_that_holds_it_every_limit_is_soft_or_none():
    limits = by_name(QUARTER)
    assert LimitKind.HARD not in {x.kind for x in limits.values()}
    assert overall(QUARTER) is LimitKind.SOFT
    soft = {name for name, x in limits.items() if x.kind is LimitKind.SOFT}
    assert soft == {
        *("PyTorch", "TensorFlow", "ONNX Runtime"),
        *("JAX", "CuPy", "Paddle", "Ollama"),
    }
    assert {limits[name].limit_bytes for name in soft} == {3 * GIB}
    assert limits["all programs together"].enforced_by == "nothing"
    (nobody,) = (x for name, x in limits.items() if "Numba" in name)
    assert (nobody.kind, nobody.limit_bytes) == (LimitKind.NONE, None)


@pytest.mark.parametrize("hard", [None, held()])
def test_no_word_calls_a_soft_limit_more_than_it_is(hard: HardCap | None):
    said = in_words(QUARTER, hard)
    assert said.startswith("soft: 3 GiB for each process of PyTorch, TensorFlow, ")
    for word in ("hard", "isolat", "guarantee"):
        assert word not in said


def test_without_the_hook_what_it_would_cap_is_not_capped():
    limits = by_name(lease(part("GPU-a"), hook=False))
    for name in ("PyTorch", "TensorFlow", "ONNX Runtime"):
        assert limits[name].kind is LimitKind.NONE
        assert "no import hook" in limits[name].enforced_by
    assert limits["JAX"].kind is LimitKind.SOFT


@pytest.mark.parametrize(
    "of",
    [
        lease(part("GPU-a"), part("GPU-b"), exclusive=True),
        lease(part("MIG-a"), exclusive=True),
    ],
)
def test_the_hook_does_not_cap_devices_of_ones_own(of: Lease):
    limit = by_name(of)["PyTorch"]
    assert (limit.kind, limit.limit_bytes) == (LimitKind.NONE, None)
    assert "alone" in limit.enforced_by


def test_the_drivers_limit_is_hard_for_all_programs_together():
    limit = by_name(QUARTER, held(GPU_a=4 * GIB))["all programs together"]
    assert (limit.kind, limit.limit_bytes) == (LimitKind.HARD, 4 * GIB)
    assert limit.enforced_by == f"the driver, on cgroup {CGROUP}"
    assert overall(QUARTER, held(GPU_a=4 * GIB)) is LimitKind.HARD
    said = in_words(QUARTER, held(GPU_a=4 * GIB))
    assert said.startswith("hard: 4 GiB for all programs together, by the driver, on")


def test_a_limit_on_one_of_two_devices_is_none():
    two = lease(part("GPU-a"), part("GPU-b", 5 * GIB))
    assert overall(two, held(GPU_a=4 * GIB)) is LimitKind.SOFT
    first = by_name(two, held(GPU_a=4 * GIB))["all programs together"]
    assert first.kind is LimitKind.NONE
    both = held(GPU_a=4 * GIB, GPU_b=5 * GIB)
    assert overall(two, both) is LimitKind.HARD
    assert by_name(two, both)["all programs together"].limit_bytes == 4 * GIB


def test_a_slice_of_ones_own_is_hard_by_nature():
    own = lease(part("MIG-a", 15 * GIB), exclusive=True)
    limit = by_name(own)["all programs together"]
    assert (limit.kind, limit.limit_bytes) == (LimitKind.HARD, 16 * GIB)
    assert limit.enforced_by == "the hardware: a MIG slice has no more"
    assert overall(own) is LimitKind.HARD


def test_a_part_of_a_slice_is_hard_at_the_slice_and_soft_at_the_part():
    of = lease(part("MIG-a"))
    assert by_name(of)["all programs together"].limit_bytes == 16 * GIB
    assert by_name(of)["PyTorch"].kind is LimitKind.SOFT
    assert overall(of) is LimitKind.SOFT


def test_a_server_without_a_gpu_has_nothing_to_limit():
    cpu = lease()
    assert limits_in_force(cpu) == ()
    assert overall(cpu) is LimitKind.NONE
    assert in_words(cpu) == "none, for it has no GPU"
