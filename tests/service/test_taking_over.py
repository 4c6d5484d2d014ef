"""A service that takes over, or only shows, loses nothing that another has written."""

import json
import logging
from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.service import kept as kept_module
from jupyterhub_gpuworkshop.service.app import GpuService
from jupyterhub_gpuworkshop.service.kept import (
    STATE_FILE,
    Kept,
    ParkedKernel,
    Pin,
    read,
)
from jupyterhub_gpuworkshop.service.parts import Parts
from jupyterhub_gpuworkshop.service.pins import Pins

from .world import World

PARKED = ParkedKernel(
    lease_id="lease-ada",
    user="ada",
    server="",
    kernel_id="k1",
    processes=(ProcessId(pid=1, started=1),),
    boot_id="b",
    memory_bytes={"GPU-1": 1},
    parked_at=1.0,
    last_activity="then",
)


@pytest.fixture
def log():
    """Leave the log of the package as it was: the service makes it its own."""
    package = logging.getLogger("jupyterhub_gpuworkshop")
    level, handlers, propagate = package.level, package.handlers, package.propagate
    yield
    package.setLevel(level)
    package.handlers, package.propagate = handlers, propagate


def with_parked(state):
    return replace(state, parked=(PARKED,))


def with_drained(state):
    return replace(state, drained=("GPU-1",))


async def test_what_cannot_be_read_again_is_not_written_over(tmp_path, monkeypatch):
    path = tmp_path / STATE_FILE
    late, first = Kept(path), Kept(path)
    await late.open()
    await first.open()
    await first.change(with_parked)

    def fails(path):
        raise OSError("Input/output error")

    monkeypatch.setattr(kept_module, "_take", fails)
    await late.open()
    monkeypatch.undo()
    assert await late.change(with_drained)
    assert read(path).parked == (PARKED,)


async def test_before_what_the_other_wrote_is_read_nothing_is_done(tmp_path, log):
    path = tmp_path / STATE_FILE
    service = GpuService()
    service.initialize(
        ["--state-dir", str(tmp_path), "--workshop", json.dumps({"gpus": {}})]
    )
    parts = Parts(service)
    await parts.kept.open()
    other = Kept(path)
    await other.open()
    await other.change(with_parked)
    parts.only_one.acquire()
    assert "not read yet" in parts.returns._why_not_act()
    await parts.be_the_only_one()
    assert parts.returns._why_not_act() == ""
    assert parts.kept.state.parked == (PARKED,)


async def test_who_only_shows_forgets_no_pins_of_another(tmp_path):
    path = tmp_path / STATE_FILE
    shows, acts = Kept(path), Kept(path)
    pin = Pin(lease_id="ended", kernel_id="k2", user="bob", by="bob", until=None)
    await shows.change(lambda state: replace(state, pins=(pin,)))
    await acts.open()
    await acts.change(with_parked)
    world = World(tmp_path)
    world.monitor._why_not_act = lambda: "Another GPU service acts."
    world.monitor.kept, world.monitor.pins = shows, Pins(shows)
    await world.look()
    assert read(path).parked == (PARKED,)
    await world.close()
