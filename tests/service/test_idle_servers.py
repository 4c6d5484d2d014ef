"""An idle server whose share somebody waits for is told, looked at again, stopped."""

import asyncio
from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.errors import HubError
from jupyterhub_gpuworkshop.core.leases import LeaseState
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.server_trees import ServerTree
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import ORGANISERS_DETAIL, EventKind, Refusal
from jupyterhub_gpuworkshop.machine.processes import read_process
from jupyterhub_gpuworkshop.service import monitor as monitor_module
from jupyterhub_gpuworkshop.service.kept import ParkedKernel
from jupyterhub_gpuworkshop.service.stopping.ends import ServerEnds
from jupyterhub_gpuworkshop.service.stopping.idle_servers import IdleServers
from jupyterhub_gpuworkshop.service.stopping.signals import (
    Asked,
    ServerSignals,
    count_connections,
)
from jupyterhub_gpuworkshop.service.stopping.telling import ServerTeller

from .world import RULES, World


class Hub:
    """Stops servers as the hub does: their leases are gone with the next report."""

    def __init__(self, world):
        self.world = world
        self.stopped = []
        self.error = ""
        self.leaves = None

    async def stop_server(self, user, server):
        if self.error:
            raise HubError(self.error)
        self.stopped.append((user, server))
        report = self.world.report
        leases = [x for x in report.leases if x.user != user]
        if self.leaves is not None:
            leases = [replace(x, state=self.leaves) for x in report.leases]
        self.world.report = replace(report, leases=tuple(leases), servers=())


@pytest.fixture
def trees(monkeypatch):
    """What runs in servers: told, not read, for others run on this machine too."""
    told = {}
    attribute = monitor_module.attribute

    def attribute_and_tell(samples, facts, servers, *more):
        found = attribute(samples, facts, servers, *more)
        here = {}
        for server in servers:
            known = {"main": facts.get(server.pid), "is_complete": True, **told}
            tree = ServerTree(lease_id=server.lease_id, **known)
            here[server.user, server.server] = tree
        return replace(found, servers=here)

    monkeypatch.setattr(monitor_module, "attribute", attribute_and_tell)
    return told


async def a_world(folder, **idle):
    """Two whole GPUs: ada's server has the one, and the other is bob's."""
    given = {"server_after": "100s", "notice": "20s", **idle}
    world = await World(folder, {**RULES, "idle": {**RULES["idle"], **given}}).open()
    whole = [
        replace(world.lease(user, number, 16 * GIB), share="1 gpu", exclusive=True)
        for number, user in enumerate(("ada", "bob"))
    ]
    world.report = replace(world.report, leases=tuple(whole))
    world.hub = Hub(world)
    world.connected = {}
    world.signals = ServerSignals(
        world.monitor,
        world.servers,
        world.link,
        count=lambda asked: {
            x.server.lease_id: world.connected.get(x.server.lease_id, 0) for x in asked
        },
        clock=world.clock,
    )
    world.ends = ServerEnds(world.monitor, world.hub, clock=world.clock)
    world.idle_servers = IdleServers(
        world.monitor,
        world.signals,
        world.ends,
        world.rules,
        ServerTeller(world.monitor.notices, world.history),
        clock=world.clock,
    )
    return world


def start(world):
    """Start a kernel whose page has been closed."""
    kernel_id = world.attendee.start_kernel()
    world.attendee.kernels[kernel_id].connections = 0
    return world.attendee.kernels[kernel_id]


async def watch(world, seconds, step=20.0):
    for _ in range(round(seconds / step)):
        await world.look(step)
        await world.idle_servers.step()
        for _ in range(10):
            if not world.ends.under_way:
                break
            await world.look(0.1)
            await asyncio.sleep(0)


async def end(world):
    await world.ends.close()
    await world.close()


def kinds(world):
    return [event.kind for event in world.events()]


def why_not(world):
    return world.idle_servers.servers["lease-ada"].watch.why_not


