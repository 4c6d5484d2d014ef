"""The workshop file, read again while the service runs."""

import logging
import os

import pytest

from jupyterhub_gpuworkshop.core.errors import WorkshopFileError
from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.service.rules import Rules

LOG = logging.getLogger("test")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "workshop.yaml"


def test_the_rules_of_reclaim_come_from_the_workshop_file(file):
    file.write_text(
        "idle: {needed_after: 30s, after: 1h, min_memory: 1GiB, max_cpu: 0.2,\n"
        "  action: stop_kernel, dry_run: true}\n"
        "monitor: {interval: 4s, timeout: 1s}\n"
    )
    rules = Rules(str(file), LOG).idle()
    assert (rules.needed_after_seconds, rules.after_seconds) == (30, 3600)
    assert (rules.min_memory_bytes, rules.max_cpu) == (1024**3, 0.2)
    assert (rules.action, rules.dry_run) == (Action.STOP_KERNEL, True)
    assert rules.max_gap_seconds == 14


def test_an_edit_takes_effect_and_a_broken_one_leaves_the_last_good_one(file):
    file.write_text("idle: {needed_after: 1s, after: 100s}\n")
    rules = Rules(str(file), LOG)
    file.write_text("idle: {needed_after: 1s, after: 2000s}\n")
    rules.refresh()
    assert rules.idle().after_seconds == 2000
    file.write_text("idle: {after: soon-ish}\n")
    rules.refresh()
    assert rules.idle().after_seconds == 2000
    assert "last good version" in rules.problem
    assert "idle.after" in rules.problem
    file.unlink()
    rules.refresh()
    assert rules.idle().after_seconds == 2000
    assert rules.problem
    file.write_text("idle: {needed_after: 1s, after: 30s}\n")
    rules.refresh()
    assert (rules.idle().after_seconds, rules.problem) == (30, "")


def test_a_file_that_did_not_change_is_not_read(file, monkeypatch):
    file.write_text("attendees: 3\n")
    rules = Rules(str(file), LOG)
    before = rules.workshop
    rules.refresh()
    assert rules.workshop is before
    os.utime(file, (1, 1))
    rules.refresh()
    assert rules.workshop is not before


def test_json_and_nothing_at_all_are_workshops_too():
    assert Rules('{"attendees": 7}', LOG).workshop.attendees == 7
    assert Rules("", LOG).workshop.attendees is None


@pytest.mark.parametrize("source", ["{broken", '{"idle": 3}', "/no/such/file.yaml"])
def test_there_is_something_good_to_begin_with_or_an_error(source):
    with pytest.raises(WorkshopFileError):
        Rules(source, LOG)
