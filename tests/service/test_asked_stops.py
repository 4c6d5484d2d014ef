"""A server is stopped because somebody asks for it, and its share must come free."""

import asyncio
from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.errors import ActRefused, NothingThere
from jupyterhub_gpuworkshop.core.leases import LeaseState
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.wire import EventKind
from jupyterhub_gpuworkshop.service.hub_api import HubApi
from jupyterhub_gpuworkshop.service.stopping.asked import AskedStops
from jupyterhub_gpuworkshop.service.stopping.ends import ServerEnds
from jupyterhub_gpuworkshop.service.stopping.signals import ServerSignals
from jupyterhub_gpuworkshop.service.stopping.telling import ServerTeller
from jupyterhub_gpuworkshop.service.web.auth import Viewer

from .stub_hub import StubHub
from .world import World

OLGA = Viewer(name="olga", attendee=None)
ADA = Viewer(name="ada", attendee="ada")
BOB = Viewer(name="bob", attendee="bob")
READER = Viewer(name="ada", attendee="", is_user=False)


class Room:
    """A world whose service may have a hub stop servers."""

    def __init__(self, world, hub):
        self.world, self.hub, self.why_not = world, hub, ""
        self.api = HubApi(f"http://127.0.0.1:{hub.port}/hub/api", "service-token")
        signals = ServerSignals(
            world.monitor, world.servers, world.link, clock=world.clock
        )
        self.ends = ServerEnds(world.monitor, self.api, clock=world.clock)
        self.asked = AskedStops(
            world.monitor,
            signals,
            self.ends,
            ServerTeller(world.monitor.notices, world.history),
            why_not_act=lambda: self.why_not,
        )

    async def hub_is_asked(self):
        """Wait until it is."""
        while not self.hub.stopped:
            await self.world.look(0.01)

    async def comes_of_it(self, seconds=0.1):
        """Let time pass until nothing is being stopped."""
        while self.ends.under_way:
            await self.world.look(seconds)
            await asyncio.sleep(0.005)
        return self.world.events()[-1]

    async def hub_releases(self, state=None):
        """Let the hub do it, and report so."""
        await self.hub_is_asked()
        report = self.world.report
        leases = () if state is None else (replace(report.leases[0], state=state),)
        self.world.report = replace(report, leases=leases, servers=())

    async def close(self):
        await self.ends.close()
        self.api.close()


@pytest.fixture
async def room(tmp_path):
    hub = StubHub()
    world = await World(tmp_path).open()
    made = Room(world, hub)
    await world.look()
    yield made
    await made.close()
    await world.close()
    await hub.stop()


def texts(room):
    return [x.text for x in room.world.monitor.notices.standing]


async def test_an_attendee_gives_the_share_back(room):
    said = room.asked.stop(ADA, "lease-ada")
    assert said.startswith("Your server is being stopped")
    await room.hub_releases()
    event = await room.comes_of_it()
    assert event.kind is EventKind.SERVER_STOPPED
    assert event.reason == "ada stopped it."
    assert (event.user, event.details["by"]) == ("ada", "ada")
    assert event.devices == (room.world.devices[0].uuid,)
    assert room.hub.stopped == ["/hub/api/users/ada/server"]
    assert texts(room) == []


async def test_an_organiser_stops_a_named_server_and_its_attendee_is_told(room):
    world = room.world
    lease = replace(world.report.leases[0], server="deep")
    info = replace(world.attendee.info, server="deep")
    world.report = replace(world.report, leases=(lease,), servers=(info,))
    world.monitor.notices.give(
        NoticeKind.SERVER_IDLE, user="ada", server="deep", text="It will be stopped."
    )
    await world.look()
    assert "of ada/deep is being" in room.asked.stop(OLGA, "lease-ada")
    await room.hub_releases()
    event = await room.comes_of_it()
    assert event.reason == "Organiser olga stopped it."
    assert room.hub.stopped == ["/hub/api/users/ada/servers/deep"]
    (told,) = texts(room)
    assert told.startswith("Your server 'deep' was stopped at ")
    assert "Organiser olga stopped it. Your files are kept" in told


