"""The history's file: SQLite, through SQLAlchemy Core.

Owns the schema and blocking reads and writes. Only `History` uses it, from a thread.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    create_engine,
    delete,
    func,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.pool import NullPool

from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError
from jupyterhub_gpuworkshop.core.wire import EVENT, Event

from .usage_store import UsageRow, load_usage, usage_table, write_usage

SCHEMA_VERSION = 2

_METADATA = MetaData()
_EVENTS = Table(
    "events",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("origin", String, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("event", LargeBinary, nullable=False),
    Column("at", Float),
    Index("once_each", "origin", "sequence", unique=True),
)
_PEAKS = Table(
    "peaks",
    _METADATA,
    Column("lease_id", String, primary_key=True),
    Column("kernel_id", String, primary_key=True),
    Column("user", String, nullable=False),
    Column("server", String, nullable=False),
    Column("memory_bytes", Integer, nullable=False),
    Column("at", Float, nullable=False),
)
_COUNTERS = Table(
    "counters",
    _METADATA,
    Column("name", String, primary_key=True),
    Column("value", Integer, nullable=False),
)
_LAST_ID = "last event"
_USAGE = usage_table(_METADATA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An event in the history.

    Attributes:
        id: counts up over all origins.
        origin: the `hub_id` it came from, or the service itself.
        event: what happened.
    """

    id: int
    origin: str
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """The most GPU memory that a lease, or one kernel of it, ever held.

    Attributes:
        lease_id: the lease.
        kernel_id: the kernel; empty for the lease as a whole.
        user: the attendee.
        server: the server's name.
        memory_bytes: the most.
        at: when that was, in wall-clock seconds since the epoch.
    """

    lease_id: str
    kernel_id: str = ""
    user: str
    server: str
    memory_bytes: int
    at: float


