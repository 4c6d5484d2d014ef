"""The sum before the day says what placement will do."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.leases import Lease, Ledger
from jupyterhub_gpuworkshop.core.placement import Granted, PlacementRules, place
from jupyterhub_gpuworkshop.core.shares import Share
from jupyterhub_gpuworkshop.core.sums import (
    MOST_PARTS,
    Sum,
    add_up,
    parts_for,
    usable_devices,
)
from jupyterhub_gpuworkshop.core.units import GIB, MIB


def inventory_of(sizes_bytes: Sequence[int], context_bytes: int = 0) -> Inventory:
    return Inventory(
        devices=tuple(
            Device(
                uuid=f"GPU-{index:08d}",
                label=str(index),
                name="A GPU",
                memory_bytes=size,
                context_bytes=context_bytes,
            )
            for index, size in enumerate(sizes_bytes)
        )
    )


FOUR = inventory_of([16 * GIB] * 4, context_bytes=512 * MIB)


def sum_of(share: str, inventory: Inventory = FOUR, **more: object) -> Sum:
    settings = {"keep_free_bytes": 512 * MIB, **more}
    return add_up(inventory=inventory, share=Share.parse(share), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("share", "oversubscribe", "places"),
    [
        ("1/5", 1.0, 20),
        ("8GiB", 1.0, 4),
        ("7.75GiB", 1.0, 8),
        ("1 gpu", 1.0, 4),
        ("2 gpus", 1.0, 2),
        ("3 gpus", 1.0, 1),
        ("5 gpus", 1.0, 0),
        ("1/5", 1.5, 28),
        ("1 gpu", 2.0, 4),
        ("20GiB", 1.0, 0),
        ("cpu", 1.0, None),
    ],
)
def test_places_are_counted_for_each_kind_of_share(
    share: str, oversubscribe: float, places: int | None
) -> None:
    assert sum_of(share, oversubscribe=oversubscribe).places == places


def test_each_device_tells_memory_before_and_after_the_cuda_context() -> None:
    first = sum_of("1/5").devices[0]
    assert first.shares == 5
    assert first.memory_bytes == (16 * GIB - 512 * MIB) // 5
    assert first.after_context_bytes == first.memory_bytes - 512 * MIB


def test_excluded_and_lost_devices_have_no_places_and_say_why() -> None:
    lost = Device(
        uuid="GPU-lost", label="4", name="A GPU", memory_bytes=16 * GIB, lost=True
    )
    inventory = Inventory(devices=(*FOUR.devices, lost))
    total = sum_of("1/5", inventory, exclude=["0", "GPU-00000001"])
    assert [each.shares for each in total.devices] == [0, 0, 5, 5, 0]
    assert total.devices[0].unusable == "excluded by gpus.exclude"
    assert total.devices[4].unusable == "lost by its driver"
    assert total.usable_devices == 2


def test_a_gpu_that_is_cut_into_slices_has_no_places_beside_theirs() -> None:
    slices = tuple(
        Device(
            uuid=f"MIG-{index}",
            label=f"0:{index}",
            name="A slice",
            memory_bytes=5 * GIB,
            parent_uuid="GPU-00000000",
        )
        for index in range(3)
    )
    inventory = Inventory(devices=(FOUR.devices[0], *slices))
    assert usable_devices(inventory, []) == list(slices)
    assert [each.shares for each in sum_of("1/2", inventory).devices] == [0, 2, 2, 2]


def test_an_exclusion_that_names_no_device_is_noted() -> None:
    notes = sum_of("1/5", exclude=["0", "9"]).notes
    assert any("gpus.exclude names 9" in note for note in notes)
    assert not any("names 0" in note for note in notes)


def test_too_few_places_say_how_many_are_missing_and_what_to_write() -> None:
    total = sum_of("1/5", expected=40, share_from="shares.default")
    assert not total.enough
    assert total.missing == 20
    assert "gpus.attendees_per_gpu: 10 in place of shares.default" in total.remedy
    assert "gpus.when_full: cpu" in total.remedy


def test_a_remedy_that_would_leave_nothing_is_not_given() -> None:
    total = sum_of("1/5", expected=400)
    assert "attendees_per_gpu" not in total.remedy
    assert "Bring more GPUs" in total.remedy


@pytest.mark.parametrize(
    ("inventory", "exclude", "remedy"),
    [
        (Inventory(), [], "There is no GPU on this machine."),
        (Inventory(problem="No driver."), [], "No driver."),
        (FOUR, ["0", "1", "2", "3"], "take one out of gpus.exclude"),
    ],
)
def test_without_a_device_there_is_no_place_and_the_reason_is_told(
    inventory: Inventory, exclude: list[str], remedy: str
) -> None:
    total = sum_of("1/5", inventory, exclude=exclude)
    assert total.places == 0
    assert not total.enough
    assert remedy in total.remedy


def test_enough_needs_no_remedy() -> None:
    total = sum_of("1/5", expected=20)
    assert total.enough
    assert total.missing == 0
    assert total.remedy == ""


def test_a_share_of_cpu_has_a_place_for_everyone_even_without_a_device() -> None:
    total = sum_of("cpu", Inventory(), expected=1000)
    assert total.enough
    assert total.places is None


def test_a_share_that_the_context_eats_is_noted() -> None:
    notes = sum_of("1/40").notes
    assert any("nothing is left for data" in note for note in notes)


@pytest.mark.parametrize(
    ("attendees", "devices", "oversubscribe", "parts"),
    [
        (40, 4, 1.0, 10),
        (41, 4, 1.0, 11),
        (1, 4, 1.0, 1),
        (40, 4, 2.0, 5),
        (7, 3, 1.2, 3),  # 3 on one device: 2 parts, 1.2 times, hold only 2
        (23, 1, 1.15, 20),
        (21, 1, 1.4, 15),  # in floating point 21 / 1.4 is a little more than 15
        (100_000, 1, 1.0, MOST_PARTS),
    ],
)
def test_parts_are_cut_so_that_all_find_a_place(
    attendees: int, devices: int, oversubscribe: float, parts: int
) -> None:
    assert parts_for(attendees, devices, oversubscribe) == parts


def test_no_place_is_lost_to_floating_point() -> None:
    """25 GiB times 1.15 is a byte short of 23 times 1.25 GiB where it is cut off."""
    inventory = inventory_of([25 * GIB])
    assert sum_of("1/20", inventory, keep_free_bytes=0, oversubscribe=1.15).places == 23


oversubscriptions = st.integers(100, 1000).map(lambda percent: percent / 100)


@given(
    attendees=st.integers(1, 300),
    sizes=st.lists(st.integers(4 * GIB, 200 * GIB), min_size=1, max_size=8),
    oversubscribe=oversubscriptions,
)
def test_the_parts_derived_from_attendees_are_always_enough(
    attendees: int, sizes: list[int], oversubscribe: float
) -> None:
    total = add_up(
        inventory=inventory_of(sizes),
        share=Share.nth(parts_for(attendees, len(sizes), oversubscribe)),
        keep_free_bytes=512 * MIB,
        oversubscribe=oversubscribe,
        expected=attendees,
    )
    assert total.enough


@settings(max_examples=60, deadline=None)
@given(
    share=st.sampled_from(["1/3", "2/5", "1/20", "3GiB", "1 gpu", "2 gpus"]),
    sizes=st.lists(
        st.sampled_from([4 * GIB, 16 * GIB, 100 * GIB]), min_size=1, max_size=4
    ),
    oversubscribe=oversubscriptions,
    excluded=st.sets(st.sampled_from("0123")),
)
def test_placement_grants_exactly_as_many_as_the_sum_promises(
    share: str, sizes: list[int], oversubscribe: float, excluded: set[str]
) -> None:
    inventory = inventory_of(sizes)
    rules = PlacementRules(oversubscribe=oversubscribe, exclude=tuple(excluded))
    promised = sum_of(
        share,
        inventory,
        keep_free_bytes=0,
        oversubscribe=oversubscribe,
        exclude=excluded,
    ).places
    wanted = Share.parse(share)
    ledger, granted = Ledger(), 0
    while True:
        outcome = place(
            share=wanted,
            key=(f"attendee{granted}", ""),
            inventory=inventory,
            ledger=ledger,
            uses={},
            rules=rules,
        )
        if not isinstance(outcome, Granted):
            break
        lease = Lease(
            id=str(granted),
            user=f"attendee{granted}",
            server="",
            share=share,
            exclusive=wanted.is_exclusive,
            devices=outcome.devices,
            granted_at=0.0,
        )
        ledger, granted = ledger.with_lease(lease), granted + 1
    assert granted == promised
