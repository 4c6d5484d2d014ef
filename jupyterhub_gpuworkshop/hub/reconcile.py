"""Compare the ledger with what really runs, at start and periodically.

Owns the decision what becomes of a lease that no spawner vouches for. A spawn that
was cancelled, a hub that was killed and a stop that failed all end here: no device
is promised twice and no share is lost for good.
"""

import asyncio
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from jupyterhub_gpuworkshop.core.errors import LedgerError
from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.machine.processes import boot_id, signal_process

if TYPE_CHECKING:
    from .runtime import GpuRuntime

_GRACE_SECONDS = 5.0
"""Between asking a forgotten server to end and killing it."""


class Reconciler:
    """Runs beside the hub's own polling, which sees servers but not leases.

    Args:
        runtime: whose ledger is compared.
        clock: monotonic seconds.
    """

    def __init__(
        self, runtime: "GpuRuntime", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._runtime = runtime
        self._clock = clock
        self._wake = asyncio.Event()
        self._asked: dict[str, float] = {}
        self.boot_id = boot_id()

    def soon(self) -> None:
        """Reconcile soon: a lease has lost its server."""
        self._wake.set()

    async def run(self) -> None:
        """Reconcile for ever."""
        runtime = self._runtime
        while True:
            forgotten = True
            try:
                await runtime.poll_unstopped()
                forgotten = self.reconcile()
            except LedgerError as error:
                runtime.log.error("The ledger could not be reconciled: %s", error)
            except Exception:
                runtime.log.exception("The ledger could not be reconciled")
            # A server that was asked to end is looked after soon.
            pause = _GRACE_SECONDS if forgotten else runtime.reconcile_seconds
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
                await asyncio.sleep(min(1.0, pause))
            except asyncio.TimeoutError:
                pass
            self._wake.clear()

    def reconcile(self) -> bool:
        """Compare once.

        Returns:
            Whether there is a forgotten server that has not ended yet.
        """
        runtime = self._runtime
        runtime.take_up_leases()
        holders = runtime.holders()
        forgotten = False
        for lease in tuple(runtime.allocator.ledger.leases.values()):
            if lease.id in runtime.starting:
                continue
            if lease.boot_id != self.boot_id:
                runtime.allocator.release(lease.id, "the machine was rebooted since")
                continue
            spawner = holders.get(lease.id)
            if spawner is not None and (spawner.server is not None or spawner.pending):
                continue
            process = runtime.records.living(lease.id)
            if process is None and lease.id in runtime.unstopped:
                forgotten = True
                continue
            runtime.settle(lease.id, "the hub knows of no such server")
            if process is not None:
                forgotten = True
                self._end(lease, process)
        leases = runtime.allocator.ledger.leases
        self._asked = {k: at for k, at in self._asked.items() if k in leases}
        runtime.records.keep_only(leases)
        # What `settle` asked for is what has just been done.
        self._wake.clear()
        return forgotten

    def _end(self, lease: Lease, process: ProcessId) -> None:
        """End a server that the hub has forgotten: nobody can reach it any more.

        It is our own child by its record, (pid, start time) and boot, or it is not
        touched.
        """
        now = self._clock()
        asked_at = self._asked.setdefault(lease.id, now)
        if asked_at < now < asked_at + _GRACE_SECONDS:
            return
        number = signal.SIGTERM if asked_at == now else signal.SIGKILL
        try:
            sent = signal_process(process.pid, process.started, number)
        except PermissionError:
            sent = False
        if sent:
            self._runtime.log.warning(
                "Sent %s to the forgotten server of %s (pid %d)",
                number.name,
                lease.owner,
                process.pid,
            )
