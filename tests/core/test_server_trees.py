"""What runs in a server outside its kernels, and whether that is surely all."""

from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.attribution import worth_describing

from .test_attribution import (
    ALICE,
    ALICE_KERNEL,
    ALICE_SERVER,
    BOB,
    BOB_SERVER,
    HUB,
    KERNEL_A,
    KERNELS,
    explain,
    kernel_command,
    process,
    server,
)
from .test_attribution_engines import (
    ADA,
    CONTAINER,
    ID,
    UNIT,
    in_docker,
    in_systemd,
    room,
    within,
)

TTY = 0x8801
OTHER_TTY = 0x8802
SHELL = replace(process(130, 100, command="/bin/bash -l"), tty=TTY)
OWN_UID = server("alice", 100, uid=5001)
HUB_UNIT = "/system.slice/jupyterhub.service"


def tree_of(processes, servers=(ALICE,), kernels=KERNELS, remembered=None, **options):
    found = explain(processes, list(servers), [], kernels, remembered, **options)
    return found.servers[(servers[0].user, servers[0].server)]


def pids(processes):
    return {process.pid for process in processes}


def alone(*others):
    return [HUB, ALICE_SERVER, *others]


def test_a_server_with_nothing_but_kernels_has_nothing_else():
    worker = process(120, 110, session=110)
    command = replace(process(121, 110), tty=TTY)  # !python train.py
    tree = tree_of(alone(ALICE_KERNEL, worker, command))
    assert tree.main == ALICE_SERVER
    assert (tree.terminals, tree.outside) == ((), ())
    assert tree.is_complete
    assert tree.lease_id == "lease-alice"


def test_what_has_a_controlling_tty_is_in_a_terminal():
    job = replace(process(131, 130, session=130), tty=TTY)
    tree = tree_of(alone(SHELL, job))
    assert pids(tree.terminals) == {130, 131}
    assert tree.outside == ()


@pytest.mark.parametrize(
    "detached",
    [
        process(131, 130),  # setsid: no tty any more
        process(131, 100, session=100),  # a helper of the server's
        process(131, 100, command=kernel_command(KERNEL_A.replace("a", "c"))),
    ],
    ids=["setsid", "a child of the server", "a kernel that nobody lists"],
)
def test_what_has_none_and_is_in_no_kernel_is_outside(detached):
    tree = tree_of(alone(SHELL, detached))
    assert pids(tree.outside) == {131}
    assert pids(tree.terminals) == {130}


def test_a_server_that_was_started_in_a_terminal_is_not_in_one_of_its_own():
    served = replace(ALICE_SERVER, tty=TTY)
    helper = replace(process(140, 100, session=100), tty=TTY)
    shell = replace(SHELL, tty=OTHER_TTY)
    tree = tree_of([HUB, served, helper, shell])
    assert pids(tree.outside) == {140}
    assert pids(tree.terminals) == {130}


@pytest.mark.parametrize(
    "command",
    [
        "/opt/env/bin/python /opt/env/bin/jupyterhub-singleuser --port=1",
        "python -m jupyterhub.singleuser",
        "jupyter-labhub",
        "/opt/env/bin/jupyter labhub",
    ],
)
def test_wrappers_and_the_server_below_them_are_the_server(command):
    wrapper = replace(ALICE_SERVER, command=f"conda run -n x {command}")
    script = process(101, 100, session=100, command="/bin/bash /tmp/tmp1")
    served = process(102, 101, session=100, command=command)
    helper = process(103, 102, session=100, command="node /opt/language-server")
    tree = tree_of([HUB, wrapper, script, served, helper])
    assert tree.main == served
    assert pids(tree.outside) == {103}
    assert tree.is_complete


def test_the_only_child_of_a_server_is_not_taken_for_the_server():
    helper = process(101, 100, session=100, command="code-server --port=1")
    lookalike = process(102, 100, session=100, command="tail jupyterhub-singleuser.log")
    tree = tree_of(alone(helper, lookalike))
    assert tree.main == ALICE_SERVER
    assert pids(tree.outside) == {101, 102}


def test_a_terminal_that_names_itself_a_server_is_a_terminal():
    forged = replace(SHELL, command="jupyterhub-singleuser")
    tree = tree_of(alone(forged))
    assert tree.main == ALICE_SERVER
    assert pids(tree.terminals) == {130}


def test_of_two_that_may_be_the_server_none_is_and_the_tree_is_not_complete():
    twins = [
        process(pid, 100, session=100, command="jupyterhub-singleuser")
        for pid in (101, 102)
    ]
    tree = tree_of(alone(*twins))
    assert tree.main is None
    assert pids(tree.outside) == {100, 101, 102}
    assert not tree.is_complete


