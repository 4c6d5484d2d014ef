"""Whose process is it, where systemd or Docker runs the servers? By its cgroup."""

from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.attribution import worth_describing
from jupyterhub_gpuworkshop.core.snapshot import HolderKind, ProcessId

from .test_attribution import (
    BOB,
    BOB_SERVER,
    HUB,
    KERNEL_A,
    KERNEL_B,
    explain,
    kernel_command,
    only,
    process,
    sample,
    server,
)

ID = "0123456789abcdef" * 4
UNIT = "/system.slice/jupyter-ada.service"
CONTAINER = f"/system.slice/docker-{ID}.scope"
ADA = ("ada", "")
KERNELS = {ADA: frozenset({KERNEL_A, KERNEL_B})}


def in_systemd(user="ada", **changes):
    unit = f"jupyter-{user}.service"
    return replace(server(user, 0), engine="systemd", engine_id=unit, **changes)


def in_docker(user="ada"):
    return replace(server(user, 0), engine="docker", engine_id=ID)


def within(cgroup, pid, parent, **facts):
    return replace(process(pid, parent, **facts), cgroup=cgroup)


def room(cgroup):
    """Return a server with a kernel: a wrapper between init and the server."""
    return [
        within(cgroup, 100, 1),
        within(cgroup, 101, 100, session=100),
        within(cgroup, 110, 101, command=kernel_command(KERNEL_A)),
        within(cgroup, 111, 110, session=110),
    ]


@pytest.mark.parametrize(
    ("cgroup", "info"), [(UNIT, in_systemd()), (CONTAINER, in_docker())]
)
def test_a_kernel_in_a_servers_cgroup_is_found_behind_a_wrapper(cgroup, info):
    found = explain(room(cgroup), [info], [111], KERNELS)
    holder = only(found)
    assert (holder.kind, holder.user) == (HolderKind.KERNEL, "ada")
    assert holder.kernel_id == KERNEL_A
    tree = next(t for o, t in found.kernels.items() if o.kernel_id == KERNEL_A)
    assert tree.main == ProcessId(pid=110, started=1100)
    assert {p.pid for p in tree.members} == {110, 111}


@pytest.mark.parametrize(
    ("cgroup", "info"), [(UNIT, in_systemd()), (CONTAINER, in_docker())]
)
def test_an_orphan_in_a_servers_cgroup_is_the_servers_in_no_kernel(cgroup, info):
    orphan = within(cgroup, 300, 1)
    holder = only(explain([*room(cgroup), orphan], [info], [300], KERNELS))
    assert (holder.kind, holder.user) == (HolderKind.SERVER, "ada")
    assert holder.lease_id == info.lease_id


def test_a_unit_of_the_same_name_under_a_users_own_manager_charges_nobody():
    forged = "/user.slice/user-1001.slice/user@1001.service" + UNIT
    holder = only(explain([within(forged, 300, 1)], [in_systemd()], [300], KERNELS))
    assert (holder.kind, holder.user) == (HolderKind.FOREIGN, "")


def test_a_kernels_name_in_another_cgroup_claims_nothing():
    stranger = within("/user.slice/x", 300, 1, command=kernel_command(KERNEL_A))
    found = explain([*room(UNIT), stranger], [in_systemd()], [300, 110], KERNELS)
    assert [h.kind for h in found.holders] == [HolderKind.FOREIGN, HolderKind.KERNEL]


def test_two_processes_that_claim_one_kernel_leave_it_without_a_main_process():
    twin = within(UNIT, 120, 101, command=kernel_command(KERNEL_A))
    found = explain([*room(UNIT), twin], [in_systemd()], [120], KERNELS)
    assert only(found).kind is HolderKind.SERVER
    assert all(tree.main is None for tree in found.kernels.values())


def test_a_name_that_two_servers_bear_is_nobodys():
    twin = replace(in_systemd(), lease_id="lease-eve", user="eve")
    holder = only(explain(room(UNIT), [in_systemd(), twin], [110], KERNELS))
    assert holder.kind is HolderKind.FOREIGN


def test_servers_of_the_hub_itself_stand_beside_those_of_an_engine():
    processes = [HUB, BOB_SERVER, process(210, 200), *room(UNIT)]
    found = explain(processes, [BOB, in_systemd()], [210, 110], KERNELS)
    assert [h.user for h in found.holders] == ["bob", "ada"]


def test_what_may_be_an_engines_kernel_or_have_lost_its_parents_is_described():
    orphan = process(400, 1, session=0)
    child = process(401, 400, session=0)
    facts = {p.pid: p for p in [*room(""), orphan, child]}
    assert worth_describing([], facts, [in_docker()]) == {100, 110, 400}
    assert worth_describing([], facts, [BOB]) == frozenset()
    assert worth_describing([sample(401)], facts, [BOB]) == {401}
