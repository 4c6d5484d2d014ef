"""That each benchmark runs and prints a ratio. What it prints is nobody's to assert."""

import re
import shutil
from importlib.util import find_spec

import pytest
from click.testing import CliRunner

from benchmarks import sampling
from benchmarks.__main__ import main
from benchmarks.report import Row, interval, paired
from benchmarks.samplers import is_installed
from benchmarks.seats import Room, seated
from jupyterhub_gpuworkshop.machine.processes import is_alive

from .conftest import require_engine

_RATIO = re.compile(r"/ bare.*: \d+\.\d+  \(|/ SELECT \*: \d+\.\d+  \(")


@pytest.mark.parametrize(
    ("name", "sizes", "rows"),
    [
        ("ledger", ["--leases", "6", "--devices", "2"], 4),
        ("loading", ["--leases", "30", "--devices", "4"], 2),
        (
            "attribution",
            ["--devices", "2", "--holders", "7", "--attendees", "3"],
            2,
        ),
        ("startup", [], 2),
    ],
)
def test_a_benchmark_prints_its_ratios_and_the_machine(
    tmp_path, monkeypatch, name, sizes, rows
):
    # A machine that runs tests does not become quiet.
    monkeypatch.setattr("benchmarks.machine.wait_until_quiet", lambda: 0.0)
    outcome = CliRunner().invoke(
        main, [name, "--turns", "2", "--folder", str(tmp_path), *sizes]
    )
    assert outcome.exit_code == 0, outcome.output
    assert "JupyterHub" in outcome.output.split("\n")[1]
    lines = [x for x in outcome.output.split("\n") if x.startswith("  ")]
    assert len(lines) == rows
    assert sum(bool(_RATIO.search(line)) for line in lines) >= 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def gcc():
    require_engine("gcc", shutil.which("gcc") is not None, "apt install gcc libc6-dev")


def printed(tmp_path, monkeypatch, *arguments):
    monkeypatch.setattr("benchmarks.machine.wait_until_quiet", lambda: 0.0)
    outcome = CliRunner().invoke(main, [*arguments, "--folder", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


@pytest.mark.gcc
@pytest.mark.usefixtures("gcc")
def test_a_sample_is_compared_with_what_is_installed(tmp_path, monkeypatch):
    sizes = [
        "--turns",
        "1",
        "--devices",
        "1",
        "--holders",
        "4",
        "--attendees",
        "2",
        "--times",
        "2",
    ]
    output = printed(tmp_path, monkeypatch, "sampling", *sizes)
    for name in ("gpustat", "nvitop"):
        if is_installed(name):
            assert f"1 GPUs, 4 holders, ours / {name}" in output
            assert f"2 GPUs, 8 holders, ours / {name}" in output
            assert "ours, 2 times the holders / before: " in output
        else:
            assert f"{name} is not there" in output


@pytest.mark.gcc
@pytest.mark.usefixtures("gcc")
def test_a_sample_of_ours_explains_every_holder(tmp_path):
    library = sampling.build_double(tmp_path)
    with seated(2, 5) as seats:
        room = Room.of(seats, 2)
        room.write(tmp_path / "room.json")
        scenario = sampling.play(tmp_path, library, room)
        with sampling.Sampler("ours", tmp_path / "room.json", scenario) as ours:
            assert ours.cpu_seconds(holders=5) > 0
            with pytest.raises(AssertionError, match="tells of 5 processes, not of 6"):
                ours.cpu_seconds(holders=6)


@pytest.mark.gcc
@pytest.mark.usefixtures("gcc")
def test_what_attendees_feel_is_counted(tmp_path, monkeypatch):
    output = printed(tmp_path, monkeypatch, "load", "--devices", "1", "--holders", "2")
    # Four lists and twelve samples; a server with one kernel, and with a new one.
    assert "1 GPUs, ours, every 5 s: 48  (" in output
    assert "stays: 13.0  (api/kernels 12, api/sessions 1)" in output
    assert "every minute: 14.0  (api/kernels 12, api/sessions 2)" in output


@pytest.mark.gcc
@pytest.mark.usefixtures("gcc")
def test_everybody_who_looks_gets_readings(tmp_path, monkeypatch):
    sizes = ["--turns", "1", "--viewers", "6", "--seconds", "1", "--devices", "2"]
    output = printed(tmp_path, monkeypatch, "viewers", "--attendees", "2", *sizes)
    assert "ours, 6 viewers: " in output
    assert "a tick of one viewer, ours / Bokeh server sessions: " in output
    if find_spec("jupyterlab_nvdashboard"):
        assert "a tick of one viewer, ours / jupyterlab-nvdashboard: " in output
    else:
        assert "jupyterlab-nvdashboard is not there" in output
    ticks = [float(x) for x in re.findall(r"(\d\.\d+) ticks a second", output)]
    assert len(ticks) == output.count(", 6 viewers: ")
    assert all(ticks), output


def test_no_process_of_a_room_is_left():
    with seated(3, 5) as seats:
        processes = [x for seat in seats for x in (seat.server, *seat.holders)]
        assert len({x.pid for x in processes}) == 8
        assert all(is_alive(x.pid, x.started) for x in processes)
    assert not any(is_alive(x.pid, x.started) for x in processes)


def test_who_is_first_alternates():
    order: list[str] = []
    ours, bare = paired(
        lambda: order.append("ours") or 2.0, lambda: order.append("bare") or 1.0, 3
    )
    assert order == ["ours", "bare", "bare", "ours", "ours", "bare"]
    assert Row(what="x", ours=ours, bare=bare, aim=2).values == (2.0, 2.0, 2.0)


def test_a_row_says_whether_its_aim_is_met():
    row = Row(what="x", ours=(2.0, 3.0, 4.0), bare=(1.0, 1.0, 1.0), aim=3)
    assert "x: 3.000" in str(row)
    assert "met" in str(row)
    assert "missed" in str(Row(what="x", ours=(2.1,), bare=(1.0,), aim=2))


def test_what_is_added_is_counted_for_each():
    row = Row(what="x", ours=(1.5,), bare=(1.0,), added_per=10)
    assert row.median == pytest.approx(50.0)
    assert "50.0 ms" in str(row)


def test_the_interval_of_few_pairs_says_how_sure_it_is():
    assert interval([3.0, 1.0, 2.0]) == (1.0, 3.0, 0.75)


def test_the_interval_of_many_pairs_leaves_the_ends_out():
    low, high, confidence = interval([float(n) for n in range(1, 11)])
    assert (low, high) == (2.0, 9.0)
    assert confidence == pytest.approx(0.979, abs=0.001)


def test_the_interval_of_one_pair_promises_nothing():
    assert interval([1.0]) == (1.0, 1.0, 0.0)
