"""The import hook reaches servers with a lease on devices, and no others."""

import pytest

from jupyterhub_gpuworkshop.hub.memory_hook import (
    FOLDER,
    page_url,
    with_jupyter_settings,
    with_memory_hook,
)

_EARLY = """
c.Spawner.environment["PYTHONPATH"] = "/opt/admin:/opt/more"
c.Spawner.environment["JUPYTER_CONFIG_PATH"] = "/opt/jupyter"
"""
_MIXED = """
c.GpuSpawnerMixin.share = lambda spawner: {"cpu-only": "cpu"}.get(spawner.user.name)
"""


def test_the_admins_pythonpath_stays_behind_the_hook():
    assert with_memory_hook({}, "") == {"PYTHONPATH": str(FOLDER)}
    given = {"PYTHONPATH": "/a:/b", "HOME": "/home/ann"}
    expected = {"PYTHONPATH": "/opt/hook:/a:/b", "HOME": "/home/ann"}
    assert with_memory_hook(given, "/opt/hook") == expected
    assert given["PYTHONPATH"] == "/a:/b"


def test_the_admins_jupyter_settings_stay_behind_ours():
    ours = FOLDER / "gpuworkshop_jupyter"
    assert (ours / "jupyter_server_config.py").is_file()
    assert with_jupyter_settings({}, "") == {"JUPYTER_CONFIG_PATH": str(ours)}
    given = {"JUPYTER_CONFIG_PATH": "/a:/b"}
    assert with_jupyter_settings(given, "/opt/hook") == {
        "JUPYTER_CONFIG_PATH": "/opt/hook/gpuworkshop_jupyter:/a:/b"
    }
    assert given == {"JUPYTER_CONFIG_PATH": "/a:/b"}


@pytest.mark.parametrize(
    ("public", "base", "expected"),
    [
        ("", "/", "/services/gpus/"),
        ("", "/lab/", "/lab/services/gpus/"),
        ("https://hub.example/hub/", "/", "https://hub.example/services/gpus/"),
        (
            "https://hub.example/lab/hub/",
            "/lab/",
            "https://hub.example/lab/services/gpus/",
        ),
    ],
)
def test_the_page_is_where_the_hub_is(public: str, base: str, expected: str):
    given = {"JUPYTERHUB_BASE_URL": base, "JUPYTERHUB_PUBLIC_HUB_URL": public}
    assert page_url(given, "gpus") == expected


@pytest.mark.hub
def test_a_server_with_a_device_gets_the_hook_and_one_without_does_not(make_hub):
    hub = make_hub(early=_EARLY, late=_MIXED).start()
    hub.add_users("ann", "cpu-only")
    hub.spawn("ann")
    hub.spawn("cpu-only")
    env = hub.environment_of("ann")
    assert env["PYTHONPATH"] == f"{FOLDER}:/opt/admin:/opt/more"
    assert env["JUPYTER_CONFIG_PATH"] == f"{FOLDER}/gpuworkshop_jupyter:/opt/jupyter"
    assert 0 < float(env["GPUWORKSHOP_MEMORY_FRACTION"]) <= 0.2
    assert env["GPUWORKSHOP_PAGE"].endswith("/services/gpuworkshop/")
    # The lease, the server's state and the log say what that is worth.
    leases = {lease.user: lease for lease in hub.leases()}
    assert [leases[x].hook for x in ("ann", "cpu-only")] == [True, False]
    said = hub.server("ann")["state"]["gpuworkshop"]["memory_limits"]
    assert said.startswith("soft: ")
    assert "for each process of PyTorch, TensorFlow, ONNX Runtime, JAX" in said
    assert f"The memory limit of ann is {said}" in hub.log
    assert "The memory limit of cpu-only" not in hub.log
    env = hub.environment_of("cpu-only")
    assert env["PYTHONPATH"] == "/opt/admin:/opt/more"
    assert env["JUPYTER_CONFIG_PATH"] == "/opt/jupyter"
    assert "GPUWORKSHOP_MEMORY_FRACTION" not in env


@pytest.mark.hub
def test_the_hook_can_lie_elsewhere(make_hub):
    late = 'c.GpuSpawnerMixin.memory_hook_path = "/opt/hook"'
    hub = make_hub(early=_EARLY, late=late).start()
    hub.add_users("ann")
    hub.spawn("ann")
    env = hub.environment_of("ann")
    assert env["PYTHONPATH"] == "/opt/hook:/opt/admin:/opt/more"
    assert env["JUPYTER_CONFIG_PATH"] == "/opt/hook/gpuworkshop_jupyter:/opt/jupyter"


@pytest.mark.hub
def test_the_hook_can_be_left_out(make_hub):
    hub = make_hub(early=_EARLY, late="c.GpuSpawnerMixin.memory_hook = False").start()
    hub.add_users("ann")
    hub.spawn("ann")
    env = hub.environment_of("ann")
    assert env["PYTHONPATH"] == "/opt/admin:/opt/more"
    # What counts as activity has nothing to do with caps.
    assert env["JUPYTER_CONFIG_PATH"] == f"{FOLDER}/gpuworkshop_jupyter:/opt/jupyter"
    assert "GPUWORKSHOP_MEMORY_LIMIT_BYTES" in env
    (lease,) = hub.leases()
    assert lease.hook is False
    assert "PyTorch" not in hub.server("ann")["state"]["gpuworkshop"]["memory_limits"]
