"""A room whose attendees come and go, for the tests of placement."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.leases import Lease, Ledger
from jupyterhub_gpuworkshop.core.placement import (
    Granted,
    PlacementRules,
    Refused,
    place,
)
from jupyterhub_gpuworkshop.core.shares import Share
from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.core.wire import DeviceUse

KEEP_FREE = 512 * MIB
RULES = PlacementRules(keep_free_bytes=KEEP_FREE)
FIFTH = Share.parse("1/5")
TRY_AGAIN = " Try again when somebody has stopped their server, or ask the organiser."


def uuid(number: int) -> str:
    return f"GPU-{number:08x}-0000"


def gpus(count: int, gib: int = 16, **more: object) -> Inventory:
    return Inventory(
        devices=tuple(
            Device(
                uuid=uuid(number),
                label=str(number),
                name="Test GPU",
                memory_bytes=gib * GIB,
                **more,  # type: ignore[arg-type]  # passed on as they come
            )
            for number in range(count)
        ),
        source="simulated",
    )


@dataclass
class Room:
    """A room whose attendees come and go."""

    inventory: Inventory
    rules: PlacementRules = RULES
    ledger: Ledger = field(default_factory=Ledger)
    drained: frozenset[str] = frozenset()
    count: int = 0

    def ask(
        self,
        share: Share = FIFTH,
        user: str = "",
        uses: Mapping[str, DeviceUse] | None = None,
    ) -> Granted | Refused:
        return place(
            share=share,
            key=(user or f"user{self.count}", ""),
            inventory=self.inventory,
            ledger=self.ledger,
            uses=uses or {},
            rules=self.rules,
            drained=self.drained,
        )

    def arrive(
        self,
        share: Share = FIFTH,
        user: str = "",
        uses: Mapping[str, DeviceUse] | None = None,
    ) -> Lease:
        outcome = self.ask(share, user, uses)
        assert isinstance(outcome, Granted), outcome
        self.count += 1
        lease = Lease(
            id=f"lease{self.count}",
            user=user or f"user{self.count - 1}",
            server="",
            share=str(share),
            exclusive=share.is_exclusive,
            devices=outcome.devices,
            granted_at=0.0,
        )
        self.ledger = self.ledger.with_lease(lease)
        return lease

    def fill(self, count: int, share: Share = FIFTH) -> list[Lease]:
        return [self.arrive(share) for _ in range(count)]

    def leave(self, lease: Lease) -> None:
        self.ledger = self.ledger.without([lease.id])

    def spread(self) -> list[int]:
        return [len(self.ledger.on(d.uuid)) for d in self.inventory.devices]

    def refused(self, share: Share = FIFTH, **more: object) -> Refused:
        outcome = self.ask(share, **more)  # type: ignore[arg-type]  # as `ask` takes
        assert isinstance(outcome, Refused), outcome
        return outcome


def use(
    number: int,
    free: int,
    by_lease: Mapping[str, int] | None = None,
    in_the_way: tuple[tuple[str, int], ...] = (),
) -> dict[str, DeviceUse]:
    return {
        uuid(number): DeviceUse(
            uuid=uuid(number),
            free_bytes=free,
            by_lease=by_lease or {},
            in_the_way=in_the_way,
        )
    }
