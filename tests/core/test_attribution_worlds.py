"""Nobody is ever charged for another's process, on machines that nobody thought of."""

from collections.abc import Mapping
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.attribution import (
    Attribution,
    Owner,
    attribute,
    worth_describing,
)
from jupyterhub_gpuworkshop.core.snapshot import (
    Holder,
    HolderKind,
    ProcessFacts,
    ProcessId,
)

from .process_worlds import (
    DOCKER,
    FOREIGN_UID,
    KERNELS,
    KEYS,
    LIES,
    MODES,
    OWN,
    SHARED,
    SYSTEMD,
    Truth,
    World,
)
from .test_attribution import kernel_command, sample

WORLD = st.builds(
    World,
    mode=st.sampled_from(MODES),
    is_wrapped=st.booleans(),
    under_manager=st.booleans(),
)
COMMANDS = ("python train.py", *LIES, *(kernel_command(x) for x in KERNELS))


def act(world: World, random: Random) -> None:
    """Let one thing happen."""
    world.clock += random.randrange(2)
    pids = [pid for pid in world.processes if pid not in (1, world.shim)]
    attendees = [x for x in pids if world.truth_of(world.processes[x]).key] or pids
    key = random.choice(KEYS)
    what = random.randrange(20)
    if what < 3:
        world.start_kernel(
            key, random.choice(KERNELS), behind_script=random.random() < 0.5
        )
    elif what < 10:
        lies = random.random() < 0.2
        world.fork(
            random.choice(attendees[-8:] if what < 6 else pids),
            setsid=random.random() < 0.4,
            in_terminal=random.random() < 0.3,
            command=random.choice(COMMANDS) if lies else "python train.py",
        )
    elif what < 11:
        main = world.processes.get(world.servers[key].main.pid)
        if main is not None:
            command = random.choice(COMMANDS)
            setsid = random.random() < 0.5
            world.fork(main.pid, setsid=setsid, in_terminal=False, command=command)
    elif what < 15:
        if mortals := world.mortals():
            world.end(random.choice(mortals))
    elif what < 16:
        world.rename(random.choice(attendees), random.choice(COMMANDS))
    elif what < 19:
        free = world.free_pids() or [None]
        uid = random.choice((FOREIGN_UID, FOREIGN_UID, 0))
        command = random.choice(COMMANDS)
        world.begin_elsewhere(pid=random.choice(free), command=command, uid=uid)
    else:
        world.restart_server(key)


def look(
    world: World, random: Random, remembered: Mapping[ProcessId, Owner]
) -> Attribution:
    """Attribute as the service does, where some of the processes are holders."""
    holders = [pid for pid in world.processes if random.random() < 0.5]
    samples = [sample(*holders)]
    described = worth_describing(samples, world.facts(), world.infos)
    found = attribute(
        samples,
        world.facts(described),
        world.infos,
        world.leases,
        world.listed,
        remembered,
    )
    assert [x.process.pid for x in found.holders] == holders
    return found


def is_below(world: World, process: ProcessFacts, ancestor: ProcessId) -> bool:
    """Say whether a living chain of parents leads up to it."""
    current: ProcessFacts | None = process
    while current is not None:
        if current.process == ancestor:
            return True
        current = world.processes.get(current.parent)
    return False


def is_of_kernel(world: World, process: ProcessFacts, main: ProcessId) -> bool:
    """Say whether it is below a kernel, or below who has stayed in its session."""
    current: ProcessFacts | None = process
    while current is not None:
        if current.process == main or current.session == main.pid:
            return True
        current = world.processes.get(current.parent)
    return False


