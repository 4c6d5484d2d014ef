"""DurableLedger's contract, over SQLite and PostgreSQL."""

import logging
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text

from jupyterhub_gpuworkshop.core.errors import LedgerError, LedgerTooNew
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice, LeaseState, Ledger
from jupyterhub_gpuworkshop.hub import database, migrations
from jupyterhub_gpuworkshop.hub.database import default_ledger_url
from jupyterhub_gpuworkshop.hub.ledger import (
    METADATA,
    PREVIOUS,
    PREVIOUS_KEPT,
    DurableLedger,
)

ROOT = Path(__file__).parents[2]


def lease(lease_id: str, user: str = "ann", *uuids: str, **changes: Any) -> Lease:
    """Return a lease on devices of 16 bytes; on device ``a`` unless said."""
    devices = tuple(
        LeasedDevice(uuid=u, label=str(n), memory_bytes=3, total_bytes=16)
        for n, u in enumerate(uuids or ("a",))
    )
    values: dict[str, Any] = {
        "id": lease_id,
        "user": user,
        "server": "",
        "share": "1/5",
        "devices": devices,
        "granted_at": 1.5,
        **changes,
    }
    return Lease(**values)


def cpu(lease_id: str, user: str = "ann") -> Lease:
    """Return a lease of no device."""
    return lease(lease_id, user, share="cpu", devices=())


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture
def ledger(url: str) -> Iterator[DurableLedger]:
    """Return a ledger in an empty database."""
    with closing(DurableLedger(url)) as opened:
        yield opened


def reopened(url: str) -> Ledger:
    """Return what another process would read."""
    with closing(DurableLedger(url)) as opened:
        return opened.load()