async def test_an_idle_server_is_told_and_stopped_and_its_share_is_free(
    tmp_path, trees
):
    world = await a_world(tmp_path)
    start(world)
    world.monitor.server_verdicts = world.idle_servers.verdicts
    await watch(world, 300)
    # Nobody waits for it.
    assert kinds(world) == []
    verdict = world.monitor.snapshot.server_verdicts["lease-ada"]
    assert verdict.startswith("Idle for "), verdict
    world.refuse_somebody()
    await watch(world, 20)
    (notice,) = world.monitor.notices.standing
    assert notice.kind is NoticeKind.SERVER_IDLE
    assert notice.user == "ada"
    assert "In 20 s it is stopped" in notice.text
    assert "eve " not in notice.text
    await watch(world, 40)
    assert world.hub.stopped == [("ada", "")]
    assert [x.user for x in world.monitor.snapshot.leases] == ["bob"]
    assert kinds(world) == [EventKind.NOTICE_GIVEN, EventKind.SERVER_STOPPED]
    stopped = world.events()[-1]
    assert stopped.devices == (world.devices[0].uuid,)
    assert stopped.details["notice_at"] == notice.given_at
    assert stopped.details["window_ms"] >= 0
    assert stopped.details[ORGANISERS_DETAIL] == "eve waits for 1/5"
    assert "eve " not in stopped.reason
    (told,) = world.monitor.notices.standing
    assert told.kind is NoticeKind.SERVER_STOPPED
    assert "Your server was stopped at" in told.text
    await end(world)


async def test_a_server_is_asked_once_a_minute_and_only_while_all_else_is_idle(
    tmp_path, trees
):
    world = await a_world(tmp_path)
    kernel = start(world)
    kernel.state = "busy"
    asks = lambda: sum("api/status" in x for x in world.attendee.asked)  # noqa: E731
    await watch(world, 120)
    assert asks() == 0
    kernel.state = "idle"
    await watch(world, 300)
    assert 3 <= asks() <= 6
    assert all("no_track_activity=1" in x for x in world.attendee.asked)
    await end(world)


async def test_what_holds_memory_runs_or_is_open_in_it_keeps_a_server(tmp_path, trees):
    world = await a_world(tmp_path, notice="0s")
    world.refuse_somebody()
    kernel = start(world)
    me = read_process(world.attendee.info.pid)

    async def keeps(words):
        await watch(world, 240, step=40.0)
        assert world.hub.stopped == []
        assert words in why_not(world)

    for told, words in (
        ({"outside": (me,)}, "outside its kernels"),
        ({"terminals": (me,)}, "terminal"),
        ({"is_complete": False}, "is unknown"),
        ({"main": None}, "process is unknown"),
    ):
        trees.update(told)
        await keeps(words)
        trees.clear()
    world.connected["lease-ada"] = 1
    await keeps("browser")
    world.connected["lease-ada"] = None
    await keeps("browser is open on it is unknown")
    world.connected.clear()
    kernel.connections = 1
    await keeps("browser")
    kernel.connections = 0
    world.attendee.terminals = [{"name": "1"}]
    await keeps("terminal")
    world.attendee.terminals = []
    world.attendee.answers["api/status"] = (500, {})
    await keeps("state is unknown")
    world.attendee.answers["api/status"] = (200, {"kernels": 1})
    await keeps("state is unknown")
    del world.attendee.answers["api/status"]
    world.attendee.answers["api/terminals"] = (500, {})
    await keeps("terminals are unknown")
    del world.attendee.answers["api/terminals"]
    world.attendee.answers["api/kernels"] = (500, {})
    await keeps("kernels are unknown")
    del world.attendee.answers["api/kernels"]
    kernel.run('held.append(simcuda.allocate("1GiB"))')
    await keeps("GPU memory")
    await end(world)


