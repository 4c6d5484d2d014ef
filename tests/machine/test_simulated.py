"""Simulated GPUs as a source, against real processes and against all that lies."""

import binascii
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuworkshop.core.devices import Device
from jupyterhub_gpuworkshop.core.errors import SourceError, SourceUnavailable
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, ProcessUse
from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.machine.processes import read_process
from jupyterhub_gpuworkshop.machine.simulated import SimulatedSource, create_devices
from tests.simulated_kernel import CellError, SimulatedKernel


class Clock:
    """Time that stands still unless told."""

    def __init__(self, now: float = 1000.0):
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "gpus"


@pytest.fixture
def devices(state_dir: Path) -> tuple[Device, ...]:
    return create_devices(state_dir, 2, 4 * GIB)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source(
    devices: tuple[Device, ...], state_dir: Path, clock: Clock
) -> SimulatedSource:
    return SimulatedSource(state_dir, clock=clock)


@pytest.fixture
def kernel(devices: tuple[Device, ...], state_dir: Path) -> Iterator[SimulatedKernel]:
    with SimulatedKernel(sys.executable, state_dir) as kernel:
        yield kernel


@pytest.fixture
def write(state_dir: Path, devices: tuple[Device, ...]) -> Callable[..., Path]:
    """Write a record of this process by the documented format, or a distorted one."""

    def write_record(
        uses: Any,
        *,
        pid: int | None = None,
        started: int | None = None,
        token: str = "0" * 16,
        name: str | None = None,
        text: bytes | None = None,
        checksum: int | None = None,
    ) -> Path:
        own = read_process(os.getpid())
        assert own is not None
        pid = own.pid if pid is None else pid
        started = own.started if started is None else started
        path = state_dir / f"{pid}-{started}-{token}.json"
        record = json.dumps({"name": name or path.name, "devices": uses}).encode()
        body = record if text is None else text
        crc = binascii.crc32(body) if checksum is None else checksum
        path.write_bytes(b"%08x\n" % crc + body)
        return path

    return write_record


def holding(device: Device, memory_bytes: object) -> dict[str, dict[str, object]]:
    return {
        device.uuid: {
            "memory_bytes": memory_bytes,
            "busy_seconds": 0.0,
            "busy_since": None,
        }
    }


def computing(
    device: Device, seconds: object, since: object
) -> dict[str, dict[str, object]]:
    return {
        device.uuid: {
            "memory_bytes": MIB,
            "busy_seconds": seconds,
            "busy_since": since,
        }
    }


def test_devices_are_made_as_they_are_listed(state_dir: Path) -> None:
    made = create_devices(state_dir, 3, GIB, name="Toy", reserved_bytes=MIB)
    inventory = SimulatedSource(state_dir).inventory()
    assert inventory.devices == made
    assert (inventory.source, inventory.problem) == ("simulated", "")
    assert [d.label for d in made] == ["0", "1", "2"]
    assert {(d.name, d.memory_bytes, d.reserved_bytes) for d in made} == {
        ("Toy", GIB, MIB)
    }
    assert len({d.uuid for d in made}) == 3
    assert all(d.uuid.startswith("GPU-") and len(d.uuid) == 40 for d in made)


def test_a_seed_fixes_the_uuids_and_chance_does_without(tmp_path: Path) -> None:
    def uuids(folder: str, seed: int | None) -> list[str]:
        made = create_devices(tmp_path / folder, 2, GIB, seed=seed)
        return [device.uuid for device in made]

    assert uuids("a", 7) == uuids("b", 7) != uuids("c", 8)
    assert uuids("d", None) != uuids("e", None)


def test_everybody_may_write_to_the_folder_and_only_its_maker_to_the_devices(
    state_dir: Path, devices: tuple[Device, ...]
) -> None:
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o1777
    assert stat.S_IMODE((state_dir / "devices.json").stat().st_mode) == 0o644
    assert stat.S_IMODE((state_dir / "lock").stat().st_mode) == 0o444


