"""A PostgreSQL server in a temporary folder, reached by a Unix socket."""

import os
import pwd
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

_NAME = "gpuworkshop"


def _programs() -> Path | None:
    """Return the folder of PostgreSQL's server programs: Debian's, or the PATH's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    on_path = shutil.which("pg_ctl")
    if found:
        return found[-1].parent
    return Path(on_path).resolve().parent if on_path else None


class PostgresServer:
    """One server; its databases are made one by one."""

    INSTALL_HINT = "apt install postgresql, and pip install 'psycopg[binary]'"

    def __init__(self) -> None:
        programs = _programs()
        assert programs is not None
        self._programs = programs
        self._numbers = count(1)
        # Short, for a socket's path is; and not pytest's, which is root's alone.
        self.folder = Path(tempfile.mkdtemp(prefix="gpuworkshop-pg-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses root
            account = self._account()
            os.chown(self.folder, account.pw_uid, account.pw_gid)
            self._as = {
                "user": account.pw_uid,
                "group": account.pw_gid,
                "extra_groups": [],
            }
        data = self.folder / "data"
        self._call("initdb", "-D", data, "-A", "trust", "-U", _NAME, "--no-sync")
        self.start()

    @staticmethod
    def is_installed() -> bool:
        """Return whether the server and the driver are there."""
        return _programs() is not None and find_spec("psycopg") is not None

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off"
        self._control("start", "-l", self.folder / "log", "-o", options)

    def stop(self) -> None:
        """Stop it at once, dropping every connection."""
        self._control("stop", "-m", "immediate")

    def remove(self) -> None:
        """Stop it and remove its files."""
        self.stop()
        shutil.rmtree(self.folder)

    def new_database(self) -> str:
        """Return the URL of a new, empty database."""
        name = f"{_NAME}_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return f"postgresql://{_NAME}@/{name}?host={self.folder}"

    def execute(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute a statement as somebody else; return its rows."""
        import psycopg  # not where there is no PostgreSQL

        with psycopg.connect(
            host=str(self.folder), user=_NAME, dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def drop_connections(self) -> None:
        """End every other connection, as a restart or a firewall does."""
        self.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def _control(self, *arguments: object) -> None:
        self._call("pg_ctl", "-w", "-D", self.folder / "data", *arguments)

    def _call(self, program: str, *arguments: object) -> None:
        subprocess.run(  # noqa: S603  the system's own programs
            [str(self._programs / program), *map(str, arguments)],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            **self._as,
        )

    @staticmethod
    def _account() -> pwd.struct_passwd:
        try:
            return pwd.getpwnam("postgres")
        except KeyError:
            return pwd.getpwnam("nobody")
