"""A run's ports, passwords and workshop file."""

import os
import socket
import stat
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.errors import DemoError
from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.tools.demo.settings import (
    HOST,
    DemoSettings,
    free_ports,
    make_settings,
    password,
    poll_seconds,
    share_of,
    workshop_of,
)
from jupyterhub_gpuworkshop.workshop import Workshop

from .examples import make_options
from .examples import make_settings as example_settings


def test_the_options_amount_to_a_workshop_that_can_be_read(tmp_path: Path) -> None:
    options = make_options(idle_timeout_seconds=20.0, attendees_per_gpu=4)
    workshop = Workshop.load(workshop_of(options, tmp_path / "gpus", 4711, tmp_path))

    assert workshop.gpus.attendees_per_gpu == 4
    assert workshop.idle.needed_after == workshop.idle.after == 20
    assert workshop.idle.min_memory == 256 * MIB
    assert workshop.monitor.interval == 2
    assert workshop.service.port == 4711


@pytest.mark.parametrize(
    ("idle_timeout", "seconds"), [(1, 0.5), (5, 0.5), (10, 1), (20, 2), (7200, 2)]
)
def test_the_service_looks_often_enough_for_the_idle_timeout(
    idle_timeout: float, seconds: float
) -> None:
    assert poll_seconds(idle_timeout) == seconds


def test_on_tiny_gpus_a_robot_can_hold_enough_to_be_reclaimed(tmp_path: Path) -> None:
    options = make_options(gpu_memory_bytes=GIB)
    workshop = Workshop.load(workshop_of(options, tmp_path, 4711, tmp_path))

    assert workshop.idle.min_memory < share_of(options) / 4


def test_a_gpu_too_small_for_the_shares_is_told(tmp_path: Path) -> None:
    options = make_options(gpu_memory_bytes=64 * MIB, attendees_per_gpu=50)

    with pytest.raises(DemoError, match="50 attendees cannot share a GPU of 64 MiB"):
        workshop_of(options, tmp_path, 4711, tmp_path)


def test_what_is_saved_is_for_this_user_alone_and_reads_back(tmp_path: Path) -> None:
    settings = example_settings(tmp_path)
    settings.save()

    assert stat.S_IMODE(settings.file.stat().st_mode) == 0o600
    assert DemoSettings.load(settings.file) == settings


def test_a_taken_port_is_told_with_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(DemoError, match=f"Port {port} .* is taken.*--port 0"):
            make_settings(make_options(port=port), tmp_path, ["proxy"])


def test_the_ports_of_a_run_are_different_and_free(tmp_path: Path) -> None:
    settings = make_settings(make_options(), tmp_path, ["proxy"])
    ports = {
        settings.port,
        settings.hub_port,
        settings.proxy_api_port,
        settings.service_port,
    }

    assert len(ports) == 4
    assert settings.demo_pid == os.getpid()
    for port in ports:
        with socket.socket() as probe:
            probe.bind((HOST, port))


def test_too_many_ports_are_refused() -> None:
    with pytest.raises(DemoError, match="No free ports"):
        free_ports(100_000)


def test_passwords_are_new_and_easy_to_type() -> None:
    passwords = {password() for _ in range(100)}

    assert len(passwords) == 100
    for word in passwords:
        assert len(word) == 14
        assert not set(word) & set("01ilo")
