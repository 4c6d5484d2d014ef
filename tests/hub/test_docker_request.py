"""What the engine is asked for: the lease's devices, whatever the admin's lists say."""

import docker
import pytest

from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.hub.spawners.docker_request import (
    HOOK_TARGET,
    LEASE_LABEL,
    DeviceDriver,
    ask,
    driver_of,
    lease_environment,
    over_image,
)

NVIDIA, CDI, NONE = DeviceDriver.NVIDIA, DeviceDriver.CDI, DeviceDriver.NONE
GPUS = [["gpu"]]


def lease(*uuids: str, labels: tuple[str, ...] = ()) -> Lease:
    devices = tuple(
        LeasedDevice(
            uuid=uuid,
            label=labels[number] if labels else str(number + 3),
            memory_bytes=4 * GIB,
            total_bytes=16 * GIB,
        )
        for number, uuid in enumerate(uuids)
    )
    return Lease(
        id="0" * 32,
        user="ada",
        server="",
        share=f"{len(uuids)} gpus" if uuids else "cpu",
        devices=devices,
        granted_at=0.0,
    )


ONE, TWO, CPU = lease("GPU-a"), lease("GPU-a", "GPU-b"), lease()


def asked(of=ONE, driver=NVIDIA, **host):
    """Ask as DockerSpawner does: docker-py makes the host configuration."""
    client = docker.APIClient(version="1.41")
    try:
        given = {
            "image": "i",
            "environment": lease_environment(of, driver),
            "host_config": client.create_host_config(**host),
        }
    finally:
        client.close()
    return ask(given, of, driver)


def requests_of(result):
    return result.arguments["host_config"]["DeviceRequests"]


def only_ours(uuids, capabilities=GPUS):
    return [
        {
            "Driver": "",
            "Count": 0,
            "DeviceIDs": list(uuids),
            "Capabilities": capabilities,
            "Options": {},
        }
    ]


def test_the_devices_of_the_lease_are_asked_for_by_uuid():
    assert requests_of(asked(TWO)) == only_ours(["GPU-a", "GPU-b"])


def test_with_cdi_they_are_asked_for_by_their_names():
    assert requests_of(asked(TWO, CDI)) == [
        {
            "Driver": "cdi",
            "Count": 0,
            "DeviceIDs": ["nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b"],
            "Capabilities": [],
            "Options": {},
        }
    ]


