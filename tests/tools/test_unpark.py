"""Paused kernels come back before the service goes for good, or are listed."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.parking import ParkState
from jupyterhub_gpuworkshop.machine.processes import boot_id
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from jupyterhub_gpuworkshop.machine.simulated_controls import (
    Control,
    fail_next,
    write_control,
)
from jupyterhub_gpuworkshop.machine.simulated_parking import SimulatedParker
from jupyterhub_gpuworkshop.service.kept import (
    STATE_FILE,
    Kept,
    KeptState,
    ParkedKernel,
    Pin,
    read,
)
from jupyterhub_gpuworkshop.service.only_one import OnlyOne
from jupyterhub_gpuworkshop.tools import unpark as tool
from tests.machine.test_parker_contract import id_of
from tests.simulated_kernel import SimulatedKernel

PIN = Pin(lease_id="l", kernel_id="k", user="eve", by="eve", until=None)


class Host:
    """A GPU of 4 GiB, a workshop on it, and the service's state folder."""

    def __init__(self, folder: Path) -> None:
        self.gpus, self.state_dir = folder / "gpus", folder / "state"
        self.state_dir.mkdir()
        (self.device,) = create_devices(self.gpus, 1, 4 * GIB)
        self.parker = SimulatedParker(self.gpus)
        self.workshop = folder / "workshop.yaml"
        self.workshop.write_text(
            f"gpus: {{source: simulated, simulated_dir: {self.gpus}}}\n"
            f"service: {{state_dir: {self.state_dir}}}\n"
        )

    def record(
        self, process: ProcessId, gib: int, notebook: str = "work.ipynb"
    ) -> ParkedKernel:
        return ParkedKernel(
            lease_id=f"lease-{process.pid}",
            user="ada",
            server="",
            kernel_id=f"kernel-{process.pid}",
            notebook=notebook,
            processes=(process,),
            boot_id=boot_id(),
            memory_bytes={self.device.uuid: gib * GIB},
            parked_at=1000.0,
            last_activity="2026-11-20T10:00:00Z",
        )

    def write(self, *parked: ParkedKernel) -> None:
        state = KeptState(pins=(PIN,), parked=parked)
        kept = Kept(self.state_dir / STATE_FILE)
        assert asyncio.run(kept.change(lambda _: state))

    @property
    def left(self) -> tuple[ParkedKernel, ...]:
        state = read(self.state_dir / STATE_FILE)
        assert state.pins == (PIN,), "what else is kept stays"
        return state.parked

    def unpark(self, *options: str) -> Result:
        arguments = ["unpark", str(self.workshop), "--all", *options]
        return CliRunner().invoke(main, arguments)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def kernels(host: Host) -> Iterator[Callable[[int], SimulatedKernel]]:
    """Return a way to start kernels that hold memory and are parked."""
    started: list[SimulatedKernel] = []

    def start(gib: int) -> SimulatedKernel:
        kernel = SimulatedKernel(sys.executable, host.gpus)
        started.append(kernel)
        kernel.run(f"held = simcuda.allocate('{gib}GiB')")
        host.parker.park(id_of(kernel.pid))
        return kernel

    yield start
    for kernel in started:
        kernel.__exit__(None, None, None)


def test_what_fits_comes_back_and_what_does_not_is_listed_and_stays_paused(
    host: Host, kernels: Callable[[int], SimulatedKernel]
) -> None:
    large, small = kernels(3), kernels(1)
    records = [host.record(id_of(large.pid), 3, "large.ipynb")]
    records.append(host.record(id_of(small.pid), 1, "small.ipynb"))
    host.write(*records)
    result = host.unpark()
    assert result.exit_code == 1, result.output
    first, second, last = result.stdout.splitlines()
    assert first == (
        "small.ipynb of ada: 1 GiB are back on the GPU, and its variables are there."
    )
    assert "large.ipynb of ada: it stays paused: 3 GiB and 256 MiB to spare" in second
    assert "GPU 0, which has 3 GiB free" in second
    assert "Run" in second or "run this again" in second
    assert last.startswith("1 of 2 not back.")
    assert small.run("simcuda.memory_info()[0]") == 3 * GIB
    assert host.parker.state(id_of(large.pid)) is ParkState.PARKED
    assert host.left == (records[0],)
    # Once there is room, the rest comes back, too.
    small.run("held.free()")
    result = host.unpark()
    assert result.exit_code == 0, result.output
    assert large.run("held.size_bytes") == 3 * GIB
    assert host.parker.state(id_of(large.pid)) is ParkState.RUNNING
    assert host.left == ()
    assert host.unpark().stdout == "Nothing is paused.\n"


def test_the_margin_of_the_workshop_file_counts(
    host: Host, kernels: Callable[[int], SimulatedKernel]
) -> None:
    process = id_of(kernels(3).pid)
    host.write(host.record(process, 3))
    rules = host.workshop.read_text()
    host.workshop.write_text(f"{rules}parking: {{margin: 2GiB}}\n")
    assert host.unpark().exit_code == 1
    assert host.parker.state(process) is ParkState.PARKED
    host.workshop.write_text(f"{rules}parking: {{margin: 1GiB}}\n")
    assert host.unpark().exit_code == 0


