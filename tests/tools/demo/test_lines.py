"""The demo in lines, for programs and for people."""

import json
from pathlib import Path

from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.tools.demo.lines import (
    event_line,
    event_object,
    json_line,
    ready_lines,
    ready_object,
)

from .examples import GPU_0, event, make_settings


def test_the_first_object_has_everything_that_a_driver_needs(tmp_path: Path) -> None:
    assert ready_object(make_settings(tmp_path)) == {
        "event": "ready",
        "hub_url": "http://127.0.0.1:8000/",
        "service_url": "http://127.0.0.1:8000/services/gpuworkshop/",
        "organiser": {"name": "organiser", "password": "of-the-organiser"},
        "attendee": {
            "name_pattern": "attendee{:02d}",
            "password": "of-the-attendees",
        },
        "api_token": "the-token",
    }


def test_an_event_has_time_attendee_devices_reason_and_its_details() -> None:
    assert event_object(event()) == {
        "event": "lease_granted",
        "time": "2027-01-15T08:00:00.250+00:00",
        "attendee": "attendee01",
        "server": "",
        "devices": [GPU_0],
        "reason": "round-robin: GPU 0 had the fewest leases (0)",
        "share": "1/5",
    }


def test_no_detail_stands_in_the_place_of_what_every_event_has() -> None:
    told = event_object(event(details={"event": "x", "devices": "x", "pid": 7}))

    assert (told["event"], told["devices"], told["pid"]) == (
        "lease_granted",
        [GPU_0],
        7,
    )


def test_an_object_is_one_line_whatever_is_in_it() -> None:
    line = json_line(event_object(event(reason="one\ntwo \u2028 three")))

    assert len(line.splitlines()) == 1
    assert json.loads(line)["reason"] == "one\ntwo \u2028 three"


def test_a_grant_is_told_with_its_gpu_once() -> None:
    line = event_line(event(), {GPU_0: "0"})

    assert line.endswith(
        "granted      attendee01: round-robin: GPU 0 had the fewest leases (0)"
    )


def test_a_reclaim_is_told_by_what_it_gave_back() -> None:
    line = event_line(
        event(
            kind="kernel_reclaimed",
            user="attendee02",
            server="second",
            reason="Idle for 20 s with ...",
            details={
                "freed_bytes": 2 * GIB,
                "idle_seconds": 20.0,
                "notebook": "lunch.ipynb",
            },
        ),
        {GPU_0: "0"},
    )

    assert line.endswith(
        "reclaimed    attendee02/second: GPU 0: 2 GiB back, lunch.ipynb was idle for "
        "20 s"
    )


def test_what_is_unknown_is_told_as_it_comes() -> None:
    line = event_line(event(kind="kernel_parked", reason="", details={}), {})

    assert "kernel parked" in line
    assert GPU_0 in line


def test_people_read_where_and_with_what_to_log_in(tmp_path: Path) -> None:
    said = "\n".join(ready_lines(make_settings(tmp_path)))

    for word in ("http://127.0.0.1:8000/", "organiser", "of-the-attendees"):
        assert word in said
    assert "the-token" not in said


def test_what_a_person_did_is_told_in_that_persons_words() -> None:
    line = event_line(
        event(
            kind="kernel_reclaimed",
            user="attendee02",
            reason="Organiser olga restarted it.",
            details={"freed_bytes": GIB, "idle_seconds": 0.0, "by": "olga"},
        ),
        {},
    )

    assert line.endswith("Organiser olga restarted it.")
