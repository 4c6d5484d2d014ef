"""What must hold in placement for any room, whoever comes and goes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.leases import Lease, Ledger
from jupyterhub_gpuworkshop.core.placement import (
    Granted,
    PlacementRules,
    Policy,
    Refused,
    is_excluded,
    place,
)
from jupyterhub_gpuworkshop.core.shares import Share
from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.core.wire import DeviceUse

SHARES = [
    *("1/1", "1/2", "1/3", "2/5", "1/5", "1/7", "1/1000"),
    *("1GiB", "8GiB", "500MiB", "200GiB", "1 gpu", "2 gpus", "5 gpus", "cpu"),
]


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    devices: list[Device] = []
    for number in range(draw(st.integers(1, 8))):
        device = Device(
            uuid=f"GPU-{number:04d}",
            label=str(number),
            name="x",
            memory_bytes=draw(st.sampled_from([2, 16, 24, 80, 141])) * GIB
            + draw(st.integers(0, 999)),
            reserved_bytes=draw(st.sampled_from([0, 300, 615])) * MIB,
            lost=draw(st.integers(0, 9)) == 0,
        )
        slices = draw(st.sampled_from([0, 0, 0, 2, 3]))
        devices += [
            replace(
                device,
                uuid=f"MIG-{number:04d}-{piece}",
                label=f"{number}:{piece}",
                memory_bytes=device.memory_bytes // slices,
                parent_uuid=device.uuid,
            )
            for piece in range(slices)
        ]
        if not slices or draw(st.booleans()):
            devices.append(device)
    return Inventory(devices=tuple(devices[:8]))


rules_of_any_kind = st.builds(
    PlacementRules,
    policy=st.sampled_from(Policy),
    keep_free_bytes=st.sampled_from([0, 512 * MIB, 3 * GIB, 99 * GIB]),
    oversubscribe=st.sampled_from([1.0, 1.1, 1.25, 1.5, 2.0, 2.3, 3.0]),
    exclude=st.lists(
        st.sampled_from(["0", "1:1", "GPU-0002", "MIG-0000"]), max_size=2
    ).map(tuple),
    sticky=st.booleans(),
)
arrivals = st.tuples(st.sampled_from(SHARES), st.integers(0, 9))
departures = st.integers(0, 99)
quarantines = st.floats(0, 1)
steps = st.lists(st.one_of(arrivals, arrivals, departures, quarantines), max_size=40)


def takes_shares(inventory: Inventory, rules: PlacementRules) -> list[Device]:
    cut = {d.parent_uuid for d in inventory.devices}
    return [
        d
        for d in inventory.devices
        if not d.lost and d.uuid not in cut and not is_excluded(d, rules.exclude)
    ]


def has_room(
    device: Device, share: Share, ledger: Ledger, rules: PlacementRules
) -> bool:
    """Say what the ledger alone allows, told in another way than the code's."""
    there = ledger.on(device.uuid)
    if any(x.exclusive for x in there) or (share.is_exclusive and there):
        return False
    shareable = device.memory_bytes - max(rules.keep_free_bytes, device.reserved_bytes)
    promised = sum(x.bytes_on(device.uuid) for x in there)
    need = share.bytes_on(device, rules.keep_free_bytes)
    return need > 0 and promised + need <= round(
        max(0, shareable) * rules.oversubscribe
    )


@dataclass
class Asked:
    """A question to placement, and its answer."""

    share: Share
    user: str
    before: Ledger
    outcome: Granted | Refused