def test_one_that_breaks_on_its_way_is_listed_and_kept_for_a_restart(
    host: Host, kernels: Callable[[int], SimulatedKernel]
) -> None:
    record = host.record(id_of(kernels(1).pid), 1)
    host.write(record)
    fail_next(host.gpus, "unpark")
    for _ in range(2):
        result = host.unpark()
        assert result.exit_code == 1
        assert "stuck for good" in result.stdout
        assert "restart the kernel" in result.stdout
        assert host.left == (replace(record, is_broken=True),)


def test_what_a_kill_left_half_done_is_let_go_without_room(
    host: Host, kernels: Callable[[int], SimulatedKernel]
) -> None:
    kernel = kernels(3)
    process = id_of(kernel.pid)
    host.parker.unpark(process)
    names = tuple(path.name for path in host.gpus.glob(f"{kernel.pid}-*.json"))
    write_control(
        host.gpus, process, Control(state="locked", on_device=True, records=names)
    )
    host.write(host.record(process, 3))
    result = host.unpark()
    assert result.exit_code == 0, result.output
    assert kernel.run("simcuda.memory_info()[0]") == GIB
    assert host.left == ()


def test_who_has_ended_or_runs_already_is_dropped(
    host: Host, kernels: Callable[[int], SimulatedKernel]
) -> None:
    ended, running = kernels(1), kernels(1)
    host.parker.unpark(id_of(running.pid))
    records = [host.record(id_of(k.pid), 1) for k in (ended, running)]
    ended.kill()
    host.write(*records)
    result = host.unpark()
    assert result.exit_code == 0, result.output
    assert result.stdout.count("nothing to bring back") == 2
    assert host.left == ()


def test_another_boot_has_nothing_to_bring_back(
    host: Host, kernels: Callable[[int], SimulatedKernel]
) -> None:
    # A process of the same number and start time is somebody else.
    process = id_of(kernels(1).pid)
    host.write(replace(host.record(process, 1), boot_id="another"))
    result = host.unpark()
    assert result.exit_code == 0, result.output
    assert host.parker.state(process) is ParkState.PARKED
    assert host.left == ()


def test_while_a_service_runs_nothing_is_moved(
    host: Host, kernels: Callable[[int], SimulatedKernel]
) -> None:
    process = id_of(kernels(1).pid)
    host.write(host.record(process, 1))
    service = OnlyOne(host.state_dir)
    assert service.acquire()
    result = host.unpark()
    assert result.exit_code == 1
    assert f"(pid {os.getpid()}) still runs on {host.state_dir}" in result.stderr
    assert "stop the service first" in result.stderr
    assert host.parker.state(process) is ParkState.PARKED
    assert len(host.left) == 1
    service.release()
    assert host.unpark().exit_code == 0
    # And it lets go: a service can be started again.
    assert service.acquire()
    service.release()


def test_programs_are_told_as_json(
    host: Host, kernels: Callable[[int], SimulatedKernel]
) -> None:
    kernel = kernels(1)
    host.write(host.record(id_of(kernel.pid), 1))
    document = json.loads(host.unpark("--json").stdout)
    assert document["left"] == 0
    (told,) = document["kernels"]
    assert (told["user"], told["outcome"]) == ("ada", "back")
    assert told["memory_bytes"] == {host.device.uuid: GIB}


def test_what_is_free_cannot_be_told_and_so_nothing_is_tried(
    host: Host,
    kernels: Callable[[int], SimulatedKernel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = id_of(kernels(1).pid)
    host.write(host.record(process, 1))
    broken = [sys.executable, "-c", "print('no answer')"]
    monkeypatch.setattr(tool, "sampler_command", lambda *_: broken)
    result = host.unpark()
    assert result.exit_code == 1
    assert "what is free is not known" in result.stdout
    assert host.parker.state(process) is ParkState.PARKED


def test_a_folder_in_which_no_service_paused_anything_is_not_taken_for_the_one(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = host.unpark()
    assert result.exit_code == 1
    assert f"There is no {STATE_FILE} in {host.state_dir}" in result.stderr
    assert "--state-dir" in result.stderr
    # Named by nobody, it is where the service was started, or the unit's.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tool, "STATE_FOLDER", tmp_path / "unit")
    host.workshop.write_text(
        f"gpus: {{source: simulated, simulated_dir: {host.gpus}}}\n"
    )
    result = host.unpark()
    assert f"in {tmp_path} or {tmp_path / 'unit'}" in result.stderr
    host.write()
    assert host.unpark("--state-dir", str(host.state_dir)).exit_code == 0
    host.state_dir.rename(tmp_path / "unit")
    assert host.unpark().exit_code == 0


def test_a_record_that_cannot_be_read_is_left_as_it_is(host: Host) -> None:
    file = host.state_dir / STATE_FILE
    file.write_text("no record")
    result = host.unpark()
    assert result.exit_code == 1
    assert f"{file} cannot be read" in result.stderr
    assert file.read_text() == "no record"


def test_it_wants_to_be_told_that_all_are_meant(host: Host) -> None:
    result = CliRunner().invoke(main, ["unpark", str(host.workshop)])
    assert result.exit_code == 2
    assert "--all" in result.stderr
