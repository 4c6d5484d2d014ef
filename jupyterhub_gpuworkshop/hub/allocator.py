"""Ledger and placement behind one door, one for each hub.

Owns every change of the ledger. JupyterHub runs on one event loop, so `claim` is free
of await: no second claim can come between the check and the durable write.
"""

import logging
import uuid
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from jupyterhub_gpuworkshop.core.devices import Inventory
from jupyterhub_gpuworkshop.core.enforcement import in_words
from jupyterhub_gpuworkshop.core.errors import ShareError, ShareRefused
from jupyterhub_gpuworkshop.core.leases import Key, Lease, LeaseState, Ledger
from jupyterhub_gpuworkshop.core.placement import (
    Granted,
    PlacementRules,
    Policy,
    Refused,
    place,
)
from jupyterhub_gpuworkshop.core.shares import Share, ShareKind
from jupyterhub_gpuworkshop.core.sums import usable_devices
from jupyterhub_gpuworkshop.core.units import format_size
from jupyterhub_gpuworkshop.core.wire import (
    ORGANISERS_DETAIL,
    DeviceUse,
    Event,
    EventKind,
    Refusal,
)
from jupyterhub_gpuworkshop.workshop import Workshop

from .ledger import DurableLedger

_BELIEVED_SECONDS = 60.0
"""An observation older than this is left out of placement: the ledger alone decides."""

_REFUSAL_SECONDS = 15 * 60.0
"""How long a refusal makes idle memory *needed*, if nothing is granted meanwhile."""

_EVENTS_KEPT = 5000
"""How many events wait for a service that is away; the oldest go first."""