async def test_a_parked_or_pinned_kernel_keeps_its_server(tmp_path, trees):
    world = await a_world(tmp_path, notice="0s")
    world.refuse_somebody()
    start(world)
    await world.look()
    (owner,) = world.monitor.kernels
    parked = ParkedKernel(
        lease_id=owner.lease_id,
        user=owner.user,
        server="",
        kernel_id=owner.kernel_id,
        processes=(),
        boot_id="boot",
        memory_bytes={},
        parked_at=1.0,
        last_activity="",
    )
    await world.monitor.kept.change(lambda state: replace(state, parked=(parked,)))
    await watch(world, 200)
    assert "GPU memory" in why_not(world)
    await world.monitor.kept.change(lambda state: replace(state, parked=()))
    await world.monitor.pins.pin(owner, "ada", 3600.0)
    await watch(world, 200)
    assert "to be kept" in why_not(world)
    assert world.hub.stopped == []
    await end(world)


async def test_who_comes_back_after_the_notice_keeps_the_server(tmp_path, trees):
    world = await a_world(tmp_path)
    world.refuse_somebody()
    start(world)
    await watch(world, 140)
    assert kinds(world) == [EventKind.NOTICE_GIVEN]
    # Between two askings, when its time is up: it is seen right before.
    look_again = world.idle_servers._look_again_and_stop

    async def come_back_and_look_again(due):
        world.connected["lease-ada"] = 1
        await look_again(due)

    world.idle_servers._look_again_and_stop = come_back_and_look_again
    await watch(world, 100)
    assert world.connected
    assert world.hub.stopped == []
    assert world.monitor.notices.standing == ()
    await end(world)


async def test_a_second_server_is_not_stopped_while_nobody_needs_it(tmp_path, trees):
    world = await a_world(tmp_path, notice="0s")
    # There is room on the other GPU by now: it is enough to try again.
    leases = (world.report.leases[0],)
    world.report = replace(world.report, leases=leases)
    world.refuse_somebody()
    await watch(world, 300)
    assert world.hub.stopped == []
    await end(world)


async def test_a_dry_run_says_so_once_and_stops_nothing(tmp_path, trees):
    world = await a_world(tmp_path, dry_run=True)
    world.refuse_somebody()
    start(world)
    await watch(world, 300)
    assert kinds(world) == [EventKind.SERVER_STOP_WOULD]
    assert world.hub.stopped == []
    assert world.monitor.notices.standing == ()
    await end(world)


async def test_what_was_told_before_a_dry_run_is_told_anew_after_it(tmp_path, trees):
    world = await a_world(tmp_path)
    world.refuse_somebody()
    await watch(world, 120)
    assert len(world.monitor.notices.standing) == 1
    act = world.rules.workshop
    idle = act.idle.model_copy(update={"dry_run": True})
    world.rules.workshop = act.model_copy(update={"idle": idle})
    await watch(world, 100)
    assert world.monitor.notices.standing == ()
    world.rules.workshop = act
    await watch(world, 20)
    assert world.hub.stopped == []
    assert len(world.monitor.notices.standing) == 1
    await watch(world, 40)
    assert world.hub.stopped == [("ada", "")]
    await end(world)


async def test_where_another_service_acts_nobody_is_told_and_nothing_stopped(
    tmp_path, trees
):
    world = await a_world(tmp_path)
    why_not_act = [""]
    world.idle_servers._why_not_act = lambda: why_not_act[0]
    world.refuse_somebody()
    await watch(world, 120)
    assert len(world.monitor.notices.standing) == 1
    why_not_act[0] = "Another GPU service runs."
    await watch(world, 200)
    assert world.hub.stopped == []
    assert world.monitor.notices.standing == ()
    await end(world)


async def test_a_silent_hub_makes_every_server_unknown(tmp_path, trees):
    world = await a_world(tmp_path, notice="0s")
    world.refuse_somebody()
    await watch(world, 80)
    for _ in range(10):
        world.clock.now += 20
        await world.monitor.tick()
        await world.idle_servers.step()
    assert world.hub.stopped == []
    assert "silent" in why_not(world)
    await end(world)


