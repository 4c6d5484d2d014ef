"""Pins and drained devices outlive the service, whatever the disk does."""

import json
from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.wire import Report
from jupyterhub_gpuworkshop.service import kept as kept_module
from jupyterhub_gpuworkshop.service.kept import STATE_FILE, Kept
from jupyterhub_gpuworkshop.service.pins import Pins, in_words
from jupyterhub_gpuworkshop.service.server_answers import MOST_KERNELS

ADA = Owner(lease_id="lease-ada", user="ada", server="", kernel_id="k1")
BOB = Owner(lease_id="lease-bob", user="bob", server="", kernel_id="k2")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / STATE_FILE


@pytest.fixture
def now():
    return [1000.0]


async def opened(path, now):
    kept = Kept(path)
    await kept.open()
    return kept, Pins(kept, wall=lambda: now[0])


def drain(uuid):
    return lambda state: replace(state, drained=(*state.drained, uuid))


async def test_a_pin_outlives_the_service(path, now):
    _, pins = await opened(path, now)
    assert await pins.pin(ADA, "ada", 60.0)
    assert await pins.pin(BOB, "olga", None)
    kept, again = await opened(path, now)
    assert again.of(ADA).until == 1060.0
    assert again.of(BOB).until is None
    assert kept.problem == ""
    assert path.stat().st_mode & 0o777 == 0o600


async def test_a_pin_ends_by_itself_and_by_hand(path, now):
    _, pins = await opened(path, now)
    await pins.pin(ADA, "ada", 60.0)
    await pins.pin(BOB, "olga", None)
    now[0] = 1059.9
    assert pins.of(ADA) is not None
    now[0] = 1060.0
    assert pins.of(ADA) is None
    assert await pins.unpin(BOB)
    assert pins.of(BOB) is None


async def test_a_newer_pin_takes_the_place_of_an_older_one(path, now):
    kept, pins = await opened(path, now)
    await pins.pin(ADA, "olga", None)
    await pins.pin(ADA, "ada", 60.0)
    assert [(pin.by, pin.until) for pin in kept.state.pins] == [("ada", 1060.0)]


async def test_pins_of_ended_leases_and_those_that_are_over_are_forgotten(path, now):
    kept, pins = await opened(path, now)
    await pins.pin(ADA, "ada", 60.0)
    await pins.pin(BOB, "olga", None)
    await pins.forget(frozenset({"lease-ada", "lease-bob"}))
    assert len(kept.state.pins) == 2
    await pins.forget(frozenset({"lease-ada"}))
    assert [pin.user for pin in kept.state.pins] == ["ada"]
    now[0] = 1061.0
    await pins.forget(frozenset({"lease-ada"}))
    again, _ = await opened(path, now)
    assert again.state.pins == ()


async def test_a_server_that_invents_kernels_does_not_fill_the_file(path, now):
    kept, pins = await opened(path, now)
    await pins.pin(BOB, "olga", None)
    for number in range(3 * MOST_KERNELS):
        await pins.pin(replace(ADA, kernel_id=f"k{number}"), "ada", 60.0)
    assert len(kept.state.pins) == 1 + MOST_KERNELS
    assert pins.of(replace(ADA, kernel_id=f"k{3 * MOST_KERNELS - 1}")) is not None
    assert pins.of(BOB) is not None


def test_a_pin_says_by_whom_and_until_when():
    pin = kept_module.Pin(
        lease_id="l", kernel_id="k", user="ada", by="olga", until=None
    )
    assert in_words(pin) == "Kept by olga."
    assert "by olga" in in_words(replace(pin, until=60.0))
    assert ":01" in in_words(replace(pin, until=60.0))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{broken", "no state"),
        (b'{"version": 99, "state": {}}', "newer version"),
        (b'{"version": 1, "state": {"pins": 3}}', "no state"),
    ],
)
async def test_a_file_of_no_use_is_told_and_left_beside(path, now, text, why):
    path.parent.mkdir()
    path.write_bytes(text)
    kept, pins = await opened(path, now)
    assert why in kept.problem
    assert await pins.pin(ADA, "ada", 60.0)
    assert path.with_name(f"{STATE_FILE}.unusable").read_bytes() == text
    _, again = await opened(path, now)
    assert again.of(ADA) is not None


async def test_on_a_full_disk_a_pin_is_in_force_and_said_to_be_in_memory_only(
    path, now, monkeypatch
):
    kept, pins = await opened(path, now)

    def full(path, state):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(kept_module, "_write", full)
        assert not await pins.pin(ADA, "ada", 60.0)
    assert pins.of(ADA) is not None
    assert "in memory only" in kept.problem
    assert "No space left" in kept.problem
    assert await pins.pin(BOB, "bob", 60.0)
    assert kept.problem == ""
    _, again = await opened(path, now)
    assert again.of(ADA) is not None


async def test_what_could_not_be_read_is_not_written_over(
    path, now, monkeypatch, world
):
    _, pins = await opened(path, now)
    await pins.pin(ADA, "ada", 60.0)

    def hung(path):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(kept_module, "read", hung)
        kept, pins = await opened(path, now)
        assert not await pins.pin(BOB, "bob", 60.0)
        assert "cannot be read" in kept.problem
        assert pins.of(BOB) is not None
        world.monitor.kept = kept
        # Which GPUs are drained is not known: the hub keeps to what it knows.
        assert (await world.monitor.exchange(world.report)).drained is None
    # The disk is back: what is in the file and what was said meanwhile both count.
    assert await kept.change(drain("GPU-0"))
    again, pins = await opened(path, now)
    assert pins.of(ADA) is not None
    assert pins.of(BOB) is not None
    assert again.state.drained == ("GPU-0",)


async def test_another_service_that_takes_over_reads_what_the_first_wrote(path, now):
    _, first = await opened(path, now)
    second, pins = await opened(path, now)
    await first.pin(ADA, "ada", 60.0)
    await second.open()
    assert pins.of(ADA) is not None


async def test_the_monitor_forgets_pins_of_leases_that_the_hub_says_have_ended(world):
    kernel_id = world.attendee.start_kernel()
    await world.look()
    (owner,) = world.monitor.kernels
    await world.monitor.pins.pin(owner, "ada", None)
    await world.look()
    assert world.monitor.snapshot.kernels[0].pinned_until == float("inf")
    world.report = replace(world.report, leases=(), servers=())
    await world.look()
    assert world.monitor.kept.state.pins == ()
    assert kernel_id == owner.kernel_id


async def test_no_pin_is_forgotten_before_the_hub_has_reported(world):
    await world.monitor.pins.pin(ADA, "ada", None)
    await world.monitor.tick()
    assert len(world.monitor.kept.state.pins) == 1
    world.link.hear(Report(hub_id="hub", sent_at=1.0))
    await world.monitor.tick()
    assert world.monitor.kept.state.pins == ()


def test_the_file_is_json_that_people_can_read(tmp_path):
    path = tmp_path / "s.json"
    kept_module._write(path, kept_module.KeptState(drained=("GPU-0",)))
    assert json.loads(path.read_text())["state"]["drained"] == ["GPU-0"]
