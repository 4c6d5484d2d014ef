"""Hard limits of leases: set, found again, lifted. The driver is a double."""

import asyncio
import json
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice, LeaseState
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import REPORT, Report
from jupyterhub_gpuworkshop.machine.limits import CgroupLimits
from jupyterhub_gpuworkshop.service.limits import HardCaps
from tests.machine.nvml_double.words import NO_PERMISSION, gpu

from .service_process import ServiceProcess
from .stub_hub import StubHub

pytestmark = pytest.mark.gcc

NONE = 2**64 - 1
SETTER = "nvmlDeviceSetMemoryLimits_v1"
ADA = "jupyter-ada.service"
CGROUP = f"/system.slice/{ADA}"


def lease(user="ada", *uuids, **changes):
    devices = tuple(
        LeasedDevice(
            uuid=uuid, label=uuid[-1], memory_bytes=3 * GIB, total_bytes=16 * GIB
        )
        for uuid in uuids or ("GPU-a",)
    )
    given = {"engine": "systemd", "engine_id": f"jupyter-{user}.service", **changes}
    return Lease(
        id=f"lease-of-{user}",
        user=user,
        server="",
        share="1/5",
        devices=devices,
        granted_at=0.0,
        **given,
    )


@dataclass
class Room:
    """A machine with cgroups, a driver, and a service that may be started anew."""

    tree: Path
    now: float = 1000.0
    report: Report = field(default_factory=lambda: Report(hub_id="hub", sent_at=0.0))

    def __post_init__(self):
        (self.tree / "system.slice").mkdir(parents=True)
        (self.tree / "cgroup.controllers").touch()
        self.restart()

    def restart(self):
        limits = CgroupLimits(self.tree)
        self.service = HardCaps(self, limits, clock=lambda: self.now)

    def start_server(self, user="ada"):
        self.cgroup(user).mkdir()

    def stop_server(self, user="ada"):
        self.cgroup(user).rmdir()

    def cgroup(self, user="ada"):
        return self.tree / f"system.slice/jupyter-{user}.service"

    async def step(self, *leases, seconds=5.0):
        self.now += seconds
        self.report = replace(self.report, leases=leases)
        await self.service.step()
        return {cap.lease_id: cap for cap in self.service.caps}


@pytest.fixture
def room(tmp_path, driver, caplog):
    caplog.set_level(logging.INFO)
    driver.say(gpu("GPU-a"), gpu("GPU-b", minor=1))
    return Room(tmp_path / "cgroup")


async def test_a_limit_is_set_once_the_server_is_up_and_lifted_with_the_lease(
    room, driver, caplog
):
    caps = await room.step(lease())
    assert "not to be seen" in caps["lease-of-ada"].problem
    assert (driver.limits, caplog.records) == ([], [])
    room.start_server()
    at = str(room.cgroup())
    for _ in range(3):
        cap = (await room.step(lease()))["lease-of-ada"]
        assert (cap.cgroup, cap.by_device) == (CGROUP, {"GPU-a": 3 * GIB})
        assert cap.problem == ""
    assert driver.limits == [("GPU-a", 0, 3 * GIB, at)]
    assert await room.step() == {}
    assert driver.limits[1:] == [("GPU-a", 0, NONE, at)]
    await room.step()
    assert [record.getMessage() for record in caplog.records] == [
        f"The driver now holds ada (1/5) to 3 GiB of GPU a, on cgroup {CGROUP}",
        f"The driver holds ada no more, on cgroup {CGROUP}: lifted",
    ]


async def test_each_device_of_a_lease_is_limited(room, driver):
    room.start_server()
    cap = (await room.step(lease("ada", "GPU-a", "GPU-b")))["lease-of-ada"]
    assert cap.by_device == {"GPU-a": 3 * GIB, "GPU-b": 3 * GIB}
    await room.step()
    assert [x[2] for x in driver.limits[2:]] == [NONE, NONE]


async def test_a_service_that_starts_anew_finds_what_is_set(room, driver, caplog):
    room.start_server()
    await room.step(lease())
    room.restart()
    # The hub has not reported yet: nothing is lifted for that.
    await room.step()
    cap = (await room.step(lease()))["lease-of-ada"]
    assert cap.by_device == {"GPU-a": 3 * GIB}
    assert len(driver.limits) == 1
    assert "holds, as it did before, ada (1/5)" in caplog.text
    await room.step()
    assert driver.limits[1][2] == NONE


async def test_a_server_that_would_not_stop_stays_limited(room, driver):
    room.start_server()
    await room.step(lease())
    held_back = replace(lease(), state=LeaseState.QUARANTINED)
    cap = (await room.step(held_back))["lease-of-ada"]
    assert cap.by_device == {"GPU-a": 3 * GIB}
    assert len(driver.limits) == 1
    await room.step()
    assert len(driver.limits) == 2


async def test_a_server_that_is_started_again_is_limited_again(room, driver, caplog):
    # Its unit has the same name, and its cgroup is another one without a limit.
    room.start_server()
    await room.step(lease())
    room.stop_server()
    driver.forget_limits()
    assert (await room.step(lease()))["lease-of-ada"].by_device == {}
    assert f"no more, on cgroup {CGROUP}: it is gone" in caplog.text
    room.start_server()
    for again in (lease(), replace(lease(), id="another")):
        cap = (await room.step(again))[again.id]
        assert cap.by_device == {"GPU-a": 3 * GIB}
        assert driver.limits[-1][2] == 3 * GIB