def play(
    inventory: Inventory,
    rules: PlacementRules,
    moves: list[tuple[str, int] | int | float],
    uses: Mapping[str, DeviceUse] | None = None,
) -> tuple[Ledger, list[Asked]]:
    """Let attendees come, leave and be quarantined; note all questions."""
    ledger, asked = Ledger(), []
    for number, move in enumerate(moves):
        if not isinstance(move, tuple):
            ids = list(ledger.leases)
            if not ids:
                continue
            if isinstance(move, int):
                ledger = ledger.without([ids[move % len(ids)]])
            else:
                ledger = ledger.quarantine(ids[int(move * (len(ids) - 1))])
            continue
        share, user = Share.parse(move[0]), f"zoe{move[1]}"
        outcome = place(
            share=share,
            key=(user, ""),
            inventory=inventory,
            ledger=ledger,
            uses=uses or {},
            rules=rules,
        )
        asked.append(Asked(share, user, ledger, outcome))
        if isinstance(outcome, Granted):
            lease = Lease(
                id=f"lease{number}",
                user=user,
                server="",
                share=str(share),
                exclusive=share.is_exclusive,
                devices=outcome.devices,
                granted_at=0.0,
            )
            ledger = ledger.with_lease(lease)
    return ledger, asked


@given(inventories(), rules_of_any_kind, steps)
def test_no_device_is_ever_promised_beyond_what_it_has(inventory, rules, moves):
    ledger, asked = play(inventory, rules, moves)
    for at in [*(a.before for a in asked), ledger]:
        for device in inventory.devices:
            there = at.on(device.uuid)
            promised = sum(x.bytes_on(device.uuid) for x in there)
            shareable = device.shareable_bytes(rules.keep_free_bytes)
            assert promised <= round(shareable * rules.oversubscribe)
            if any(x.exclusive for x in there):
                assert len(there) == 1


@given(inventories(), rules_of_any_kind, steps)
def test_a_grant_names_as_many_usable_devices_as_the_share(inventory, rules, moves):
    usable = {d.uuid: d for d in takes_shares(inventory, rules)}
    for a in play(inventory, rules, moves)[1]:
        if isinstance(a.outcome, Granted):
            parts = a.outcome.devices
            assert len({x.uuid for x in parts}) == len(parts) == a.share.device_count
            for x in parts:
                device = usable[x.uuid]
                assert x.total_bytes == device.memory_bytes
                assert x.label == device.label
                assert x.memory_bytes == a.share.bytes_on(device, rules.keep_free_bytes)


@given(inventories(), rules_of_any_kind, steps)
def test_a_share_is_refused_only_when_it_truly_does_not_fit(inventory, rules, moves):
    usable = takes_shares(inventory, rules)
    for a in play(inventory, rules, moves)[1]:
        room = sum(has_room(d, a.share, a.before, rules) for d in usable)
        fits = room >= a.share.device_count
        assert isinstance(a.outcome, Granted) is fits


@given(inventories(), rules_of_any_kind, steps)
def test_round_robin_never_gives_a_device_with_more_leases_than_another_with_room(
    inventory, rules, moves
):
    rules = replace(rules, policy=Policy.ROUND_ROBIN, sticky=False)
    usable = takes_shares(inventory, rules)
    for a in play(inventory, rules, moves)[1]:
        if isinstance(a.outcome, Refused) or not a.outcome.devices:
            continue
        fitting = [d for d in usable if has_room(d, a.share, a.before, rules)]
        fewest = min(len(a.before.on(d.uuid)) for d in fitting)
        for x in a.outcome.devices:
            assert len(a.before.on(x.uuid)) == fewest
        # Among those, the next after the last given, and round.
        order = [d.uuid for d in inventory.devices]
        start = order.index(a.before.last_device) + 1 if a.before.last_device else 0
        turn = order[start:] + order[:start]
        ties = {d.uuid for d in fitting if len(a.before.on(d.uuid)) == fewest}
        expected = [u for u in turn if u in ties][: a.share.device_count]
        assert [x.uuid for x in a.outcome.devices] == expected


@given(inventories(), rules_of_any_kind, steps)
def test_who_comes_back_gets_the_same_device_if_it_has_room(inventory, rules, moves):
    rules = replace(rules, sticky=True)
    usable = takes_shares(inventory, rules)
    for a in play(inventory, rules, moves)[1]:
        if isinstance(a.outcome, Refused):
            continue
        before = a.before.previous.get((a.user, ""), ())
        again = {
            d.uuid
            for d in usable
            if d.uuid in before and has_room(d, a.share, a.before, rules)
        }
        got = {x.uuid for x in a.outcome.devices}
        assert len(got & again) == min(len(again), a.share.device_count)


