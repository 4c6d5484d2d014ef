"""DurableLedger where the machine is against it: files, disks, connections."""

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import SQLAlchemyError

from jupyterhub_gpuworkshop.core.errors import LedgerError
from jupyterhub_gpuworkshop.hub import migrations
from jupyterhub_gpuworkshop.hub.ledger import DurableLedger

from .postgres_server import PostgresServer
from .test_ledger import ROOT, cpu, lease, reopened

_FILLER = """
import resource, sys
from jupyterhub_gpuworkshop.core.errors import LedgerError
from jupyterhub_gpuworkshop.hub.ledger import DurableLedger
from tests.hub.test_ledger import lease

ledger = DurableLedger(sys.argv[1])
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, unlimited[1]))
for number in range(10_000):
    try:
        ledger.add(lease(f"l{number}", f"u{number}"))
    except LedgerError as error:
        print("refused", error, sep="\\n")
        break
    print(f"l{number}")
resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
ledger.add(lease("after", f"u{number}"))
print("after")
"""


def modes(folder: Path) -> set[int]:
    """Return the modes of a folder's files."""
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a ledger's file may be made."""
    folder = tmp_path / "srv"
    folder.mkdir()
    return folder / "ledger.sqlite"


def test_a_grant_waits_for_the_disk(path: Path) -> None:
    with closing(DurableLedger(f"sqlite:///{path}")) as ledger:
        seen: list[int] = []
        connection = ledger._database._connection
        raw: Any = connection.connection.driver_connection
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)

        def note(statement: str) -> None:
            if statement == "COMMIT":
                raw.set_trace_callback(None)
                seen.append(raw.execute("PRAGMA synchronous").fetchone()[0])

        for work in (
            lambda: ledger.add(lease("1")),
            lambda: ledger.remove(["1"]),
            lambda: ledger.add(lease("2")),
            lambda: ledger.quarantine("2"),
        ):
            raw.set_trace_callback(note)
            work()
        full, normal = 2, 1
        assert seen == [full, normal, full, full]


def test_only_the_hub_may_read_the_files(path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(DurableLedger(f"sqlite:///{path}")) as ledger:
            ledger.add(lease("1"))
            assert len(list(path.parent.iterdir())) == 3
            assert modes(path.parent) == {0o600}
            for part in path.parent.iterdir():
                part.chmod(0o664)
            DurableLedger(f"sqlite:///{path}").close()
            assert modes(path.parent) == {0o600}
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:////nowhere/at/all/x.sqlite", "folder /nowhere/at/all does not exist"),
        ("sqlite:////dev/null/x.sqlite", "cannot be made: Not a directory"),
        ("sqlite:////usr/lib", "/usr/lib is not a file"),
        ("sqlite://", "must outlive the hub"),
        ("sqlite:///file:x?mode=memory&uri=true", "must outlive the hub"),
        ("mysql://hub:secret@db/x", "cannot be in mysql"),
        ("jupyterhub:secret", "not a database URL"),
        ("postgresql+none://hub:secret@db/x", "Install the driver"),
    ],
)
def test_a_url_that_cannot_be_is_told_without_its_password(url: str, told: str) -> None:
    with pytest.raises(LedgerError, match=told) as caught:
        DurableLedger(url)
    assert "secret" not in str(caught.value)


