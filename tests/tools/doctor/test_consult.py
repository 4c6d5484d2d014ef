"""Checks side by side: none hangs, none takes another down."""

import threading
import time

import pytest

from jupyterhub_gpuworkshop.tools.doctor.check import Check, Status, ok
from jupyterhub_gpuworkshop.tools.doctor.consult import Once, Probe, consult
from jupyterhub_gpuworkshop.tools.doctor.reading.commands import run_command


def good(name: str) -> Probe:
    return Probe((name,), lambda: [ok(name, "fine")])


def test_checks_come_back_in_the_order_of_their_probes() -> None:
    checks = consult([good("a.one"), good("b.two"), good("c.three")])
    assert [each.check for each in checks] == ["a.one", "b.two", "c.three"]


def test_a_check_that_hangs_fails_and_the_others_are_told() -> None:
    forever = threading.Event()

    def hang() -> list[Check]:
        forever.wait()
        return []

    checks = consult([Probe(("a.hangs",), hang), good("b.fine")], limit_seconds=0.2)
    forever.set()
    assert [each.status for each in checks] == [Status.FAIL, Status.OK]
    assert "did not come back" in checks[0].finding
    assert "$ ps" in checks[0].remedy


def test_a_check_that_breaks_is_skipped_under_each_of_its_names() -> None:
    def broken() -> list[Check]:
        raise ZeroDivisionError("by zero")

    checks = consult([Probe(("a.one", "a.two"), broken), good("b.fine")])
    assert [(x.check, x.status) for x in checks] == [
        ("a.one", Status.SKIP),
        ("a.two", Status.SKIP),
        ("b.fine", Status.OK),
    ]
    assert "ZeroDivisionError: by zero" in checks[0].finding


def test_a_shared_reading_is_taken_once_however_many_ask() -> None:
    taken: list[int] = []
    reading = Once(lambda: taken.append(1) or len(taken))
    probes = [Probe((f"a.{n}",), lambda: [ok("a.x", str(reading()))]) for n in range(9)]
    assert {each.finding for each in consult(probes)} == {"1"}


def test_a_shared_reading_that_breaks_breaks_for_everyone_who_asks() -> None:
    tries: list[int] = []

    def read() -> int:
        tries.append(1)
        raise OSError("gone")

    reading = Once(read)
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            reading()
    assert len(tries) == 1


def test_a_command_that_does_not_end_is_killed_with_its_children() -> None:
    started = time.monotonic()
    done = run_command(["sh", "-c", "sleep 600 & sleep 600"], seconds=0.3)
    assert time.monotonic() - started < 60
    assert done.hung
    assert done.status is None
    assert "did not end within" in done.problem


def test_a_command_that_is_not_there_is_not_one_that_hangs() -> None:
    done = run_command(["/nowhere/at/all"])
    assert not done.hung
    assert "No such file" in done.problem


def test_what_a_command_writes_and_how_it_ends_is_told() -> None:
    done = run_command(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (done.out, done.err, done.status) == ("out\n", "err\n", 3)
    assert not done.worked
