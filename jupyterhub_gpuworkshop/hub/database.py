"""Opening a database so that what is committed stays: SQLite's file or PostgreSQL.

Owns the URL, the file and its mode, the durability settings, and how a database's
errors are told. It knows nothing of leases.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    ClauseElement,
    Connection,
    Dialect,
    Engine,
    NullPool,
    create_engine,
    event,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from jupyterhub_gpuworkshop.core.errors import LedgerError

from .own_files import sync_folder

log = logging.getLogger(__name__)

_FILE_NAME = "gpuworkshop.sqlite"

_WAIT_SECONDS = 5
"""How long a locked or silent database may keep the hub's event loop waiting."""

_LOCK = 0x67_70_75_77_6F_72_6B_73  # "gpuworks": PostgreSQL's locks have numbers

_REMEDIES = {
    "disk is full": "Make room on its disk.",
    "No space left": "Make room on its disk.",
    "disk I/O error": "Its disk is full or failing, or a limit on file sizes is hit.",
    "is locked": "Another process is writing to it: end that, or give this hub a "
    "ledger_url of its own.",
    "readonly": "Let the user that runs the hub write to the file and its folder.",
    "not a database": "Restore it from a backup; or stop all servers, move it away, "
    "and start the hub with an empty ledger.",
    "malformed": "Restore it from a backup; or stop all servers, move it away, "
    "and start the hub with an empty ledger.",
}
_ELSE = "Look at ledger_url and at the database's own log."


class Prepared:
    """A statement that is compiled once.

    Looking it up in SQLAlchemy's cache costs several times SQLite's own work.
    """

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        self._sql = str(compiled)
        self._names: Sequence[str] | None = compiled.positiontup
        self._constants = {k: v for k, v in compiled.params.items() if v is not None}

    def run(self, connection: Connection, *rows: Mapping[str, Any]) -> int:
        """Execute it for each row; return how many rows of the table it changed."""
        names = self._names
        filled = ({**self._constants, **row} for row in rows)
        values: list[Any] = [
            row if names is None else tuple(row[name] for name in names)
            for row in filled
        ]
        one_or_more = values[0] if len(values) == 1 else values
        return connection.exec_driver_sql(self._sql, one_or_more).rowcount


class Database:
    """One kept connection, and the transactions on it.

    Attributes:
        where: the file, or the URL with its password hidden, for messages.
        move_away: what to do to start with an empty one, for messages.
        dialect: SQLAlchemy's, for SQLite or PostgreSQL.
        has_log: SQLite with a write-ahead log. Where the file system allows none, a
            commit that is not synced could damage the file.
    """

    def __init__(self, engine: Engine, where: str) -> None:
        self.where = where
        self.dialect = engine.dialect
        self.has_log = False
        self.move_away = (
            f"move {where} away (with its -wal file, if there is one)"
            if self.dialect.name == "sqlite"
            else "point ledger_url at another database"
        )
        self._engine = engine
        try:
            self._connection = engine.connect()
        except SQLAlchemyError as error:
            raise LedgerError(self.told("be opened", error)) from error

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Commit what is done inside, or none of it."""
        with self._connection.begin():
            yield self._connection

    @contextmanager
    def unsynced(self) -> Iterator[None]:
        """Let SQLite commit what is done inside without waiting for the disk.

        It survives the death of the process, though not the loss of power.
        """
        if not self.has_log or self._connection.closed:
            yield
            return
        raw: Any = self._connection.connection.driver_connection
        raw.execute("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            raw.execute("PRAGMA synchronous=FULL")

    def lock(self, connection: Connection) -> None:
        """Keep others from changing the tables until this transaction ends."""
        # SQLite's driver begins a transaction before a change of rows, though not
        # before one of tables.
        connection.exec_driver_sql(
            "BEGIN IMMEDIATE"
            if self.dialect.name == "sqlite"
            else f"SELECT pg_advisory_xact_lock({_LOCK})"
        )

    def told(self, doing: str, error: Exception) -> str:
        """Return the sentence for an error: what failed, why, what to do."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        reason = " ".join(str(cause).split()).rstrip(".")
        remedy = next((r for part, r in _REMEDIES.items() if part in reason), _ELSE)
        return f"The ledger {self.where} cannot {doing}: {reason}. {remedy}"

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()
        self._engine.dispose()


