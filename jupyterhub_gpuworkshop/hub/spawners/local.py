"""Servers as processes of the hub's host: a lease is an environment, no more.

Owns what is particular to local processes: a record of each server's process that
survives a kill -9 of the hub, and process ids that are believed only with their start
time.
"""

import os
import pwd
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jupyterhub.spawner import LocalProcessSpawner, SimpleLocalProcessSpawner

from jupyterhub_gpuworkshop.hub.homes import UNIX, Home, home_of_account
from jupyterhub_gpuworkshop.hub.mixin import GpuSpawnerMixin
from jupyterhub_gpuworkshop.hub.runtime import GpuRuntime


class GpuLocalMixin(GpuSpawnerMixin):
    """What spawners of local processes add to the mixin.

    ::

        class MySpawner(GpuLocalMixin, SomeLocalProcessSpawner): ...
    """

    if TYPE_CHECKING:
        pid: int

    def make_preexec_fn(self, name: str) -> Callable[[], None]:
        """Let the child write its own record before it becomes the attendee."""
        inner = super().make_preexec_fn(name)
        if self.lease is None:
            return inner
        record = GpuRuntime.of(self.user.settings).records.writer(self.lease.id)

        def preexec() -> None:
            record()
            if inner is not None:
                inner()

        return preexec

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up the process, if the number still means the same process."""
        super().load_state(state)
        if self.pid and self._is_another_process():
            self.log.warning(
                "Process %d is no longer the server of %s", self.pid, self._log_name
            )
            self.pid = 0

    async def poll(self) -> int | None:
        """Return None while the server runs; a reused process id is not the server."""
        if self.proc is None and self.pid and self._is_another_process():
            self.clear_state()
            return 0
        return await super().poll()

    def home_folder(self) -> str:
        """Return the home of the Unix user whose name the attendee has."""
        try:
            return pwd.getpwnam(self.user.name).pw_dir
        except KeyError:
            return ""

    async def find_home(self) -> Home | None:
        """Return the home of the Unix user whose name the attendee has."""
        return home_of_account(self.user.name)

    def _is_another_process(self) -> bool:
        """Whether the record says that `pid` now belongs to somebody else."""
        if self.lease is None:
            return False
        runtime = GpuRuntime.of(self.user.settings)
        if self.lease.boot_id != runtime.reconciler.boot_id:
            return True
        return (
            runtime.records.read(self.lease.id) is not None
            and runtime.records.living(self.lease.id) is None
        )


class GpuLocalSpawner(GpuLocalMixin, LocalProcessSpawner):
    """LocalProcessSpawner with GPU shares: each attendee is a Unix user."""

    _uid: int | None = None

    def attendee_uid(self) -> int | None:
        """Return the Unix user of this attendee.

        Every report asks for it: it is looked up once, for where the users come from
        a directory service, each look-up is a wait of the hub's loop.
        """
        if self._uid is None:
            try:
                self._uid = pwd.getpwnam(self.user.name).pw_uid
            except KeyError:
                return None
        return self._uid or None


class GpuSimpleSpawner(GpuLocalMixin, SimpleLocalProcessSpawner):
    """SimpleLocalProcessSpawner with GPU shares: all run as the hub's user.

    For demos and rehearsals: attendees can reach each other's files and processes.
    """

    def home_folder(self) -> str:
        """Return the folder that stands for the attendee's home."""
        return str(self.home_dir)

    async def find_home(self) -> Home | None:
        """Return the folder that stands for the home; the hub's user has them all."""
        return Home(
            kind=UNIX, path=self.home_folder(), uid=os.geteuid(), gid=os.getegid()
        )
