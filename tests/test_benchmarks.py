"""That each benchmark runs and prints a ratio. What it prints is nobody's to assert."""

import re

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.report import Row, interval, paired
from benchmarks.seats import seated
from jupyterhub_gpuworkshop.machine.processes import is_alive

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