def test_new_devices_replace_the_old_ones(
    state_dir: Path, devices: tuple[Device, ...]
) -> None:
    replaced = create_devices(state_dir, 1, GIB)
    assert SimulatedSource(state_dir).inventory().devices == replaced
    assert sorted(p.name for p in state_dir.iterdir()) == ["devices.json", "lock"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_a_folder_of_somebody_else_is_refused(state_dir: Path) -> None:
    state_dir.mkdir()
    os.chown(state_dir, 20001, -1)
    with pytest.raises(SourceError, match="belongs to another user"):
        create_devices(state_dir, 1, GIB)
    assert list(state_dir.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", '{"version": 2, "devices": []}', '{"version": 1}', None]
)
def test_a_folder_without_readable_devices_is_unavailable(
    state_dir: Path, content: str | None
) -> None:
    if content is not None:
        state_dir.mkdir()
        (state_dir / "devices.json").write_text(content)
    source = SimulatedSource(state_dir)
    for read in (source.inventory, source.sample):
        with pytest.raises(SourceUnavailable, match=r"devices\.json"):
            read()


def test_both_sides_see_one_truth(
    source: SimulatedSource, kernel: SimulatedKernel, devices: tuple[Device, ...]
) -> None:
    uuid = kernel.run("(a := simcuda.allocate('1GiB'), a.device_uuid)[1]")
    kernel.run("b = simcuda.allocate('512MiB', device=1)")
    first, second = source.sample()
    assert first.uuid == uuid == devices[0].uuid
    assert first == DeviceSample(
        uuid=uuid,
        memory_total_bytes=4 * GIB,
        memory_used_bytes=GIB,
        memory_free_bytes=3 * GIB,
        temperature_celsius=36.25,
        power_watts=71.25,
        processes=(ProcessUse(pid=kernel.pid, memory_bytes=GIB),),
    )
    assert second.memory_used_bytes == 512 * MIB
    for index, sample in enumerate((first, second)):
        free, total = kernel.run(f"simcuda.memory_info({index})")
        assert (free, total) == (sample.memory_free_bytes, sample.memory_total_bytes)
    kernel.run("a.free()")
    assert source.sample()[0].memory_free_bytes == 4 * GIB
    assert source.sample()[0].processes == ()


def test_what_is_reserved_is_neither_used_nor_free(state_dir: Path) -> None:
    create_devices(state_dir, 1, GIB, reserved_bytes=256 * MIB)
    with SimulatedKernel(sys.executable, state_dir) as kernel:
        assert kernel.run("simcuda.memory_info()") == [768 * MIB, GIB]
        with pytest.raises(CellError, match="free on the device: 768 MiB"):
            kernel.run("simcuda.allocate('1GiB')")
    (sample,) = SimulatedSource(state_dir).sample()
    assert (sample.memory_used_bytes, sample.memory_free_bytes) == (0, 768 * MIB)


def test_the_memory_of_a_killed_process_is_free_and_its_record_removed(
    source: SimulatedSource, kernel: SimulatedKernel, state_dir: Path
) -> None:
    kernel.run("a = simcuda.allocate('1GiB')")
    assert source.sample()[0].memory_used_bytes == GIB
    kernel.kill()
    assert source.sample()[0].memory_used_bytes == 0
    assert sorted(p.name for p in state_dir.iterdir()) == ["devices.json", "lock"]


def test_a_computing_process_is_busy_and_an_idle_one_is_not(
    source: SimulatedSource,
    kernel: SimulatedKernel,
    clock: Clock,
    state_dir: Path,
) -> None:
    with SimulatedKernel(sys.executable, state_dir) as idle:
        idle.run("a = simcuda.allocate(1)")
        kernel.run("a = simcuda.allocate(1)")
        kernel.send("simcuda.compute(3600)")
        while b'"busy_since": null' in _record_of(kernel, state_dir):
            assert kernel.process.poll() is None
        clock.now = time.monotonic()
        assert source.sample()[0].utilisation is None
        clock.now += 10
        first, second = source.sample()
    assert first.utilisation == 1.0
    assert first.processes is not None
    assert {p.pid: p.utilisation for p in first.processes} == {
        kernel.pid: 1.0,
        idle.pid: 0.0,
    }
    assert second.utilisation == 0.0
    assert (first.temperature_celsius, first.power_watts) > (60, 200)
    assert (second.temperature_celsius, second.power_watts) == (34, 55)


def _record_of(kernel: SimulatedKernel, state_dir: Path) -> bytes:
    (path,) = state_dir.glob(f"{kernel.pid}-*.json")
    return path.read_bytes()


def test_utilisation_covers_the_time_since_the_previous_sample(
    source: SimulatedSource,
    clock: Clock,
    write: Callable[..., Path],
    devices: tuple[Device, ...],
) -> None:
    device = devices[0]

    def utilisation() -> float | None:
        return source.sample()[0].utilisation

    write(computing(device, 50.0, None))
    assert utilisation() is None
    clock.now = 1010.0
    assert utilisation() == 0.0
    write(computing(device, 54.0, None))
    clock.now = 1020.0
    assert utilisation() == pytest.approx(0.4)
    write(computing(device, 54.0, 1022.0))
    clock.now = 1030.0
    assert utilisation() == pytest.approx(0.8)
    clock.now = 1040.0
    assert utilisation() == 1.0
    write(computing(device, 72.5, None))
    clock.now = 1050.0
    assert utilisation() == pytest.approx(0.05)
    assert utilisation() is None  # no time has passed: there is none to tell
    source.close()
    clock.now = 1060.0
    assert utilisation() is None
    clock.now = 1070.0
    assert utilisation() == 0.0


def test_a_device_is_never_more_than_busy(
    source: SimulatedSource,
    clock: Clock,
    write: Callable[..., Path],
    devices: tuple[Device, ...],
) -> None:
    parent = read_process(os.getppid())
    assert parent is not None
    source.sample()
    write(computing(devices[0], 8.0, None))
    write(computing(devices[0], 7.0, None), pid=parent.pid, started=parent.started)
    clock.now += 10
    sample = source.sample()[0]
    assert sample.utilisation == 1.0
    assert sample.processes is not None
    assert sorted(p.utilisation or 0 for p in sample.processes) == [0.7, 0.8]


NONSENSE = [10**400, -(10**400), -5, 1.5, float("nan"), True, None, "9", [], {}]


@pytest.mark.parametrize("value", NONSENSE, ids=lambda v: str(v)[:9])
def test_nonsense_in_a_record_is_taken_for_nothing_or_for_all(
    source: SimulatedSource,
    kernel: SimulatedKernel,
    clock: Clock,
    write: Callable[..., Path],
    devices: tuple[Device, ...],
    value: object,
) -> None:
    write(holding(devices[0], value))
    write(computing(devices[1], value, value), token="1" * 16)
    source.sample()
    clock.now += 1
    first, second = source.sample()
    expected = 4 * GIB if value == NONSENSE[0] else 0
    assert first.memory_used_bytes == expected
    assert kernel.run("simcuda.memory_info()[0]") == 4 * GIB - expected
    assert second.utilisation is not None
    assert 0.0 <= second.utilisation <= 1.0


def test_a_record_that_is_not_what_it_says_counts_for_none(
    source: SimulatedSource,
    kernel: SimulatedKernel,
    state_dir: Path,
    write: Callable[..., Path],
    devices: tuple[Device, ...],
) -> None:
    own = read_process(os.getpid())
    assert own is not None
    true = write(holding(devices[0], GIB))

    def path(token: str) -> Path:
        return true.with_name(f"{own.pid}-{own.started}-{token * 16}.json")

    write(holding(devices[0], GIB), token="1" * 16, name=true.name)
    write(holding(devices[0], GIB), token="2" * 16, checksum=0)
    for token, text in enumerate(
        (b"", b"{", b"[" * 100_000, b"[]", b"{}", b"1", b'{"name": 1, "devices": 2}'), 3
    ):
        write({}, token=f"{token}" * 16, text=text)
    write(["not", "by", "device"], token="a" * 16)
    write({devices[0].uuid: "no use"}, token="b" * 16)
    os.mkfifo(path("c"))
    path("d").symlink_to(true)
    path("e").mkdir()
    path("f").hardlink_to(true)
    (state_dir / "README").write_text("not a record")
    assert source.sample()[0].memory_used_bytes == GIB
    assert kernel.run("simcuda.memory_info()[0]") == 3 * GIB


def test_the_record_of_a_process_that_is_gone_counts_for_none_and_is_removed(
    source: SimulatedSource,
    kernel: SimulatedKernel,
    write: Callable[..., Path],
    devices: tuple[Device, ...],
) -> None:
    for reader in (
        lambda: source.sample()[0].memory_free_bytes,
        lambda: kernel.run("simcuda.memory_info()[0]"),
    ):
        other_start = write(holding(devices[0], GIB), started=1)
        no_such_pid = write(holding(devices[0], GIB), pid=2**31 - 1)
        assert reader() == 4 * GIB
        assert not other_start.exists()
        assert not no_such_pid.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_a_record_counts_only_if_its_file_is_of_the_processs_user(
    source: SimulatedSource,
    kernel: SimulatedKernel,
    write: Callable[..., Path],
    devices: tuple[Device, ...],
) -> None:
    forged = write(holding(devices[0], GIB))
    assert source.sample()[0].memory_used_bytes == GIB
    os.chown(forged, 20001, -1)
    assert source.sample()[0].memory_used_bytes == 0
    assert kernel.run("simcuda.memory_info()[0]") == 4 * GIB