class Store:
    """One file. Every call opens it anew, so that a mended disk is found again.

    Args:
        path: the file; only its owner may read it.
        keep: how many events, and as many peaks, stay in it.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        self._keep = keep
        self._engine: Engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
        self._is_ready = False

    def load(self) -> tuple[list[Recorded], list[Peak], int]:
        """Return the events and peaks in it, oldest first, and the last id ever."""
        with self._begin() as connection:
            events = [
                Recorded(id=row.id, origin=row.origin, event=event)
                for row in connection.execute(select(_EVENTS).order_by(_EVENTS.c.id))
                if (event := _read(row.event)) is not None
            ]
            peaks = [
                Peak(**row._mapping)
                for row in connection.execute(select(_PEAKS).order_by(_PEAKS.c.at))
            ]
            last_id = connection.execute(
                select(_COUNTERS.c.value).where(_COUNTERS.c.name == _LAST_ID)
            ).scalar()
            highest = connection.execute(select(func.max(_EVENTS.c.id))).scalar()
        return events, peaks, max(last_id or 0, highest or 0)

    def load_usage(self, now: float) -> list[UsageRow]:
        """Return the usage of devices until now, oldest first."""
        with self._begin() as connection:
            return load_usage(connection, _USAGE, now)

    def write_usage(
        self, rows: Sequence[UsageRow], now: float, keep_seconds: float
    ) -> None:
        """Set rows of usage, and remove all that is too old, events and peaks too."""
        oldest = now - keep_seconds
        with self._begin() as connection:
            write_usage(connection, _USAGE, rows, now, keep_seconds)
            self._count(connection)
            connection.execute(delete(_EVENTS).where(_EVENTS.c.at < oldest))
            connection.execute(delete(_PEAKS).where(_PEAKS.c.at < oldest))

    def write(self, events: Iterable[Recorded], peaks: Iterable[Peak]) -> None:
        """Add events, set peaks, and remove what is too old. Again does no harm."""
        event_rows = [
            {
                "id": recorded.id,
                "origin": recorded.origin,
                "sequence": recorded.event.sequence,
                "event": EVENT.dump_json(recorded.event),
                "at": recorded.event.at,
            }
            for recorded in events
        ]
        peak_rows = [
            {column.name: getattr(peak, column.name) for column in _PEAKS.c}
            for peak in peaks
        ]
        with self._begin() as connection:
            if event_rows:
                connection.execute(insert(_EVENTS).on_conflict_do_nothing(), event_rows)
            if peak_rows:
                statement = insert(_PEAKS)
                connection.execute(
                    statement.on_conflict_do_update(
                        index_elements=["lease_id", "kernel_id"],
                        set_={
                            "memory_bytes": statement.excluded.memory_bytes,
                            "at": statement.excluded.at,
                        },
                    ),
                    peak_rows,
                )
            self._prune(connection)

    def rewrite(
        self,
        event: Callable[[Event], Event],
        peak: Callable[[Peak], Peak],
    ) -> None:
        """Change what is in it, so that nothing of before is left in the file.

        Args:
            event: returns what is to stand in the place of an event.
            peak: and of a peak; lease and kernel stay.
        """
        with self._begin() as connection:
            changed, unreadable = [], []
            for row in connection.execute(select(_EVENTS.c.id, _EVENTS.c.event)):
                before = _read(row.event)
                if before is None:
                    unreadable.append({"row": row.id})
                elif (after := event(before)) != before:
                    changed.append({"row": row.id, "told": EVENT.dump_json(after)})
            if unreadable:
                # Nobody can say whom it names.
                connection.execute(
                    delete(_EVENTS).where(_EVENTS.c.id == bindparam("row")), unreadable
                )
            if changed:
                connection.execute(
                    update(_EVENTS)
                    .where(_EVENTS.c.id == bindparam("row"))
                    .values(event=bindparam("told")),
                    changed,
                )
            self._rewrite_peaks(connection, peak)
        self._drop_what_is_deleted()

    def _rewrite_peaks(
        self, connection: Connection, peak: Callable[[Peak], Peak]
    ) -> None:
        changed = []
        for row in connection.execute(select(_PEAKS)):
            before = Peak(**row._mapping)
            if (after := peak(before)) != before:
                changed.append(
                    {
                        "lease": after.lease_id,
                        "kernel": after.kernel_id,
                        "whose": after.user,
                        "where": after.server,
                    }
                )
        if changed:
            connection.execute(
                update(_PEAKS)
                .where(_PEAKS.c.lease_id == bindparam("lease"))
                .where(_PEAKS.c.kernel_id == bindparam("kernel"))
                .values(user=bindparam("whose"), server=bindparam("where")),
                changed,
            )

    def _drop_what_is_deleted(self) -> None:
        """Write the file anew: pages out of use hold what was deleted from them."""
        with self._engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.isolation_level = None
            driver.execute("VACUUM").close()
            # Returns (busy, ...): the log is still read by somebody, a backup say.
            ((busy, *_),) = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if busy:
            raise GpuWorkshopError(
                f"{self._path} is open elsewhere, and names stay in its -wal file"
            )

    def _begin(self):  # type: ignore[no-untyped-def]  # SQLAlchemy's context manager
        if not self._is_ready:
            self._prepare()
        return self._engine.begin()

    def _prepare(self) -> None:
        """Make the file, or see that this code knows what is in it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Made before SQLite makes it: it names attendees and what they run.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._path.chmod(0o600)
        with self._engine.connect() as connection:
            version = connection.execute(text("PRAGMA user_version")).scalar_one()
            if version > SCHEMA_VERSION:
                raise GpuWorkshopError(
                    f"{self._path} was written by a newer version of this package "
                    f"(schema {version}, this one knows {SCHEMA_VERSION}). Upgrade "
                    "the package, or move the file away."
                )
            connection.execute(text("PRAGMA journal_mode = WAL"))
            connection.commit()
            # Python begins no transaction for such statements by itself: all or none.
            connection.execute(text("BEGIN IMMEDIATE"))
            _METADATA.create_all(connection)
            columns = inspect(connection).get_columns("events")
            if not any(column["name"] == "at" for column in columns):
                self._date_events(connection)
            connection.execute(text(f"PRAGMA user_version = {SCHEMA_VERSION}"))
            connection.commit()
        self._is_ready = True

    def _date_events(self, connection: Connection) -> None:
        """Give the events of schema 1 a column that says when they happened."""
        connection.execute(text("ALTER TABLE events ADD COLUMN at FLOAT"))
        dated = [
            {"row": row.id, "when": event.at}
            for row in connection.execute(select(_EVENTS.c.id, _EVENTS.c.event))
            if (event := _read(row.event)) is not None
        ]
        if dated:
            connection.execute(
                update(_EVENTS)
                .where(_EVENTS.c.id == bindparam("row"))
                .values(at=bindparam("when")),
                dated,
            )

    def _count(self, connection: Connection) -> None:
        """Note the last event's id: ids go on also where no event is left."""
        last_id = connection.execute(select(func.max(_EVENTS.c.id))).scalar()
        if last_id is not None:
            statement = insert(_COUNTERS).values(name=_LAST_ID, value=last_id)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["name"],
                    set_={
                        "value": func.max(_COUNTERS.c.value, statement.excluded.value)
                    },
                )
            )

    def _prune(self, connection: Connection) -> None:
        latest = select(_EVENTS.c.id).order_by(_EVENTS.c.id.desc()).limit(1)
        last_old_id = connection.execute(latest.offset(self._keep)).scalar()
        if last_old_id is not None:
            connection.execute(delete(_EVENTS).where(_EVENTS.c.id <= last_old_id))
        newest = select(_PEAKS.c.at).order_by(_PEAKS.c.at.desc()).limit(1)
        oldest_kept = connection.execute(newest.offset(self._keep)).scalar()
        if oldest_kept is not None:
            connection.execute(delete(_PEAKS).where(_PEAKS.c.at <= oldest_kept))


def _read(event: bytes) -> Event | None:
    """Return an event; None for one that a newer version wrote, say, and left."""
    try:
        return EVENT.validate_json(event)
    except ValidationError:
        return None
