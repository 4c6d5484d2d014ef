"""What the doctor makes of a hub's configuration."""

from typing import Any

import pytest

from jupyterhub_gpuworkshop.tools.doctor import hub
from jupyterhub_gpuworkshop.tools.doctor.check import Check, Status
from jupyterhub_gpuworkshop.tools.doctor.reading.hub_facts import (
    HubFacts,
    ServiceEntry,
)
from jupyterhub_gpuworkshop.workshop import Workshop

LOCAL = ("ours.GpuLocalSpawner", "x.GpuSpawnerMixin", "x.LocalProcessSpawner")
DOCKER = ("ours.GpuDockerSpawner", "x.GpuSpawnerMixin", "dockerspawner.DockerSpawner")
SYSTEMD = ("ours.GpuSystemdSpawner", "x.GpuSpawnerMixin", "y.SystemdSpawner")


def facts(lineage: tuple[str, ...] = SYSTEMD, **changes: Any) -> HubFacts:
    """Return a good configuration."""
    given: dict[str, Any] = {
        "file": "/etc/jupyterhub/jupyterhub_config.py",
        "version": "6.1.1",
        "spawner": lineage[0],
        "lineage": lineage,
        "mixin_leftmost": True,
        "configured": True,
        "concurrent_spawn_limit": 100,
        "traits": {
            "start_timeout": 180,
            "http_timeout": 120,
            "mem_limit": "8G",
            "remove": True,
            "isolate_devices": False,
        },
    }
    traits = {**given["traits"], **changes.pop("traits", {})}
    return HubFacts(**{**given, **changes, "traits": traits})


def assert_says(check: Check, status: Status, *words: str) -> None:
    said = f"{check.finding}\n{check.remedy}"
    assert check.status is status, said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("seen", "status", "words"),
    [
        (facts(), Status.OK, ["shares GPUs"]),
        (HubFacts(), Status.SKIP, ["--hub-config"]),
        (
            HubFacts(file="/x.py", problem="denied", needs_root=True),
            Status.SKIP,
            ["Needs root", "sudo"],
        ),
        (
            HubFacts(file="/x y.py", problem="NameError: name 'd' is not defined"),
            Status.FAIL,
            ["NameError", "$ jupyterhub -f '/x y.py' --show-config"],
        ),
        (facts(configured=False), Status.FAIL, ["configure(c, "]),
    ],
)
def test_a_configuration_that_shares_no_gpus_is_told(
    seen: HubFacts, status: Status, words: list[str]
) -> None:
    assert_says(hub.judge_config(seen), status, *words)


@pytest.mark.parametrize(
    "judge",
    [
        hub.judge_spawner,
        hub.judge_remove,
        hub.judge_isolate_devices,
        hub.judge_timeouts,
        lambda x: hub.judge_spawn_limits(x, 10),
        lambda x: hub.judge_memory_limit(x, simulated=False),
        lambda x: hub.judge_culler(x, Workshop.load({})),
    ],
)
def test_nothing_is_said_of_a_configuration_that_was_not_read(judge: Any) -> None:
    for unread in (HubFacts(), HubFacts(file="/x", problem="broken")):
        assert_says(judge(unread), Status.SKIP, "hub.config")


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("5.1.0", Status.FAIL),
        ("5.2.1", Status.OK),
        ("6.1.1", Status.OK),
        ("7.0.0", Status.FAIL),
        ("6.2.0.dev0", Status.OK),
    ],
)
def test_versions_that_we_support(version: str, status: Status) -> None:
    assert hub.judge_version(HubFacts(), version, "").status is status


def test_a_hub_that_was_not_restarted_after_an_upgrade_is_told() -> None:
    check = hub.judge_version(facts(), "6.1.1", "5.5.4")
    assert_says(check, Status.WARN, "runs is JupyterHub 5.5.4", "6.1.1 is installed")


def test_a_spawner_without_the_mixin_or_with_it_behind_fails() -> None:
    assert hub.judge_spawner(facts()).status is Status.OK
    none = hub.judge_spawner(facts(mixin_leftmost=None))
    assert_says(none, Status.FAIL, "not among its bases", "gpu-local")
    behind = hub.judge_spawner(facts(mixin_leftmost=False))
    assert_says(behind, Status.FAIL, "behind another base", "leftmost")


@pytest.mark.parametrize(
    ("lineage", "remove", "status"),
    [
        (DOCKER, True, Status.OK),
        (DOCKER, False, Status.FAIL),
        (SYSTEMD, False, Status.SKIP),
    ],
)
def test_containers_must_go_when_they_stop(
    lineage: tuple[str, ...], remove: bool, status: Status
) -> None:
    check = hub.judge_remove(facts(lineage, traits={"remove": remove}))
    assert check.status is status
    if status is Status.FAIL:
        assert "c.DockerSpawner.remove = True" in check.remedy


