"""Devices out of service stay so while hub or service are away."""

import logging

import pytest

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.errors import ShareRefused
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.hub.allocator import Allocator
from jupyterhub_gpuworkshop.hub.drains import Drains
from jupyterhub_gpuworkshop.hub.ledger import DurableLedger
from jupyterhub_gpuworkshop.workshop import Workshop

_LOG = logging.getLogger("test-drains")


class _Hub:
    """One life of a hub on one GPU, as far as drains are concerned."""

    def __init__(self, folder):
        self.allocator = Allocator(
            DurableLedger(f"sqlite:///{folder}/ledger.sqlite"),
            Workshop.load({"gpus": {"attendees_per_gpu": 4}}),
            boot_id="boot-1",
            clock=lambda: 1000.0,
            log=_LOG,
            changed=lambda: None,
        )
        gpu = Device(uuid="GPU-0", label="7", name="GPU", memory_bytes=16 * GIB)
        self.allocator.observe(Inventory(devices=(gpu,), taken_at=1000.0), ())
        self.drains = Drains(folder, self.allocator, _LOG)

    def is_granted(self, user):
        try:
            self.allocator.claim(user=user, server="")
        except ShareRefused:
            return False
        return True


def test_a_hub_that_restarts_goes_by_what_the_service_said_last(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    hub = _Hub(tmp_path)
    assert hub.is_granted("ann")
    hub.drains.hear(("GPU-0",))
    assert "GPU 7 (GPU-0) gets no new lease" in caplog.text
    assert not hub.is_granted("bea")
    assert [lease.user for lease in hub.allocator.ledger.leases.values()] == ["ann"]

    hub = _Hub(tmp_path)
    assert not hub.is_granted("bea")
    hub.drains.hear(())
    assert "GPU 7 (GPU-0) gets leases again" in caplog.text
    assert hub.is_granted("bea")
    assert _Hub(tmp_path).is_granted("cem")


@pytest.mark.parametrize("kept", ["{", '{"GPU-0": 1}', "[1, null]", "\xff"])
def test_a_file_that_makes_no_sense_drains_nothing(tmp_path, kept):
    (tmp_path / "drained-devices.json").write_text(kept, encoding="latin-1")
    hub = _Hub(tmp_path)
    assert hub.is_granted("ann")
    hub.drains.hear(("GPU-0",))
    assert not _Hub(tmp_path).is_granted("bea")


def test_a_disk_that_is_full_costs_the_file_and_not_the_drain(tmp_path, caplog):
    hub = _Hub(tmp_path)
    (tmp_path / "drained-devices.new").mkdir()
    hub.drains.hear(("GPU-0",))
    assert not hub.is_granted("ann")
    assert "drained-devices.json cannot be written" in caplog.text
    hub.drains.hear(("GPU-0",))
    assert caplog.text.count("cannot be written") == 1
    # It is tried again with each answer of the service.
    (tmp_path / "drained-devices.new").rmdir()
    hub.drains.hear(("GPU-0",))
    assert not _Hub(tmp_path).is_granted("ann")