@pytest.mark.parametrize(
    ("processes", "info"),
    [
        ([HUB], ALICE),
        ([HUB, replace(ALICE_SERVER, started=7)], ALICE),
        ([HUB, ALICE_SERVER], replace(ALICE, started=0)),
        ([HUB, ALICE_SERVER], replace(ALICE, pid=0)),
    ],
    ids=["gone", "a pid given anew", "no start time", "no pid"],
)
def test_without_the_servers_process_nothing_is_complete(processes, info):
    tree = tree_of(processes, [info])
    assert tree.main is None
    assert not tree.is_complete


def test_what_was_left_behind_by_a_server_whose_process_is_gone_is_still_shown():
    before = explain(alone(SHELL), [ALICE], [], KERNELS)
    orphan = replace(SHELL, parent=1)
    tree = tree_of([HUB, orphan], [ALICE], KERNELS, before.owners)
    assert pids(tree.terminals) == {130}
    assert not tree.is_complete


def test_what_an_earlier_server_left_behind_is_not_the_present_ones():
    before = explain(alone(SHELL), [ALICE], [], KERNELS)
    orphan = replace(SHELL, parent=1)
    newer = replace(server("alice", 300), lease_id="lease-alice-2")
    processes = [HUB, process(300, 50), orphan]
    tree = tree_of(processes, [newer], KERNELS, before.owners)
    assert tree.lease_id == "lease-alice-2"
    assert (tree.terminals, tree.outside, tree.is_complete) == ((), (), True)


def test_what_left_its_kernel_is_outside():
    job = process(120, 110)
    before = explain(alone(ALICE_KERNEL, job), [ALICE], [], KERNELS)
    orphan = replace(job, parent=1)
    tree = tree_of(alone(ALICE_KERNEL, orphan), [ALICE], KERNELS, before.owners)
    assert pids(tree.outside) == {120}
    assert tree.is_complete


# Orphans that nobody has seen below a server: the service has just been started.


def test_an_orphan_of_a_shared_unix_user_may_be_of_every_server_that_is_older():
    late = replace(BOB, started=9000)
    orphan = process(700, 1)
    everybody = [HUB, ALICE_SERVER, replace(BOB_SERVER, started=9000), orphan]
    found = explain(everybody, [ALICE, late], [], KERNELS)
    assert not found.servers[("alice", "")].is_complete
    assert found.servers[("alice", "")].outside == ()
    assert found.servers[("bob", "")].is_complete


@pytest.mark.parametrize(
    "stranger",
    [
        process(700, 50),  # a child of the hub's: the service, started anew
        process(700, 1, uid=77),
        process(700, 1, started=900),  # older than the server
        process(701, 700, uid=1000),
    ],
    ids=["the hub's", "another's", "older", "no orphan"],
)
def test_what_cannot_be_a_servers_orphan_does_not_matter(stranger):
    parent = process(700, 1, uid=77)
    others = [parent, stranger] if stranger.pid == 701 else [stranger]
    assert tree_of(alone(*others)).is_complete


def test_an_orphan_below_whoever_takes_orphans_in_above_the_hub_may_be_a_servers():
    manager = process(40, 1)
    hub = replace(HUB, parent=40)
    assert not tree_of([manager, hub, ALICE_SERVER, process(700, 40)]).is_complete


def test_a_process_whose_parent_has_ended_while_it_was_read_may_be_a_servers():
    assert not tree_of(alone(process(700, 699))).is_complete


def test_an_orphan_in_another_unit_is_not_a_servers():
    served = replace(ALICE_SERVER, cgroup=HUB_UNIT)
    elsewhere = within("/system.slice/gpuworkshop.service", 700, 1)
    assert tree_of([HUB, served, elsewhere]).is_complete
    own_manager = "/user.slice/user-1000.slice/user@1000.service"
    for cgroup in (HUB_UNIT, "", f"{own_manager}/app.slice/gpuworkshop.service"):
        orphan = replace(elsewhere, cgroup=cgroup)
        assert not tree_of([HUB, served, orphan]).is_complete


def test_an_orphan_of_an_own_unix_user_is_that_servers_with_its_children():
    served = replace(ALICE_SERVER, uid=5001)
    orphan = process(700, 1, uid=5001)
    child = replace(process(701, 700, uid=5001), tty=TTY)
    grandchild = process(702, 701, uid=5001)
    tree = tree_of([HUB, served, orphan, child, grandchild], [OWN_UID])
    assert pids(tree.outside) == {700, 702}
    assert pids(tree.terminals) == {701}
    assert tree.is_complete