@pytest.mark.parametrize(
    ("lineage", "hides", "status"),
    [
        (SYSTEMD, False, Status.OK),
        (SYSTEMD, True, Status.FAIL),
        (LOCAL, True, Status.SKIP),
    ],
)
def test_systemd_must_not_hide_every_device(
    lineage: tuple[str, ...], hides: bool, status: Status
) -> None:
    seen = facts(lineage, traits={"isolate_devices": hides})
    assert hub.judge_isolate_devices(seen).status is status


def test_timeouts_that_a_class_outlasts_are_a_warning() -> None:
    assert hub.judge_timeouts(facts()).status is Status.OK
    check = hub.judge_timeouts(facts(traits={"http_timeout": 30}))
    assert_says(check, Status.WARN, "http_timeout 30 s", "c.Spawner.http_timeout = 120")


@pytest.mark.parametrize(
    ("changes", "attendees", "status", "words"),
    [
        ({}, 40, Status.OK, []),
        ({}, None, Status.OK, []),
        ({"active_server_limit": 30}, 40, Status.FAIL, ["10 would be refused", "= 40"]),
        ({"active_server_limit": 40}, 40, Status.OK, []),
        ({"concurrent_spawn_limit": 10}, 40, Status.WARN, ["all but 10", "= 40"]),
        ({"concurrent_spawn_limit": 0}, 40, Status.OK, []),
        (
            {"version": "5.5.4", "traits": {"consecutive_failure_limit": 5}},
            40,
            Status.WARN,
            ["stop the hub"],
        ),
        ({"traits": {"consecutive_failure_limit": 5}}, 40, Status.OK, []),
    ],
)
def test_limits_against_the_attendees_expected(
    changes: dict[str, Any], attendees: int | None, status: Status, words: list[str]
) -> None:
    check = hub.judge_spawn_limits(facts(**dict(changes)), attendees)
    assert_says(check, status, *words)


@pytest.mark.parametrize(
    ("lineage", "limit", "simulated", "status"),
    [
        (SYSTEMD, "8G", False, Status.OK),
        (SYSTEMD, None, False, Status.WARN),
        (DOCKER, None, False, Status.WARN),
        (LOCAL, "8G", False, Status.WARN),
        (LOCAL, None, True, Status.SKIP),
    ],
)
def test_a_server_that_can_take_all_host_memory_is_a_warning(
    lineage: tuple[str, ...], limit: str | None, simulated: bool, status: Status
) -> None:
    seen = facts(lineage, traits={"mem_limit": limit})
    assert hub.judge_memory_limit(seen, simulated=simulated).status is status


def culler(*words: str) -> tuple[ServiceEntry, ...]:
    return (ServiceEntry(name="cull", command=("python3", *words)),)


@pytest.mark.parametrize(
    ("services", "status", "words"),
    [
        ((), Status.OK, []),
        (culler("-m", "jupyterhub_idle_culler"), Status.WARN, ["10 min", "10800"]),
        (
            culler("-m", "jupyterhub_idle_culler", "--timeout=3600"),
            Status.WARN,
            ["after 60 min"],
        ),
        (culler("-m", "jupyterhub_idle_culler", "--timeout", "7200"), Status.OK, []),
        (culler("cull_idle_servers.py", "--timeout=9000"), Status.OK, []),
        (culler("-m", "something_else", "--timeout=1"), Status.OK, []),
    ],
)
def test_an_idle_culler_that_is_quicker_than_our_rules_is_a_warning(
    services: tuple[ServiceEntry, ...], status: Status, words: list[str]
) -> None:
    check = hub.judge_culler(facts(services=services), Workshop.load({}))
    assert_says(check, status, *words)


def test_the_remedy_on_tljh_is_tljhs_own_command() -> None:
    seen = facts(
        services=culler("-m", "jupyterhub_idle_culler", "--timeout=600"),
        file="/opt/tljh/hub/lib/python3.12/site-packages/tljh/jupyterhub_config.py",
    )
    check = hub.judge_culler(seen, Workshop.load({}))
    assert "tljh-config set services.cull.timeout 10800" in check.remedy


def test_the_limit_on_tljh_is_set_tljhs_way() -> None:
    seen = facts(
        traits={"mem_limit": None}, file="/opt/tljh/x/tljh/jupyterhub_config.py"
    )
    check = hub.judge_memory_limit(seen, simulated=False)
    assert_says(check, Status.WARN, "tljh-config set limits.memory 8G")


def test_kernels_that_servers_themselves_end_are_a_warning() -> None:
    seen = facts(traits={"args": ["--MappingKernelManager.cull_idle_timeout=300"]})
    check = hub.judge_culler(seen, Workshop.load({}))
    assert_says(check, Status.WARN, "5 min", "cull_idle_timeout")
