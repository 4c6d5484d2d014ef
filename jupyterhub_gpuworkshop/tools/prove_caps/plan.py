"""On which device caps are proven, with which leases.

Owns choosing a device whose attendees nothing can happen to. Pure: what the devices
say comes in. The leases are placed as the hub places them, on an empty ledger.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from jupyterhub_gpuworkshop.core.caps import cap_bytes
from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.errors import ProofError
from jupyterhub_gpuworkshop.core.leases import Lease, Ledger
from jupyterhub_gpuworkshop.core.placement import (
    Granted,
    PlacementRules,
    Policy,
    place,
)
from jupyterhub_gpuworkshop.core.shares import Share
from jupyterhub_gpuworkshop.core.sums import usable_devices
from jupyterhub_gpuworkshop.core.units import MIB, format_size
from jupyterhub_gpuworkshop.machine.sampling import Reading
from jupyterhub_gpuworkshop.workshop import Workshop

from .verdict import Limits

_STEPS = 50
_GRANULE = 2 * MIB
"""CUDA's own: no allocation of a framework is smaller on the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is proven where.

    Attributes:
        device: all of it happens there.
        leases: one attendee's, and a second one's where both fit.
        why_alone: why there is no second; else empty.
        limits: what is to be proven.
        need_bytes: what must be free on the device before each trial.
    """

    device: Device
    leases: tuple[Lease, ...]
    why_alone: str
    limits: Limits
    need_bytes: int


def make_plan(
    workshop: Workshop, inventory: Inventory, reading: Reading, *, force: bool = False
) -> Plan:
    """Choose a device, and place one attendee there, or two.

    Args:
        workshop: the organiser's rules.
        inventory: what exists.
        reading: what the devices say now.
        force: also where processes use the device, if the memory is there.

    Raises:
        ProofError: there is nothing to prove, or nowhere that disturbs nobody.
    """
    usable = usable_devices(inventory, workshop.gpus.exclude)
    if not usable:
        problem = inventory.problem or "no GPU was found on this machine"
        raise ProofError(f"There is no GPU to prove caps on: {problem.rstrip('.')}.")
    share = share_to_prove(workshop, len(usable))
    rules = _rules(workshop)
    reasons = []
    for device in usable:
        found = _on_device(device, share, usable, rules)
        if isinstance(found, str):
            reasons.append(found)
            continue
        obstacle = obstacle_on(found, reading, force=force)
        if not obstacle:
            return found
        reasons.append(obstacle)
    raise ProofError(" ".join(dict.fromkeys(reasons)))


def share_to_prove(workshop: Workshop, device_count: int) -> Share:
    """Return the default share; where that is cpu, the first share with a GPU.

    Raises:
        ProofError: nobody gets a GPU.
    """
    shares = workshop.shares
    candidates = (
        workshop.default_share(device_count),
        *shares.groups.values(),
        *shares.users.values(),
    )
    for share in candidates:
        if share.device_count:
            return share
    raise ProofError(
        "Every share in the workshop file is cpu: there is no cap to prove."
    )


def obstacle_on(plan: Plan, reading: Reading, *, force: bool = False) -> str:
    """Return why a trial now would disturb somebody, in a sentence; else nothing."""
    name = plan.limits.device
    sample = reading.of(plan.device.uuid)
    if sample is None:
        problem = reading.problem or "the driver does not answer for it."
        return f"{name} cannot be read: {problem}"
    if not force and sample.processes is None:
        return (
            f"Who uses {name} cannot be read, so a proof could hit somebody; --force "
            "goes on all the same, within the memory that is free."
        )
    if not force and sample.processes:
        pids = ", ".join(str(process.pid) for process in sample.processes)
        return (
            f"{name} is in use by process {pids}: a proof fills memory that attendees "
            "may need. Prove caps before they come; --force goes on all the same, "
            "within the memory that is free."
        )
    if sample.memory_free_bytes < plan.need_bytes:
        return (
            f"{name} has {format_size(sample.memory_free_bytes)} free, and the proof "
            f"needs {format_size(plan.need_bytes)}."
        )
    return ""


def _rules(workshop: Workshop) -> PlacementRules:
    gpus = workshop.gpus
    return PlacementRules(
        policy=Policy(gpus.placement),
        keep_free_bytes=gpus.keep_free_per_gpu,
        oversubscribe=gpus.oversubscribe,
        exclude=tuple(gpus.exclude),
    )


def _on_device(
    device: Device, share: Share, usable: Sequence[Device], rules: PlacementRules
) -> Plan | str:
    """Place two attendees on a device; return why not even one fits otherwise."""
    # A share of several devices is proven on its first, and has all of each.
    others = [other for other in usable if other is not device]
    devices = [device, *others[: share.device_count - 1]]
    ledger = Ledger()
    first = _place(share, "first", ledger, devices, rules)
    if isinstance(first, str):
        return f"{_name(device)}: {first}"
    ledger = ledger.with_lease(first)
    second = _place(share, "second", ledger, devices, rules)
    if isinstance(second, str):
        return _plan(device, (first,), "one share leaves no room for a second")
    if 2 * first.bytes_on(device.uuid) > _usable_bytes(device):
        promised = "gpus.oversubscribe promises its memory more than once"
        return _plan(device, (first,), f"two full shares do not fit: {promised}")
    return _plan(device, (first, second), "")


def _place(
    share: Share,
    user: str,
    ledger: Ledger,
    devices: Collection[Device],
    rules: PlacementRules,
) -> Lease | str:
    outcome = place(
        share=share,
        key=(user, ""),
        inventory=Inventory(devices=tuple(devices)),
        ledger=ledger,
        uses={},
        rules=rules,
    )
    if not isinstance(outcome, Granted):
        return outcome.detail
    return Lease(
        id=f"proof-{user}",
        user=user,
        server="",
        share=str(share),
        exclusive=share.is_exclusive,
        devices=outcome.devices,
        granted_at=time.time(),
        reason=outcome.reason,
    )


def _plan(device: Device, leases: tuple[Lease, ...], why_alone: str) -> Plan:
    lease = leases[0]
    share_bytes = lease.bytes_on(device.uuid)
    block = max(_GRANULE, share_bytes // _STEPS // _GRANULE * _GRANULE)
    cap = cap_bytes(lease)  # more than a share that is too small for a framework
    past = max(share_bytes, cap) + max(share_bytes // 10, 2 * block)
    # A context and what libraries add to it.
    around = 2 * device.context_bytes
    whole = lease.exclusive or past + around > _usable_bytes(device)
    need = share_bytes if whole else past + around
    return Plan(
        device=device,
        leases=leases,
        why_alone=why_alone,
        limits=Limits(
            device=_name(device),
            share=lease.share,
            share_bytes=share_bytes,
            cap_bytes=cap,
            block_bytes=block,
            past_bytes=device.memory_bytes + block if whole else past,
            whole=whole,
        ),
        need_bytes=max(need, share_bytes * len(leases)),
    )


def _usable_bytes(device: Device) -> int:
    return device.memory_bytes - device.reserved_bytes


def _name(device: Device) -> str:
    kind = "MIG slice" if device.parent_uuid else "GPU"
    return f"{kind} {device.label}"
