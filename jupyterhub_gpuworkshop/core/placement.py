"""Placement: which device a share goes to, or why it goes nowhere.

Owns the policies and the rule that no device is promised beyond what it has. Pure:
the same share, inventory, ledger and observations give the same answer.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum

from .devices import Device, Inventory
from .leases import Key, LeasedDevice, Ledger
from .shares import Share, ShareKind
from .units import format_size
from .wire import DeviceUse

_WHAT_TO_DO = "Try again when somebody has stopped their server, or ask the organiser."
_NOTHING_TO_WAIT_FOR = "Ask the organiser."


class Policy(str, Enum):
    """Which of the devices with room is taken."""

    ROUND_ROBIN = "round-robin"
    """Among those with the fewest leases, the next after the last given."""
    LEAST_USED = "least-used"
    """The one with the most free memory as observed, less what its leases have not
    used yet (or a storm of arrivals would all see the same free memory)."""
    PACK = "pack"
    """The one with the most leases that still has room."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRules:
    """What the organiser decided, see `gpus` in the workshop file."""

    policy: Policy = Policy.ROUND_ROBIN
    keep_free_bytes: int = 0
    oversubscribe: float = 1.0
    exclude: tuple[str, ...] = ()
    sticky: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A share has found its devices; none for a share of ``cpu``."""

    devices: tuple[LeasedDevice, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A share has found no device.

    Attributes:
        reason: for the attendee: no names and no processes of others.
        detail: for the organiser: one clause a device.
    """

    reason: str
    detail: str


@dataclass(slots=True)
class _Room:
    """What stands on one device, and what is left of it."""

    device: Device
    position: int
    shares: dict[str, int] = field(default_factory=dict)
    leases: int = 0
    promised_bytes: int = 0
    exclusive: bool = False
    free_bytes: int = 0
    blame: str = ""
    who: str = ""


@dataclass(frozen=True, slots=True)
class _Obstacle:
    """Why a device was passed over: for the attendee, for the organiser."""

    reason: str
    detail: str = ""
    full: bool = False
    lasting: bool = False


def is_excluded(device: Device, exclude: Collection[str]) -> bool:
    """Whether `gpus.exclude` names a device: by UUID, its beginning, or its index.

    A MIG slice is excluded with the GPU that it is cut from.
    """
    labels = (device.label, device.label.split(":")[0])
    uuids = (device.uuid, device.parent_uuid or "")
    return any(
        name in labels
        # "GPU-" and "MIG-" begin every UUID and name none.
        or (len(name) > 4 and any(uuid.startswith(name) for uuid in uuids))
        for name in exclude
    )


def place(
    *,
    share: Share,
    key: Key,
    inventory: Inventory,
    ledger: Ledger,
    uses: Mapping[str, DeviceUse],
    rules: PlacementRules,
    drained: Collection[str] = (),
) -> Granted | Refused:
    """Choose the devices for a share.

    Args:
        share: what is asked for.
        key: for whom, so that `sticky` finds the previous device.
        inventory: what exists.
        ledger: what is promised; quarantined leases count in full.
        uses: what was observed, by UUID. A device without an observation is judged
            by the ledger alone, so leave out what is too old to believe.
        rules: the organiser's.
        drained: UUIDs of what an organiser has taken out of service. Leases that are
            there stay, and nobody comes to them or back; a MIG slice is out of
            service with the GPU that it is cut from.
    """
    if share.kind is ShareKind.CPU:
        return Granted(devices=(), reason="a share of cpu needs no GPU")
    if not inventory.devices:
        problem = inventory.problem or "no GPU was found on this machine"
        text = f"There is no GPU to share: {problem}"
        return Refused(reason=text, detail=text)

    rooms = _rooms(inventory, ledger, uses, rules)
    fitting: list[_Room] = []
    obstacles: dict[str, _Obstacle] = {}
    for room in rooms:
        obstacle = _obstacle(room, share, rules, drained)
        if obstacle is None:
            fitting.append(room)
        else:
            obstacles[room.device.uuid] = obstacle
    if len(fitting) < share.device_count:
        return _refuse(share, rooms, obstacles, rules)

    last = next((r for r in rooms if r.device.uuid == ledger.last_device), None)
    chosen, why = _choose(fitting, last, share, key, ledger, rules)
    return Granted(
        devices=tuple(
            LeasedDevice(
                uuid=room.device.uuid,
                label=room.device.label,
                memory_bytes=share.bytes_on(room.device, rules.keep_free_bytes),
                total_bytes=room.device.memory_bytes,
                context_bytes=room.device.context_bytes,
            )
            for room in chosen
        ),
        reason=why,
    )


