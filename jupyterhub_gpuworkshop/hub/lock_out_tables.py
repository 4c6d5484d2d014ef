"""The tables in which wrong codes are kept, in SQLite.

Owns their shape and how a row is read and written. Which file they are in, and what is
done when it cannot be used, is `lock_outs`'s.
"""

import contextlib
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from jupyterhub_gpuworkshop.core.lock_out import Level, Pair

_BUSY_SECONDS = 2.0
_VERSION = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS pairs (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, address TEXT NOT NULL,
    failures INTEGER NOT NULL, in_window INTEGER NOT NULL, waits INTEGER NOT NULL,
    at REAL NOT NULL, until REAL NOT NULL, UNIQUE (name, address));
CREATE INDEX IF NOT EXISTS pairs_address ON pairs (address);
CREATE INDEX IF NOT EXISTS pairs_at ON pairs (at);
CREATE TABLE IF NOT EXISTS names (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    tries REAL NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS names_at ON names (at);
CREATE TABLE IF NOT EXISTS good (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, address TEXT NOT NULL,
    at REAL NOT NULL, UNIQUE (name, address));
CREATE INDEX IF NOT EXISTS good_address ON good (address);
CREATE INDEX IF NOT EXISTS good_at ON good (at);
"""
# Each write of a row gives it a new id, so that ids tell which is oldest where the
# clock cannot: it may have been set back.
_COLUMNS = {
    "pairs": "name, address, failures, in_window, waits, at, until",
    "names": "name, tries, at",
    "good": "name, address, at",
}

T = TypeVar("T")


def connect(path: str) -> sqlite3.Connection:
    """Open a database, and make what it lacks.

    Raises:
        sqlite3.Error: it cannot be used; OperationalError where it is not of ours.
    """
    db = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        db.execute("PRAGMA synchronous = NORMAL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise sqlite3.OperationalError(
                f"it was written by another version of this package ({version}, this "
                f"one knows {_VERSION})"
            )
        if not version:
            # In one step, for another process may be making it too.
            db.executescript(
                f"BEGIN IMMEDIATE;{_TABLES}PRAGMA user_version = {_VERSION};COMMIT;"
            )
    except BaseException:
        db.close()
        raise
    return db


def transact(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Do all of something or nothing, with nobody else's changes in between."""
    db.execute("BEGIN IMMEDIATE")
    try:
        done = work(db)
        db.execute("COMMIT")
    except BaseException:
        # SQLite itself has rolled some errors back already.
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
    return done


def put(db: sqlite3.Connection, table: str, row: tuple[object, ...]) -> None:
    """Write a row, in the place of the one with the same keys."""
    marks = ", ".join("?" for _ in row)
    db.execute(
        f"INSERT OR REPLACE INTO {table} ({_COLUMNS[table]}) VALUES ({marks})",  # noqa: S608 - names of this module
        row,
    )


def rows(db: sqlite3.Connection, table: str) -> list[tuple[Any, ...]]:
    """Return all rows of a table, in the order in which they were written."""
    return db.execute(
        f"SELECT {_COLUMNS[table]} FROM {table} ORDER BY id"  # noqa: S608 - as above
    ).fetchall()


def copy_since(source: sqlite3.Connection, to: sqlite3.Connection, at: float) -> None:
    """Copy what was written since a time, in seconds since the epoch."""
    for table, columns in _COLUMNS.items():
        is_at = columns.split(", ").index("at")
        for row in rows(source, table):
            if row[is_at] >= at:
                put(to, table, row)


def pair_of(db: sqlite3.Connection, name: str, address: str) -> Pair | None:
    """Return what is kept of a name from an address."""
    row = db.execute(
        "SELECT failures, in_window, waits, at, until FROM pairs "
        "WHERE name = ? AND address = ?",
        (name, address),
    ).fetchone()
    return None if row is None else pair_from(*row)


def pair_from(
    failures: int, in_window: int, waits: int, at: float, until: float
) -> Pair:
    """Return what a row says; its columns are those of `pair_of`."""
    return Pair(failures=failures, in_window=in_window, waits=waits, at=at, until=until)


def level_of(db: sqlite3.Connection, name: str) -> Level | None:
    """Return what is kept of a name, wherever it was."""
    row = db.execute("SELECT tries, at FROM names WHERE name = ?", (name,)).fetchone()
    return None if row is None else Level(tries=row[0], at=row[1])


def put_level(db: sqlite3.Connection, name: str, level: Level) -> None:
    """Write what is kept of a name."""
    put(db, "names", (name, level.tries, level.at))


def forget_name(db: sqlite3.Connection, name: str) -> None:
    """Remove every row of a name."""
    for table in _COLUMNS:
        db.execute(
            f"DELETE FROM {table} WHERE name = ?",  # noqa: S608 - names above
            (name,),
        )
