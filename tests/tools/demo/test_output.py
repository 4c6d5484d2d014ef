"""Writing to stdout without holding up the demo."""

import os
import threading
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.tools.demo.output import Lines, LiveTable, is_lost
from jupyterhub_gpuworkshop.tools.demo.table import View


def test_lines_arrive_in_order() -> None:
    reader, writer = os.pipe()
    lines = Lines(writer, lambda: None)
    for number in range(100):
        lines.write(f"line {number}")
    lines.close()
    os.close(writer)

    with os.fdopen(reader) as file:
        assert file.read().splitlines() == [f"line {n}" for n in range(100)]


def test_a_reader_that_went_away_is_told() -> None:
    reader, writer = os.pipe()
    lost = threading.Event()
    lines = Lines(writer, lost.set)
    os.close(reader)
    lines.write("anybody there?")

    assert lost.wait(10)
    lines.close()
    os.close(writer)


def test_a_pipe_that_nobody_reads_does_not_hold_up_the_writer() -> None:
    reader, writer = os.pipe()
    lost = threading.Event()
    lines = Lines(writer, lost.set)
    for _ in range(100):
        lines.write("x" * 10_000)
    lines.close()  # returns all the same

    assert not lost.is_set()
    os.close(reader)
    assert lost.wait(10)
    os.close(writer)


def test_a_pipe_without_a_reader_is_lost() -> None:
    reader, writer = os.pipe()

    assert not is_lost(writer)
    os.close(reader)
    assert is_lost(writer)
    os.close(writer)


def test_a_file_is_never_lost(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as file:
        assert not is_lost(file.fileno())


def test_the_table_takes_the_terminal_and_gives_it_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # for rich, this is a terminal
    monkeypatch.setenv("TERM", "xterm-256color")
    table = LiveTable(View(attendees_per_gpu=5, snapshot={}))
    table.start()
    table.stop()

    shown = capsys.readouterr().out
    assert shown.index("\x1b[?1049h") < shown.index("JupyterHub starts")
    assert shown.index("JupyterHub starts") < shown.index("\x1b[?1049l")