def _rooms(
    inventory: Inventory,
    ledger: Ledger,
    uses: Mapping[str, DeviceUse],
    rules: PlacementRules,
) -> list[_Room]:
    """Add up, in one pass over the ledger, what stands on each device.

    A GPU that is cut into MIG slices is left out: its memory is theirs.
    """
    cut = {device.parent_uuid for device in inventory.devices}
    rooms = {
        device.uuid: _Room(device, position)
        for position, device in enumerate(inventory.devices)
        if device.uuid not in cut
    }
    for lease in ledger.leases.values():
        for part in lease.devices:
            room = rooms.get(part.uuid)
            if room is None:
                continue
            room.shares[lease.id] = part.memory_bytes
            if lease.exclusive:
                room.exclusive = True
    for uuid, room in rooms.items():
        room.leases = len(room.shares)
        room.promised_bytes = sum(room.shares.values())
        use = uses.get(uuid)
        if use is None:
            room.free_bytes = _capacity(room.device, rules) - room.promised_bytes
        else:
            _observe(room, use, ledger, rules)
    return list(rooms.values())


def _capacity(device: Device, rules: PlacementRules) -> int:
    return device.capacity_bytes(rules.keep_free_bytes, rules.oversubscribe)


def _observe(
    room: _Room, use: DeviceUse, ledger: Ledger, rules: PlacementRules
) -> None:
    """Work out what an arrival could really get, and who takes what is not theirs.

    That is the free memory observed, less what the device's leases have not used
    yet. A lease that was released since the observation gives back what it used.
    """
    device = room.device
    outside = sum(n for _, n in use.in_the_way)
    held = covered = given_back = 0
    over: list[str] = []
    for lease_id, used in use.by_lease.items():
        if lease_id not in ledger.leases:
            given_back += used
            continue
        share = room.shares.get(lease_id, 0)
        held += used
        if used > share:
            covered += share
            over.append(ledger.leases[lease_id].owner)
        else:
            covered += used
    # Each process costs the driver 5 to 9 MiB that NVML counts as used and names to
    # nobody (measured on an H200, driver 580, which reserves 615 MiB as it is). That
    # is what memory is kept free for; it must not cost the last attendee the share.
    unnamed = (
        device.memory_bytes
        - device.reserved_bytes
        - (use.free_bytes + held + given_back + outside)
    )
    free = use.free_bytes + given_back
    free += max(0, min(unnamed, rules.keep_free_bytes))
    unused = room.promised_bytes - covered
    room.free_bytes = round((free + held) * rules.oversubscribe) - held - unused
    room.blame, room.who = _who_is_in_the_way(use, over)


def _who_is_in_the_way(use: DeviceUse, over: list[str]) -> tuple[str, str]:
    """Say who takes memory that is not theirs: without names, and with them."""
    outside = sum(n for _, n in use.in_the_way)
    blame, who = [], []
    if outside:
        blame.append(f"someone outside the hub holds {format_size(outside)}")
        who += [f"{name} holds {format_size(n)}" for name, n in use.in_the_way[:3]]
    if over:
        blame.append("someone uses more than their share")
        who.append(f"over their share: {', '.join(sorted(over)[:5])}")
    return " and ".join(blame), "; ".join(who)


def _obstacle(
    room: _Room, share: Share, rules: PlacementRules, drained: Collection[str]
) -> _Obstacle | None:
    """Say why a device cannot take a share; None where it can."""
    device = room.device
    if is_excluded(device, rules.exclude):
        return _Obstacle(
            "set aside by the organiser", "gpus.exclude names it", lasting=True
        )
    if device.lost:
        return _Obstacle("lost by its driver", lasting=True)
    if device.uuid in drained or device.parent_uuid in drained:
        return _Obstacle("out of service", "an organiser drained it", lasting=True)
    if room.exclusive:
        return _Obstacle("taken whole", "one lease has it alone")
    if share.is_exclusive and room.leases:
        return _Obstacle(f"shared by {room.leases}")
    need = share.bytes_on(device, rules.keep_free_bytes)
    capacity = _capacity(device, rules)
    if need <= 0 or need > capacity:
        return _Obstacle(f"too small ({format_size(capacity)})", lasting=True)
    if room.promised_bytes + need > capacity:
        return _full(room, need, capacity)
    if room.free_bytes < need:
        blame = room.blame or "its memory is not free yet"
        return _Obstacle(
            f"{format_size(max(0, room.free_bytes))} left, {blame}",
            room.who or "memory used by nobody the driver names",
        )
    return None


