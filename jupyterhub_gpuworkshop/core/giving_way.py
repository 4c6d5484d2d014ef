"""Which idle servers would give a share to whom it was refused.

Owns the answer to "does it help anybody if this server is stopped?", by the same
placement that refused. At most one server gives way for one refusal: where a share
would take several (2 gpus, say), none does.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from .devices import Inventory
from .errors import ShareError
from .leases import Lease, Ledger
from .placement import Granted, PlacementRules, place
from .shares import Share, ShareKind
from .wire import DeviceUse, Refusal


def who_gives_way(
    refusals: Iterable[Refusal],
    candidates: Sequence[str],
    leases: Iterable[Lease],
    *,
    inventory: Inventory,
    uses: Mapping[str, DeviceUse],
    rules: PlacementRules,
    drained: Collection[str] = (),
    served: Collection[Refusal] = (),
) -> dict[str, Refusal]:
    """Return whose server should be stopped for whom: by lease id.

    Args:
        refusals: who waits; the longest waiting come first.
        candidates: ids of leases whose servers may be stopped, the best first.
        leases: all that stand, without those whose servers are being stopped.
        inventory: what exists.
        uses: what was observed, by UUID.
        rules: the organiser's.
        drained: UUIDs of what is out of service.
        served: refusals for which a server was stopped before. No other is; what it
            left is kept for them.
    """
    ledger = Ledger(leases={lease.id: lease for lease in leases})
    left = [lease_id for lease_id in candidates if lease_id in ledger.leases]
    chosen: dict[str, Refusal] = {}
    for refusal in sorted(refusals, key=lambda each: each.at):
        try:
            share = Share.parse(refusal.share)
        except ShareError:
            continue
        if share.kind is ShareKind.CPU:
            continue
        # None: it may be that there is room by now, and trying again would do.
        for lease_id in (None, *(() if refusal in served else left)):
            without = ledger.without([lease_id] if lease_id else [])
            outcome = place(
                share=share,
                key=(refusal.user, refusal.server),
                inventory=inventory,
                ledger=without,
                uses=uses,
                rules=rules,
                drained=drained,
            )
            if not isinstance(outcome, Granted):
                continue
            ledger = without.with_lease(_reserved(refusal, share, outcome))
            if lease_id is not None:
                left.remove(lease_id)
                chosen[lease_id] = refusal
            break
    return chosen


def _reserved(refusal: Refusal, share: Share, granted: Granted) -> Lease:
    """Return the lease that they would get, so that no other counts on its room."""
    return Lease(
        id=f"refused: {refusal.user}/{refusal.server}",
        user=refusal.user,
        server=refusal.server,
        share=refusal.share,
        exclusive=share.is_exclusive,
        devices=granted.devices,
        granted_at=refusal.at,
    )