async def test_a_hub_that_refuses_is_asked_again_later_and_later(tmp_path, trees):
    world = await a_world(tmp_path, notice="0s")
    world.refuse_somebody()
    world.hub.error = "the hub refuses to stop it"
    await watch(world, 160)
    (failed,) = world.events()
    assert failed.kind is EventKind.SERVER_STOP_FAILED
    assert "the hub refuses to stop it" in failed.reason
    assert "again in 30 s" in failed.reason
    await watch(world, 100)
    assert len(world.events()) == 3
    assert "again in 120 s" in world.events()[-1].reason
    world.hub.error = ""
    await watch(world, 160)
    assert world.hub.stopped == [("ada", "")]
    await end(world)


@pytest.mark.parametrize(
    ("leaves", "why"),
    [
        (LeaseState.QUARANTINED, "has not ended"),
        (LeaseState.ACTIVE, "has not been given back"),
    ],
)
async def test_a_server_that_does_not_end_is_no_success(tmp_path, trees, leaves, why):
    world = await a_world(tmp_path, notice="0s")
    world.refuse_somebody()
    world.hub.leaves = leaves
    await watch(world, 400)
    assert [x.kind for x in world.events()] == [EventKind.SERVER_STOP_FAILED]
    assert why in world.events()[0].reason
    assert len(world.hub.stopped) == 1
    await end(world)


async def test_the_longest_idle_goes_first_and_one_for_each_refusal(tmp_path, trees):
    world = await a_world(tmp_path, notice="0s")
    bobs = replace(world.attendee.info, user="bob", lease_id="lease-bob")
    world.refuse_somebody()
    await watch(world, 60)
    world.report = replace(
        world.report, servers=(world.attendee.info, bobs), refusals=()
    )
    await watch(world, 300)
    assert world.hub.stopped == []
    eve, fay = (
        Refusal(user=user, server="", share="1 gpu", at=at)
        for at, user in enumerate(("eve", "fay"))
    )
    world.report = replace(world.report, refusals=(eve,))
    await watch(world, 20)
    assert world.hub.stopped == [("ada", "")]
    # Somebody was faster than eve: that is not for another server to make good.
    dans = replace(world.lease("dan", 0, 16 * GIB), share="1 gpu", exclusive=True)
    world.report = replace(
        world.report, servers=(bobs,), leases=(*world.report.leases, dans)
    )
    await watch(world, 100)
    assert world.hub.stopped == [("ada", "")]
    world.report = replace(world.report, refusals=(eve, fay))
    await watch(world, 20)
    assert world.hub.stopped == [("ada", ""), ("bob", "")]
    await end(world)


async def test_who_was_told_goes_before_who_has_been_idle_for_longer(tmp_path, trees):
    world = await a_world(tmp_path, notice="60s", needed_after="60s")
    bobs = replace(world.attendee.info, user="bob", lease_id="lease-bob")
    # Bob's server is idle first, and is of no help while its GPU is out of service.
    drained = (world.devices[1].uuid,)
    await world.monitor.kept.change(lambda state: replace(state, drained=drained))
    world.report = replace(world.report, servers=(bobs,))
    await watch(world, 100)
    world.report = replace(world.report, servers=(world.attendee.info, bobs))
    world.refuse_somebody()
    await watch(world, 120)
    told = [notice.user for notice in world.monitor.notices.standing]
    assert told == ["ada"]
    await world.monitor.kept.change(lambda state: replace(state, drained=()))
    await watch(world, 100)
    assert world.hub.stopped == [("ada", "")]
    assert [x.user for x in world.events()] == ["ada", "ada"]
    await end(world)


async def test_connections_are_counted_at_the_port_where_a_server_is_called(tmp_path):
    world = await a_world(tmp_path)
    info = world.attendee.info
    nowhere = replace(info, lease_id="nowhere", url="http://127.0.0.1:1/user/ada/")
    asked = [Asked(server=server, pid=info.pid) for server in (info, nowhere)]
    assert count_connections(asked) == {"lease-ada": 0, "nowhere": None}
    await end(world)
