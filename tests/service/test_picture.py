"""Signals that are missing are unknown, never idle."""

from dataclasses import replace

from jupyterhub_gpuworkshop.core.attribution import KernelTree, Owner
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.snapshot import (
    DeviceSample,
    Holder,
    HolderKind,
    KernelState,
    ProcessFacts,
    ProcessId,
)
from jupyterhub_gpuworkshop.service.host import Processes
from jupyterhub_gpuworkshop.service.picture import (
    read_kernel,
    use_devices,
    use_leases,
)
from jupyterhub_gpuworkshop.service.servers import KernelInfo

MAIN = ProcessId(pid=10, started=100)
OWNER = Owner(lease_id="l", user="ada", server="", kernel_id="k")
TREE = KernelTree(owner=OWNER, main=MAIN, members=frozenset({MAIN}), cpu_seconds=3.0)
INFO = KernelInfo(kernel_id="k", state=KernelState.IDLE, last_activity="t")
HOLDER = Holder(
    process=MAIN,
    device="GPU-0",
    memory_bytes=5,
    utilisation=0.0,
    kind=HolderKind.KERNEL,
    lease_id="l",
    user="ada",
    kernel_id="k",
)
LEASE = Lease(
    id="l",
    user="ada",
    server="",
    share="2 gpus",
    granted_at=0.0,
    devices=tuple(
        LeasedDevice(uuid=uuid, label="0", memory_bytes=8, total_bytes=16)
        for uuid in ("GPU-0", "GPU-1")
    ),
)


def sample(uuid, **changes):
    given = {
        "uuid": uuid,
        "memory_total_bytes": 16,
        "memory_used_bytes": 5,
        "memory_free_bytes": 11,
        "utilisation": 0.0,
    }
    return DeviceSample(**{**given, **changes})


SAMPLES = {uuid: sample(uuid) for uuid in ("GPU-0", "GPU-1")}


def read(samples=SAMPLES, holders=(HOLDER,), tree=TREE, lease=LEASE):
    return read_kernel(tree, INFO, list(holders), lease, samples, 1.0)


def test_all_signals_of_a_kernel_are_put_together():
    reading = read()
    assert (reading.gpu_utilisation, reading.device_utilisation) == (0.0, 0.0)
    assert (reading.memory_bytes, reading.cpu_seconds) == (5, 3.0)
    assert reading.process == MAIN


def test_the_busiest_process_and_the_busiest_device_count():
    busy = replace(HOLDER, utilisation=0.5)
    samples = {**SAMPLES, "GPU-1": sample("GPU-1", utilisation=0.7)}
    reading = read(samples, [HOLDER, busy])
    assert (reading.gpu_utilisation, reading.device_utilisation) == (0.5, 0.7)
    assert reading.memory_bytes == 10


def test_a_process_without_a_reading_makes_the_kernels_unknown():
    silent = replace(HOLDER, utilisation=None, memory_bytes=None)
    reading = read(holders=[HOLDER, silent])
    assert (reading.gpu_utilisation, reading.memory_bytes) == (None, None)
    assert reading.device_utilisation == 0.0


def test_a_device_whose_processes_cannot_be_listed_hides_what_the_kernel_does():
    reading = read({**SAMPLES, "GPU-1": sample("GPU-1", processes=None)})
    assert (reading.gpu_utilisation, reading.memory_bytes) == (None, None)


def test_one_process_at_work_is_not_hidden_by_another_that_is_unknown():
    silent = replace(HOLDER, utilisation=None)
    busy = replace(HOLDER, device="GPU-1", utilisation=0.3)
    assert read(holders=[silent, busy]).gpu_utilisation == 0.3
    samples = {
        "GPU-0": sample("GPU-0", utilisation=None),
        "GPU-1": sample("GPU-1", utilisation=0.3),
    }
    assert read(samples).device_utilisation == 0.3


def test_a_device_of_others_that_cannot_be_listed_may_be_what_the_kernel_computes_on():
    # CUDA_VISIBLE_DEVICES is the attendee's to change.
    for utilisation in (0.4, None):
        blind = sample("GPU-2", processes=None, utilisation=utilisation)
        reading = read({**SAMPLES, "GPU-2": blind})
        assert (reading.gpu_utilisation, reading.memory_bytes) == (None, 5)
        assert reading.device_utilisation == utilisation
    resting = sample("GPU-2", processes=None)
    assert read({**SAMPLES, "GPU-2": resting}).gpu_utilisation == 0.0


def test_a_device_that_was_not_read_is_unknown_in_every_way():
    for samples in ({}, {"GPU-0": SAMPLES["GPU-0"]}):
        reading = read(samples)
        assert reading.gpu_utilisation is None
        assert reading.device_utilisation is None
        assert reading.memory_bytes is None


def test_a_lease_without_a_gpu_holds_nothing_where_there_is_none_to_read():
    reading = read(samples={}, holders=(), lease=replace(LEASE, devices=()))
    assert reading.memory_bytes == 0
    # It may yet compute on one that nobody can read.
    assert reading.gpu_utilisation is None
    assert read(samples={}, holders=()).memory_bytes is None


def test_a_lease_is_unknown_where_one_of_its_processes_or_the_list_is():
    silent = replace(HOLDER, device="GPU-1", memory_bytes=None)
    strange = replace(silent, lease_id="", device="GPU-0")
    (use,) = use_leases([LEASE], [HOLDER, silent, strange], frozenset(SAMPLES), {})
    assert use.unknown == {"GPU-1"}
    assert use.memory_bytes == {"GPU-0": 5, "GPU-1": 0}
    (use,) = use_leases([LEASE], [HOLDER], frozenset({"GPU-1"}), {})
    assert use.unknown == {"GPU-0"}
    (use,) = use_leases([LEASE], [HOLDER], frozenset(SAMPLES), {})
    assert use.unknown == frozenset()


def test_a_kernel_without_a_known_process_has_no_processor_time():
    assert read(tree=replace(TREE, main=None)).cpu_seconds is None


def test_whom_no_lease_explains_is_in_the_way_largest_first_and_unnamed():
    facts = ProcessFacts(
        pid=30, started=1, parent=1, session=30, uid=1234, cpu_seconds=0.0
    )
    stranger = Holder(
        process=ProcessId(pid=30, started=1),
        device="GPU-0",
        memory_bytes=3,
        utilisation=0.0,
        kind=HolderKind.FOREIGN,
        command="/usr/bin/python3 -m train",
    )
    left = replace(stranger, process=MAIN, memory_bytes=9, user="eve")
    shared = replace(stranger, memory_bytes=1, kind=HolderKind.UNATTRIBUTED)
    gone = replace(stranger, process=ProcessId(pid=7, started=0), command="")
    holders = (stranger, left, shared, HOLDER, replace(gone, memory_bytes=None))
    uses = use_leases([LEASE], holders, frozenset(SAMPLES), {"l": 7})
    (use,) = use_devices(
        [SAMPLES["GPU-0"]],
        uses,
        holders,
        Processes(facts={30: facts}, user_names={1234: "bob"}),
        42.0,
    )
    assert use.by_lease == {"l": 5}
    assert use.in_the_way == (
        ("a process that a stopped server left behind: python3 (pid 10)", 9),
        ("a process outside the hub: python3 (pid 30, user bob)", 3),
        ("a process of some attendee, in no server: python3 (pid 30)", 1),
        ("a process outside the hub: unknown (pid 7, user unknown)", 0),
    )
    assert (use.free_bytes, use.sampled_at) == (11, 42.0)
    assert uses[0].peak_memory_bytes == 7
