"""What people ask for: who may, what is done, and what they are told."""

from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.devices import Inventory
from jupyterhub_gpuworkshop.core.errors import ActForbidden, ActRefused, NothingThere
from jupyterhub_gpuworkshop.core.leases import LeaseState
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.wire import EventKind
from jupyterhub_gpuworkshop.service import kept
from jupyterhub_gpuworkshop.service.acts import Acts
from jupyterhub_gpuworkshop.service.lost_devices import LostDevices
from jupyterhub_gpuworkshop.service.web.auth import Viewer

from .world import World

OLGA = Viewer(name="olga", attendee=None)
ADA = Viewer(name="ada", attendee="ada")
BOB = Viewer(name="bob", attendee="bob")
ROBOT = Viewer(name="ada", attendee="", is_user=False)
HOLD = 'held.append(simcuda.allocate("2GiB"))'


@pytest.fixture
def acts(world):
    return Acts(world.monitor, world.rules, world.history)


async def a_kernel(world):
    kernel_id = world.attendee.start_kernel()
    world.attendee.kernels[kernel_id].run(HOLD)
    await world.look()
    return kernel_id


async def test_a_pinned_kernel_keeps_its_memory_until_the_pin_is_lifted(world, acts):
    owner = acts.kernel(ADA, await a_kernel(world))
    done = await acts.pin(ADA, owner, 3600)
    assert "Kept until" in done.message
    assert done.on_disk
    await world.look(times=20)
    await world.reap()
    (kernel,) = world.monitor.snapshot.kernels
    assert kernel.verdict.startswith("Kept until")
    assert [e.kind for e in world.events()] == [EventKind.KERNEL_PINNED]
    for _ in range(2):  # the second finds none
        await acts.unpin(ADA, owner)
    await world.look()
    await world.reap()
    kept, let_go, taken = world.events()
    assert (kept.user, kept.details["by"], kept.details["kernel_id"]) == (
        "ada",
        "ada",
        owner.kernel_id,
    )
    assert kept.reason.startswith("Kept until ")
    assert let_go.kind is EventKind.KERNEL_UNPINNED
    assert let_go.reason == "Let go by ada."
    assert taken.kind is EventKind.KERNEL_RECLAIMED


@pytest.mark.parametrize("viewer", [BOB, ROBOT])
async def test_a_kernel_of_another_is_as_unknown_as_one_that_is_not(
    world, acts, viewer
):
    kernel_id = await a_kernel(world)
    with pytest.raises(NothingThere) as theirs:
        acts.kernel(viewer, kernel_id)
    with pytest.raises(NothingThere) as none:
        acts.kernel(viewer, "no-such-kernel")
    assert str(theirs.value) == str(none.value)
    assert acts.kernel(OLGA, kernel_id).user == "ada"


async def test_a_kernel_id_that_two_servers_claim_is_asked_back_for(world, acts):
    kernel_id = await a_kernel(world)
    (owner,) = world.monitor.kernels
    liar = replace(owner, user="mallory", lease_id="lease-mallory")
    watched = world.monitor.kernels[owner]
    world.monitor.watching.kernels = {owner: watched, liar: watched}
    with pytest.raises(ActRefused, match=r"\?user=NAME"):
        acts.kernel(OLGA, kernel_id)
    assert acts.kernel(OLGA, kernel_id, "ada", "") == owner
    assert acts.kernel(ADA, kernel_id) == owner
    with pytest.raises(NothingThere):
        acts.kernel(ADA, kernel_id, "mallory")


@pytest.mark.parametrize("seconds", [7201, None])
async def test_an_attendee_pins_for_so_long_and_an_organiser_for_ever(
    world, acts, seconds
):
    owner = acts.kernel(ADA, await a_kernel(world))
    with pytest.raises(ActForbidden, match="at most 2 h"):
        await acts.pin(ADA, owner, seconds)
    assert world.monitor.pins.of(owner) is None
    await acts.pin(OLGA, owner, seconds)
    assert world.monitor.pins.of(owner).by == "olga"
    # What an organiser has granted is not shortened by mistake.
    with pytest.raises(ActRefused, match=r"longer already\. Kept"):
        await acts.pin(ADA, owner, 60)
    await acts.unpin(ADA, owner)
    await acts.pin(ADA, owner, 60)
    await acts.pin(ADA, owner, 7200)


async def test_where_attendees_may_not_pin_they_are_told_so(tmp_path):
    world = await World(tmp_path, {"idle": {"pin_max": "0s"}}).open()
    acts = Acts(world.monitor, world.rules, world.history)
    owner = acts.kernel(ADA, await a_kernel(world))
    with pytest.raises(ActForbidden, match="only organisers"):
        await acts.pin(ADA, owner, 1)
    await acts.pin(OLGA, owner, 1)
    await world.close()


async def test_who_pins_without_end_is_told_to_wait(world, acts):
    owner = acts.kernel(ADA, await a_kernel(world))
    for act in 6 * (lambda: acts.pin(ADA, owner, 60), lambda: acts.unpin(ADA, owner)):
        await act()
    with pytest.raises(ActRefused, match="12 things within a minute"):
        await acts.pin(ADA, owner, 60)
    await acts.pin(OLGA, owner, 60)


