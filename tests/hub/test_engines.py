"""Leases of servers that an engine runs, and that no spawner vouches for."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError
from jupyterhub_gpuworkshop.core.leases import Lease, LeaseState
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.hub.allocator import Allocator
from jupyterhub_gpuworkshop.hub.engines import Engines
from jupyterhub_gpuworkshop.hub.ledger import DurableLedger
from jupyterhub_gpuworkshop.hub.reconcile import Reconciler
from jupyterhub_gpuworkshop.workshop import Workshop

UNIT = "jupyter-ada.service"


class Units:
    """An engine: what runs, by the engine's own names."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.deaf: set[str] = set()
        self.broken = False
        self.before_ending: Any = None

    async def is_running(self, lease: Lease) -> bool:
        if self.broken:
            raise OSError("the bus is gone")
        return lease.engine_id in self.running

    async def end(self, lease: Lease) -> None:
        if self.before_ending is not None:
            await self.before_ending()
        self.running -= {lease.engine_id} - self.deaf


class Room:
    """What a reconciler needs of a runtime, with a real ledger and allocator."""

    def __init__(self, folder: Any) -> None:
        self.log = logging.getLogger("test-engines")
        self.units = Units()
        self.engines = SimpleNamespace(of=lambda lease: self.units)
        self.tokens = SimpleNamespace(revoke=lambda lease_id: None)
        self.records = SimpleNamespace(keep_only=lambda ids: None)
        self.starting: set[str] = set()
        self.spawners: dict[str, Any] = {}
        self.allocator = Allocator(
            DurableLedger(f"sqlite:///{folder}/ledger.sqlite"),
            Workshop.load({"gpus": {"attendees_per_gpu": 4}}),
            boot_id="boot-1",
            clock=lambda: 1000.0,
            log=self.log,
            changed=lambda: None,
        )
        gpu = Device(uuid="GPU-0", label="0", name="GPU", memory_bytes=16 * GIB)
        self.allocator.observe(Inventory(devices=(gpu,), taken_at=1000.0), ())
        self.reconciler = Reconciler(self)  # type: ignore[arg-type]

    def take_up_leases(self) -> None: ...

    def holders(self) -> dict[str, Any]:
        return self.spawners

    def grant(self, user: str = "ada", unit: str = UNIT) -> Lease:
        self.units.running.add(unit)
        return self.allocator.claim(
            user=user, server="", engine="systemd", engine_id=unit
        )

    def vouch(self, lease: Lease) -> None:
        self.spawners[lease.id] = SimpleNamespace(server=object(), pending=None)

    @property
    def leases(self) -> dict[str, LeaseState]:
        ledger = self.allocator.ledger
        return {lease_id: lease.state for lease_id, lease in ledger.leases.items()}


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path)


async def test_a_lease_whose_server_is_on_record_is_left_alone(room):
    lease = room.grant()
    room.vouch(lease)
    assert not await room.reconciler.reconcile()
    assert room.leases == {lease.id: LeaseState.ACTIVE}
    assert room.units.running == {UNIT}


async def test_a_forgotten_unit_is_ended_and_then_its_lease_released(room):
    room.grant()
    assert not await room.reconciler.reconcile()
    assert room.leases == {}
    assert room.units.running == set()


async def test_a_unit_that_does_not_end_keeps_its_device(room):
    lease = room.grant()
    room.units.deaf.add(UNIT)
    assert await room.reconciler.reconcile()
    assert room.leases == {lease.id: LeaseState.QUARANTINED}
    room.units.deaf.clear()
    assert not await room.reconciler.reconcile()
    assert room.leases == {}


async def test_an_engine_that_does_not_answer_keeps_the_lease(room):
    lease = room.grant()
    room.units.running.clear()
    room.units.broken = True
    assert await room.reconciler.reconcile()
    assert room.leases == {lease.id: LeaseState.QUARANTINED}


async def test_a_server_that_runs_again_after_a_reboot_keeps_its_lease(room):
    lease = room.grant()
    room.vouch(lease)
    room.reconciler.boot_id = "boot-2"
    await room.reconciler.reconcile()
    assert room.leases == {lease.id: LeaseState.ACTIVE}


async def test_a_server_is_not_started_beside_its_predecessor(room):
    before = room.grant()
    await room.reconciler.clear_the_way("ada", "")
    assert before.id not in room.leases
    assert room.units.running == set()


async def test_a_predecessor_in_quarantine_is_ended_before_its_name_is_used_again(room):
    before = room.grant()
    room.allocator.quarantine(before.id, "it would not stop")
    other = room.grant("bob", "jupyter-bob.service")
    await room.reconciler.clear_the_way("ada", "")
    assert room.leases == {other.id: LeaseState.ACTIVE}
    assert room.units.running == {"jupyter-bob.service"}


async def test_a_predecessor_that_does_not_end_is_quarantined_not_forgotten(room):
    before = room.grant()
    room.units.deaf.add(UNIT)
    await room.reconciler.clear_the_way("ada", "")
    later = room.grant()
    assert room.leases == {
        before.id: LeaseState.QUARANTINED,
        later.id: LeaseState.ACTIVE,
    }


async def test_the_heir_of_a_name_is_never_ended_in_its_predecessors_place(room):
    before = room.grant()
    room.allocator.quarantine(before.id, "it would not stop")
    later = room.grant()
    room.starting.add(later.id)
    assert await room.reconciler.reconcile()
    assert set(room.leases) == {before.id, later.id}
    assert room.units.running == {UNIT}
    room.starting.clear()
    room.vouch(later)
    assert not await room.reconciler.reconcile()
    assert room.leases == {later.id: LeaseState.ACTIVE}
    assert room.units.running == {UNIT}


async def test_nobody_starts_a_server_while_its_predecessor_is_being_ended(room):
    room.grant()
    ending, goes_on = asyncio.Event(), asyncio.Event()

    async def wait():
        ending.set()
        await goes_on.wait()

    room.units.before_ending = wait
    reconciling = asyncio.ensure_future(room.reconciler.reconcile())
    await ending.wait()
    lock = room.reconciler.lock("ada", "")
    assert lock.locked()
    assert not room.reconciler.lock("bob", "").locked()
    goes_on.set()
    await reconciling
    assert not lock.locked()


def test_an_engine_that_this_version_does_not_know_is_told(room):
    lease = room.allocator.claim(user="ada", server="", engine="quantum")
    with pytest.raises(GpuWorkshopError, match="names the engine 'quantum'"):
        Engines(None).of(lease)


def test_what_the_engine_calls_a_server_survives_the_hub(tmp_path):
    room = Room(tmp_path)
    lease = room.allocator.claim(user="ada", server="", engine="docker")
    assert room.allocator.identify(lease.id, "c0ffee").engine_id == "c0ffee"
    again = Room(tmp_path).allocator.ledger.leases[lease.id]
    assert (again.engine, again.engine_id) == ("docker", "c0ffee")


def test_a_server_that_could_not_be_given_the_hook_is_not_said_to_have_it(tmp_path):
    room = Room(tmp_path)
    claim = room.allocator.claim
    with_hook = claim(user="ada", server="", engine="docker", hook=True)
    without = claim(user="bob", server="", engine="docker", hook=True)
    room.allocator.identify(with_hook.id, "c0ffee")
    room.allocator.identify(without.id, "decaf", hook=False)
    again = Room(tmp_path).allocator.ledger.leases
    assert [again[x.id].hook for x in (with_hook, without)] == [True, False]
