"""A process that writes a ledger until it is killed, saying what it has done."""

import os
import sys

from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.hub.ledger import DurableLedger


def main(url: str, name: str) -> None:
    """Add leases, and release every third, until killed."""
    ledger = DurableLedger(url)
    number = 0
    while True:
        number += 1
        lease_id = f"{name}-{number}"
        ledger.add(
            Lease(
                id=lease_id,
                user=f"user-{lease_id}",
                server="",
                share="1/5",
                devices=(
                    LeasedDevice(uuid="a", label="0", memory_bytes=5, total_bytes=25),
                ),
                granted_at=float(number),
            )
        )
        os.write(1, f"added {lease_id}\n".encode())
        if number % 3 == 0:
            os.write(1, f"removing {lease_id}\n".encode())
            ledger.remove([lease_id])
            os.write(1, f"removed {lease_id}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
