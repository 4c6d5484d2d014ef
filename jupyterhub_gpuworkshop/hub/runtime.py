"""GpuRuntime: everything that one hub has once, however many spawners it has.

Owns the composition (ledger, allocator, link, banner, records, tokens) and the loops.
It decides nothing about placement and nothing about how a lease is applied.
"""

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from jupyterhub.utils import url_path_join
from traitlets import Dict, Float, Unicode, Union
from traitlets.config import LoggingConfigurable

from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError, ShareRefused
from jupyterhub_gpuworkshop.core.leases import Lease, LeaseState
from jupyterhub_gpuworkshop.core.wire import ServerInfo
from jupyterhub_gpuworkshop.machine.processes import boot_id
from jupyterhub_gpuworkshop.workshop import Workshop

from .allocator import Allocator
from .authenticator import RosterAuthenticator
from .banner import Banner
from .closing import Closing
from .database import default_ledger_url
from .doors import DoorKeeper
from .drains import Drains
from .engines import Engines
from .homes import Homes, file_beside
from .ledger import DurableLedger
from .link import HubLink
from .look import look_once
from .material import MaterialBringer, watch_for_ever
from .reconcile import Reconciler
from .records import ServerRecords
from .tokens import ServerTokens
from .unlocking import Unlocking

if TYPE_CHECKING:
    from .mixin import GpuSpawnerMixin

RUNTIME_SETTING = "gpuworkshop"
_LOOK_AGAIN_SECONDS = 30.0

NO_LEDGER = (
    "GPU shares cannot be granted: the hub's GPU ledger cannot be used. "
    "Tell the organiser, who finds the reason in the hub's log."
)
"""What the attendee reads; the reason is in the log."""