def check_holder(world: World, holder: Holder, seen: Mapping[ProcessId, Truth]) -> None:
    process = world.processes[holder.process.pid]
    truth = world.truth_of(process)
    assert holder.process == process.process
    # Never another's.
    if holder.user:
        assert truth.key is not None
        assert holder.user == truth.key[0]
    if holder.lease_id:
        assert (holder.user, holder.server) == truth.key
        # A Unix user's orphan counts for the server that its attendee has now.
        assert holder.lease_id == truth.lease_id or world.mode == OWN
    assert bool(holder.kernel_id) == (holder.kind is HolderKind.KERNEL)
    if truth.key is None:
        assert holder.kind is HolderKind.FOREIGN or (
            world.mode == SHARED and holder.kind is HolderKind.UNATTRIBUTED
        )
        return
    server = world.servers[truth.key]
    if holder.kernel_id and not server.lies:
        assert holder.kernel_id == truth.kernel_id
    if holder.kind is HolderKind.TERMINAL:
        assert process.tty
    # Whatever Linux vouches for.
    if truth.lease_id != server.info.lease_id:
        return
    vouched = (
        world.mode in (SYSTEMD, DOCKER)
        or is_below(world, process, server.main)
        or process.process in seen
    )
    if vouched:
        assert holder.lease_id == truth.lease_id
        if process.tty and not holder.kernel_id:
            assert holder.kind is HolderKind.TERMINAL or server.lies


def check_kernels(world: World, found: Attribution) -> None:
    for owner, tree in found.kernels.items():
        server = world.servers[owner.key]
        truths = {world.truth[x] for x in tree.members}
        assert {x.lease_id for x in truths} <= {owner.lease_id}
        if server.lies:
            continue
        assert {x.kernel_id for x in truths} <= {owner.kernel_id}
        mains = [
            process
            for process in world.processes.values()
            if f"kernel-{owner.kernel_id}" in process.command
            and world.truth_of(process).lease_id == owner.lease_id
            and (world.mode in (SYSTEMD, DOCKER) or process.parent == server.main.pid)
        ]
        assert tree.main == (mains[0].process if len(mains) == 1 else None)
        if tree.main is not None:
            assert tree.members == {
                x.process
                for x in world.processes.values()
                if is_of_kernel(world, x, tree.main)
            }


def check_servers(world: World, found: Attribution) -> None:
    for key, tree in found.servers.items():
        server = world.servers[key]
        assert tree.lease_id == server.info.lease_id
        listed = {*tree.terminals, *tree.outside}
        for process in listed:
            truth = world.truth_of(process)
            assert truth.key == key
            assert truth.lease_id == tree.lease_id or world.mode == OWN
            assert bool(process in tree.terminals) == bool(process.tty)
        if not tree.is_complete:
            continue
        assert tree.main is not None
        if not server.lies:
            assert tree.main.process == server.main or world.mode in (SYSTEMD, DOCKER)
        in_kernels = {
            member
            for owner, kernel in found.kernels.items()
            if owner.key == key
            for member in kernel.members
        }
        for process in world.processes.values():
            truth = world.truth_of(process)
            if truth.lease_id != tree.lease_id or truth.is_itself:
                continue
            told = process.pid in {x.pid for x in listed}
            # Who claims to be the server is taken for it, or for its wrapper.
            claims = server.lies and is_below(world, tree.main, process.process)
            assert told or process.process in in_kernels or claims


@settings(max_examples=300, deadline=None)
@given(WORLD, st.integers(0, 2**32), st.integers(1, 50))
# A child of who lost its parents, and stayed in the kernel's session.
@example(World(SYSTEMD, is_wrapped=True, under_manager=True), 24901563, 21)
def test_nobody_is_charged_for_anothers_process_and_nothing_certain_is_missed(
    world: World, seed: int, steps: int
) -> None:
    random = Random(seed)  # noqa: S311  # a world, no secret
    remembered: Mapping[ProcessId, Owner] = {}
    seen: set[ProcessId] = set()
    for _ in range(steps):
        act(world, random)
        if random.random() < 0.3:
            continue  # between two looks more than one thing happens
        if random.random() < 0.05:
            remembered, seen = {}, set()  # the service was started anew
        found = look(world, random, remembered)
        for holder in found.holders:
            check_holder(world, holder, seen)
        check_kernels(world, found)
        check_servers(world, found)
        remembered = found.owners
        alive = {x.process for x in world.processes.values()}
        seen = alive & set(found.owners)