async def test_a_drained_gpu_is_told_to_hub_and_attendees_until_it_is_back(world, acts):
    uuid = world.devices[0].uuid
    watch = LostDevices(world.monitor, world.history)
    await world.look()
    done = await acts.drain(OLGA, uuid)
    await acts.drain(OLGA, uuid)
    assert "gets no new share" in done.message
    await world.look()
    await watch.step()
    reply = await world.monitor.exchange(world.report)
    assert reply.drained == (uuid,)
    (notice,) = reply.notices
    assert (notice.kind, notice.user) == (NoticeKind.DEVICE_GONE, "ada")
    assert "taken out of service" in notice.text
    await world.look()
    await watch.step()
    assert world.monitor.notices.standing == (notice,)
    done = await acts.undrain(OLGA, uuid)
    assert done.message == "GPU 0 gets shares again."
    await world.look()
    await watch.step()
    assert world.monitor.notices.standing == ()
    assert (await world.monitor.exchange(world.report)).drained == ()
    kinds = [(e.kind, e.details["by"]) for e in world.events()]
    assert kinds == [
        (EventKind.DEVICE_DRAINED, "olga"),
        (EventKind.DEVICE_UNDRAINED, "olga"),
    ]


async def test_who_drains_reads_where_the_hub_is_not_told(world, tmp_path):
    (tmp_path / "is-a-folder").mkdir()
    world.monitor.kept = kept.Kept(tmp_path / "is-a-folder")
    acts = Acts(world.monitor, world.rules, world.history)
    await world.look()
    for act in (acts.drain, acts.undrain):
        done = await act(OLGA, world.devices[0].uuid)
        assert done.message.startswith("As soon as the hub is told: GPU 0 gets ")
        assert "The hub is not told before this ends: " in done.message
        assert (await world.monitor.exchange(world.report)).drained is None


async def test_an_attendee_drains_nothing_and_nobody_a_gpu_that_is_not(world, acts):
    await world.look()
    for act in (acts.drain, acts.undrain):
        with pytest.raises(ActForbidden):
            await act(ADA, world.devices[0].uuid)
        with pytest.raises(NothingThere, match="no GPU of this UUID"):
            await act(OLGA, "GPU-of-yesterday")
    assert world.monitor.kept.state.drained == ()


async def test_who_has_a_server_elsewhere_is_not_told_of_what_was_held_back(world):
    lost, good = world.devices
    left = replace(world.lease("ada"), id="left", state=LeaseState.QUARANTINED)
    leases = (left, world.lease("ada", device=1))
    world.report = replace(world.report, leases=leases)
    await world.monitor.kept.change(lambda state: replace(state, drained=(lost.uuid,)))
    watch = LostDevices(world.monitor, world.history)
    await world.look()
    await watch.step()
    assert world.monitor.notices.standing == ()
    await world.monitor.kept.change(lambda state: replace(state, drained=(good.uuid,)))
    await world.look()
    await watch.step()
    assert len(world.monitor.notices.standing) == 1


async def test_a_lost_gpu_is_an_event_once_and_its_attendee_is_told(world):
    watch = LostDevices(world.monitor, world.history)
    await world.look()
    first, second = world.monitor.snapshot.inventory.devices
    for _ in range(2):
        world.monitor.snapshot = replace(
            world.monitor.snapshot,
            inventory=Inventory(devices=(replace(first, lost=True), second)),
        )
        watch._seen_rounds = world.monitor.rounds - 1
        await watch.step()
    (event,) = world.events()
    assert (event.kind, event.devices) == (EventKind.DEVICE_LOST, (first.uuid,))
    (notice,) = world.monitor.notices.standing
    assert "has failed" in notice.text
    assert "start it again" in notice.text


async def test_a_service_that_is_not_the_one_that_acts_changes_nothing(world):
    acts = Acts(
        world.monitor, world.rules, world.history, why_not_act=lambda: "Another one."
    )
    owner = acts.kernel(OLGA, await a_kernel(world))
    uuid = world.devices[0].uuid
    for refused in (
        acts.pin(OLGA, owner, 60),
        acts.unpin(OLGA, owner),
        acts.drain(OLGA, uuid),
        acts.undrain(OLGA, uuid),
    ):
        with pytest.raises(ActRefused, match=r"Another one\."):
            await refused
    assert world.monitor.kept.state.pins == ()


async def test_what_cannot_be_written_counts_and_is_said_to_be_in_memory_only(
    world, acts, monkeypatch
):
    owner = acts.kernel(ADA, await a_kernel(world))

    def full(path, state):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "_write", full)
    for done in (
        await acts.pin(ADA, owner, 60),
        await acts.drain(OLGA, world.devices[0].uuid),
    ):
        assert not done.on_disk
        assert "in memory only" in done.message
    snapshot = await world.look()
    assert snapshot.kernels[0].pinned_by == "ada"
    assert snapshot.drained == {world.devices[0].uuid}
    assert "No space left" in str(snapshot.problems)
