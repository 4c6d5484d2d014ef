"""Whose process is it? By what Linux vouches for."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.attribution import (
    Attribution,
    Owner,
    attribute,
    worth_describing,
)
from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.core.snapshot import (
    DeviceSample,
    HolderKind,
    ProcessFacts,
    ProcessId,
    ProcessUse,
)
from jupyterhub_gpuworkshop.core.wire import ServerInfo

GPU = "GPU-0"
KERNEL_A = "aaaaaaaa-0000-4000-8000-000000000001"
KERNEL_B = "bbbbbbbb-0000-4000-8000-000000000002"


def process(pid, parent, *, session=None, started=None, uid=1000, command="python3"):
    return ProcessFacts(
        pid=pid,
        started=started if started is not None else pid * 10,
        parent=parent,
        session=session if session is not None else pid,
        uid=uid,
        cpu_seconds=1.0,
        command=command,
    )


def kernel_command(kernel_id):
    return f"python -m ipykernel_launcher -f /home/x/runtime/kernel-{kernel_id}.json"


def server(user, pid, *, started=None, uid=None, name=""):
    return ServerInfo(
        lease_id=f"lease-{user}-{name}" if name else f"lease-{user}",
        user=user,
        server=name,
        url="http://127.0.0.1:1/",
        token="t",
        pid=pid,
        started=started if started is not None else pid * 10,
        uid=uid,
    )


def lease(info):
    return Lease(
        id=info.lease_id,
        user=info.user,
        server=info.server,
        share="1/5",
        granted_at=0.0,
    )


def sample(*pids, device=GPU):
    return DeviceSample(
        uuid=device,
        memory_total_bytes=16,
        memory_used_bytes=8,
        memory_free_bytes=8,
        processes=tuple(
            ProcessUse(pid=p, memory_bytes=1, utilisation=0.0) for p in pids
        ),
    )


def explain(processes, servers, holders, kernels=None, remembered=None, leases=None):
    """Attribute, with every listed pid as a holder on one device."""
    return attribute(
        [sample(*holders)],
        {p.pid: p for p in processes},
        servers,
        [lease(s) for s in servers] if leases is None else leases,
        kernels or {},
        remembered,
    )


def only(attribution: Attribution):
    (holder,) = attribution.holders
    return holder


ALICE = server("alice", 100)
BOB = server("bob", 200)
HUB = process(50, 1)
ALICE_SERVER = process(100, 50)
BOB_SERVER = process(200, 50)
ALICE_KERNEL = process(110, 100, command=kernel_command(KERNEL_A))
KERNELS = {("alice", ""): frozenset({KERNEL_A}), ("bob", ""): frozenset({KERNEL_B})}


def test_a_kernels_process_is_that_kernels():
    found = explain([HUB, ALICE_SERVER, ALICE_KERNEL], [ALICE], [110], KERNELS)
    holder = only(found)
    assert holder.kind is HolderKind.KERNEL
    assert (holder.user, holder.kernel_id) == ("alice", KERNEL_A)
    assert holder.lease_id == "lease-alice"
    (tree,) = found.kernels.values()
    assert tree.main == ProcessId(pid=110, started=1100)


@pytest.mark.parametrize(
    "worker",
    [
        process(120, 110, session=110),  # a DataLoader worker
        process(120, 110, session=120),  # a !command: a session of its own
        process(120, 1, session=110),  # an orphan of the kernel's session
    ],
)
def test_workers_commands_and_orphans_of_a_kernel_are_the_kernels(worker):
    found = explain([HUB, ALICE_SERVER, ALICE_KERNEL, worker], [ALICE], [120], KERNELS)
    assert only(found).kernel_id == KERNEL_A
    (tree,) = found.kernels.values()
    assert tree.members == {ALICE_KERNEL.process, worker.process}
    assert tree.cpu_seconds == 2.0


def test_a_terminal_is_the_servers_in_no_kernel():
    shell = process(130, 100, command="/bin/bash -l")
    child = process(131, 130, session=130)
    holder = only(explain([HUB, ALICE_SERVER, shell, child], [ALICE], [131], KERNELS))
    assert holder.kind is HolderKind.SERVER
    assert (holder.user, holder.kernel_id) == ("alice", "")


def test_what_has_a_controlling_tty_is_in_a_terminal_of_its_server():
    shell = replace(process(130, 100, command="/bin/bash -l"), tty=0x8801)
    job = replace(process(131, 130, session=130), tty=0x8801)
    detached = process(132, 130)
    found = explain([HUB, ALICE_SERVER, shell, job, detached], [ALICE], [131, 132])
    assert [h.kind for h in found.holders] == [HolderKind.TERMINAL, HolderKind.SERVER]
    assert [h.lease_id for h in found.holders] == ["lease-alice"] * 2


def test_a_command_of_a_notebook_is_the_kernels_although_it_has_a_tty():
    command = replace(process(120, 110), tty=0x8801)
    holder = only(
        explain([HUB, ALICE_SERVER, ALICE_KERNEL, command], [ALICE], [120], KERNELS)
    )
    assert (holder.kind, holder.kernel_id) == (HolderKind.KERNEL, KERNEL_A)


def test_a_process_of_nobodys_server_is_foreign():
    holder = only(explain([HUB, process(900, 1)], [ALICE], [900], KERNELS))
    assert holder.kind is HolderKind.FOREIGN
    assert (holder.user, holder.lease_id) == ("", "")


def test_a_process_that_is_gone_again_is_foreign_and_still_counted():
    holder = only(explain([HUB], [ALICE], [900], KERNELS))
    assert holder.kind is HolderKind.FOREIGN
    assert holder.memory_bytes == 1


def test_naming_anothers_kernel_in_the_command_line_gains_nothing():
    forged = process(210, 200, command=kernel_command(KERNEL_A))
    holder = only(
        explain(
            [HUB, ALICE_SERVER, ALICE_KERNEL, BOB_SERVER, forged],
            [ALICE, BOB],
            [210],
            KERNELS,
        )
    )
    assert holder.user == "bob"
    assert holder.kind is HolderKind.SERVER


def test_two_servers_that_list_one_kernel_id_do_not_share_a_kernel():
    both = {("alice", ""): frozenset({KERNEL_A}), ("bob", ""): frozenset({KERNEL_A})}
    forged = process(210, 200, command=kernel_command(KERNEL_A))
    found = explain(
        [HUB, ALICE_SERVER, ALICE_KERNEL, BOB_SERVER, forged],
        [ALICE, BOB],
        [110, 210],
        both,
    )
    assert [h.user for h in found.holders] == ["alice", "bob"]
    assert len(found.kernels) == 2


def test_of_several_processes_that_claim_a_kernel_none_is_believed():
    # One that a restart could not end beside the new one, say: who is innocent?
    late = process(109, 100, started=9999, command=kernel_command(KERNEL_A))
    found = explain(
        [HUB, ALICE_SERVER, late, ALICE_KERNEL], [ALICE], [109, 110], KERNELS
    )
    assert [h.kind for h in found.holders] == [HolderKind.SERVER] * 2
    (tree,) = found.kernels.values()
    assert tree.main is None


@pytest.mark.parametrize(
    "impostor",
    [
        process(110, 100, session=100, command=kernel_command(KERNEL_A)),
        process(110, 105, command=kernel_command(KERNEL_A)),
        process(110, 100, command=kernel_command(KERNEL_B)),
    ],
    ids=["no session of its own", "no direct child", "an id nobody lists"],
)
def test_only_a_session_leader_directly_below_its_server_is_a_kernel(impostor):
    shell = process(105, 100)
    found = explain([HUB, ALICE_SERVER, shell, impostor], [ALICE], [110], KERNELS)
    assert only(found).kind is HolderKind.SERVER
    (tree,) = found.kernels.values()
    assert tree.main is None


def test_a_server_pid_that_was_given_anew_anchors_nothing():
    again = replace(ALICE_SERVER, started=5555)
    child = process(600, 100)
    holder = only(explain([HUB, again, child], [ALICE], [600], KERNELS))
    assert holder.kind is HolderKind.FOREIGN


def test_a_server_without_a_start_time_anchors_nothing():
    info = server("alice", 100, started=0)
    holder = only(explain([HUB, ALICE_SERVER], [info], [100]))
    assert holder.kind is HolderKind.FOREIGN


def test_a_parent_that_began_after_its_child_is_no_parent():
    child = process(90, 100)  # began at 900, the server at 1000
    holder = only(explain([HUB, ALICE_SERVER, child], [ALICE], [90], KERNELS))
    assert holder.user == ""


def test_a_circle_of_parents_ends():
    a, b = process(10, 11, started=5), process(11, 10, started=5)
    holder = only(explain([a, b], [ALICE], [10]))
    assert holder.kind is HolderKind.FOREIGN


def test_an_orphan_seen_below_a_server_before_stays_that_servers():
    shell = process(130, 100)
    job = process(131, 130)
    before = explain([HUB, ALICE_SERVER, shell, job], [ALICE], [131])
    orphan = replace(job, parent=1)
    child = process(140, 131)
    after = explain(
        [HUB, ALICE_SERVER, orphan, child], [ALICE], [131, 140], {}, before.owners
    )
    assert [h.user for h in after.holders] == ["alice", "alice"]
    forgotten = explain([HUB, ALICE_SERVER, orphan, child], [ALICE], [131, 140])
    assert [h.user for h in forgotten.holders] == ["", ""]


def test_what_left_its_kernel_behind_is_the_servers_in_no_kernel():
    # A restart of the kernel would not end it: it must not cost the kernel.
    job = process(120, 110, session=120)
    before = explain([HUB, ALICE_SERVER, ALICE_KERNEL, job], [ALICE], [120], KERNELS)
    assert only(before).kernel_id == KERNEL_A
    orphan = replace(job, parent=1)
    restarted = process(150, 100, command=kernel_command(KERNEL_A))
    for kernel in (ALICE_KERNEL, restarted):
        after = explain(
            [HUB, ALICE_SERVER, kernel, orphan], [ALICE], [120], KERNELS, before.owners
        )
        holder = only(after)
        assert (holder.user, holder.lease_id) == ("alice", "lease-alice")
        assert (holder.kind, holder.kernel_id) == (HolderKind.SERVER, "")
        (tree,) = after.kernels.values()
        assert tree.members == {kernel.process}
    # It stays so where the kernel's process is not known for a while.
    later = explain([HUB, orphan], [ALICE], [120], KERNELS, after.owners)
    assert only(later).kernel_id == ""


def test_a_pid_given_anew_does_not_inherit_what_is_remembered():
    job = process(131, 100)
    before = explain([HUB, ALICE_SERVER, job], [ALICE], [131])
    other = process(131, 1, started=7777)
    holder = only(explain([HUB, other], [ALICE], [131], {}, before.owners))
    assert holder.kind is HolderKind.FOREIGN


def test_what_a_released_server_left_behind_counts_for_no_lease():
    before = explain([HUB, ALICE_SERVER, process(131, 100)], [ALICE], [131])
    left = process(131, 1)
    newer = replace(ALICE, lease_id="lease-alice-2", pid=300, started=3000)
    holder = only(explain([HUB, left], [newer], [131], {}, before.owners))
    assert holder.kind is HolderKind.FOREIGN
    assert (holder.user, holder.lease_id) == ("alice", "")


def test_what_a_quarantined_server_left_behind_counts_for_its_lease():
    before = explain([HUB, ALICE_SERVER, process(131, 100)], [ALICE], [131])
    left = process(131, 1)
    found = explain([HUB, left], [], [131], {}, before.owners, leases=[lease(ALICE)])
    assert only(found).lease_id == "lease-alice"


def test_a_unix_user_of_one_attendee_alone_names_its_orphans():
    info = server("alice", 100, uid=5001)
    served = replace(ALICE_SERVER, uid=5001)
    orphan = process(700, 1, uid=5001)
    holder = only(explain([HUB, served, orphan], [info], [700], KERNELS))
    assert holder.kind is HolderKind.SERVER
    assert (holder.user, holder.lease_id) == ("alice", "lease-alice")


def test_a_container_of_nobodys_server_charges_no_unix_user_of_the_host():
    info = server("alice", 100, uid=5001)
    container = f"/system.slice/docker-{'c' * 64}.scope"
    served = replace(ALICE_SERVER, uid=5001, cgroup="/system.slice/jupyterhub.service")
    # As `docker run --user 5001` has it, whoever may do that.
    shim = process(600, 1, uid=0)
    other = replace(process(700, 600, uid=5001), cgroup=container)
    found = explain([HUB, served, shim, other], [info], [700], KERNELS)
    assert only(found).kind is HolderKind.FOREIGN
    assert only(found).user == ""
    facts = {p.pid: p for p in (HUB, served, shim, other)}
    assert 100 in worth_describing([sample(700)], facts, [info])
    # Where hub and servers are in that container themselves, it is hers.
    served = replace(served, cgroup=container)
    assert only(explain([served, shim, other], [info], [700])).user == "alice"
    # What cannot be read says nothing against it.
    served = replace(served, cgroup="")
    assert only(explain([served, shim, other], [info], [700])).user == "alice"


def test_a_unix_user_that_attendees_share_names_nobody():
    found = explain(
        [HUB, ALICE_SERVER, BOB_SERVER, process(700, 1)], [ALICE, BOB], [700]
    )
    assert only(found).kind is HolderKind.UNATTRIBUTED
    assert only(found).user == ""


def test_a_unix_user_said_to_be_one_attendees_but_seen_with_another_names_nobody():
    info = server("alice", 100, uid=1000)
    found = explain(
        [HUB, ALICE_SERVER, BOB_SERVER, process(700, 1)], [info, BOB], [700]
    )
    assert only(found).user == ""


def test_root_is_nobodys_unix_user():
    info = server("alice", 100, uid=0)
    served = replace(ALICE_SERVER, uid=0)
    holder = only(explain([served, process(700, 1, uid=0)], [info], [700]))
    assert holder.kind is HolderKind.FOREIGN


def test_an_attendee_with_two_servers_is_named_without_a_lease():
    first = server("alice", 100, uid=5001)
    second = server("alice", 101, uid=5001, name="second")
    orphan = process(700, 1, uid=5001)
    holder = only(explain([orphan], [first, second], [700]))
    assert holder.kind is HolderKind.UNATTRIBUTED
    assert (holder.user, holder.lease_id) == ("alice", "")


def test_holders_and_what_may_be_a_kernel_are_worth_describing():
    shell_child = process(131, 130, session=130)
    stranger = process(900, 1, uid=77)
    processes = [HUB, ALICE_SERVER, ALICE_KERNEL, shell_child, stranger]
    facts = {p.pid: p for p in processes}
    assert worth_describing([sample(900)], facts, [ALICE]) == {110, 900}


# The whole of it, over process trees nobody thought of.


@dataclass
class World:
    """Processes with the truth about each: the hidden side of `attribute`."""

    processes: dict[int, ProcessFacts] = field(default_factory=dict)
    truth: dict[ProcessId, str] = field(default_factory=dict)
    clock: int = 100
    next_pid: int = 2

    def begin(self, parent, whose, *, leader, uid, command, pid=None):
        self.clock += 1
        if pid is None:
            self.next_pid += 1
            pid = self.next_pid
        above = self.processes.get(parent)
        born = ProcessFacts(
            pid=pid,
            started=self.clock,
            parent=parent,
            session=pid if leader or above is None else above.session,
            uid=uid,
            cpu_seconds=0.5,
            command=command,
        )
        self.processes[pid] = born
        self.truth[born.process] = whose
        return born

    def end(self, pid):
        del self.processes[pid]
        for child in list(self.processes.values()):
            if child.parent == pid:
                self.processes[child.pid] = replace(child, parent=1)

    def free_pids(self):
        """Numbers that Linux may give anew: no process's, and no session's."""
        in_use = set(self.processes) | {p.session for p in self.processes.values()}
        return [pid for pid in range(3, self.next_pid) if pid not in in_use]


USERS = ("ada", "bob", "cyd")
IDS = {u: f"{i}0000000-0000-4000-8000-000000000000" for i, u in enumerate(USERS)}


def _act(data, world, servers):
    pids = sorted(world.processes)
    step = data.draw(st.sampled_from(["child", "child", "end", "foreign", "reuse"]))
    command = data.draw(
        st.sampled_from(["python3", *(kernel_command(x) for x in IDS.values())])
    )
    leader = data.draw(st.booleans())
    if step == "child":
        above = world.processes[data.draw(st.sampled_from(pids))]
        whose = world.truth[above.process]
        world.begin(above.pid, whose, leader=leader, uid=above.uid, command=command)
    elif step == "end":
        mortal = [p for p in pids if p not in {s.pid for s in servers}]
        if mortal:
            world.end(data.draw(st.sampled_from(mortal)))
    elif step == "foreign":
        world.begin(1, "", leader=leader, uid=77, command=command)
    elif world.free_pids():
        pid = data.draw(st.sampled_from(world.free_pids()))
        world.begin(1, "", leader=leader, uid=77, command=command, pid=pid)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.booleans())
def test_nobody_is_ever_charged_for_anothers_process(data, own_unix_users):
    world, servers = World(), []
    for index, user in enumerate(USERS):
        uid = 5000 + index if own_unix_users else 1000
        born = world.begin(1, user, leader=True, uid=uid, command="jupyterhub")
        servers.append(
            server(
                user,
                born.pid,
                started=born.started,
                uid=uid if own_unix_users else None,
            )
        )
    listed = {
        (user, ""): frozenset(data.draw(st.sets(st.sampled_from(sorted(IDS.values())))))
        for user in USERS
    }
    remembered: dict[ProcessId, Owner] = {}
    for _ in range(data.draw(st.integers(1, 25))):
        _act(data, world, servers)
        pids = tuple(sorted(world.processes))
        found = attribute(
            [sample(*pids), sample(*pids, device="GPU-1")],
            world.processes,
            servers,
            [lease(s) for s in servers],
            listed,
            remembered,
        )
        remembered = dict(found.owners)

        explained = [(h.process.pid, h.device) for h in found.holders]
        assert sorted(explained) == sorted((p, d) for p in pids for d in (GPU, "GPU-1"))
        for holder in found.holders:
            truth = world.truth[holder.process]
            assert holder.user in ("", truth)
            if truth == "":
                assert holder.kind is HolderKind.FOREIGN
            elif own_unix_users or holder.kind is not HolderKind.UNATTRIBUTED:
                # Every process was seen below its server once, or has its user.
                assert holder.user == truth
                assert holder.lease_id == f"lease-{truth}"
            assert bool(holder.kernel_id) == (holder.kind is HolderKind.KERNEL)
            if holder.kernel_id:
                assert holder.kernel_id in listed[(truth, "")]
        for owner, tree in found.kernels.items():
            assert {world.truth[m] for m in tree.members} <= {owner.user}
            if tree.main is not None:
                assert tree.main in tree.members
        members = [m for tree in found.kernels.values() for m in tree.members]
        assert len(members) == len(set(members))