class Allocator:
    """Grants and releases leases.

    Args:
        store: where leases are kept.
        workshop: the organiser's rules.
        boot_id: of the machine, written into each lease.
        clock: wall-clock seconds since the epoch.
        log: one line for each grant, refusal and release.
        changed: called after each change, to tell the service at once.
    """

    def __init__(
        self,
        store: DurableLedger,
        workshop: Workshop,
        *,
        boot_id: str,
        clock: Callable[[], float],
        log: "logging.Logger | logging.LoggerAdapter[Any]",
        changed: Callable[[], None],
    ) -> None:
        self._store = store
        self._workshop = workshop
        self._boot_id = boot_id
        self._clock = clock
        self._log = log
        self._changed = changed
        self._sequence = 0
        self._events: deque[Event] = deque(maxlen=_EVENTS_KEPT)
        self._refusals: dict[Key, Refusal] = {}
        self._uses: dict[str, DeviceUse] = {}
        self.inventory = Inventory(problem="nobody has looked for GPUs yet")
        self.drained: frozenset[str] = frozenset()
        """Devices that get no new lease, by UUID."""
        self.ledger: Ledger = store.load()
        gpus = workshop.gpus
        self._rules = PlacementRules(
            policy=Policy(gpus.placement),
            keep_free_bytes=gpus.keep_free_per_gpu,
            oversubscribe=gpus.oversubscribe,
            exclude=tuple(gpus.exclude),
            sticky=gpus.sticky,
        )

    def observe(self, inventory: Inventory | None, uses: Collection[DeviceUse]) -> None:
        """Take in what the service sees; an inventory of None changes nothing."""
        if inventory is not None:
            self.inventory = inventory
        self._uses = {use.uuid: use for use in uses}

    def drain(self, devices: Collection[str]) -> None:
        """Give these devices, by UUID, no new lease, and all others again.

        Leases that are there stand until their servers stop.
        """
        now = frozenset(devices)
        for uuid_ in sorted(now - self.drained):
            self._log.info("%s gets no new lease: out of service", self._name(uuid_))
        for uuid_ in sorted(self.drained - now):
            self._log.info("%s gets leases again: in service", self._name(uuid_))
        self.drained = now

    def _name(self, device: str) -> str:
        for known in self.inventory.devices:
            if known.uuid == device:
                return f"GPU {known.label} ({device})"
        return device

    def claim(
        self,
        *,
        user: str,
        server: str,
        groups: Collection[str] = (),
        share: str | None = None,
        engine: str = "",
        engine_id: str = "",
        hook: bool = False,
    ) -> Lease:
        """Grant a lease, written durably before this returns.

        Args:
            user: the attendee.
            server: the server's name; empty for the default server.
            groups: the attendee's hub groups.
            share: what to grant instead of what the workshop file says.
            engine: what the server will run under, as in `Lease`.
            engine_id: what the engine will call it, where that is known before.
            hook: whether a server with devices is given the import hook.

        Raises:
            ShareRefused: no device can take the share; its text is for the attendee.
            LedgerError: the lease could not be written; nothing is granted.
        """
        wanted = self._share_for(user, groups, share)
        outcome = self._place(wanted, (user, server))
        if isinstance(outcome, Refused) and self._workshop.gpus.when_full == "cpu":
            self._refused(user, server, wanted, outcome, "started without a GPU")
            outcome = Granted(
                devices=(),
                reason=f"{outcome.reason} Started without a GPU (gpus.when_full: cpu).",
            )
            wanted = Share(kind=ShareKind.CPU)
        elif isinstance(outcome, Refused):
            self._refused(user, server, wanted, outcome, "refused")
            raise ShareRefused(outcome.reason)
        else:
            self._refusals.pop((user, server), None)
        lease = Lease(
            id=uuid.uuid4().hex,
            user=user,
            server=server,
            share=str(wanted),
            exclusive=wanted.is_exclusive,
            devices=outcome.devices,
            granted_at=self._clock(),
            boot_id=self._boot_id,
            reason=outcome.reason,
            engine=engine,
            engine_id=engine_id,
            hook=hook and bool(outcome.devices),
        )
        self._store.add(lease)
        self.ledger = self.ledger.with_lease(lease)
        self._log.info(
            "Granted %s to %s: %s (%s%s)",
            lease.share,
            lease.owner,
            describe(lease),
            lease.reason,
            self._age_of_inventory(),
        )
        if lease.devices:
            self._log.info("The memory limit of %s is %s", lease.owner, in_words(lease))
        self._tell(EventKind.LEASE_GRANTED, lease, lease.reason)
        return lease

    def identify(
        self, lease_id: str, engine_id: str, *, hook: bool | None = None
    ) -> Lease:
        """Write down what the engine calls a lease's server, durably.

        Args:
            lease_id: the lease.
            engine_id: as in `Lease`.
            hook: whether the server has the import hook; None leaves that as it is.

        Returns:
            The lease, with that in it.

        Raises:
            LedgerError: it could not be written, or there is no such lease.
        """
        lease = self.ledger.leases.get(lease_id)
        if hook is None:
            hook = lease is not None and lease.hook
        self._store.identify(lease_id, engine_id, hook)
        self.ledger = self.ledger.identified(lease_id, engine_id, hook)
        self._changed()
        return self.ledger.leases[lease_id]

    def release(self, lease_id: str, reason: str) -> None:
        """End a lease; one that is gone already does no harm."""
        lease = self.ledger.leases.get(lease_id)
        if lease is None:
            return
        self._store.remove([lease_id])
        self.ledger = self.ledger.without([lease_id])
        self._log.info(
            "Released %s of %s: %s (%s)",
            lease.share,
            lease.owner,
            describe(lease),
            reason,
        )
        self._tell(EventKind.LEASE_RELEASED, lease, reason)

    def quarantine(self, lease_id: str, reason: str) -> None:
        """Keep a lease whose server would not die: its memory is still taken."""
        lease = self.ledger.leases.get(lease_id)
        if lease is None or lease.state is LeaseState.QUARANTINED:
            return
        self._store.quarantine(lease_id)
        self.ledger = self.ledger.quarantine(lease_id)
        self._log.warning(
            "Quarantined the lease of %s on %s: %s",
            lease.owner,
            describe(lease),
            reason,
        )
        self._tell(EventKind.LEASE_QUARANTINED, lease, reason)

    def forget(self, user: str, server: str | None = None) -> None:
        """Forget who is gone: what their servers had last, and what was refused.

        Leases stand: a server may have outlived its account.

        Args:
            user: the attendee.
            server: only this server's; None for all of them.

        Raises:
            LedgerError: it cannot be written.
        """
        self._store.forget(user, server)
        self.ledger = self.ledger.forgetting(user, server)
        self._refusals = {
            key: refusal
            for key, refusal in self._refusals.items()
            if key[0] != user or server not in (None, key[1])
        }

    @property
    def events(self) -> tuple[Event, ...]:
        """What the service has not acknowledged yet, oldest first."""
        return tuple(self._events)

    def acknowledge(self, sequence: int) -> None:
        """Drop the events that are in the history."""
        while self._events and self._events[0].sequence <= sequence:
            self._events.popleft()

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """Who was refused lately and has been granted nothing since."""
        since = self._clock() - _REFUSAL_SECONDS
        self._refusals = {k: r for k, r in self._refusals.items() if r.at >= since}
        return tuple(self._refusals.values())

    def _share_for(
        self, user: str, groups: Collection[str], share: str | None
    ) -> Share:
        if share is None:
            usable = usable_devices(self.inventory, self._rules.exclude)
            return self._workshop.share_for(user, groups, len(usable))[0]
        try:
            return Share.parse(share)
        except ShareError as error:
            self._log.error("The spawner's share for %s: %s", user, error)
            raise ShareRefused(
                "The share set for you cannot be read; the organiser finds the "
                "reason in the hub's log."
            ) from error

    def _place(self, share: Share, key: Key) -> Granted | Refused:
        oldest = self._clock() - _BELIEVED_SECONDS
        uses: Mapping[str, DeviceUse] = {
            uuid: use for uuid, use in self._uses.items() if use.sampled_at >= oldest
        }
        return place(
            share=share,
            key=key,
            inventory=self.inventory,
            ledger=self.ledger,
            uses=uses,
            rules=self._rules,
            drained=self.drained,
        )

    def _refused(
        self, user: str, server: str, share: Share, refused: Refused, outcome: str
    ) -> None:
        now = self._clock()
        owner = f"{user}/{server}" if server else user
        seen = self._age_of_inventory()
        self._log.warning("%s: %s, %s%s", owner, outcome, refused.detail, seen)
        self._refusals[(user, server)] = Refusal(
            user=user, server=server, share=str(share), at=now
        )
        self._add(
            Event(
                at=now,
                kind=EventKind.LEASE_REFUSED,
                user=user,
                server=server,
                reason=refused.reason,
                details={
                    "share": str(share),
                    "outcome": outcome,
                    ORGANISERS_DETAIL: refused.detail,
                },
            )
        )

    def _age_of_inventory(self) -> str:
        """Say how old the picture is that a decision stands on."""
        if not self.inventory.devices:
            return ""
        return f"; inventory of {self._clock() - self.inventory.taken_at:.0f} s ago"

    def _tell(self, kind: EventKind, lease: Lease, reason: str) -> None:
        self._add(
            Event(
                at=self._clock(),
                kind=kind,
                user=lease.user,
                server=lease.server,
                devices=lease.uuids,
                reason=reason,
                details={
                    "lease_id": lease.id,
                    "share": lease.share,
                    "memory_bytes": sum(d.memory_bytes for d in lease.devices),
                    "gpus": ", ".join(d.label for d in lease.devices),
                },
            )
        )

    def _add(self, event: Event) -> None:
        self._sequence += 1
        self._events.append(replace(event, sequence=self._sequence))
        self._changed()


def describe(lease: Lease) -> str:
    """Say what a lease holds: ``GPU 2 (3.1 GiB of its memory)``, or ``no GPU``."""
    return (
        ", ".join(
            f"GPU {device.label} ({format_size(device.memory_bytes)} of its memory)"
            for device in lease.devices
        )
        or "no GPU"
    )