def _full(room: _Room, need: int, capacity: int) -> _Obstacle:
    if room.promised_bytes == room.leases * need:
        shares = capacity // need
        noun = "share" if shares == 1 else "shares"
        return _Obstacle(f"{room.leases} of {shares} {noun} taken", full=True)
    return _Obstacle(
        f"{format_size(room.promised_bytes)} of {format_size(capacity)} "
        f"promised to {room.leases}"
    )


def _choose(
    fitting: list[_Room],
    last: _Room | None,
    share: Share,
    key: Key,
    ledger: Ledger,
    rules: PlacementRules,
) -> tuple[list[_Room], str]:
    """Take as many devices as the share names, best first."""
    order = _ORDER[rules.policy]
    ranked = sorted(fitting, key=lambda room: (order(room), _after(last, room)))
    if rules.sticky and (before := ledger.previous.get(key)):
        ranked.sort(key=lambda room: room.device.uuid not in before)
        if ranked[0].device.uuid in before:
            chosen = ranked[: share.device_count]
            again = ", ".join(r.device.label for r in chosen if r.device.uuid in before)
            return chosen, f"sticky: GPU {again} as last time"
    chosen = ranked[: share.device_count]
    return chosen, f"{rules.policy.value}: {_WHY[rules.policy](chosen[0])}"


def _after(last: _Room | None, room: _Room) -> tuple[bool, int]:
    """Order the devices as their turn comes after the one given last."""
    return (last is not None and room.position <= last.position, room.position)


_ORDER: Mapping[Policy, Callable[[_Room], tuple[float, ...]]] = {
    Policy.ROUND_ROBIN: lambda room: (room.leases,),
    Policy.LEAST_USED: lambda room: (-room.free_bytes, room.leases),
    Policy.PACK: lambda room: (-room.leases, room.position),
}
_WHY: Mapping[Policy, Callable[[_Room], str]] = {
    Policy.ROUND_ROBIN: lambda room: (
        f"GPU {room.device.label} had the fewest leases ({room.leases})"
    ),
    Policy.LEAST_USED: lambda room: (
        f"GPU {room.device.label} had the most memory left "
        f"({format_size(max(0, room.free_bytes))})"
    ),
    Policy.PACK: lambda room: (
        f"GPU {room.device.label} was filled first ({room.leases} leases)"
    ),
}


def _refuse(
    share: Share,
    rooms: list[_Room],
    obstacles: Mapping[str, _Obstacle],
    rules: PlacementRules,
) -> Refused:
    """Put the refusal in words: what is taken, by whom, and what to do."""
    detail = "; ".join(
        f"GPU {room.device.label}: {obstacle.reason}"
        + (f" ({obstacle.detail})" if obstacle.detail else "")
        for room in rooms
        if (obstacle := obstacles.get(room.device.uuid)) is not None
    )
    usable = [r for r in rooms if not is_excluded(r.device, rules.exclude)] or rooms
    in_the_way = [
        (room, obstacle)
        for room in usable
        if (obstacle := obstacles.get(room.device.uuid)) is not None
    ]
    clauses = "; ".join(f"GPU {r.device.label}: {o.reason}" for r, o in in_the_way)
    reasons = {obstacle.reason for _, obstacle in in_the_way}
    alike = len(in_the_way) == len(usable) and len(reasons) == 1
    lasting = share.device_count > sum(
        obstacle is None or not obstacle.lasting
        for obstacle in (obstacles.get(room.device.uuid) for room in usable)
    )
    if alike and in_the_way[0][1].full:
        taken = reasons.pop().removesuffix(" taken")
        single = len(usable) == 1
        gpus = "The GPU is" if single else f"All {len(usable)} GPUs are"
        reason = f"{gpus} taken: {taken}{'' if single else ' each'}."
    elif share.is_exclusive:
        alone = len(usable) - len(in_the_way)
        reason = (
            f"A share of {share} is not to be had. GPUs with nobody on them: "
            f"{alone} of {len(usable)}." + (f" {clauses}." if clauses else "")
        )
    else:
        reason = f"No GPU has room for a share of {share}. {clauses}."
    what_to_do = _NOTHING_TO_WAIT_FOR if lasting else _WHAT_TO_DO
    return Refused(
        reason=f"{reason} {what_to_do}", detail=f"no room for {share}: {detail}"
    )
