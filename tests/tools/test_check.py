"""`gpuworkshop check`: the sum before the day, as the organiser sees it."""

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.core.devices import Inventory
from jupyterhub_gpuworkshop.core.errors import SourceUnavailable
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from jupyterhub_gpuworkshop.tools import check
from jupyterhub_gpuworkshop.workshop import Workshop

PLAN = ["--gpus", "4", "--gpu-memory", "16GiB"]


def run_check(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments])


@pytest.fixture
def workshop_file(tmp_path: Path) -> Path:
    return tmp_path / "workshop.yaml"


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_without_a_file_it_is_the_sum_of_an_empty_workshop(
    arguments: list[str],
) -> None:
    result = run_check(*arguments, *PLAN)
    assert result.exit_code == 0
    assert "A share of 1/5 each" in result.stdout
    assert result.stdout.count("planned GPU") == 4
    assert "3.1 GiB" in result.stdout
    assert "2.6 GiB" in result.stdout
    assert "20 places." in result.stdout


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("attendees: 40", 0, "Enough: 40 places for 40 attendees, none to spare."),
        (
            "attendees: 30\ngpus: {exclude: [3]}",
            0,
            "Enough: 30 places for 30 attendees",
        ),
        (
            "attendees: 18\ngpus: {attendees_per_gpu: 5}",
            0,
            "Enough: 20 places for 18 attendees, 2 to spare.",
        ),
        (
            "attendees: 40\ngpus: {memory_per_attendee: 8GiB}",
            1,
            "Not enough: 4 places for 40 attendees, 36 find none. Write "
            "gpus.attendees_per_gpu: 10 in place of gpus.memory_per_attendee",
        ),
        ("attendees: 9\nshares: {default: cpu}", 0, "Enough: nobody takes a GPU."),
        (
            "gpus: {exclude: [0, 1, 2, 3]}",
            1,
            "There is no place at all. No GPU is left",
        ),
        ("shares: {users: {a: cpu}}", 0, "shares.users are not in this sum"),
        ("gpus: {exclude: ['7']}", 0, "gpus.exclude names 7"),
    ],
)
def test_the_sum_says_whether_it_is_enough_and_what_to_change(
    workshop_file: Path, text: str, status: int, said: str
) -> None:
    workshop_file.write_text(text)
    result = run_check(str(workshop_file), *PLAN)
    assert result.exit_code == status
    assert said in result.stdout


def test_what_the_remedy_says_is_enough(workshop_file: Path) -> None:
    workshop_file.write_text("attendees: 40\ngpus: {attendees_per_gpu: 10}")
    assert run_check(str(workshop_file), *PLAN).exit_code == 0


def test_json_is_one_object_with_the_same_sum(workshop_file: Path) -> None:
    workshop_file.write_text(
        "attendees: 40\ngpus: {attendees_per_gpu: 8, exclude: [3]}"
    )
    result = run_check(str(workshop_file), "--json", *PLAN)
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["share"] == "1/8"
    assert document["share_from"] == "gpus.attendees_per_gpu"
    assert document["places"] == 24
    assert document["missing"] == 16
    assert document["enough"] is False
    assert [device["shares"] for device in document["devices"]] == [8, 8, 8, 0]
    assert document["devices"][3]["unusable"] == "excluded by gpus.exclude"


def test_a_mistake_in_the_file_is_told_on_stderr_without_a_traceback(
    workshop_file: Path,
) -> None:
    workshop_file.write_text("atendees: 40")
    result = run_check(str(workshop_file), *PLAN)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"{workshop_file}: atendees: there is no such key" in result.stderr
    assert "Traceback" not in result.output


def test_simulated_gpus_are_looked_at_through_a_child(
    workshop_file: Path, tmp_path: Path
) -> None:
    create_devices(tmp_path / "gpus", 2, 8 * GIB)
    workshop_file.write_text("gpus: {source: simulated, simulated_dir: gpus}")
    result = run_check(str(workshop_file))
    assert result.exit_code == 0
    assert result.stdout.count("Simulated GPU") == 2
    assert "10 places" in result.stdout


def test_a_machine_without_gpus_is_told_how_to_plan(
    workshop_file: Path,
) -> None:
    workshop_file.write_text("gpus: {source: simulated, simulated_dir: nowhere}")
    result = run_check(str(workshop_file))
    assert result.exit_code == 1
    assert "--gpus 4 --gpu-memory 16GiB" in result.stderr
    assert result.stdout == ""


async def nothing_found(workshop: Workshop, *, limit_seconds: float) -> Inventory:
    return Inventory(source="nvml", problem="")


def test_no_gpu_and_no_reason_is_still_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(check, "look_once", nothing_found)
    with pytest.raises(
        SourceUnavailable, match=r"^No GPU was found on this machine\. "
    ):
        check.run(check.CheckOptions(), Console(file=io.StringIO()))


@pytest.mark.parametrize("arguments", [PLAN[:2], PLAN[2:]])
def test_a_plan_needs_both_number_and_memory(arguments: list[str]) -> None:
    result = run_check(*arguments)
    assert result.exit_code == 2
    assert "belong together" in result.stderr


@pytest.mark.parametrize("size", ["16", "0GiB", "much"])
def test_a_size_that_cannot_be_is_refused(size: str) -> None:
    result = run_check("--gpus", "4", "--gpu-memory", size)
    assert result.exit_code == 2
    assert f"'{size}'" in result.stderr
