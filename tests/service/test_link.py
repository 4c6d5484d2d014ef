"""What the hub said last, and for how long it stands."""

from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.core.wire import Report, ServerInfo
from jupyterhub_gpuworkshop.service.link import Link

from .world import Clock

REPORT = Report(
    hub_id="hub",
    sent_at=50.0,
    leases=(Lease(id="l", user="ada", server="", share="1/5", granted_at=1.0),),
    servers=(
        ServerInfo(lease_id="l", user="ada", server="", url="http://x/", token="t"),
    ),
)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def link(clock):
    return Link(5, clock)


def test_before_the_first_report_nothing_is_known(link, clock):
    assert link.report.leases == ()
    assert link.problem == ""
    clock.now += 20
    assert "has not reported for 20 s" in link.problem


def test_a_report_stands_while_the_hub_restarts(link, clock):
    link.hear(REPORT)
    clock.now += 40
    assert link.report == REPORT
    assert "silent for 40 s" in link.problem


def test_servers_are_unknown_once_their_tokens_may_be_void(link, clock):
    link.hear(REPORT)
    clock.now += 61
    assert link.report.servers == ()
    assert link.report.leases == REPORT.leases
    link.hear(REPORT)
    assert link.report == REPORT
    assert link.problem == ""


def test_a_report_that_was_overtaken_changes_nothing(link):
    link.hear(REPORT)
    link.hear(replace(REPORT, sent_at=49.0, leases=()))
    assert link.report.leases


def test_a_clock_that_was_set_back_does_not_silence_the_hub(link, clock):
    link.hear(REPORT)
    clock.now += 16
    link.hear(replace(REPORT, sent_at=1.0, leases=()))
    assert link.report.leases == ()


def test_another_life_of_the_hub_is_heard_at_once(link):
    link.hear(REPORT)
    link.hear(replace(REPORT, hub_id="next", sent_at=2.0, leases=()))
    assert link.report.leases == ()
