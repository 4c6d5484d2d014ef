"""What a cgroup's path says, and what an attendee cannot make it say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.cgroups import place_of

ID = "0123456789abcdef" * 4
CONTAINER = ("docker", ID)
OTHER = "fedcba9876543210" * 4


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("/system.slice/jupyter-ada.service", ("systemd", "jupyter-ada.service")),
        (
            "/system.slice/jupyter-ada.service/below",
            ("systemd", "jupyter-ada.service"),
        ),
        (
            "/workshop.slice/workshop-gpu.slice/jupyter-ada.service",
            ("systemd", "jupyter-ada.service"),
        ),
        (f"/docker/{ID}", ("docker", ID)),
        (f"/system.slice/docker-{ID}.scope", ("docker", ID)),
        (f"/machine.slice/libpod-{ID}.scope/container", ("docker", ID)),
        (f"/system.slice/docker.service/docker/{ID}", ("docker", ID)),
        (f"/system.slice/nerdctl-{ID}.scope", CONTAINER),
        (f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope", CONTAINER),
        ("/user.slice/user-1001.slice/session-3.scope", None),
        ("/init.scope", None),
        ("/", None),
        ("", None),
    ],
)
def test_a_path_names_a_unit_or_a_container(cgroup, expected):
    assert place_of(cgroup) == expected


def test_a_unit_of_a_users_own_manager_is_not_the_systems_unit_of_that_name():
    forged = (
        "/user.slice/user-1001.slice/user@1001.service/app.slice/jupyter-bob.service"
    )
    assert place_of(forged) == ("systemd", "user@1001.service")


def test_a_container_of_a_users_own_manager_is_not_the_systems_of_that_name():
    forged = f"/user.slice/user-1001.slice/user@1001.service/docker-{ID}.scope"
    assert place_of(forged) == ("systemd", "user@1001.service")


def test_inside_a_container_nobody_can_claim_to_be_another():
    forged = f"/system.slice/docker-{ID}.scope/docker-{OTHER}.scope"
    assert place_of(forged) == ("docker", ID)


@given(st.lists(st.sampled_from(["app.slice", "jupyter-bob.service", "x.scope", "y"])))
def test_nothing_below_a_unit_changes_whose_it_is(below):
    path = "/".join(["/system.slice/jupyter-ada.service", *below])
    assert place_of(path) == ("systemd", "jupyter-ada.service")