@contextmanager
def by_hand(url: str) -> Iterator[Any]:
    """Return a connection that is not the ledger's."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def test_a_new_ledger_is_empty(ledger: DurableLedger) -> None:
    assert ledger.load() == Ledger()


def test_a_lease_is_read_back_as_it_was_written(
    ledger: DurableLedger, url: str
) -> None:
    given = Lease(
        id="8f3e",
        user="Zoë O'Neil",
        server="größer",
        share="2 gpus",
        exclusive=True,
        devices=(
            LeasedDevice(
                uuid="GPU-1",
                label="0:1",
                memory_bytes=2**40 + 1,
                total_bytes=2**41,
                context_bytes=7,
            ),
            LeasedDevice(uuid="GPU-2", label="1", memory_bytes=1, total_bytes=2),
        ),
        granted_at=1790000000.1234567,
        boot_id="b00t",
        reason="fewest leases: 100 %s",
        state=LeaseState.ACTIVE,
        engine="docker",
        engine_id="c0ffee",
        hook=True,
    )
    ledger.add(given)
    assert reopened(url) == Ledger().with_lease(given)


def test_the_device_given_last_and_previous_devices_outlive_the_leases(
    ledger: DurableLedger, url: str
) -> None:
    ledger.add(lease("1", "ann", "a", "b"))
    ledger.add(lease("2", "bob", "c"))
    ledger.remove(["1", "2"])
    ledger.add(lease("3", "ann", "b"))
    ledger.remove(["3"])
    value = reopened(url)
    assert value.leases == {}
    assert value.last_device == "b"
    assert value.previous == {("ann", ""): ("b",), ("bob", ""): ("c",)}


def test_the_order_of_grants_goes_on_after_reopening(url: str) -> None:
    for number, device in enumerate("cab"):
        with closing(DurableLedger(url)) as opened:
            opened.add(lease(str(number), f"user{number}", device))
    assert reopened(url).last_device == "b"


def test_a_share_of_cpu_leaves_last_and_previous_devices_alone(
    ledger: DurableLedger, url: str
) -> None:
    ledger.add(lease("1", "ann", "a"))
    ledger.remove(["1"])
    ledger.add(cpu("2"))
    value = reopened(url)
    assert list(value.leases) == ["2"]
    assert (value.last_device, value.previous) == ("a", {("ann", ""): ("a",)})


def test_a_second_active_lease_of_one_server_is_refused(
    ledger: DurableLedger, url: str
) -> None:
    ledger.add(lease("1", "ann", "a"))
    before = ledger.load()
    with pytest.raises(LedgerError, match=r"ann has an active lease .* already"):
        ledger.add(lease("2", "ann", "b"))
    assert reopened(url) == before
    ledger.add(lease("3", "ann", "b", server="other"))
    assert set(reopened(url).leases) == {"1", "3"}


def test_a_quarantined_lease_stands_beside_an_active_one(
    ledger: DurableLedger, url: str
) -> None:
    ledger.add(lease("1", "ann", "a"))
    ledger.quarantine("1")
    ledger.add(lease("2", "ann", "b"))
    value = reopened(url)
    assert value.leases["1"].state is LeaseState.QUARANTINED
    assert value.leases["2"].state is LeaseState.ACTIVE


def test_a_lease_that_is_not_there_cannot_be_quarantined(ledger: DurableLedger) -> None:
    with pytest.raises(LedgerError, match="no lease 7 to quarantine"):
        ledger.quarantine("7")


def test_an_id_is_taken_once_only(ledger: DurableLedger, url: str) -> None:
    ledger.add(lease("1", "ann", "a"))
    with pytest.raises(LedgerError, match="a lease 1 already"):
        ledger.add(lease("1", "bob", "b"))
    ledger.remove(["none"])
    value = reopened(url)
    assert value.leases == {"1": lease("1", "ann", "a")}
    assert value.last_device == "a"


def test_leases_are_removed_together_and_unknown_ones_do_no_harm(
    ledger: DurableLedger, url: str
) -> None:
    for number in range(5):
        ledger.add(lease(str(number), f"user{number}"))
    ledger.remove([])
    ledger.remove({"0", "2", "4", "none"})
    assert set(reopened(url).leases) == {"1", "3"}


def test_only_the_newest_previous_devices_are_kept(
    ledger: DurableLedger, url: str
) -> None:
    rows = [
        {"user_name": f"u{n}", "server_name": "", "devices": '["a"]', "sequence": n}
        for n in range(1, PREVIOUS_KEPT + 51)
    ]
    with by_hand(url) as connection:
        connection.execute(PREVIOUS.insert(), rows)
    previous = ledger.load().previous
    assert len(previous) == PREVIOUS_KEPT
    assert ("u50", "") not in previous
    assert ("u51", "") in previous


def test_previous_devices_are_pruned_while_the_hub_runs(
    ledger: DurableLedger, url: str
) -> None:
    old = [
        {"user_name": f"o{n}", "server_name": "", "devices": '["a"]', "sequence": -n}
        for n in range(PREVIOUS_KEPT)
    ]
    with by_hand(url) as connection:
        connection.execute(PREVIOUS.insert(), old)
    for number in range(1000):
        ledger.add(lease(str(number), "ann"))
        ledger.remove([str(number)])
    with by_hand(url) as connection:
        assert connection.scalar(text("SELECT count(*) FROM gpuworkshop_previous")) == (
            PREVIOUS_KEPT
        )


def test_a_locked_database_refuses_a_lease_and_takes_it_later(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_WAIT_SECONDS", 0.05)
    with closing(DurableLedger(url)) as ledger:
        ledger.add(lease("1", "ann"))
        before = ledger.load()
        lock = "BEGIN IMMEDIATE" if "sqlite" in url else "LOCK gpuworkshop_leases"
        with by_hand(url) as connection:
            connection.exec_driver_sql(lock)
            with pytest.raises(LedgerError, match=r"the lease of bob.*lock"):
                ledger.add(lease("2", "bob"))
            with pytest.raises(LedgerError, match="cannot release a lease"):
                ledger.remove(["1"])
        assert ledger.load() == before
        ledger.add(lease("2", "bob"))
        assert set(reopened(url).leases) == {"1", "2"}


def test_a_grant_whose_commit_failed_late_is_taken_back_by_the_next_write(
    ledger: DurableLedger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect = ledger._database.dialect
    commit = dialect.do_commit

    def commit_then_fail(connection: Any) -> None:
        commit(connection)
        raise dialect.dbapi.OperationalError("the cable was cut")

    monkeypatch.setattr(dialect, "do_commit", commit_then_fail)
    with pytest.raises(LedgerError, match="the cable was cut"):
        ledger.add(lease("1", "ann"))
    monkeypatch.undo()
    ledger.add(lease("2", "ann"))
    assert set(reopened(url).leases) == {"2"}


def test_a_closed_ledger_says_so(ledger: DurableLedger) -> None:
    ledger.close()
    for _ in range(2):
        with pytest.raises(LedgerError, match="closed"):
            ledger.remove(["1"])


def test_a_ledger_of_newer_code_is_refused_with_both_remedies(url: str) -> None:
    with closing(DurableLedger(url)) as ledger:
        ledger.add(lease("1"))
    with by_hand(url) as connection:
        connection.execute(
            text("UPDATE gpuworkshop_alembic_version SET version_num = '9z'")
        )
    with pytest.raises(LedgerTooNew) as caught:
        DurableLedger(url)
    told = str(caught.value)
    assert "9z" in told
    assert "Upgrade jupyterhub-gpuworkshop" in told
    assert "servers that run on without a lease" in told
    assert ("ledger.sqlite away" if "sqlite" in url else "another database") in told
    with by_hand(url) as connection:
        assert connection.scalar(text("SELECT id FROM gpuworkshop_leases")) == "1"


def test_migrations_make_the_tables_that_the_code_uses(
    ledger: DurableLedger, url: str
) -> None:
    with by_hand(url) as connection:
        connection.execute(text("CREATE TABLE users (id INTEGER)"))  # the hub's
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": migrations.VERSION_TABLE,
                "include_name": lambda name, kind, _: (
                    kind != "table" or name.startswith("gpuworkshop_")
                ),
            },
        )
        assert compare_metadata(context, METADATA) == []


def test_opening_leaves_the_hubs_logging_alone(url: str) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), logging.getLogger("alembic").handlers)
    other = logging.getLogger("somebody")
    DurableLedger(url).close()
    after = (root.level, list(root.handlers), logging.getLogger("alembic").handlers)
    assert before == after
    assert not other.disabled


def test_what_a_killed_process_had_acknowledged_is_there(url: str) -> None:
    chance = random.Random(7)  # noqa: S311  the same points at every run
    for life in range(4):
        writer = subprocess.Popen(  # noqa: S603  ourselves
            [sys.executable, "-m", "tests.hub.ledger_writer", url, f"life{life}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        lines = [next(writer.stdout) for _ in range(chance.randrange(1, 80))]
        writer.kill()
        lines += writer.stdout.readlines()
        writer.stdout.close()
        writer.wait()
        said = [line.split() for line in lines if line.endswith("\n")]
        of = {
            verb: {x for v, x in said if v == verb}
            for verb in ("added", "removing", "removed")
        }
        leases = reopened(url).leases
        here = {x for x in leases if x.startswith(f"life{life}-")}
        assert of["added"] - of["removing"] <= here
        assert not here & of["removed"]
        assert len(here - of["added"]) <= 1
        assert (f"user-life{life}-1", "") in reopened(url).previous


@pytest.mark.parametrize(
    ("db_url", "expected"),
    [
        ("sqlite:////srv/hub/jupyterhub.sqlite", "sqlite:////srv/hub/"),
        ("sqlite+pysqlite:////srv/hub/jupyterhub.sqlite", "sqlite:////srv/hub/"),
        ("sqlite:///jupyterhub.sqlite", "sqlite:////cwd/"),
        ("sqlite:///state/jupyterhub.sqlite", "sqlite:////cwd/state/"),
        ("/srv/hub/jupyterhub.sqlite", "sqlite:////srv/hub/"),
        ("jupyterhub.sqlite", "sqlite:////cwd/"),
        ("sqlite://", "sqlite:////cwd/"),
        ("sqlite:///:memory:", "sqlite:////cwd/"),
        ("sqlite:///file:/srv/x.sqlite?uri=true", "sqlite:////cwd/"),
        ("postgresql://hub:secret@db/jupyterhub", "sqlite:////cwd/"),
        ("://", "sqlite:////cwd/"),
    ],
)
def test_the_ledger_is_beside_the_hubs_database(db_url: str, expected: str) -> None:
    expected += "gpuworkshop.sqlite"
    assert default_ledger_url(db_url, Path("/cwd")) == expected


def test_the_file_opens_where_the_default_url_points(tmp_path: Path) -> None:
    url = default_ledger_url("sqlite:///jupyterhub.sqlite", tmp_path)
    with closing(DurableLedger(url)) as ledger:
        ledger.add(replace(lease("1"), reason="by the default"))
    with closing(sqlite3.connect(tmp_path / "gpuworkshop.sqlite")) as connection:
        rows = connection.execute("SELECT reason FROM gpuworkshop_leases").fetchall()
    assert rows == [("by the default",)]


def test_who_is_forgotten_leaves_no_devices_behind_and_others_keep_theirs(
    ledger: DurableLedger,
) -> None:
    for number, (user, server) in enumerate(
        [("ann", ""), ("ann", "x"), ("anna", ""), ("bob", "ann")]
    ):
        ledger.add(lease(f"l{number}", user, "b", server=server))
    ledger.forget("ann", "x")
    assert sorted(ledger.load().previous) == [("ann", ""), ("anna", ""), ("bob", "ann")]
    ledger.forget("ann")
    ledger.forget("nobody")
    after = ledger.load()
    assert sorted(after.previous) == [("anna", ""), ("bob", "ann")]
    assert len(after.leases) == 4, "what is granted is not taken back by this"