class GpuRuntime(LoggingConfigurable):
    """The hub's GPU side: one ledger, one allocator, one link."""

    workshop = Union(
        [Unicode(), Dict()],
        help="""
        The workshop file's path or content, set by `configure(c, workshop)`.

        Empty means the defaults: five attendees a GPU, round-robin.

        Example::

            c.GpuRuntime.workshop = {"gpus": {"attendees_per_gpu": 4}}
        """,
    ).tag(config=True)

    service_url = Unicode(
        help="""
        Where the hub reaches the GPU service, without the hub's base URL.

        Empty means that there is no service: shares are granted by the ledger alone
        and nothing is reclaimed.

        Example::

            c.GpuRuntime.service_url = "http://127.0.0.1:10110"
        """,
    ).tag(config=True)

    link_secret = Unicode(
        help="""
        The secret that hub and GPU service share, made by `configure(c, workshop)`.

        Example::

            c.GpuRuntime.link_secret = secrets.token_hex(32)
        """,
    ).tag(config=True)

    state_dir = Unicode(
        help="""
        The folder for the records of running servers, mode 0700.

        Empty means `gpuworkshop-servers` in the hub's working directory. It must
        outlive the hub and need not outlive the machine.

        Example::

            c.GpuRuntime.state_dir = "/run/gpuworkshop-servers"
        """,
    ).tag(config=True)

    report_seconds = Float(
        2.0,
        min=0.1,
        help="""
        Seconds between two reports to the GPU service when nothing changes.

        Changes are reported at once. At least 0.1.

        Example::

            c.GpuRuntime.report_seconds = 5
        """,
    ).tag(config=True)

    reconcile_seconds = Float(
        30.0,
        min=0.1,
        help="""
        Seconds between two comparisons of the ledger with what really runs.

        At least 0.1. One is made at start, too.

        Example::

            c.GpuRuntime.reconcile_seconds = 10
        """,
    ).tag(config=True)

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "GpuRuntime":
        """Return the runtime of the hub with these tornado settings."""
        runtime = settings.get(RUNTIME_SETTING)
        if runtime is None:
            app = settings["app"]
            runtime = settings[RUNTIME_SETTING] = cls(parent=app, app=app)
        return cast("GpuRuntime", runtime)

    def __init__(self, *, app: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.app = app
        self.rules = Workshop.load(self.workshop or {})
        self.starting: set[str] = set()
        """Ids of the leases whose `Spawner.start` is under way."""
        self.unstopped: dict[str, GpuSpawnerMixin] = {}
        """Spawners whose servers would not stop, by the ids of their leases."""
        self.link: HubLink | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._first_look: asyncio.Task[None] | None = None
        self._looked_at = 0.0
        directory = self.state_dir or os.fspath(Path.cwd() / "gpuworkshop-servers")
        self.records = ServerRecords(Path(directory))
        self.allocator = Allocator(
            self._open_ledger(),
            self.rules,
            boot_id=boot_id(),
            clock=time.time,
            log=self.log,
            changed=self._changed,
        )
        self.banner = Banner(changed=self._changed)
        self.engines = Engines(app)
        self.tokens = ServerTokens(app.db, self.log)
        self.material = MaterialBringer(
            self.rules.material.folder,
            self.rules.material.open_first,
            Homes(file_beside(self.rules.roster_file(self.workshop or {}))),
            self.log,
        )
        self.reconciler = Reconciler(self)

    def _open_ledger(self) -> DurableLedger:
        url = self.rules.ledger_url
        return DurableLedger(url or default_ledger_url(self.app.db_url, Path.cwd()))

    def start(self) -> None:
        """Start the loops, once."""
        if self._tasks:
            return
        self.tokens.revoke_earlier()
        keeper = DoorKeeper.of(self.app.tornado_settings)
        keeper.install(self.app, self.rules.service.name)
        self._tasks.append(asyncio.ensure_future(Closing(self.app, keeper).run()))
        if self.service_url:
            self.banner.install(self.app, self.rules.service.name)
            self.link = HubLink(
                url_path_join(
                    self.service_url,
                    self.app.base_url,
                    "services",
                    self.rules.service.name,
                    "link",
                ),
                self.link_secret,
                allocator=self.allocator,
                banner=self.banner,
                drains=Drains(self.records.directory, self.allocator, self.log),
                servers=self.servers,
                interval_seconds=self.report_seconds,
                log=self.log,
                unlocking=self._unlocking(),
            )
            self._tasks.append(asyncio.ensure_future(self.link.run()))
        self._tasks.append(asyncio.ensure_future(self.reconciler.run()))
        self._tasks.append(asyncio.ensure_future(watch_for_ever(self)))
        self._first_look = asyncio.ensure_future(self._look())

    def _unlocking(self) -> Unlocking | None:
        authenticator = self.app.authenticator
        if not isinstance(authenticator, RosterAuthenticator):
            return None
        return Unlocking(
            authenticator.lock_outs,
            authenticator.names,
            changed=self._changed,
            log=self.log,
        )

    async def _look(self) -> None:
        self._looked_at = time.monotonic()
        inventory = await look_once(self.rules)
        if not self._service_sees:
            self.allocator.observe(inventory, ())
            self.log.info(
                "Looked for GPUs: %s",
                f"{len(inventory.devices)} found"
                if inventory.devices
                else f"none ({inventory.problem or 'the driver reports no device'})",
            )

    @property
    def _service_sees(self) -> bool:
        link = self.link
        return link is not None and bool(link.is_up) and link.has_looked

    async def inventory_is_known(self) -> None:
        """Wait until somebody has looked for devices, a few seconds at most.

        Where there were none and no service looks, look again now and then.
        """
        self.start()
        nothing = not self.allocator.inventory.devices
        if nothing and not self._service_sees and self._first_look is not None:
            since = time.monotonic() - self._looked_at
            if self._first_look.done() and since > _LOOK_AGAIN_SECONDS:
                self._first_look = asyncio.ensure_future(self._look())
            await asyncio.shield(self._first_look)

    def claim(self, spawner: "GpuSpawnerMixin", share: str | None) -> Lease:
        """Grant a lease to a spawner that is about to start its server.

        Raises:
            ShareRefused: with a text for the attendee.
        """
        user, server = spawner.user.name, spawner.name
        before = self.allocator.ledger.of(user, server)
        if before is not None:
            self.settle(before.id, "its server is started anew")
        return self.allocator.claim(
            user=user,
            server=server,
            groups=[group.name for group in spawner.user.groups],
            share=share,
            engine=spawner.engine,
            engine_id=spawner.engine_id_ahead(),
            hook=spawner.memory_hook,
        )

    def settle(self, lease_id: str, reason: str) -> None:
        """Release a lease whose server is gone, quarantine one whose server is not.

        For servers that are the hub's children; the reconciler asks the others'
        engines.
        """
        self.tokens.revoke(lease_id)
        process = self.records.living(lease_id)
        if process is None:
            self.allocator.release(lease_id, reason)
            self.records.remove(lease_id)
            return
        self.allocator.quarantine(
            lease_id, f"its server (pid {process.pid}) still runs: {reason}"
        )
        self.reconciler.soon()

    def take_up_leases(self) -> None:
        """Let each server on record take up its lease, where it has not yet.

        The ledger may have been out of reach when the hub started.
        """
        for user in list(self.app.users.values()):
            for spawner in list(user.spawners.values()):
                on_record = spawner.server is not None and not spawner.pending
                if on_record and getattr(spawner, "lease", self) is None:
                    spawner.take_up_lease(self)

    async def poll_unstopped(self) -> None:
        """Ask again whether the servers that would not stop still run."""
        for lease_id, spawner in list(self.unstopped.items()):
            try:
                status = await spawner.poll()
            except Exception as error:
                self.log.warning("%s cannot be polled: %s", spawner._log_name, error)
                continue
            if status is not None:
                self.unstopped.pop(lease_id, None)

    def holders(self) -> dict[str, "GpuSpawnerMixin"]:
        """Return the spawners that hold a lease, by lease id."""
        return {
            spawner.lease.id: spawner
            for user in list(self.app.users.values())
            for spawner in list(user.spawners.values())
            if getattr(spawner, "lease", None) is not None
        }

    def servers(self) -> tuple[ServerInfo, ...]:
        """Return the servers that run on an active lease."""
        holders = self.holders()
        found = []
        for lease in self.allocator.ledger.leases.values():
            spawner = holders.get(lease.id)
            if spawner is None or not spawner.ready:
                continue
            if lease.state is not LeaseState.ACTIVE:
                continue
            process = self.records.read(lease.id)
            found.append(
                ServerInfo(
                    lease_id=lease.id,
                    user=lease.user,
                    server=lease.server,
                    url=url_path_join(spawner.server.url, "/"),
                    token=self.tokens.of(lease, spawner),
                    pid=process.pid if process else 0,
                    started=process.started if process else 0,
                    uid=spawner.attendee_uid(),
                    engine=lease.engine,
                    engine_id=lease.engine_id,
                    groups=tuple(sorted(group.name for group in spawner.user.groups)),
                )
            )
        return tuple(found)

    def _changed(self) -> None:
        if self.link is not None:
            self.link.poke()


def runtime_or_refusal(settings: dict[str, Any]) -> GpuRuntime:
    """Return the hub's runtime.

    Raises:
        ShareRefused: it cannot be had: a broken ledger, say. The log says why.
    """
    try:
        return GpuRuntime.of(settings)
    except GpuWorkshopError as error:
        settings["app"].log.error("GPU shares are refused: %s", error)
        raise ShareRefused(NO_LEDGER) from error
