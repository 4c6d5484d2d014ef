"""GpuSpawnerMixin: claim a lease, put it into the environment, give it back.

Owns a lease's way through one server's life. It stands leftmost in the bases, since
some spawners' `load_state` does not call super (facts: jupyterhub 16). How a lease
reaches the operating system, beyond the environment, is the concrete spawner's.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from jupyterhub.utils import maybe_future
from traitlets import Bool, Callable, Instance, Unicode, Union
from traitlets.config import Config, Configurable

from jupyterhub_gpuworkshop.core.caps import apply_lease
from jupyterhub_gpuworkshop.core.enforcement import in_words
from jupyterhub_gpuworkshop.core.errors import (
    GpuWorkshopError,
    LedgerError,
    ShareRefused,
)
from jupyterhub_gpuworkshop.core.leases import Lease

from .allocator import describe
from .doors import DoorKeeper
from .homes import Home
from .material import first_url, run_on_host
from .memory_hook import page_url, with_jupyter_settings, with_memory_hook
from .organisers import is_organiser
from .refusal import refusal
from .runtime import NO_LEDGER, RUNTIME_SETTING, GpuRuntime, runtime_or_refusal

if TYPE_CHECKING:
    from jupyterhub.spawner import Spawner as _Base
else:
    _Base = Configurable

_STATE_KEY = "gpuworkshop"


class GpuSpawnerMixin(_Base):
    """Gives any spawner a GPU lease.

    ::

        class MySpawner(GpuSpawnerMixin, SomeSpawner): ...
    """

    engine: ClassVar[str] = ""
    """What servers run under, as in `Lease.engine`; empty for the hub's children."""

    share = Union(
        [Unicode(), Callable()],
        help="""
        The share to grant, in place of what the workshop file says.

        A share (`"1/5"`, `"8GiB"`, `"2 gpus"`, `"cpu"`), or a callable that takes the
        spawner and returns one, or returns an empty text or None to leave it to the
        workshop file. Empty means the workshop file decides. The attendee has no say.

        Example::

            def share(spawner):
                return "1 gpu" if spawner.user.admin else None

            c.GpuSpawnerMixin.share = share
        """,
    ).tag(config=True)

    visible_indices = Bool(
        False,
        help="""
        Name devices by index in CUDA_VISIBLE_DEVICES, not by UUID.

        For software that cannot read UUIDs. Indices are the driver's and change when
        a GPU is added or lost; MIG slices keep their UUIDs. Default: False.

        Example::

            c.GpuSpawnerMixin.visible_indices = True
        """,
    ).tag(config=True)

    memory_hook = Bool(
        True,
        help="""
        Give servers the import hook that caps PyTorch, TensorFlow and ONNX Runtime,
        softly.

        The hook's folder goes in front of the server's PYTHONPATH, and Python runs
        its sitecustomize at every start. Only for servers with a lease on devices.
        False leaves these frameworks without a cap; what counts as activity in a
        kernel is told to the server all the same. Default: True.

        Example::

            c.GpuSpawnerMixin.memory_hook = False
        """,
    ).tag(config=True)

    memory_hook_path = Unicode(
        help="""
        The folder of the import hook as the server sees it.

        For images and hosts that have it elsewhere: a copy of the package's folder
        `notebook/startup`, readable by attendees. Empty means the package's own
        folder on the hub's host; for containers, a volume that the hub fills with it.

        Example::

            c.GpuSpawnerMixin.memory_hook_path = "/opt/gpuworkshop-startup"
        """,
    ).tag(config=True)

    lease = Instance(Lease, allow_none=True, help="The lease of this server, if any.")

    is_own_start = False
    """Whether the attendee started this server, and nobody else did so for them."""

    @classmethod
    def mistake_in(cls, c: Config) -> str:
        """Say what in the hub's configuration cannot work with shares, or nothing.

        Args:
            c: the configuration, as far as it is set.
        """
        return ""

    async def start(self) -> Any:
        """Claim a lease, then start the server.

        Raises:
            Exception: `refusal`, which the attendee reads on the hub's page.
        """
        settings = self.user.settings
        if shut := self._shut_doors():
            raise refusal(shut, self)
        try:
            runtime = runtime_or_refusal(settings)
            await runtime.inventory_is_known()
            wanted = await maybe_future(
                self.share(self) if callable(self.share) else self.share
            )
            async with runtime.reconciler.lock(self.user.name, self.name):
                await runtime.reconciler.clear_the_way(self.user.name, self.name)
                # No await between here and the end of `claim`.
                self.lease = lease = runtime.claim(self, wanted or None)
                runtime.starting.add(lease.id)
        except ShareRefused as error:
            raise refusal(str(error), self) from error
        except LedgerError as error:
            self.log.error("%s is refused a share: %s", self._log_name, error)
            raise refusal(NO_LEDGER, self) from error
        try:
            started = await super().start()
            await runtime.material.at_start(self)
            return started
        except BaseException:
            # After a failure or a timeout the hub stops the server, and
            # `run_post_stop_hook` gives the lease back; a cancelled start may be
            # left alone, so the reconciler has a look.
            runtime.reconciler.soon()
            raise
        finally:
            runtime.starting.discard(lease.id)

    def _shut_doors(self) -> str:
        """Return why an attendee may not start this server now, or nothing.

        Who starts it for somebody else has the right to, and means it: the organiser,
        before the doors open.
        """
        asks = getattr(self.handler, "current_user", None)
        self.is_own_start = getattr(asks, "name", None) == self.user.name
        if not self.is_own_start or is_organiser(self.user):
            return ""
        return DoorKeeper.of(self.user.settings).no_server()

    def get_env(self) -> dict[str, str]:
        """Return the environment, with the lease laid over it."""
        env = super().get_env()
        env.update(self._material_variables())
        if self.lease is None:
            return env
        admin = {name: str(env[name]) for name in self.environment if name in env}
        applied = apply_lease(
            env, self.lease, admin=admin, by_index=self.visible_indices
        )
        for sentence in applied.overruled:
            self.log.warning("%s", sentence)
        result = dict(applied.variables)
        if not self.lease.devices:
            return result
        runtime = GpuRuntime.of(self.user.settings)
        if runtime.service_url:
            result["GPUWORKSHOP_PAGE"] = page_url(result, runtime.rules.service.name)
        if self.memory_hook:
            result = with_memory_hook(result, self.hook_folder())
        return with_jupyter_settings(result, self.hook_folder())

    def _material_variables(self) -> dict[str, str]:
        """Return what a server is told of the material."""
        runtime = self.user.settings.get(RUNTIME_SETTING)
        if runtime is None:
            return {}
        material = runtime.material
        found = {}
        if material.installed().data:
            found["GPUWORKSHOP_DATA"] = str(material.installed().data_folder)
        if material.open_first:
            first = first_url(
                material.open_first,
                home=self.home_folder(),
                root=self.root_folder(),
                default_url=self.format_string(self.default_url or ""),
            )
            found |= {"JUPYTERHUB_DEFAULT_URL": first} if first else {}
        return found

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Say on the spawn page which share of which device it is, as it goes."""
        while self.lease is None and self._start_pending:  # noqa: ASYNC110  # see below
            await asyncio.sleep(0.1)  # `start` has no event of its own to wait for
        if self.lease is not None:
            yield {"progress": 10, "message": _spawn_message(self.lease)}
        async for event in super().progress():
            yield event

    def load_state(self, state: dict[str, Any]) -> None:
        """Take the lease up again after a restart of the hub.

        Also called on spawners that were made for other reasons: a lease is taken up
        only where a server is on record.
        """
        super().load_state(state)
        self.is_own_start = bool(state.get(_STATE_KEY, {}).get("own_start"))
        if self.orm_spawner is None or self.orm_spawner.server is None:
            return
        try:
            runtime = GpuRuntime.of(self.user.settings)
        except GpuWorkshopError as error:
            self.log.error("No lease is taken up for %s: %s", self._log_name, error)
            return
        self.take_up_lease(runtime)
        if self.lease is None and state:
            self.log.warning(
                "%s runs without a lease: the ledger has none for it. What it holds "
                "counts as foreign until it is restarted.",
                self._log_name,
            )

    def take_up_lease(self, runtime: GpuRuntime) -> None:
        """Take up the lease under which this server, on record with the hub, runs.

        It is found by its id, since an attendee may have been renamed meanwhile; a
        hub that was killed in mid-spawn has stored none, and then by its names.
        """
        ledger = runtime.allocator.ledger
        stored = (self.orm_spawner.state or {}).get(_STATE_KEY, {})
        self.lease = ledger.leases.get(stored.get("lease_id", "")) or ledger.of(
            self.user.name, self.name
        )

    def get_state(self) -> dict[str, Any]:
        """Return the spawner's state, with what the lease says (pure and cheap)."""
        state: dict[str, Any] = super().get_state()
        if self.lease is not None:
            state[_STATE_KEY] = {
                "lease_id": self.lease.id,
                "share": self.lease.share,
                "devices": list(self.lease.uuids),
                "memory_bytes": sum(d.memory_bytes for d in self.lease.devices),
                "memory_limits": in_words(self.lease),
                "own_start": self.is_own_start,
            }
        return state

    async def run_post_stop_hook(self) -> None:
        """Give the lease back once the server is really gone.

        The hub calls this after every stop, failed starts and crashes included;
        `clear_state` and `stop` are called at other times too, or not at all.
        """
        try:
            await maybe_future(super().run_post_stop_hook())
        finally:
            await self._give_back()

    async def _give_back(self) -> None:
        lease = self.lease
        if lease is None:
            return
        runtime = GpuRuntime.of(self.user.settings)
        runtime.tokens.revoke(lease.id)
        if lease.engine:
            await runtime.reconciler.settle_with_engine(lease, "its server has stopped")
        elif await self.poll() is None:
            runtime.unstopped[lease.id] = self
            runtime.allocator.quarantine(lease.id, "its server would not stop")
            runtime.reconciler.soon()
        else:
            runtime.settle(lease.id, "its server has stopped")
        self.lease = None

    async def delete_forever(self) -> None:
        """Forget the devices of a server that is deleted, or of a user who is.

        The default server goes only with its user. A lease that still stands stays:
        its server would not die.
        """
        try:
            await maybe_future(super().delete_forever())
        finally:
            runtime = GpuRuntime.of(self.user.settings)
            runtime.allocator.forget(self.user.name, self.name or None)

    def engine_id_ahead(self) -> str:
        """Return what the engine will call this server; empty where that comes later.

        A spawner that learns it only when it starts calls `identify_lease`.
        """
        return ""

    def identify_lease(self, engine_id: str, *, hook: bool | None = None) -> None:
        """Write down what the engine calls this server, before it runs anything.

        Args:
            engine_id: as in `Lease`.
            hook: whether it has the import hook, where that is only known now.

        Raises:
            LedgerError: it could not be written; the server must not start.
        """
        if self.lease is not None:
            allocator = GpuRuntime.of(self.user.settings).allocator
            self.lease = allocator.identify(self.lease.id, engine_id, hook=hook)

    def hook_folder(self) -> str:
        """Return where the server finds the import hook; empty for the package's."""
        return str(self.memory_hook_path)

    def home_folder(self) -> str:
        """Return the home as the server has it; empty where that is not known."""
        return ""

    def root_folder(self) -> str:
        """Return the root of the server's files; empty for the home."""
        return str(self.format_string(self.notebook_dir or ""))

    async def find_home(self) -> Home | None:
        """Return how the home of the server that runs is reached; None for no way.

        Raises:
            HostError: it cannot be found; with what to do.
        """
        return None

    async def run_in_home(
        self, home: Home, script: Path, arguments: Sequence[str]
    ) -> bytes:
        """Run a script as the attendee, in their home; return what it says.

        Args:
            home: as `find_home` returned it.
            script: Python 3.8 and the standard library.
            arguments: of the script.

        Raises:
            HostError: it did not run to its end.
        """
        return await run_on_host(home, script, arguments)

    def attendee_uid(self) -> int | None:
        """Return the Unix user that only this attendee's servers run as, or None."""
        return None


def _spawn_message(lease: Lease) -> str:
    if lease.devices:
        return f"Your share: {lease.share}, {describe(lease)}"
    return f"Your server has no GPU: {lease.reason}"
