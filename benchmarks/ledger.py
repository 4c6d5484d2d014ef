"""Grant and release, with placement, beside leases that stand.

Against what no ledger can do without: an insert that is on the disk when it returns.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from math import ceil
from pathlib import Path

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import DeviceUse
from jupyterhub_gpuworkshop.hub.allocator import Allocator
from jupyterhub_gpuworkshop.hub.ledger import DurableLedger
from jupyterhub_gpuworkshop.workshop import Workshop

from .report import Row, paired, seconds

_AIM = 2.0
_EACH_TURN = 20
_OURS = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL"
"""As hub.database sets them."""


def run(
    folder: Path, *, turns: int = 25, leases: int = 1_000, devices: int = 64
) -> Iterator[Row]:
    """Compare.

    Args:
        folder: on a real disk: where fsync costs nothing the ratio says nothing.
        turns: pairs of turns for each row.
        leases: how many stand.
        devices: how many there are.
    """
    allocator = filled_allocator(folder / "ledger.sqlite", leases, devices)
    guests = count()

    def grant_and_release() -> None:
        # As many attendees come again and again as a workshop has.
        user = f"guest{next(guests) % 100}"
        lease = allocator.claim(user=user, server="")
        allocator.release(lease.id, "the benchmark goes on")

    def ours() -> float:
        _observe(allocator)
        return seconds(grant_and_release, _EACH_TURN)

    standing = next(iter(allocator.ledger.leases.values()))
    for pragmas, how in ((_OURS, "our pragmas"), ("", "sqlite3's defaults")):
        for with_delete in (False, True):
            bare = BareTable(folder / f"{how}-{with_delete}.sqlite", pragmas, standing)
            work = bare.insert_and_delete if with_delete else bare.insert
            times = paired(ours, partial(_bare_turn, bare, work), turns)
            bare.close()
            what = "insert and delete" if with_delete else "insert"
            yield Row(
                what=f"grant and release / bare {what}, {how}",
                ours=times[0],
                bare=times[1],
                aim=_AIM,
            )


def _bare_turn(bare: "BareTable", work: Callable[[], None]) -> float:
    elapsed = seconds(work, _EACH_TURN)
    bare.tidy()
    return elapsed


def filled_allocator(path: Path, leases: int, devices: int) -> Allocator:
    """Return an allocator on which so many leases stand, each granted by it."""
    log = logging.getLogger("benchmarks.ledger")
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in tuple(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.addHandler(logging.FileHandler(path.with_suffix(".log")))
    allocator = Allocator(
        DurableLedger(f"sqlite:///{path}"),
        Workshop.load({"gpus": {"attendees_per_gpu": ceil(leases / devices) + 4}}),
        boot_id="benchmark",
        clock=time.time,
        log=log,
        changed=lambda: None,
    )
    inventory = Inventory(
        devices=tuple(
            Device(
                uuid=f"GPU-00000000-0000-0000-0000-{number:012x}",
                label=str(number),
                name="Simulated GPU",
                memory_bytes=80 * GIB,
            )
            for number in range(devices)
        ),
        source="simulated",
        taken_at=time.time(),
    )
    allocator.observe(inventory, ())
    for number in range(leases):
        allocator.claim(user=f"attendee{number:04d}", server="")
    return allocator


def _observe(allocator: Allocator) -> None:
    """Tell the allocator what a service would: every lease uses a gibibyte."""
    held: dict[str, dict[str, int]] = {}
    for lease in allocator.ledger.leases.values():
        for uuid in lease.uuids:
            held.setdefault(uuid, {})[lease.id] = GIB
    allocator.observe(
        None,
        tuple(
            DeviceUse(
                uuid=device.uuid,
                free_bytes=device.memory_bytes - GIB * len(held.get(device.uuid, ())),
                by_lease=held.get(device.uuid, {}),
                sampled_at=time.time(),
            )
            for device in allocator.inventory.devices
        ),
    )


class BareTable:
    """The same row in a table of sqlite3's, with nothing around it.

    Args:
        path: of the file.
        pragmas: set at the start; none for sqlite3's defaults, a rollback journal.
        lease: what to insert.
    """

    def __init__(self, path: Path, pragmas: str, lease: Lease) -> None:
        # Each statement is a transaction of its own.
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.executescript(pragmas)
        self._connection.execute(
            "CREATE TABLE leases (id TEXT PRIMARY KEY, user, server, share, exclusive,"
            " devices, granted_at, boot_id, reason, state, engine, engine_id, hook)"
        )
        self._values = (
            lease.user,
            lease.server,
            lease.share,
            lease.exclusive,
            repr(lease.devices),
            lease.granted_at,
            lease.boot_id,
            lease.reason,
            lease.state.value,
            lease.engine,
            lease.engine_id,
            lease.hook,
        )
        self._ids = count()

    def insert(self) -> None:
        """Insert a row; it is on the disk when this returns."""
        self._insert(f"{next(self._ids):032x}")

    def insert_and_delete(self) -> None:
        """Insert a row and delete it: twice the disk is waited for."""
        row_id = f"{next(self._ids):032x}"
        self._insert(row_id)
        self._connection.execute("DELETE FROM leases WHERE id = ?", (row_id,))

    def _insert(self, row_id: str) -> None:
        self._connection.execute(
            "INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (row_id, *self._values),
        )

    def tidy(self) -> None:
        """Empty the table, outside the time that is taken."""
        self._connection.execute("DELETE FROM leases")

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()
