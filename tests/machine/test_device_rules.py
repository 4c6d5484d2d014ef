"""device_rules: which nodes a lease opens, in systemd's words."""

from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.errors import SourceError
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.device_rules import (
    device_rules,
    opens_gpus,
    uvm_is_loaded,
)

DEVICES = """\
Character devices:
  1 mem
  5 /dev/tty
 10 misc
136 pts
195 nvidia
195 nvidiactl
226 drm
237 nvidia-caps
511 nvidia-uvm

Block devices:
  7 loop
 99 nvidia-caps
"""
SHARED = ("/dev/char/195:255 rw", "/dev/char/195:254 rw", "char-nvidia-uvm rw")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc of a machine whose GPU 1 has a slice: GPU instance 7, compute 0."""
    (tmp_path / "devices").write_text(DEVICES)
    top = tmp_path / "driver/nvidia/capabilities/gpu1/mig/gi7"
    (top / "ci0").mkdir(parents=True)
    text = "DeviceFileMinor: {}\nDeviceFileMode: 292\nDeviceFileModify: 1\n"
    (top / "access").write_text(text.format(66))
    (top / "ci0" / "access").write_text(text.format(67))
    return tmp_path


def device(uuid: str, minor: int | None, **more: object) -> Device:
    return Device(
        uuid=uuid, label=uuid, name="GPU", memory_bytes=GIB, minor=minor, **more
    )


def machine(*devices: Device, source: str = "nvml") -> Inventory:
    return Inventory(devices=devices, source=source)


def slice_of(uuid: str, minor: int, instance: int | None) -> Device:
    return device(
        *(uuid, minor),
        parent_uuid="GPU-m",
        gpu_instance=instance,
        compute_instance=0,
    )


def test_a_device_is_opened_by_its_minor_number_and_not_by_its_index(
    proc: Path,
) -> None:
    inventory = machine(device("GPU-a", 3), device("GPU-b", 0))
    assert device_rules(["GPU-a"], inventory, proc=proc) == (
        *SHARED,
        "/dev/char/195:3 rw",
    )


def test_several_devices_share_what_all_gpus_share(proc: Path) -> None:
    inventory = machine(device("GPU-a", 0), device("GPU-b", 1), device("GPU-c", 2))
    assert device_rules(["GPU-a", "GPU-c"], inventory, proc=proc) == (
        *SHARED,
        "/dev/char/195:0 rw",
        "/dev/char/195:2 rw",
    )


def test_a_share_of_cpu_opens_nothing(proc: Path) -> None:
    assert device_rules((), machine(device("GPU-a", 0)), proc=proc) == ()


def test_simulated_devices_have_no_nodes_and_open_none(proc: Path) -> None:
    inventory = machine(device("GPU-a", 0), source="simulated")
    assert device_rules(["GPU-a"], inventory, proc=proc) == ()


def test_a_slice_is_opened_with_its_gpu_and_its_two_capabilities(proc: Path) -> None:
    inventory = machine(slice_of("MIG-x", 1, 7))
    assert device_rules(["MIG-x"], inventory, proc=proc) == (
        *SHARED,
        "/dev/char/195:1 rw",
        "/dev/char/237:66 r",
        "/dev/char/237:67 r",
    )


@pytest.mark.parametrize(
    ("device_", "told"),
    [
        (device("GPU-x", None), "minor number"),
        (slice_of("MIG-x", 1, None), "does not tell its instances"),
        (slice_of("MIG-x", 1, 8), "Was the slice made anew"),
        (slice_of("MIG-x", 0, 7), "Was the slice made anew"),
    ],
)
def test_a_device_whose_nodes_are_not_known_is_an_error(
    proc: Path, device_: Device, told: str
) -> None:
    with pytest.raises(SourceError, match=told):
        device_rules([device_.uuid], machine(device_), proc=proc)


def test_a_device_that_has_gone_is_an_error(proc: Path) -> None:
    with pytest.raises(SourceError, match="GPU-gone"):
        device_rules(["GPU-gone"], machine(device("GPU-a", 0)), proc=proc)


def test_a_capability_that_names_no_minor_is_an_error(proc: Path) -> None:
    broken = proc / "driver/nvidia/capabilities/gpu1/mig/gi7/access"
    broken.write_text("nothing\n")
    with pytest.raises(SourceError, match="DeviceFileMinor"):
        device_rules(["MIG-x"], machine(slice_of("MIG-x", 1, 7)), proc=proc)


def test_a_slice_on_a_machine_without_capabilities_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "devices").write_text("Character devices:\n195 nvidia\n")
    with pytest.raises(SourceError, match="capability nodes"):
        device_rules(["MIG-x"], machine(slice_of("MIG-x", 1, 7)), proc=tmp_path)


def test_uvm_is_loaded_once_linux_has_a_number_for_it(
    proc: Path, tmp_path: Path
) -> None:
    assert uvm_is_loaded(proc=proc)
    (tmp_path / "devices").write_text("Character devices:\n195 nvidia\n")
    assert not uvm_is_loaded(proc=tmp_path)
    assert not uvm_is_loaded(proc=tmp_path / "absent")


@pytest.mark.parametrize(
    ("rule", "opens"),
    [
        ("/dev/nvidia0 rw", True),
        ("/dev/nvidiactl", True),
        ("/dev/nvidia-caps/nvidia-cap3 r", True),
        ("/dev/char/195:0 rw", True),
        ("/dev/char/195:* rw", True),
        ("/dev/char/237:66 r", True),
        ("char-195 rw", True),
        ("char-511", True),
        ("char-nvidia* rw", True),
        ("char-nvidia-uvm rw", True),
        ("char-*", True),
        ("char-nvidia-frontend", True),
        ("/dev/fuse rw", False),
        ("/dev/char/10:229 rw", False),
        ("/dev/block/195:0 rw", False),
        ("char-pts rw", False),
        ("char-drm", False),
        ("block-*", False),
        ("", False),
    ],
)
def test_an_admins_line_that_opens_gpus_is_told_from_others(
    proc: Path, rule: str, opens: bool
) -> None:
    assert opens_gpus(rule, proc=proc) is opens


def test_gpus_are_guarded_where_no_driver_is_loaded_yet(tmp_path: Path) -> None:
    (tmp_path / "devices").write_text("Character devices:\n  1 mem\n")
    assert opens_gpus("char-nvidia-uvm rw", proc=tmp_path)
    assert opens_gpus("/dev/char/195:1", proc=tmp_path)
