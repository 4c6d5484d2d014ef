"""A lease as a row of the ledger's table.

Owns how one is written as the other. The table itself is `ledger`'s.
"""

import json
from typing import Any

from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice, LeaseState


def row_of(lease: Lease) -> dict[str, Any]:
    """Return the row of a lease, by the names of its columns."""
    devices = [
        {
            "uuid": d.uuid,
            "label": d.label,
            "memory_bytes": d.memory_bytes,
            "total_bytes": d.total_bytes,
            "context_bytes": d.context_bytes,
        }
        for d in lease.devices
    ]
    return {
        "id": lease.id,
        "user_name": lease.user,
        "server_name": lease.server,
        "share": lease.share,
        "exclusive": lease.exclusive,
        "devices": json.dumps(devices),
        "granted_at": lease.granted_at,
        "boot_id": lease.boot_id,
        "reason": lease.reason,
        "state": lease.state.value,
        "engine": lease.engine,
        "engine_id": lease.engine_id,
        "hook": lease.hook,
    }


def lease_of(row: Any) -> Lease:
    """Return the lease of a row, with its columns in the order of the table.

    Raises:
        ValueError: the row is damaged.
        TypeError: it is.
    """
    (
        lease_id,
        user,
        server,
        share,
        exclusive,
        devices,
        granted_at,
        boot_id,
        reason,
        state,
        engine,
        engine_id,
        hook,
    ) = row
    return Lease(
        id=lease_id,
        user=user,
        server=server,
        share=share,
        exclusive=exclusive,
        devices=tuple(LeasedDevice(**device) for device in json.loads(devices)),
        granted_at=granted_at,
        boot_id=boot_id,
        reason=reason,
        state=LeaseState(state),
        engine=engine,
        engine_id=engine_id,
        hook=hook,
    )
