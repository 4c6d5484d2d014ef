"""On which device caps are proven, and when nowhere."""

from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.errors import ProofError
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, ProcessUse
from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.machine.sampling import Reading
from jupyterhub_gpuworkshop.tools.prove_caps.plan import Plan, make_plan
from jupyterhub_gpuworkshop.workshop import Workshop

H100 = Device(
    uuid="GPU-0",
    label="0",
    name="H100",
    memory_bytes=80 * GIB,
    reserved_bytes=256 * MIB,
    context_bytes=512 * MIB,
)
OTHER = replace(H100, uuid="GPU-1", label="1")
SLICE = Device(
    uuid="MIG-0",
    label="0:0",
    name="MIG 1g.10gb",
    memory_bytes=10 * GIB,
    context_bytes=512 * MIB,
    parent_uuid="GPU-0",
)


def free(device: Device, *pids: int, taken_bytes: int = 0) -> DeviceSample:
    return DeviceSample(
        uuid=device.uuid,
        memory_total_bytes=device.memory_bytes,
        memory_used_bytes=taken_bytes,
        memory_free_bytes=device.memory_bytes - device.reserved_bytes - taken_bytes,
        processes=tuple(ProcessUse(pid=pid, memory_bytes=GIB) for pid in pids),
    )


def plan(
    workshop: dict[str, object],
    *devices: Device,
    samples: tuple[DeviceSample, ...] | None = None,
    force: bool = False,
) -> Plan:
    read = tuple(map(free, devices)) if samples is None else samples
    inventory = Inventory(devices=devices)
    return make_plan(
        Workshop.load(workshop), inventory, Reading(samples=read), force=force
    )


def test_two_attendees_get_the_leases_that_the_hub_would_give() -> None:
    made = plan({}, H100)
    assert len(made.leases) == 2
    shareable = 80 * GIB - 512 * MIB
    for lease in made.leases:
        assert lease.uuids == ("GPU-0",)
        assert lease.bytes_on("GPU-0") == shareable // 5
    assert made.limits.share == "1/5"
    assert made.limits.cap_bytes == shareable // 5 - 512 * MIB
    assert not made.limits.whole


@pytest.mark.parametrize("share", ["1/2", "1/5", "1/100", "8GiB", "40MiB"])
def test_a_trial_goes_a_tenth_past_the_share_and_never_past_what_is_free(
    share: str,
) -> None:
    made = plan({"shares": {"default": share}}, H100)
    limits = made.limits
    assert limits.past_bytes - limits.share_bytes >= limits.share_bytes // 10
    assert limits.past_bytes >= limits.cap_bytes + 2 * limits.block_bytes
    assert limits.past_bytes + 2 * H100.context_bytes <= made.need_bytes
    assert 2 * limits.share_bytes <= made.need_bytes
    assert limits.block_bytes % (2 * MIB) == 0


@pytest.mark.parametrize("share", ["1/1", "1 gpu", "2 gpus"])
def test_of_a_whole_device_nothing_is_left_for_a_second_attendee(share: str) -> None:
    made = plan({"shares": {"default": share}}, H100, OTHER)
    assert len(made.leases) == 1
    assert made.why_alone
    assert made.limits.whole
    # What no process can get: its end is the device's.
    assert made.limits.past_bytes > H100.memory_bytes


def test_two_thirds_are_no_whole_device() -> None:
    made = plan({"shares": {"default": "2/3"}}, H100)
    assert len(made.leases) == 1
    assert not made.limits.whole


def test_two_shares_that_only_fit_on_paper_are_not_tried_at_once() -> None:
    workshop = {"gpus": {"oversubscribe": 2.0}, "shares": {"default": "2/3"}}
    made = plan(workshop, H100)
    assert len(made.leases) == 1
    assert "gpus.oversubscribe" in made.why_alone


def test_a_mig_slice_is_proven_and_not_the_gpu_that_it_is_cut_from() -> None:
    made = plan({}, H100, SLICE)
    assert made.device is SLICE
    assert made.limits.device == "MIG slice 0:0"
    assert plan({"shares": {"default": "1 gpu"}}, H100, SLICE).limits.whole


def test_where_attendees_get_no_gpu_the_first_share_with_one_is_proven() -> None:
    shares = {"default": "cpu", "groups": {"b": "cpu", "c": "1/3"}, "users": {}}
    assert plan({"shares": shares}, H100).limits.share == "1/3"


@pytest.mark.parametrize(
    ("workshop", "devices", "said"),
    [
        ({"shares": {"default": "cpu"}}, [H100], "Every share in the workshop file"),
        ({}, [], "no GPU was found on this machine"),
        ({"gpus": {"exclude": [0]}}, [H100], "no GPU was found"),
        ({}, [replace(H100, lost=True)], "no GPU was found"),
        ({"shares": {"default": "90GiB"}}, [H100], "GPU 0"),
        ({"shares": {"default": "2 gpus"}}, [H100], "GPU 0"),
    ],
)
def test_where_there_is_nothing_to_prove_it_says_so(workshop, devices, said) -> None:
    with pytest.raises(ProofError, match=said):
        plan(workshop, *devices)


# -- who must not be disturbed


def test_a_device_that_somebody_uses_is_passed_over() -> None:
    samples = (free(H100, 4711), free(OTHER))
    assert plan({}, H100, OTHER, samples=samples).device is OTHER


def test_devices_that_are_all_in_use_are_left_alone_unless_forced() -> None:
    samples = (free(H100, 4711), free(OTHER, 4712, 4713))
    with pytest.raises(ProofError) as refused:
        plan({}, H100, OTHER, samples=samples)
    assert "GPU 0 is in use by process 4711" in str(refused.value)
    assert "GPU 1 is in use by process 4712, 4713" in str(refused.value)
    assert plan({}, H100, OTHER, samples=samples, force=True).device is H100


def test_a_device_whose_processes_cannot_be_listed_may_be_in_use() -> None:
    unknown = (replace(free(H100), processes=None),)
    with pytest.raises(ProofError, match="Who uses GPU 0 cannot be read"):
        plan({}, H100, samples=unknown)
    assert plan({}, H100, samples=unknown, force=True).device is H100


@pytest.mark.parametrize("force", [False, True])
def test_not_even_by_force_is_memory_taken_that_is_not_free(force: bool) -> None:
    need = plan({}, H100).need_bytes
    usable = H100.memory_bytes - H100.reserved_bytes
    enough = (free(H100, taken_bytes=usable - need),)
    assert plan({}, H100, samples=enough, force=force).device is H100
    little = (free(H100, taken_bytes=usable - need + 1),)
    with pytest.raises(ProofError, match="free, and the proof needs"):
        plan({}, H100, samples=little, force=force)


def test_a_device_that_does_not_answer_is_not_used() -> None:
    with pytest.raises(ProofError, match="GPU 0 cannot be read"):
        plan({}, H100, samples=(), force=True)
