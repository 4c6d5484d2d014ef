"""DurableLedger: the ledger on disk.

Owns the tables of the ledger and when a change is safe from kill -9 and from power
loss. It decides nothing: the value in memory (`core.leases.Ledger`) and what may
stand in it are the allocator's. All of it is synchronous, short, and for one thread:
the hub's event loop.

SQLite runs with a write-ahead log and ``synchronous=FULL``: one fsync per grant, a
third of the time of the rollback journal. A release alone is not synced. It survives
the death of the hub, and where the machine loses power, the lease that comes back is
of an earlier boot, and void.
"""

import json
import logging
from collections.abc import Callable, Collection
from itertools import count
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    Index,
    MetaData,
    Table,
    Text,
    bindparam,
    delete,
    false,
    func,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from jupyterhub_gpuworkshop.core.errors import LedgerError, LedgerTooNew
from jupyterhub_gpuworkshop.core.leases import Key, Lease, LeaseState, Ledger

from . import migrations
from .database import Database, Prepared, open_database
from .lease_rows import lease_of, row_of

log = logging.getLogger(__name__)

PREVIOUS_KEPT = 10_000
"""How many (user, server) the ledger remembers the last devices of."""

_PRUNE_EVERY = 1_000

_T = TypeVar("_T")

METADATA = MetaData()
LEASES = Table(
    "gpuworkshop_leases",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("user_name", Text, nullable=False),
    Column("server_name", Text, nullable=False),
    Column("share", Text, nullable=False),
    Column("exclusive", Boolean, nullable=False),
    Column("devices", Text, nullable=False),  # JSON: one row is one lease
    Column("granted_at", Double, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("engine", Text, nullable=False, server_default=""),
    Column("engine_id", Text, nullable=False, server_default=""),
    Column("hook", Boolean, nullable=False, server_default=false()),
    Index(
        "gpuworkshop_one_active_lease",
        "user_name",
        "server_name",
        unique=True,
        sqlite_where=text("state = 'active'"),
        postgresql_where=text("state = 'active'"),
    ),
    sqlite_with_rowid=False,
)
PREVIOUS = Table(
    "gpuworkshop_previous",
    METADATA,
    Column("user_name", Text, primary_key=True),
    Column("server_name", Text, primary_key=True),
    Column("devices", Text, nullable=False),  # JSON: UUIDs
    Column("sequence", BigInteger, nullable=False),  # of the grant; the highest is last
    sqlite_with_rowid=False,
)

_ALL_LEASES = select(LEASES).order_by(LEASES.c.granted_at, LEASES.c.id)
_ALL_PREVIOUS = select(PREVIOUS).order_by(PREVIOUS.c.sequence)
_LAST_SEQUENCE = select(func.coalesce(func.max(PREVIOUS.c.sequence), 0))
_DELETE = delete(LEASES).where(LEASES.c.id == bindparam("lease_id"))
_QUARANTINE = (
    update(LEASES)
    .where(LEASES.c.id == bindparam("lease_id"))
    .values(state=LeaseState.QUARANTINED.value)
)
_IDENTIFY = (
    update(LEASES)
    .where(LEASES.c.id == bindparam("lease_id"))
    .values(engine_id=bindparam("name"), hook=bindparam("has_hook"))
)
_PRUNE = delete(PREVIOUS).where(
    PREVIOUS.c.sequence
    <= select(PREVIOUS.c.sequence)
    .order_by(PREVIOUS.c.sequence.desc())
    .limit(1)
    .offset(PREVIOUS_KEPT)
    .scalar_subquery()
)


class DurableLedger:
    """The ledger in SQLite or PostgreSQL.

    Args:
        url: SQLAlchemy's, such as ``sqlite:////srv/jupyterhub/gpuworkshop.sqlite``
            or ``postgresql://gpuworkshop:...@db/jupyterhub``.

    Raises:
        LedgerTooNew: newer code has written it.
        LedgerError: it cannot be opened, or is damaged.
    """

    def __init__(self, url: str) -> None:
        self._database: Database = open_database(url)
        # Leases whose commit ended in an error: the caller holds them for refused,
        # the database may hold them for granted. The next write settles it.
        self._doubtful: set[str] = set()
        dialect = self._database.dialect
        insert: Any = sqlite.insert if dialect.name == "sqlite" else postgresql.insert
        row = insert(PREVIOUS)
        self._insert = Prepared(
            insert(LEASES).on_conflict_do_nothing(index_elements=["id"]), dialect
        )
        self._remember = Prepared(
            row.on_conflict_do_update(
                index_elements=["user_name", "server_name"],
                set_={
                    "devices": row.excluded.devices,
                    "sequence": row.excluded.sequence,
                },
            ),
            dialect,
        )
        self._delete = Prepared(_DELETE, dialect)
        self._quarantine = Prepared(_QUARANTINE, dialect)
        self._identify = Prepared(_IDENTIFY, dialect)
        try:
            self._run("be opened", self._migrate)
            last = self._run("be read", lambda c, _: c.scalar(_LAST_SEQUENCE))
        except BaseException:
            self.close()
            raise
        self._sequence = count((last or 0) + 1)

    def load(self) -> Ledger:
        """Return what is on disk.

        Raises:
            LedgerError: it cannot be read.
        """
        leases, previous = self._run("be read", self._read)
        return Ledger(
            leases={lease.id: lease for lease in leases},
            # They come in the order of their grants.
            last_device=list(previous.values())[-1][-1] if previous else None,
            previous=previous,
        )

    def add(self, lease: Lease) -> None:
        """Write a lease; it survives kill -9 and power loss once this returns.

        Raises:
            LedgerError: nothing is granted: the disk is full, the database is locked
                or gone, or (user, server) has an active lease already.
        """
        row = row_of(lease)
        sequence = next(self._sequence) if lease.devices else 0

        def write(connection: Connection, again: bool) -> None:
            added = self._insert.run(connection, row)
            # The second time it may be there: the connection dropped after the commit.
            if not added and not again:
                raise LedgerError(
                    f"The ledger {self._database.where} has a lease {lease.id} already."
                )
            if lease.devices:
                self._remember.run(
                    connection,
                    {
                        "user_name": lease.user,
                        "server_name": lease.server,
                        "devices": json.dumps(lease.uuids),
                        "sequence": sequence,
                    },
                )
                if sequence % _PRUNE_EVERY == 0:
                    connection.execute(_PRUNE)

        try:
            self._run(f"take the lease of {lease.owner}", write)
        except LedgerError as error:
            if isinstance(error.__cause__, IntegrityError):
                raise LedgerError(
                    f"{lease.owner} has an active lease in the ledger "
                    f"{self._database.where} already: release or quarantine it first."
                ) from error
            if error.__cause__ is not None:
                self._doubtful.add(lease.id)
            raise

    def quarantine(self, lease_id: str) -> None:
        """Write that a lease is quarantined.

        Raises:
            LedgerError: it cannot be written, or the ledger has no such lease.
        """

        def write(connection: Connection, _again: bool) -> None:
            if not self._quarantine.run(connection, {"lease_id": lease_id}):
                raise LedgerError(
                    f"The ledger {self._database.where} has no lease {lease_id} to "
                    "quarantine."
                )

        self._run("quarantine a lease", write)

    def identify(self, lease_id: str, engine_id: str, hook: bool) -> None:
        """Write what the engine calls a lease's server, and whether it has the hook.

        Raises:
            LedgerError: it cannot be written, or the ledger has no such lease.
        """

        def write(connection: Connection, _again: bool) -> None:
            row = {"lease_id": lease_id, "name": engine_id, "has_hook": hook}
            if not self._identify.run(connection, row):
                raise LedgerError(
                    f"The ledger {self._database.where} has no lease {lease_id} to "
                    "name a server for."
                )

        self._run("name a lease's server", write)

    def remove(self, lease_ids: Collection[str]) -> None:
        """Take leases off the disk; ids it does not hold do no harm.

        Raises:
            LedgerError: it cannot be written; all of the leases are still there.
        """
        if not lease_ids:
            return
        rows = [{"lease_id": lease_id} for lease_id in lease_ids]

        def write(connection: Connection, _again: bool) -> None:
            self._delete.run(connection, *rows)

        with self._database.unsynced():
            self._run("release a lease", write)

    def forget(self, user: str, server: str | None = None) -> None:
        """Forget which devices a user's servers had last.

        Args:
            user: the attendee.
            server: only this server's; None for all of them.

        Raises:
            LedgerError: it cannot be written.
        """
        statement = delete(PREVIOUS).where(PREVIOUS.c.user_name == user)
        if server is not None:
            statement = statement.where(PREVIOUS.c.server_name == server)

        def write(connection: Connection, _again: bool) -> None:
            connection.execute(statement)

        self._run("forget a user's devices", write)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def _migrate(self, connection: Connection, _again: bool) -> None:
        where = self._database.where
        self._database.lock(connection)
        if unknown := migrations.unknown_revisions(connection):
            raise LedgerTooNew(
                f"The ledger {where} was written by a newer version of "
                f"jupyterhub-gpuworkshop (its revision is {', '.join(unknown)}). "
                "Upgrade jupyterhub-gpuworkshop in the hub's environment; or stop all "
                f"servers, {self._database.move_away}, and start the hub with an empty "
                "ledger: servers that run on without a lease keep their GPU memory, "
                "and their GPUs would be promised a second time."
            )
        migrations.upgrade(connection)

    def _read(
        self, connection: Connection, _again: bool
    ) -> tuple[list[Lease], dict[Key, tuple[str, ...]]]:
        connection.execute(_PRUNE)
        row: Any = ("", "")
        try:
            leases = [lease_of(row := r) for r in connection.execute(_ALL_LEASES)]
            previous = {
                (row.user_name, row.server_name): tuple(json.loads(row.devices))
                for row in connection.execute(_ALL_PREVIOUS)
            }
        except (ValueError, TypeError) as error:
            raise LedgerError(
                f"The ledger {self._database.where} is damaged at the lease {row[0]} "
                f"of {row[1]} ({error}). Restore it from a backup; or stop all "
                f"servers, {self._database.move_away}, and start the hub."
            ) from error
        return leases, previous

    def _run(self, doing: str, work: Callable[[Connection, bool], _T]) -> _T:
        """Do work in one transaction; once more where the connection was dropped."""
        try:
            try:
                return self._once(work, False)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                log.warning("The ledger's database dropped the connection: once more.")
                return self._once(work, True)
        except (SQLAlchemyError, UnicodeError) as error:
            raise LedgerError(self._database.told(doing, error)) from error

    def _once(self, work: Callable[[Connection, bool], _T], again: bool) -> _T:
        with self._database.transaction() as connection:
            if self._doubtful:
                self._delete.run(
                    connection, *({"lease_id": each} for each in self._doubtful)
                )
            result = work(connection, again)
        self._doubtful.clear()
        return result