def open_database(url: str) -> Database:
    """Open SQLite's file, made with mode 0600 where there is none, or PostgreSQL.

    Raises:
        LedgerError: it cannot be opened.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except SQLAlchemyError:
        # The text is not shown: whatever it is, it may hold a password.
        raise LedgerError(
            "ledger_url is not a database URL. Write for example "
            "sqlite:////srv/jupyterhub/gpuworkshop.sqlite."
        ) from None
    if backend == "sqlite":
        return _open_sqlite(parsed)
    if backend == "postgresql":
        return _open_postgresql(parsed)
    raise LedgerError(
        f"The ledger cannot be in {backend}: ledger_url takes sqlite:// and "
        "postgresql:// only."
    )


def _open_sqlite(url: URL) -> Database:
    name = url.database or ":memory:"
    if name == ":memory:" or name.startswith("file:"):
        raise LedgerError(
            f"The ledger cannot be at {url}: it must outlive the hub. Write the path "
            "of a file, such as sqlite:////srv/jupyterhub/gpuworkshop.sqlite."
        )
    path = Path(name).absolute()
    _prepare_file(path)
    engine = create_engine(
        url.set(database=str(path)),
        poolclass=NullPool,
        connect_args={"timeout": _WAIT_SECONDS, "check_same_thread": True},
    )
    event.listen(engine, "connect", _set_pragmas)
    database = Database(engine, str(path))
    try:
        with database.transaction() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
            mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
    except SQLAlchemyError as error:
        database.close()
        raise LedgerError(database.told("be opened", error)) from error
    if found != "ok":
        database.close()
        raise LedgerError(
            f"The ledger {path} is malformed ({found}). {_REMEDIES['malformed']}"
        )
    database.has_log = mode == "wal"
    return database


def _prepare_file(path: Path) -> None:
    """Make the file where there is none, and keep others from reading it."""
    # An existing file is not opened here: closing it would take away the locks that
    # SQLite may hold on it elsewhere in this process (POSIX advisory locks).
    try:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            _close_to_others(path)
        else:
            sync_folder(path.parent)
    except FileNotFoundError:
        raise LedgerError(
            f"The ledger {path} cannot be made: the folder {path.parent} does not "
            "exist. Make it, writable for the user that runs the hub, or set "
            "ledger_url to another place."
        ) from None
    except OSError as error:
        raise LedgerError(
            f"The ledger {path} cannot be made: {error.strerror}. Let the user that "
            f"runs the hub write to {path.parent}, or set ledger_url to another place."
        ) from error
    for place in (path, path.parent):
        if not os.access(place, os.W_OK, effective_ids=True):
            raise LedgerError(
                f"The ledger {path} cannot be written: no permission to write to "
                f"{place}. Let the user that runs the hub write there, or set "
                "ledger_url to another place."
            )
    if not path.is_file():
        raise LedgerError(
            f"The ledger {path} is not a file. Set ledger_url to another place."
        )


def _close_to_others(path: Path) -> None:
    # SQLite makes -wal and -shm with the mode of the file; a killed hub leaves them.
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.is_file() and part.stat().st_mode & 0o077:
            try:
                part.chmod(0o600)
            except PermissionError:
                log.warning("Others than the hub may read %s: chmod 600 it.", part)


def _set_pragmas(connection: Any, _record: object) -> None:
    # Plain transactions may fail at their first write instead of waiting for it.
    connection.isolation_level = "IMMEDIATE"
    connection.execute("PRAGMA journal_mode=WAL").close()
    connection.execute("PRAGMA synchronous=FULL").close()


def _open_postgresql(url: URL) -> Database:
    if url.drivername == "postgresql" and find_spec("psycopg2") is None:
        url = url.set(drivername="postgresql+psycopg")
    where = url.render_as_string(hide_password=True)
    limits = {"connect_timeout": _WAIT_SECONDS}
    try:
        engine = create_engine(
            url,
            poolclass=NullPool,
            connect_args={k: v for k, v in limits.items() if k not in url.query},
        )
    except (ImportError, ArgumentError) as error:
        raise LedgerError(
            f"The ledger {where} cannot be opened: {error}. Install the driver with "
            "pip install 'jupyterhub-gpuworkshop[postgres]'."
        ) from error
    event.listen(engine, "connect", _set_limits)
    return Database(engine, where)


def _set_limits(connection: Any, _record: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{_WAIT_SECONDS}s'")
        cursor.execute(f"SET statement_timeout = '{2 * _WAIT_SECONDS}s'")
        cursor.execute("SET synchronous_commit = on")
    connection.commit()


def default_ledger_url(db_url: str, cwd: Path) -> str:
    """Return where the ledger is unless `ledger_url` says: beside the hub's database.

    Args:
        db_url: the hub's ``db_url``.
        cwd: the hub's working directory: relative paths start there, and the ledger
            is there where the hub's database is no file.
    """
    folder = cwd.absolute()
    if "://" not in db_url:  # the hub takes that for a path
        db_url = f"sqlite:///{db_url}"
    try:
        hub = make_url(db_url)
    except SQLAlchemyError:  # the hub says so better than the ledger could
        return f"sqlite:///{folder / _FILE_NAME}"
    name = hub.database or ":memory:"
    is_file = name != ":memory:" and not name.startswith("file:")
    if hub.get_backend_name() == "sqlite" and is_file:
        folder = (folder / name).parent
    return f"sqlite:///{folder / _FILE_NAME}"
