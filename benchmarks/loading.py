"""Loading a large ledger, as a hub does when it starts.

Against reading the same rows with sqlite3 and making nothing of them.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from jupyterhub_gpuworkshop.hub.ledger import DurableLedger

from .ledger import filled_allocator
from .report import Row, paired, seconds

_COPY_LEASES = """
WITH RECURSIVE number(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < ?)
INSERT INTO gpuworkshop_leases
SELECT printf('%032x', n), printf('copy%06d', n), server_name, share, exclusive,
       devices, granted_at, boot_id, reason, state, engine, engine_id, hook
FROM number JOIN original ON number.n % ? = original.position
"""
_COPY_PREVIOUS = """
INSERT OR REPLACE INTO gpuworkshop_previous
SELECT user_name, server_name, json_array(json_extract(devices, '$[0].uuid')),
       row_number() OVER ()
FROM gpuworkshop_leases
"""
_ORIGINAL = """
CREATE TEMP TABLE original AS
SELECT row_number() OVER () - 1 AS position, * FROM gpuworkshop_leases
"""


def run(
    folder: Path, *, turns: int = 15, leases: int = 10_000, devices: int = 64
) -> Iterator[Row]:
    """Compare.

    Args:
        folder: where the ledger is made.
        turns: pairs of turns for each row.
        leases: how many the ledger holds.
        devices: how many they stand on.
    """
    path = folder / "loading.sqlite"
    _fill(path, leases, devices)
    store = DurableLedger(f"sqlite:///{path}")
    connection = sqlite3.connect(path)
    found = len(store.load().leases)
    if found != leases:
        raise AssertionError(f"{found} leases were loaded, not {leases}")
    ours, bare = paired(
        lambda: seconds(store.load), lambda: seconds(lambda: _select(connection)), turns
    )
    yield Row(what=f"load {leases} leases / SELECT *", ours=ours, bare=bare)
    store.close()
    connection.close()
    ours, bare = paired(
        lambda: seconds(lambda: _open_and_load(path)),
        lambda: seconds(lambda: _open_and_select(path)),
        turns,
    )
    yield Row(
        what=f"open, check and load {leases} leases / open and SELECT *",
        ours=ours,
        bare=bare,
    )


def _select(connection: sqlite3.Connection) -> None:
    for table in ("gpuworkshop_leases", "gpuworkshop_previous"):
        connection.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608  # ours


def _open_and_load(path: Path) -> None:
    store = DurableLedger(f"sqlite:///{path}")
    store.load()
    store.close()


def _open_and_select(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        _select(connection)


def _fill(path: Path, leases: int, devices: int) -> None:
    """Grant one lease a device, and copy the rows until there are enough."""
    originals = min(devices, leases)
    filled_allocator(path, originals, devices)
    copies = leases - originals
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(_ORIGINAL)
        if copies:
            connection.execute(_COPY_LEASES, (copies - 1, originals))
        connection.execute(_COPY_PREVIOUS)
