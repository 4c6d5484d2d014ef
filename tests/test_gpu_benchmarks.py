"""That what needs a real GPU runs on a simulated one, and says what it lacks."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks.gpu import kernels, parking
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.driver_parking import DriverParker
from jupyterhub_gpuworkshop.machine.simulated_parking import SimulatedParker


def run(*arguments: str) -> Result:
    return CliRunner().invoke(parking.main, list(arguments))


def test_kernels_hold_three_times_the_gpus_memory_in_turn() -> None:
    outcome = run("--simulated", "--rounds", "2", "--kernels", "4")
    assert outcome.exit_code == 0, outcome.output
    assert "4 kernels of 12 GiB: together 3.00 times" in outcome.output
    assert "All memory was intact after 8 returns." in outcome.output


def test_memory_that_came_back_changed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    forgetful = kernels.SIMULATED.replace("return free <=", "return free >")
    monkeypatch.setattr(parking, "SIMULATED", forgetful)
    outcome = run("--simulated")
    assert outcome.exit_code == 1
    assert "came back with other content" in outcome.output


def test_less_is_held_where_host_ram_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(_source: str, *, simulated_dir: Path) -> SimulatedParker:
        return SimulatedParker(simulated_dir, room_bytes=28 * GIB)

    monkeypatch.setattr(parking, "open_parker", small)
    outcome = run("--simulated", "--rounds", "1")
    assert outcome.exit_code == 0, outcome.output
    assert "48 GiB do not fit in the host's RAM" in outcome.output
    assert "6 kernels of 4 GiB: together 1.50 times" in outcome.output


def test_without_a_gpu_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DriverParker, "unavailable", lambda _: "There is no driver.")
    outcome = run()
    assert outcome.exit_code == 1
    assert outcome.output.strip() == "There is no driver."


def test_kernels_that_do_not_fit_at_all_are_not_started() -> None:
    outcome = run("--simulated", "--kernels", "2")
    assert outcome.exit_code == 1
    assert "take more --kernels" in outcome.output


def test_what_the_bus_takes_is_what_seconds_are_compared_with() -> None:
    turn = parking.Turn(memory_bytes=10 * GIB, park_seconds=2, return_seconds=3)
    assert turn.against((10.0 * GIB, 5.0 * GIB)) == (2.0, 1.5)