async def test_a_limit_that_somebody_took_away_is_set_again(room, driver):
    room.start_server()
    await room.step(lease())
    driver.forget_limits()
    await room.step(lease())
    assert driver.limits == []
    await room.step(lease(), seconds=60.0)
    assert [x[2] for x in driver.limits] == [3 * GIB]


async def test_the_end_of_an_old_lease_leaves_a_new_one_of_its_name_limited(
    room, driver
):
    room.start_server()
    old = replace(lease(), id="old", state=LeaseState.QUARANTINED)
    await room.step(old)
    await room.step(old, lease())
    cap = (await room.step(lease()))["lease-of-ada"]
    assert cap.by_device == {"GPU-a": 3 * GIB}
    assert driver.limits[-1][2] == 3 * GIB


async def test_a_driver_that_refuses_is_told_once_and_asked_again(room, driver, caplog):
    for user in ("ada", "bob"):
        room.start_server(user)
    driver.say(f"fail {SETTER} * {NO_PERMISSION}")
    for _ in range(3):
        caps = await room.step(lease(), lease("bob"))
    assert "only root" in caps["lease-of-bob"].problem
    assert caps["lease-of-bob"].by_device == {}
    (record,) = caplog.records
    assert "No hard limit on GPU memory is set: The NVIDIA driver lets only root" in (
        record.getMessage()
    )
    assert driver.calls(SETTER) == 2
    driver.unsay("fail")
    caps = await room.step(lease(), lease("bob"), seconds=60.0)
    assert caps["lease-of-bob"].by_device == {"GPU-a": 3 * GIB}
    # What failed for one lease is no other's matter, and its end no trouble.
    driver.say(f"fail {SETTER} * {NO_PERMISSION}")
    for _ in range(2):
        await room.step(lease("bob"))
    said = "is not lifted: The NVIDIA driver lets only root"
    assert caplog.text.count(said) == 1
    driver.unsay("fail")
    await room.step(lease("bob"))
    assert driver.limits[-1][1:3] == (0, NONE)


@pytest.mark.parametrize("changes", [{"engine": "", "engine_id": ""}])
async def test_a_server_in_the_hubs_cgroup_is_not_limited(room, driver, changes):
    room.start_server()
    cap = (await room.step(lease(**changes)))["lease-of-ada"]
    assert (cap.by_device, driver.limits) == ({}, [])
    assert "gpu-systemd" in cap.problem


async def test_a_slice_is_the_hardwares_to_limit(room, driver):
    room.start_server()
    cap = (await room.step(lease("ada", "MIG-a")))["lease-of-ada"]
    assert (cap.problem, cap.by_device, driver.limits) == ("", {}, [])


async def test_simulated_gpus_have_no_hard_limit_and_say_so(room, driver):
    room.start_server()
    room.service = HardCaps(room, None)
    cap = (await room.step(lease()))["lease-of-ada"]
    assert cap.problem == "Simulated GPUs have no hard limit."
    assert driver.limits == []


async def test_without_cgroups_of_version_2_the_reason_is_there(room):
    room.start_server()
    (room.tree / "cgroup.controllers").unlink()
    cap = (await room.step(lease()))["lease-of-ada"]
    assert "unified_cgroup_hierarchy" in cap.problem


async def test_a_server_without_a_gpu_is_no_matter_here(room):
    assert await room.step(replace(lease(), devices=())) == {}


async def test_a_driver_that_hangs_keeps_what_is_known(
    room, driver, caplog, monkeypatch
):
    room.start_server()
    await room.step(lease())
    monkeypatch.setattr("jupyterhub_gpuworkshop.service.limits._TIMEOUT_SECONDS", 0.1)
    driver.say(f"hang {SETTER}")
    room.start_server("bob")
    for _ in range(2):
        caps = await room.step(lease(), lease("bob"))
    assert caps["lease-of-ada"].by_device == {"GPU-a": 3 * GIB}
    assert "has not answered" in caps["lease-of-bob"].problem
    assert caplog.text.count("The GPU driver does not answer.") == 1


async def test_the_service_asks_the_driver_where_there_is_one(tmp_path, driver):
    driver.say(gpu())
    hub = StubHub()
    workshop = {"gpus": {"source": "nvml"}, "monitor": {"interval": "0.5s"}}
    process = ServiceProcess(
        tmp_path, workshop, hub_port=hub.port, **driver.environment
    ).start()
    try:
        await process.is_up()
        report = Report(hub_id="hub", sent_at=1.0, leases=(lease(),))
        assert (await process.report(REPORT.dump_json(report))).code == 200
        why = ""
        while not why:
            await asyncio.sleep(0.05)
            asked = {"Authorization": "token organiser-token"}
            view = json.loads(
                (await process.get("api/v1/snapshot", headers=asked)).body
            )
            why = "".join(x["no_hard_limit"] for x in view["leases"])
    finally:
        process.end()
        await hub.stop()
    # No server of hers runs on this machine, whose cgroups may be of version 1.
    assert "not to be seen" in why or "unified_cgroup_hierarchy" in why