@pytest.mark.parametrize("driver", DeviceDriver)
def test_a_share_of_cpu_asks_for_no_device_and_says_so_to_nvidias_runtime(driver):
    result = asked(CPU, driver)
    assert requests_of(result) == []
    # Images of NVIDIA set it to "all", which nvidia as the default runtime obeys.
    assert result.arguments["environment"]["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert result.arguments["environment"]["CUDA_VISIBLE_DEVICES"] == "-1"


@pytest.mark.parametrize(
    "theirs",
    [
        {"count": -1, "capabilities": GPUS},
        {"count": 2, "capabilities": [["compute", "utility"]]},
        {"device_ids": ["GPU-of-somebody"], "capabilities": GPUS},
        {"driver": "nvidia", "count": -1},
        {"driver": "cdi", "device_ids": ["nvidia.com/gpu=all"]},
        {"driver": "cdi", "device_ids": ["management.nvidia.com/gpu=all"]},
    ],
)
@pytest.mark.parametrize("of", [ONE, CPU])
def test_gpus_that_the_admin_asks_for_are_not_handed_in_and_the_log_says_so(theirs, of):
    result = asked(of, device_requests=[theirs])
    ids = [x for request in requests_of(result) for x in request["DeviceIDs"]]
    assert ids == list(of.uuids)
    assert all(request["Count"] == 0 for request in requests_of(result))
    (sentence,) = result.sentences
    assert "extra_host_config asks for GPUs in device_requests" in sentence
    assert "ada gets" in sentence


def test_what_the_admin_wants_of_the_driver_stays():
    theirs = {
        "driver": "nvidia",
        "count": -1,
        "capabilities": [["gpu", "graphics"]],
        "options": {"x": "y"},
    }
    (request,) = requests_of(asked(device_requests=[theirs]))
    assert request == {
        "Driver": "nvidia",
        "Count": 0,
        "DeviceIDs": ["GPU-a"],
        "Capabilities": [["gpu", "graphics"]],
        "Options": {"x": "y"},
    }


def test_requests_for_other_devices_stay():
    radio = {"driver": "cdi", "device_ids": ["vendor.com/radio=1", "nvidia.com/gpu=0"]}
    other = {"driver": "fpga", "count": 1, "capabilities": [["fpga"]]}
    result = asked(device_requests=[radio, other])
    first, second, ours = requests_of(result)
    assert first["DeviceIDs"] == ["vendor.com/radio=1"]
    assert (second["Driver"], second["Count"]) == ("fpga", 1)
    assert ours["DeviceIDs"] == ["GPU-a"]
    assert len(result.sentences) == 1


def test_the_admins_host_configuration_stays():
    result = asked(
        mem_limit="1g", binds={"/data": {"bind": "/data", "mode": "ro"}}, shm_size="2g"
    )
    host = result.arguments["host_config"]
    assert host["Memory"] == GIB
    assert host["ShmSize"] == 2 * GIB
    assert host["Binds"] == ["/data:/data:ro"]
    assert result.sentences == ()


@pytest.mark.parametrize(
    ("host", "word"),
    [
        ({"privileged": True}, "privileged=True opens every device"),
        ({"devices": ["/dev/nvidia0:/dev/nvidia0:rwm"]}, "devices opens /dev/nvidia0"),
        ({"device_cgroup_rules": ["c 195:* rwm"]}, "device_cgroup_rules opens c 195"),
        ({"device_cgroup_rules": ["c *:* rwm"]}, "device_cgroup_rules opens c *:*"),
        ({"device_cgroup_rules": ["a"]}, "device_cgroup_rules opens a"),
    ],
)
def test_what_opens_gpus_beside_the_lease_is_told(host, word):
    (sentence,) = asked(**host).sentences
    assert word in sentence
    assert "ada" in sentence


def test_devices_that_are_no_gpus_are_not_worth_a_word():
    host = {"devices": ["/dev/fuse:/dev/fuse:rwm"], "device_cgroup_rules": ["c 10:* r"]}
    assert asked(**host).sentences == ()


def test_a_container_bears_the_id_of_its_lease():
    for given in ({"mine": "1"}, ["mine"], None):
        result = ask({"labels": given}, ONE, NVIDIA)
        expected = {LEASE_LABEL: ONE.id}
        if given:
            expected["mine"] = "1" if isinstance(given, dict) else ""
        assert result.arguments["labels"] == expected


def test_the_hook_is_mounted_read_only_beside_the_admins_mounts():
    theirs = {"Type": "bind", "Source": "/data", "Target": "/data"}
    given = {"host_config": {"Mounts": [theirs]}}
    result = ask(given, ONE, NVIDIA, hook_volume="v")
    first, ours = result.arguments["host_config"]["Mounts"]
    assert first == theirs
    assert (ours["Type"], ours["Source"], ours["Target"]) == (
        "volume",
        "v",
        HOOK_TARGET,
    )
    assert ours["ReadOnly"] is True
    assert given["host_config"]["Mounts"] == [theirs], "the given one was changed"
    assert "Mounts" not in ask({}, ONE, NVIDIA).arguments["host_config"]


def test_a_variable_that_would_break_the_lease_is_overruled_wherever_it_comes_from():
    environment = {**lease_environment(ONE, NVIDIA), "NVIDIA_VISIBLE_DEVICES": "all"}
    result = ask({"environment": environment}, ONE, NVIDIA)
    assert result.arguments["environment"]["NVIDIA_VISIBLE_DEVICES"] == "GPU-a"
    (sentence,) = result.sentences
    assert "extra_create_kwargs sets NVIDIA_VISIBLE_DEVICES='all'" in sentence


# -- how the container counts


def test_a_containers_devices_count_from_zero_where_they_go_by_index():
    assert lease_environment(TWO, NVIDIA)["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"
    by_index = lease_environment(TWO, NVIDIA, by_index=True)
    assert by_index["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert lease_environment(TWO, CDI, by_index=True)["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_mig_slices_keep_their_uuids_and_simulated_gpus_their_numbers():
    slices = lease("MIG-a", labels=("3:1",))
    named = lease_environment(slices, NVIDIA, by_index=True)["CUDA_VISIBLE_DEVICES"]
    assert named == "MIG-a"
    # Nothing is handed in: the simulation counts as the host does.
    named = lease_environment(ONE, NONE, by_index=True)["CUDA_VISIBLE_DEVICES"]
    assert named == "3"
    assert lease_environment(CPU, NVIDIA, by_index=True)["CUDA_VISIBLE_DEVICES"] == "-1"


def test_nvidias_runtime_hands_in_nothing_that_cdi_does():
    assert lease_environment(ONE, CDI)["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert lease_environment(ONE, NONE)["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert lease_environment(ONE, NVIDIA)["NVIDIA_VISIBLE_DEVICES"] == "GPU-a"


# -- which driver


def discovered(*ids, source="cdi"):
    return [{"Source": source, "ID": x} for x in ids]


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"ServerVersion": "20.10.24+dfsg1"}, NVIDIA),
        ({"ServerVersion": "24.0.7", "Runtimes": {"runc": {}}}, NVIDIA),
        ({"ServerVersion": "26.1", "CDISpecDirs": ["/etc/cdi"]}, CDI),
        ({"ServerVersion": "28.1.1", "CDISpecDirs": ["/etc/cdi"]}, CDI),
        (
            {
                "ServerVersion": "28.1.1",
                "CDISpecDirs": ["/etc/cdi"],
                "Runtimes": {"nvidia": {}},
            },
            NVIDIA,
        ),
        # It would have listed them.
        ({"ServerVersion": "28.2.2", "CDISpecDirs": ["/etc/cdi"]}, NVIDIA),
        (
            {
                "ServerVersion": "29.0.1",
                "Runtimes": {"nvidia": {}},
                "DiscoveredDevices": discovered(
                    "nvidia.com/gpu=0", "nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b"
                ),
            },
            CDI,
        ),
        (
            {
                "ServerVersion": "29.0.1",
                "DiscoveredDevices": discovered(
                    "nvidia.com/gpu=GPU-a", "nvidia.com/gpu=all"
                ),
            },
            NVIDIA,
        ),
        (
            {
                "ServerVersion": "29.0.1",
                "DiscoveredDevices": discovered(
                    "nvidia.com/gpu=GPU-a", "nvidia.com/gpu=GPU-b", source="other"
                ),
            },
            NVIDIA,
        ),
        ({"ServerVersion": "library-import", "CDISpecDirs": ["/etc/cdi"]}, NVIDIA),
        ({"CDISpecDirs": None, "DiscoveredDevices": None, "Runtimes": None}, NVIDIA),
    ],
)
def test_the_engine_says_how_it_hands_devices_in(info, expected):
    assert driver_of(info, ["GPU-a", "GPU-b"]) is expected