@pytest.mark.parametrize("viewer", [BOB, READER])
async def test_anothers_lease_is_as_unknown_as_one_that_is_not(room, viewer):
    with pytest.raises(NothingThere) as theirs:
        room.asked.stop(viewer, "lease-ada")
    with pytest.raises(NothingThere) as none:
        room.asked.stop(viewer, "none")
    assert str(theirs.value) == str(none.value)
    assert room.hub.stopped == []


async def test_a_server_is_asked_to_stop_once_at_a_time(room):
    room.asked.stop(ADA, "lease-ada")
    for viewer in (ADA, OLGA):
        with pytest.raises(ActRefused, match="already"):
            room.asked.stop(viewer, "lease-ada")
    await room.hub_releases()
    await room.comes_of_it()
    assert len(room.hub.stopped) == 1
    with pytest.raises(NothingThere):
        room.asked.stop(ADA, "lease-ada")


async def test_what_cannot_be_stopped_is_said_and_why(room):
    world = room.world
    lease = world.report.leases[0]
    room.why_not = "Another GPU service acts."
    with pytest.raises(ActRefused, match="Another GPU service"):
        room.asked.stop(OLGA, lease.id)
    room.why_not = ""
    world.report = replace(world.report, servers=())
    await world.look()
    with pytest.raises(ActRefused, match="no server that runs on this share"):
        room.asked.stop(OLGA, lease.id)
    held = replace(lease, state=LeaseState.QUARANTINED)
    world.report = replace(world.report, leases=(held,))
    await world.look()
    with pytest.raises(ActRefused, match="share is held back"):
        room.asked.stop(OLGA, lease.id)
    assert room.hub.stopped == []


async def test_a_server_started_anew_since_the_last_look_is_not_stopped(room):
    world = room.world
    lease = replace(world.report.leases[0], id="lease-anew")
    info = replace(world.attendee.info, lease_id="lease-anew")
    world.link.hear(replace(world.report, leases=(lease,), servers=(info,)))
    with pytest.raises(ActRefused, match="no server that runs on this share"):
        room.asked.stop(OLGA, "lease-ada")
    assert room.hub.stopped == []


async def test_nothing_is_begun_that_a_silent_hub_could_not_show(room):
    room.world.clock.now += 120
    await room.world.monitor.tick()
    with pytest.raises(ActRefused, match="hub has been silent"):
        room.asked.stop(ADA, "lease-ada")
    assert room.hub.stopped == []


@pytest.mark.parametrize(
    ("state", "why"),
    [(LeaseState.QUARANTINED, "has not ended"), (LeaseState.ACTIVE, "given back")],
)
async def test_a_share_that_does_not_come_free_is_no_success(room, state, why):
    room.asked.stop(OLGA, "lease-ada")
    await room.hub_releases(state)
    event = await room.comes_of_it(seconds=20)
    assert event.kind is EventKind.SERVER_STOP_FAILED
    assert event.reason.startswith("Organiser olga wanted it stopped. ")
    assert why in event.reason
    assert event.details["by"] == "olga"
    assert texts(room) == []


async def test_a_hub_that_is_gone_in_between_is_told_and_may_be_asked_again(room):
    room.hub.stopping = (503, b"")
    room.asked.stop(ADA, "lease-ada")
    event = await room.comes_of_it()
    assert event.kind is EventKind.SERVER_STOP_FAILED
    assert event.reason.startswith("ada wanted it stopped. It was not stopped: ")
    room.hub.stopping = (204, b"")
    room.asked.stop(ADA, "lease-ada")
    await room.hub_releases()
    assert (await room.comes_of_it()).kind is EventKind.SERVER_STOPPED


async def test_a_service_that_ends_lets_go_of_what_the_hub_is_at(room):
    room.hub.stopping = (204, asyncio.sleep)
    room.asked.stop(ADA, "lease-ada")
    await room.hub_is_asked()
    await room.ends.close()
    assert room.ends.under_way == {}
    assert room.world.events() == []