def test_an_attendees_own_service_manager_is_nothing_that_a_server_runs():
    served = replace(ALICE_SERVER, uid=5001)
    scope = "/user.slice/user-5001.slice/user@5001.service/init.scope"
    manager = replace(process(700, 1, uid=5001), cgroup=scope)
    child = process(701, 700, session=700, uid=5001)
    tree = tree_of([HUB, served, manager, child], [OWN_UID])
    assert (tree.outside, tree.is_complete) == ((), True)


def test_an_orphan_of_one_of_an_attendees_two_servers_may_be_of_either():
    second = server("alice", 200, uid=5001, name="second")
    processes = [
        HUB,
        replace(ALICE_SERVER, uid=5001),
        replace(BOB_SERVER, uid=5001),
        process(700, 1, uid=5001),
    ]
    found = explain(processes, [OWN_UID, second], [], KERNELS)
    assert [tree.is_complete for tree in found.servers.values()] == [False, False]


# Servers in units and containers.


@pytest.mark.parametrize(
    ("cgroup", "info"), [(UNIT, in_systemd()), (CONTAINER, in_docker())]
)
def test_in_a_unit_or_a_container_whoever_starts_the_kernels_is_the_server(
    cgroup, info
):
    shell = replace(within(cgroup, 130, 101), tty=TTY)
    orphan = within(cgroup, 300, 1)
    processes = [*room(cgroup), shell, orphan]
    tree = tree_of(processes, [info], {ADA: frozenset({KERNEL_A})})
    assert tree.main is not None
    assert tree.main.pid == 101
    assert pids(tree.terminals) == {130}
    assert pids(tree.outside) == {300}
    assert tree.is_complete


def test_a_container_without_kernels_has_its_server_by_name():
    tini = within(CONTAINER, 100, 30, command="tini -- jupyterhub-singleuser")
    served = replace(
        process(101, 100, session=100, command="python /bin/jupyterhub-singleuser")
    )
    tree = tree_of([tini, served], [in_docker()], {})
    assert tree.main == served
    assert (tree.outside, tree.is_complete) == ((), True)
    # Where nothing names the server, whatever stands there may be something else.
    unnamed = replace(served, command="")
    tree = tree_of([tini, unnamed], [in_docker()], {})
    assert tree.outside == (unnamed,)


def test_a_unit_of_which_two_processes_began_first_has_no_known_server():
    twins = [within(UNIT, 100, 1, started=5), within(UNIT, 101, 1, started=5)]
    tree = tree_of(twins, [in_systemd()], {})
    assert tree.main is None
    assert not tree.is_complete


def test_an_empty_unit_and_one_that_two_servers_claim_are_not_complete():
    assert not tree_of([], [in_systemd()]).is_complete
    twin = replace(in_systemd(), lease_id="lease-eve", user="eve")
    assert not tree_of(room(UNIT), [in_systemd(), twin]).is_complete


def test_a_process_whose_cgroup_could_not_be_read_may_be_in_the_unit():
    unread = process(400, 1, session=399)
    assert not tree_of([*room(UNIT), unread], [in_systemd()]).is_complete
    elsewhere = replace(unread, cgroup="/system.slice/cron.service")
    assert tree_of([*room(UNIT), elsewhere], [in_systemd()]).is_complete
    older = replace(unread, started=1)
    assert tree_of([*room(UNIT), older], [in_systemd()]).is_complete


# What of it has to be read whole.


def test_orphans_and_servers_behind_wrappers_are_described():
    wrapped = process(101, 100, session=100)
    orphan = process(700, 1, session=699)
    facts = {p.pid: p for p in alone(ALICE_KERNEL, wrapped)}
    assert worth_describing([], facts, [ALICE]) == {110, 101}
    facts[700] = orphan
    assert worth_describing([], facts, [ALICE]) == {110, 101, 700, 100}


def test_a_server_behind_a_containers_first_process_is_described():
    shim = process(30, 1, session=29, uid=0)
    tini = process(100, 30)
    served = process(101, 100, session=100)
    kernel = process(110, 101)
    worker = process(111, 110, session=110)
    init = process(1, 0, session=1, uid=0)
    facts = {p.pid: p for p in (init, shim, tini, served, kernel, worker)}
    info = in_docker()
    assert info.engine_id == ID
    assert worth_describing([], facts, [info]) == {1, 30, 100, 101, 110}