# -- what the image says


def test_an_images_pythonpath_stays_behind_the_hook():
    image = ["PATH=/bin", "PYTHONPATH=/usr/local/spark/python"]
    env = over_image({"PYTHONPATH": "/hook"}, image, "/hook")
    assert env["PYTHONPATH"] == "/hook:/usr/local/spark/python"
    # The admin's replaces it, as Docker has it; and without the hook nothing changes.
    env = over_image({"PYTHONPATH": "/hook:/admin"}, image, "/hook")
    assert env["PYTHONPATH"] == "/hook:/admin"
    assert over_image({}, image, "/hook") == {}
    assert over_image({"PYTHONPATH": "/hook"}, ["PYTHONPATH="], "/hook") == {
        "PYTHONPATH": "/hook"
    }
    image = ["JUPYTER_CONFIG_PATH=/etc/theirs"]
    ours = {"JUPYTER_CONFIG_PATH": "/hook/gpuworkshop_jupyter"}
    assert over_image(ours, image, "/hook") == {
        "JUPYTER_CONFIG_PATH": "/hook/gpuworkshop_jupyter:/etc/theirs"
    }


def test_what_an_image_sets_cannot_undo_the_caps():
    image = ["XLA_CLIENT_MEM_FRACTION=.9", "TF_GPU_ALLOCATOR=cuda_malloc_async"]
    capped = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.2"}
    # JAX stops where both have a value, and takes an empty one for none.
    assert over_image(capped, image, "") == {
        **capped,
        "XLA_CLIENT_MEM_FRACTION": "",
        "TF_GPU_ALLOCATOR": "",
    }
    assert over_image({}, image, "") == {}
    admins = {"XLA_CLIENT_MEM_FRACTION": "0.1"}
    assert over_image(admins, image, "") == admins
