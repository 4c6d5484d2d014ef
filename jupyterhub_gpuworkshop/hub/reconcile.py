"""Compare the ledger with what really runs, at start and periodically.

Owns the decision what becomes of a lease that no spawner vouches for. A spawn that
was cancelled, a hub that was killed and a stop that failed all end here: no device
is promised twice and no share is lost for good.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from jupyterhub_gpuworkshop.core.errors import LedgerError
from jupyterhub_gpuworkshop.core.leases import Key, Lease, LeaseState
from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.machine.processes import boot_id, signal_process
from jupyterhub_gpuworkshop.machine.timeouts import timeout

if TYPE_CHECKING:
    from .mixin import GpuSpawnerMixin
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
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self.boot_id = boot_id()

    def lock(self, user: str, server: str) -> asyncio.Lock:
        """Return the lock of (user, server).

        Engines take their time, and call a server of today what they called
        yesterday's: nobody may end the one while the other is being started.
        """
        return self._locks.setdefault((user, server), asyncio.Lock())

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
                forgotten = await self.reconcile()
            except LedgerError as error:
                runtime.log.error("The ledger could not be reconciled: %s", error)
            except Exception:
                runtime.log.exception("The ledger could not be reconciled")
            # A server that was asked to end is looked after soon.
            pause = _GRACE_SECONDS if forgotten else runtime.reconcile_seconds
            try:
                async with timeout(pause):
                    await self._wake.wait()
                await asyncio.sleep(min(1.0, pause))
            except asyncio.TimeoutError:
                pass
            self._wake.clear()

    async def reconcile(self) -> bool:
        """Compare once.

        Returns:
            Whether there is a forgotten server that has not ended yet.
        """
        runtime = self._runtime
        runtime.take_up_leases()
        holders = runtime.holders()
        leases = tuple(runtime.allocator.ledger.leases.values())
        children = [self._forgotten(x, holders) for x in leases if not x.engine]
        # What `settle` asked for is what has just been done.
        self._wake.clear()
        others = [
            await self._forgotten_by_engine(lease)
            for lease in leases
            if lease.engine and not self._is_vouched_for(lease, holders)
        ]
        known = runtime.allocator.ledger.leases
        self._asked = {k: at for k, at in self._asked.items() if k in known}
        runtime.records.keep_only(known)
        return any(children) or any(others)

    def _is_vouched_for(
        self, lease: Lease, holders: "Mapping[str, GpuSpawnerMixin]"
    ) -> bool:
        """Whether a server of this lease is on record with the hub, or being started.

        Args:
            lease: any.
            holders: `GpuRuntime.holders`.
        """
        if lease.id in self._runtime.starting:
            return True
        spawner = holders.get(lease.id)
        return spawner is not None and bool(
            spawner.server is not None or spawner.pending
        )

    def _forgotten(
        self, lease: Lease, holders: "Mapping[str, GpuSpawnerMixin]"
    ) -> bool:
        """Settle the lease of a process that the hub started, if nobody vouches for it.

        Returns:
            Whether its process lives on.
        """
        runtime = self._runtime
        if lease.boot_id != self.boot_id and lease.id not in runtime.starting:
            runtime.allocator.release(lease.id, "the machine was rebooted since")
            return False
        if self._is_vouched_for(lease, holders):
            return False
        process = runtime.records.living(lease.id)
        if process is None and lease.id in runtime.unstopped:
            return True
        runtime.settle(lease.id, "the hub knows of no such server")
        if process is None:
            return False
        self._end(lease, process)
        return True

    async def _forgotten_by_engine(self, lease: Lease) -> bool:
        """Settle the lease of a server of an engine's, if nobody vouches for it.

        Returns:
            Whether its server lives on, or may.
        """
        runtime = self._runtime
        async with self.lock(*lease.key):
            # Meanwhile it may have been taken up, or released.
            holders = runtime.holders()
            if lease.id not in runtime.allocator.ledger.leases:
                return False
            if self._is_vouched_for(lease, holders):
                return False
            heir = self._heir(lease)
            if heir is not None and self._is_vouched_for(heir, holders):
                # It bears the same name: it could start only once this one had ended.
                if heir.id in runtime.starting:
                    return True
                runtime.allocator.release(lease.id, "its server was replaced")
                return False
            return not await self.settle_with_engine(
                lease, "the hub knows of no such server", end=True
            )

    def _heir(self, lease: Lease) -> Lease | None:
        """Return the later lease whose server bears the same name, if there is one."""
        return next(
            (
                other
                for other in self._runtime.allocator.ledger.leases.values()
                if lease.engine_id
                and other.id != lease.id
                and (other.engine, other.engine_id) == (lease.engine, lease.engine_id)
                and other.granted_at >= lease.granted_at
                and other.state is LeaseState.ACTIVE
            ),
            None,
        )

    async def clear_the_way(self, user: str, server: str) -> None:
        """End what an engine still runs of this server before it is started anew.

        What would not end, or nobody knows of, keeps its lease, in quarantine. The
        caller holds `lock`.
        """
        for lease in tuple(self._runtime.allocator.ledger.leases.values()):
            if lease.engine and lease.key == (user, server):
                await self.settle_with_engine(
                    lease, "its server is started anew", end=True
                )

    async def settle_with_engine(
        self, lease: Lease, reason: str, *, end: bool = False
    ) -> bool:
        """Release a lease whose server is gone, quarantine one whose server is not.

        Args:
            lease: its server runs under an engine.
            reason: for the log and the history.
            end: whether to end a server that runs.

        Returns:
            Whether the lease was released.
        """
        runtime = self._runtime
        runtime.tokens.revoke(lease.id)
        try:
            engine = runtime.engines.of(lease)
            runs = await engine.is_running(lease)
            if runs and end:
                runtime.log.warning(
                    "Ending the forgotten server of %s (%s %s): %s",
                    lease.owner,
                    lease.engine,
                    lease.engine_id,
                    reason,
                )
                await engine.end(lease)
                runs = await engine.is_running(lease)
        except Exception as error:
            told = (
                f"whether its server still runs is unknown, since {lease.engine} does "
                f"not say ({error}): {reason}"
            )
        else:
            if not runs:
                runtime.allocator.release(lease.id, reason)
                return True
            told = f"its server ({lease.engine} {lease.engine_id}) still runs: {reason}"
        runtime.allocator.quarantine(lease.id, told)
        if not end:
            self.soon()
        return False

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
