"""How the doctor shows what it found."""

import io
import json

import pytest
from rich.console import Console

from jupyterhub_gpuworkshop.tools.doctor.catalogue import AREAS, CHECKS
from jupyterhub_gpuworkshop.tools.doctor.check import fail, ok, skip, warn
from jupyterhub_gpuworkshop.tools.doctor.report import (
    as_json,
    exit_status,
    show,
    verdict,
)

LONG = "sudo nvidia-ctk system create-dev-char-symlinks --create-all --and=more"
CHECKED = [
    ok("gpus.driver", "Driver 580.95.05 is well."),
    skip("gpus.mig", "The driver does not answer."),
    skip("gpus.xid", "The driver does not answer."),
    warn("host.disk", "Little room.", "$ df -h"),
    fail("containers.image", "It is not here, and it is large.", f"Do:\n$ {LONG}"),
]


def shown(width: int) -> list[str]:
    file = io.StringIO()
    show(CHECKED, Console(file=file, width=width, highlight=False))
    return file.getvalue().splitlines()


def test_what_fails_comes_first_then_what_warns_then_the_rest_by_area() -> None:
    lines = [line for line in shown(80) if line.strip()]
    assert [line for line in lines if not line.startswith(" ")] == [
        "What needs action",
        "FAIL containers.image",
        "warn host.disk",
        "GPUs and driver",
        "ok   driver",
        "skip mig, xid",
        "Not ready: 1 to mend, 1 to look at, 2 not looked at, 1 fine.",
    ]


@pytest.mark.parametrize("width", [32, 80])
def test_lines_fit_the_terminal_but_no_command_is_cut(width: int) -> None:
    lines = shown(width)
    assert f"     $ {LONG}" in lines
    for line in lines:
        assert len(line) <= width or line.startswith("     $ ") or "Not ready" in line
        assert line == line.rstrip()


def test_json_is_an_array_of_what_was_promised() -> None:
    document = json.loads(as_json(CHECKED))
    assert document[3] == {
        "check": "host.disk",
        "status": "warn",
        "finding": "Little room.",
        "remedy": "$ df -h",
    }
    assert [set(each) for each in document] == [
        {"check", "status", "finding", "remedy"}
    ] * len(CHECKED)


def test_only_a_failure_makes_the_exit_status_1() -> None:
    assert exit_status(CHECKED) == 1
    assert exit_status(CHECKED[:4]) == 0
    assert verdict(CHECKED[:4]).startswith("Nothing stands in the way")


def test_every_check_belongs_to_an_area_with_a_heading() -> None:
    assert {name.partition(".")[0] for name in CHECKS} <= set(AREAS)


def test_what_would_move_a_terminals_cursor_is_written_out() -> None:
    file = io.BytesIO()
    text = io.TextIOWrapper(file, encoding="utf-8")
    words = "process 7 (\x1b[2J\udcff\u202e\r\x85größer) holds it."
    checks = [fail("gpus.foreign", words, f"$ kill 7 {words}")]
    show(checks, Console(file=text, width=100, highlight=False))
    text.flush()
    told = file.getvalue().decode()
    written = r"process 7 (\x1b[2J\udcff\u202e\r\x85größer) holds it."
    assert told.count(written) == 2
    assert all(x.isprintable() for x in told.replace("\n", ""))
