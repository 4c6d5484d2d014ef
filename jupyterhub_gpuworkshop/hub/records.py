"""Which process is a lease's server, written by that process itself before exec.

Owns the directory of records. JupyterHub stores a server's state only after `start`
has returned, so a hub that is killed in mid-spawn forgets a process that lives on
and holds its GPU (facts: jupyterhub 10). The child therefore writes its own (pid,
start time), as the hub's user, between fork and exec: there is no instant at which
a server runs and no record says so. Nothing an attendee can write is read here.
"""

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path

from jupyterhub_gpuworkshop.core.errors import LedgerError
from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.machine.processes import is_alive, read_process

_LEASE_ID = re.compile("[0-9a-f]{32}")


class ServerRecords:
    """The records of one hub, a small file a lease.

    Raises:
        LedgerError: the folder cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(
                f"The folder {directory} for the records of running servers cannot be "
                f"made: {error.strerror}. Set c.GpuRuntime.state_dir to a folder that "
                "the user who runs the hub can write to."
            ) from error

    def _path(self, lease_id: str) -> Path:
        return self.directory / lease_id

    def writer(self, lease_id: str) -> Callable[[], None]:
        """Return a function for the child to call between fork and exec."""
        path = os.fspath(self._path(lease_id))

        def write_own_record() -> None:
            # The hub's loop stands still until the child execs: read what is needed.
            facts = read_process(os.getpid(), with_details=False)
            if facts is None:
                raise OSError("/proc does not show this process")
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            record = os.open(path, flags, 0o600)
            os.write(record, f"{facts.pid} {facts.started}\n".encode())
            os.close(record)

        return write_own_record

    def read(self, lease_id: str) -> ProcessId | None:
        """Return the process of a lease's server, alive or not."""
        try:
            pid, started = self._path(lease_id).read_text().split()
            return ProcessId(pid=int(pid), started=int(started))
        except (OSError, ValueError):
            return None

    def living(self, lease_id: str) -> ProcessId | None:
        """Return the process of a lease's server if that very process still runs."""
        process = self.read(lease_id)
        if process is not None and is_alive(process.pid, process.started):
            return process
        return None

    def remove(self, lease_id: str) -> None:
        """Forget a lease's server."""
        self._path(lease_id).unlink(missing_ok=True)

    def keep_only(self, lease_ids: Collection[str]) -> None:
        """Forget the servers of all leases but these.

        Whatever else is in the folder stays: an organiser may have named one that
        holds other things.
        """
        for path in self.directory.iterdir():
            if path.name not in lease_ids and _LEASE_ID.fullmatch(path.name):
                path.unlink(missing_ok=True)