@contextmanager
def as_somebody() -> Iterator[None]:
    """Be nobody where the tests run as root, whom no mode stops."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize("existing", [False, True])
def test_a_folder_that_cannot_be_written_is_told(existing: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if existing:
            DurableLedger(f"sqlite:///{folder}/x.sqlite").close()
            (folder / "x.sqlite").chmod(0o666)
        folder.chmod(0o555)
        with (
            as_somebody(),
            pytest.raises(LedgerError, match=f"write to {folder}|write there"),
        ):
            DurableLedger(f"sqlite:///{folder}/x.sqlite")
        folder.chmod(0o700)


def test_a_file_that_is_no_database_is_told_and_left(path: Path) -> None:
    path.write_bytes(b"not a database at all " * 500)
    with pytest.raises(LedgerError, match=r"not a database.*Restore it from a backup"):
        DurableLedger(f"sqlite:///{path}")
    assert path.read_bytes().startswith(b"not a database at all")


def test_a_damaged_page_is_found_at_the_start(path: Path) -> None:
    with closing(DurableLedger(f"sqlite:///{path}")) as ledger:
        for number in range(100):
            ledger.add(lease(str(number), f"u{number}"))
    # The index: nothing that happens at the start would read it.
    with closing(sqlite3.connect(path)) as other:
        (page,) = other.execute(
            "SELECT rootpage FROM sqlite_master "
            "WHERE name = 'gpuworkshop_one_active_lease'"
        ).fetchone()
        (size,) = other.execute("PRAGMA page_size").fetchone()
    whole = bytearray(path.read_bytes())
    whole[(page - 1) * size : page * size] = b"\xff" * size
    path.write_bytes(whole)
    with pytest.raises(LedgerError, match="malformed"):
        DurableLedger(f"sqlite:///{path}")


@pytest.mark.parametrize(
    "damage", ["devices = 'x'", "devices = '[{}]'", "devices = '3'", "state = 'x'"]
)
def test_a_damaged_lease_is_named(path: Path, damage: str) -> None:
    with closing(DurableLedger(f"sqlite:///{path}")) as ledger:
        ledger.add(lease("l1", "ann"))
        ledger.add(lease("l2", "bob"))
        with closing(sqlite3.connect(path)) as other, other:
            other.execute(
                f"UPDATE gpuworkshop_leases SET {damage} WHERE id = 'l2'"  # noqa: S608
            )
        with pytest.raises(LedgerError, match="damaged at the lease l2 of bob"):
            ledger.load()


def test_a_killed_migration_leaves_an_empty_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def halfway(connection: Any) -> None:
        upgrade(connection)
        raise SQLAlchemyError("killed")

    upgrade = migrations.upgrade
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "upgrade", halfway)
        with pytest.raises(LedgerError, match="cannot be opened: killed"):
            DurableLedger(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT name FROM sqlite_master").fetchall() == []
    assert reopened(f"sqlite:///{path}").leases == {}


def test_a_full_database_refuses_a_lease_and_keeps_the_others(path: Path) -> None:
    with closing(DurableLedger(f"sqlite:///{path}")) as ledger:
        raw: Any = ledger._database._connection.connection.driver_connection
        raw.execute("PRAGMA max_page_count = 12")
        given: list[str] = []

        def fill() -> None:
            while True:
                ledger.add(lease(f"u{len(given)}", f"u{len(given)}"))
                given.append(f"u{len(given)}")

        with pytest.raises(LedgerError, match=r"disk is full\. Make room"):
            fill()
        value = ledger.load()
        assert set(value.leases) == set(given)
        assert set(value.previous) == {(user, "") for user in given}
        raw.execute("PRAGMA max_page_count = 1000")
        ledger.add(lease("again", f"u{len(given)}"))
        assert len(ledger.load().leases) == len(given) + 1


def test_a_disk_that_takes_no_more_refuses_a_lease_and_keeps_the_others(
    path: Path,
) -> None:
    url = f"sqlite:///{path}"
    done = subprocess.run(  # noqa: S603  ourselves
        [sys.executable, "-c", _FILLER, url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    *added, refused, told, after = done.stdout.splitlines()
    assert (refused, after) == ("refused", "after")
    assert "full or failing" in told
    assert len(added) > 10
    assert set(reopened(url).leases) == {*added, "after"}


def test_another_thread_is_refused(path: Path) -> None:
    with closing(DurableLedger(f"sqlite:///{path}")) as ledger:
        caught: list[Exception] = []

        def elsewhere() -> None:
            try:
                ledger.add(lease("1"))
            except LedgerError as error:
                caught.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert "thread" in str(caught[0])
        ledger.add(cpu("2"))
        assert set(ledger.load().leases) == {"2"}


@pytest.mark.postgres
def test_a_dropped_connection_is_made_again(postgres: PostgresServer) -> None:
    with closing(DurableLedger(postgres.new_database())) as ledger:
        for number, work in enumerate(
            (
                lambda: ledger.add(lease("1", "ann", "a")),
                lambda: ledger.quarantine("1"),
                lambda: ledger.add(lease("2", "ann", "b")),
                lambda: ledger.remove(["1"]),
            )
        ):
            postgres.drop_connections()
            work()
            assert len(ledger.load().leases) == (1, 1, 2, 1)[number]
        postgres.drop_connections()
        assert ledger.load().last_device == "b"


@pytest.mark.postgres
def test_a_connection_dropped_after_the_commit_grants_once(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(DurableLedger(postgres.new_database())) as ledger:
        dialect = ledger._database.dialect
        commit = dialect.do_commit

        def commit_and_drop(connection: Any) -> None:
            monkeypatch.undo()
            commit(connection)
            postgres.drop_connections()
            connection.execute("SELECT 1")

        monkeypatch.setattr(dialect, "do_commit", commit_and_drop)
        ledger.add(lease("1", "ann", "a"))
        assert ledger.load().leases == {"1": lease("1", "ann", "a")}


@pytest.mark.postgres
def test_a_database_that_is_away_refuses_until_it_is_back(
    postgres: PostgresServer,
) -> None:
    url = postgres.new_database()
    with closing(DurableLedger(url)) as ledger:
        ledger.add(lease("1", "ann"))
        postgres.stop()
        try:
            with pytest.raises(LedgerError, match="cannot take the lease of bob"):
                ledger.add(lease("2", "bob"))
            with pytest.raises(LedgerError, match="cannot be opened"):
                DurableLedger(url)
        finally:
            postgres.start()
        ledger.add(lease("3", "bob"))
        assert set(reopened(url).leases) == {"1", "3"}


@pytest.mark.postgres
def test_a_url_with_a_password_hides_it_in_messages(postgres: PostgresServer) -> None:
    url = postgres.new_database().replace("gpuworkshop@", "gpuworkshop:hunter2@")
    with closing(DurableLedger(url)) as ledger:
        with suppress(LedgerError):
            ledger.remove(["none"])
        with pytest.raises(LedgerError, match=r"gpuworkshop:\*\*\*@") as caught:
            ledger.quarantine("none")
    assert "hunter2" not in str(caught.value)
