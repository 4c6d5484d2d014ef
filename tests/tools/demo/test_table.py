"""The live table, in terminals of any size."""

import io
from typing import Any

import pytest
from rich.console import Console

from jupyterhub_gpuworkshop.tools.demo.table import View, render

from .examples import GPU_0, GPU_1, device, event, kernel, lease

FULL: dict[str, Any] = {
    "devices": [
        device(GPU_0, "0", leases=5),
        device(GPU_1, "1", memory_used_bytes=None, problem="GPU 1 is lost."),
    ],
    "leases": [lease(f"attendee{n:02d}", str(n % 2)) for n in range(1, 21)],
    "kernels": [
        kernel("attendee01", state="busy", idle_seconds=None),
        kernel("attendee02", notebook="", server="second"),
        kernel("attendee03", state="unknown"),
        kernel("attendee04", state="reborn"),
        *(kernel(f"attendee{n:02d}") for n in range(5, 21)),
    ],
}


def shown(snapshot: dict[str, Any], width: int, height: int, **given: Any) -> str:
    view = View(
        **{
            "hub_url": "http://127.0.0.1:8000/",
            "organiser_password": "of-the-organiser",
            "attendee_password": "of-the-attendees",
            "attendees_per_gpu": 5,
            "snapshot": snapshot,
            **given,
        }
    )
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(render(view, width, height))
    text = console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
    return str(text)


def test_before_the_hub_is_ready_it_says_so() -> None:
    text = shown({}, 80, 24, hub_url="")

    assert "JupyterHub starts" in text
    assert "organiser" not in text


def test_an_empty_workshop_has_nothing_to_show_yet() -> None:
    text = shown({}, 80, 24)

    for words in ("No GPUs are known yet", "no kernels yet", "nothing has happened"):
        assert words in text


def test_it_says_where_and_with_what_to_log_in() -> None:
    text = shown({}, 80, 24)

    for words in ("http://127.0.0.1:8000/", "of-the-organiser", "of-the-attendees"):
        assert words in text


def test_devices_are_shown_with_use_and_leases() -> None:
    text = shown(FULL, 80, 24)

    assert "4 GiB of 16 GiB" in text
    assert "42%" in text
    assert "5 of 5" in text


def test_a_device_that_cannot_be_read_says_why() -> None:
    assert "GPU 1 is lost." in shown(FULL, 100, 24)


def test_why_there_are_no_devices_is_shown() -> None:
    snapshot = {"devices": [], "problems": ["No driver answers."]}

    assert "No driver answers." in shown(snapshot, 80, 24)


def test_kernels_are_shown_with_state_and_owner() -> None:
    text = shown(FULL, 80, 40)

    assert "attendee02/second" in text
    assert "01234567" in text  # where there is no notebook
    for state in ("busy", "idle 12 s", "unknown", "reborn"):
        assert state in text


def test_a_wide_terminal_says_why_a_kernel_is_kept() -> None:
    verdict = "Idle for 12 s of 60 s"

    assert verdict in shown(FULL, 140, 45)
    assert verdict not in shown(FULL, 80, 45)


def test_a_long_reason_takes_no_room_from_whose_kernel_it_is() -> None:
    why = "Idle for 20 s (limit 20 s while nobody waits for memory): " + "why " * 90
    full = {**FULL, "kernels": [kernel("attendee01", verdict=why)]}
    for width in (110, 180):
        (line,) = (x for x in shown(full, width, 40).splitlines() if "Idle for" in x)
        assert line.startswith("attendee01  analysis.ipynb  1 ")
        assert line.rstrip().endswith("…")


def test_kernels_that_have_no_room_are_counted() -> None:
    assert "more" in shown(FULL, 80, 24)
    assert "more" not in shown(FULL, 80, 60)


@pytest.mark.parametrize(
    ("width", "height"), [(80, 24), (140, 45), (60, 20), (200, 80)]
)
def test_it_never_outgrows_the_terminal(width: int, height: int) -> None:
    events = [event(reason="why " * 100) for _ in range(100)]
    lines = shown(FULL, width, height, events=events).splitlines()

    assert len(lines) <= height
    assert max(len(line) for line in lines) <= width


def test_the_last_events_are_shown_whole_but_for_the_reason() -> None:
    events = [event(user=f"attendee{n:02d}", reason="why " * 100) for n in range(50)]
    text = shown(FULL, 80, 24, events=events)

    assert "granted  attendee49  GPU 0: why why" in text
    assert "attendee01  GPU" not in text


def test_what_attendees_named_is_no_markup_and_moves_no_cursor() -> None:
    notebook = "[red]x[/].ipynb\x1b[2J\n"
    snapshot = {**FULL, "kernels": [kernel("attendee01", notebook=notebook)]}
    text = shown(snapshot, 100, 24, events=[event(reason="[/] \x1b[2J")])

    assert "[red]x[/].ipynb?[2J?" in text
    assert "[/] ?[2J" in text
    assert "\x1b" not in text
