"""Who has given wrong codes, in a file that outlives the hub.

Owns one small SQLite file. It is the truth at each call: `gpuworkshop roster unlock`
changes it from another process. What the failures mean is `core.lock_out`'s to say.
A file that cannot be used stops nobody from logging in: failures are counted in memory
until it can.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from jupyterhub_gpuworkshop.core.lock_out import (
    ANY_STRANGE_ADDRESS,
    CLOCK_SLACK_SECONDS,
    DEFAULT_RULES,
    Level,
    Locked,
    LockOutRules,
    Standing,
    address_key,
    level_after_failure,
    level_after_success,
    name_key,
    name_wait_seconds,
    pair_after_failure,
    pair_wait_seconds,
    wait_seconds,
)

from .lock_out_tables import (
    connect,
    copy_since,
    forget_name,
    level_of,
    pair_from,
    pair_of,
    put,
    put_level,
    rows,
    transact,
)
from .own_files import make_closed

_LOG = logging.getLogger(__name__)
_TRY_AGAIN_SECONDS = 60.0
BROKEN = ".broken"

T = TypeVar("T")


def file_beside(roster: Path) -> Path:
    """Return the file of who guesses at a roster, for hub and commands alike."""
    return roster.with_name(f"{roster.name}.lock-outs.sqlite")


class LockOuts:
    """Counts wrong codes, and says who has to wait.

    Every method is quick, blocks, and may be called from any thread. Names are to be
    normalised by the caller, as the hub does.

    Args:
        path: the file; its folder must be there.
        rules: the limits.
        clock: seconds since the epoch.

    Attributes:
        problem: why the file is not in use, in a sentence; else empty. What another
            process is to see, as `unlock`, is done only if it is empty afterwards.
    """

    def __init__(
        self,
        path: Path,
        rules: LockOutRules = DEFAULT_RULES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.problem = ""
        self._path = path
        self._rules = rules
        self._clock = clock
        self._turn = threading.Lock()
        self._file: sqlite3.Connection | None = None
        self._file_is: tuple[int, int] | None = None
        self._memory: sqlite3.Connection | None = None
        self._in_memory_since = 0.0
        self._tried_at = 0.0

    def wait_seconds(self, name: str, address: str) -> float:
        """Return how long a name has to wait at an address; 0.0 for not at all."""
        name, address, now = name_key(name), address_key(address), self._clock()
        return self._do(lambda db: self._wait(db, name, address, now))

    def failed(self, name: str, address: str) -> None:
        """Count a wrong code. One that was not looked at, for the wait, is none."""
        name, address, now = name_key(name), address_key(address), self._clock()
        self._do(lambda db: self._count(db, name, address, now))

    def attempt(self, name: str, address: str) -> float:
        """Count a failure unless the name has to wait; in one step.

        To be called before the code is looked at, in the place of `wait_seconds` and
        `failed`: many guesses at once would all be looked at before the first failed.
        `succeeded` takes it back.

        Returns:
            How long it has to wait; 0.0 if the code may be looked at.
        """
        name, address, now = name_key(name), address_key(address), self._clock()

        def count_if_free(db: sqlite3.Connection) -> float:
            wait = self._wait(db, name, address, now)
            if not wait:
                self._count(db, name, address, now)
            return wait

        return self._do(count_if_free)

    def succeeded(self, name: str, address: str) -> None:
        """Forget a name's failures from an address, which is good for it now."""
        name, address, now = name_key(name), address_key(address), self._clock()

        def clear(db: sqlite3.Connection) -> None:
            where = (name, address)
            db.execute("DELETE FROM pairs WHERE name = ? AND address = ?", where)
            if (level := level_of(db, name)) is not None:
                put_level(db, name, level_after_success(level, now, self._rules))
            put(db, "good", (name, address, now))
            self._tidy(db, name, address, now)

        self._do(clear)

    def unlock(self, name: str | None = None) -> int:
        """Forget all failures of a name, or of all names.

        Returns:
            How many waits that ended.
        """
        key = None if name is None else name_key(name)
        now = self._clock()

        def forget(db: sqlite3.Connection) -> int:
            ended = [x for x in self._locked(db, now) if key is None or x.name == key]
            for table in ("pairs", "names"):
                if key is None:
                    db.execute(f"DELETE FROM {table}")  # noqa: S608 - two names above
                else:
                    db.execute(
                        f"DELETE FROM {table} WHERE name = ?",  # noqa: S608 - as above
                        (key,),
                    )
            return len(ended)

        return self._do(forget)

    def forget(self, name: str) -> None:
        """Forget all that is known of a name, where it has logged in from too."""
        self._do(lambda db: forget_name(db, name_key(name)))

    def locked(self) -> list[Locked]:
        """Return who has to wait now, by name."""
        now = self._clock()
        return self._do(lambda db: self._locked(db, now))

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        with self._turn:
            self._let_go()

    def _wait(
        self, db: sqlite3.Connection, name: str, address: str, now: float
    ) -> float:
        return wait_seconds(
            pair=pair_of(db, name, address),
            level=level_of(db, name),
            address_failures=self._address_failures(db, address, now),
            standing=self._standing(db, name, address, now),
            now=now,
            rules=self._rules,
        )

    def _count(
        self, db: sqlite3.Connection, name: str, address: str, now: float
    ) -> None:
        busy = self._address_failures(db, address, now)
        pair = pair_after_failure(pair_of(db, name, address), busy, now, self._rules)
        counts = (pair.failures, pair.in_window, pair.waits, pair.at, pair.until)
        put(db, "pairs", (name, address, *counts))
        put_level(db, name, level_after_failure(level_of(db, name), now, self._rules))
        self._tidy(db, name, address, now)

    def _address_failures(
        self, db: sqlite3.Connection, address: str, now: float
    ) -> int:
        (count,) = db.execute(
            "SELECT coalesce(sum(in_window), 0) FROM pairs "
            "WHERE address = ? AND at > ? AND at <= ?",
            (address, now - self._rules.window_seconds, now + CLOCK_SLACK_SECONDS),
        ).fetchone()
        return int(count)

    def _standing(
        self, db: sqlite3.Connection, name: str, address: str, now: float
    ) -> Standing:
        since = now - self._rules.good_seconds
        of_name, of_any = db.execute(
            "SELECT EXISTS (SELECT 1 FROM good WHERE name = ?1 AND address = ?2 "
            "AND at > ?3), "
            "EXISTS (SELECT 1 FROM good WHERE address = ?2 AND at > ?3)",
            (name, address, since),
        ).fetchone()
        if of_name:
            return Standing.GOOD
        return Standing.KNOWN if of_any else Standing.STRANGE

    def _locked(self, db: sqlite3.Connection, now: float) -> list[Locked]:
        found: list[Locked] = []
        rules = self._rules
        busy: dict[str, int] = {}
        for name, address, *counts in rows(db, "pairs"):
            if address not in busy:
                busy[address] = self._address_failures(db, address, now)
            wait = pair_wait_seconds(pair_from(*counts), busy[address], now, rules)
            if wait:
                found.append(Locked(name=name, address=address, until=now + wait))
        for name, tries, at in rows(db, "names"):
            level = Level(tries=tries, at=at)
            wait = name_wait_seconds(level, Standing.STRANGE, now, rules)
            if wait:
                until = now + wait
                found.append(
                    Locked(name=name, address=ANY_STRANGE_ADDRESS, until=until)
                )
        return sorted(found, key=lambda x: (x.name, x.address))

    def _tidy(
        self, db: sqlite3.Connection, name: str, address: str, now: float
    ) -> None:
        """Keep no more than the rules say, of what was written just now."""
        rules = self._rules
        for table, seconds in (
            ("pairs", rules.forget_seconds),
            ("names", rules.forget_name_seconds),
            ("good", rules.good_seconds),
        ):
            db.execute(
                f"DELETE FROM {table} WHERE at <= ?",  # noqa: S608 - names above
                (now - seconds,),
            )
        # Of a clock that was wrong; they would be kept until their time has come.
        for table in ("pairs", "names"):
            db.execute(
                f"DELETE FROM {table} WHERE at > ?",  # noqa: S608 - as above
                (now + CLOCK_SLACK_SECONDS,),
            )
        db.execute(
            "DELETE FROM pairs WHERE id IN (SELECT id FROM pairs WHERE address = ? "
            "ORDER BY id DESC LIMIT -1 OFFSET ?)",
            (address, rules.most_pairs_per_address),
        )
        db.execute(
            "DELETE FROM good WHERE id IN (SELECT id FROM good WHERE name = ? "
            "ORDER BY id DESC LIMIT -1 OFFSET ?)",
            (name, rules.most_good_per_name),
        )
        for table, most in (
            ("pairs", rules.most_pairs),
            ("names", rules.most_names),
            ("good", rules.most_good),
        ):
            db.execute(
                f"DELETE FROM {table} WHERE id <= (SELECT id FROM {table} "  # noqa: S608 - names above
                "ORDER BY id DESC LIMIT 1 OFFSET ?)",
                (most,),
            )

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something in the file, or else in memory."""
        with self._turn:
            now = self._clock()
            if not self.problem or abs(now - self._tried_at) >= _TRY_AGAIN_SECONDS:
                try:
                    return self._do_in_file(work)
                except (OSError, sqlite3.Error) as error:
                    self._tried_at = now
                    self._go_on_in_memory(error, now)
            if self._memory is None:
                self._memory = connect(":memory:")
            return transact(self._memory, work)

    def _do_in_file(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            done = transact(self._opened(), work)
        except sqlite3.DatabaseError as error:
            if not _is_broken(error):
                raise
            self._put_aside(error)
            done = transact(self._opened(), work)
        if self.problem:
            _LOG.info("Wrong codes are counted in %s again.", self._path)
            self.problem = ""
        return done

    def _opened(self) -> sqlite3.Connection:
        """Return the file that has the path now: it may have been removed."""
        if self._file is None or _identity(self._path) != self._file_is:
            self._let_go()
            make_closed(self._path)
            self._file_is = _identity(self._path)
            # What follows may find that it is broken: then it is this one.
            self._file = connect(str(self._path))
        if self._memory is not None:
            memory, since = self._memory, self._in_memory_since
            transact(self._file, lambda db: copy_since(memory, db, since))
            memory.close()
            self._memory = None
        return self._file

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None

    def _put_aside(self, error: sqlite3.DatabaseError) -> None:
        """Move a file away that SQLite cannot use."""
        self._let_go()
        # Another process may have begun anew meanwhile: that one is not moved.
        if _identity(self._path) != self._file_is:
            return
        aside = self._path.with_name(self._path.name + BROKEN)
        self._path.replace(aside)
        # A journal of the old file would be played into the new one.
        self._path.with_name(self._path.name + "-journal").unlink(missing_ok=True)
        _LOG.error(
            "%s cannot be used (%s) and is kept as %s. Wrong codes are counted anew.",
            self._path,
            error,
            aside.name,
        )

    def _go_on_in_memory(self, error: Exception, now: float) -> None:
        problem = (
            f"Wrong codes are counted in memory only, and forgotten when the hub "
            f"restarts: {self._path} cannot be used ({error}). It has to be a file "
            f"that the hub may write, in a folder that it may write, on a disk with "
            f"room."
        )
        if not self.problem:
            _LOG.error("%s", problem)
        self.problem = problem
        if self._memory is None:
            self._memory = connect(":memory:")
            self._in_memory_since = now
            # A file that cannot be written may be good to read.
            with contextlib.suppress(sqlite3.Error):
                if self._file is not None:
                    file = self._file
                    transact(self._memory, lambda db: copy_since(file, db, 0.0))
        self._let_go()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_dev, facts.st_ino


def _is_broken(error: sqlite3.DatabaseError) -> bool:
    # Python raises the root of its errors for "not a database" and "malformed"; their
    # codes are on the exception from Python 3.11 only.
    return type(error) is sqlite3.DatabaseError