@given(inventories(), rules_of_any_kind, steps)
def test_the_same_question_has_the_same_answer(inventory, rules, moves):
    for a in play(inventory, rules, moves)[1]:
        reordered = replace(a.before, leases=dict(reversed(a.before.leases.items())))
        again = place(
            share=a.share,
            key=(a.user, ""),
            inventory=inventory,
            ledger=reordered,
            uses={},
            rules=rules,
        )
        assert again == a.outcome


@st.composite
def observations(draw: st.DrawFn, inventory: Inventory) -> dict[str, DeviceUse]:
    uses = {}
    for device in inventory.devices:
        if draw(st.booleans()):
            ids = draw(st.lists(st.integers(0, 45), max_size=6, unique=True))
            held = {f"lease{n}": draw(st.integers(0, 20 * GIB)) for n in ids}
            foreign = draw(st.lists(st.integers(1, 10 * GIB), max_size=2))
            uses[device.uuid] = DeviceUse(
                uuid=device.uuid,
                free_bytes=draw(st.integers(0, device.memory_bytes)),
                by_lease=held,
                in_the_way=tuple((f"culprit{n}", x) for n, x in enumerate(foreign)),
            )
    return uses


def left(
    device: Device, use: DeviceUse | None, ledger: Ledger
) -> tuple[float, list[Lease]]:
    """Return observed free memory less what leases have not used, and who is over."""
    if use is None:
        return float("inf"), []
    there = ledger.on(device.uuid)
    held = use.by_lease
    unused = sum(max(0, x.bytes_on(device.uuid) - held.get(x.id, 0)) for x in there)
    back = sum(n for x, n in held.items() if x not in ledger.leases)
    over = [
        x for x in ledger.leases.values() if held.get(x.id, 0) > x.bytes_on(device.uuid)
    ]
    return use.free_bytes + back - unused, over


@given(st.data(), inventories(), rules_of_any_kind, steps)
def test_a_device_short_of_observed_memory_is_passed_over(
    data, inventory, rules, moves
):
    rules = replace(rules, oversubscribe=1.0)
    uses = data.draw(observations(inventory))
    usable = takes_shares(inventory, rules)
    for a in play(inventory, rules, moves, uses)[1]:
        fitting, short = [], []
        for d in usable:
            if has_room(d, a.share, a.before, rules):
                free, _ = left(d, uses.get(d.uuid), a.before)
                need = a.share.bytes_on(d, rules.keep_free_bytes)
                if free >= need:
                    fitting.append(d)
                elif free + rules.keep_free_bytes < need:
                    short.append(d.uuid)
        if isinstance(a.outcome, Refused):
            assert len(fitting) < a.share.device_count
        else:
            assert not {x.uuid for x in a.outcome.devices} & set(short)


@given(st.data(), inventories(), rules_of_any_kind, steps)
def test_a_refusal_names_names_to_the_organiser_alone(data, inventory, rules, moves):
    uses = data.draw(observations(inventory))
    usable = takes_shares(inventory, rules)
    for a in play(inventory, rules, moves, uses)[1]:
        if isinstance(a.outcome, Granted):
            assert "culprit" not in a.outcome.reason
            assert "zoe" not in a.outcome.reason
            continue
        assert "culprit" not in a.outcome.reason
        assert "zoe" not in a.outcome.reason
        for d in usable:
            use = uses.get(d.uuid)
            if use is None or not has_room(d, a.share, a.before, rules):
                continue
            need = a.share.bytes_on(d, rules.keep_free_bytes)
            free, over = left(d, use, a.before)
            if rules.oversubscribe == 1.0 and free + rules.keep_free_bytes < need:
                for who, _ in use.in_the_way:
                    assert who in a.outcome.detail
                if len(over) <= 5:
                    assert all(x.owner in a.outcome.detail for x in over)
