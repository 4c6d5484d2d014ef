"""Engines: what runs servers that are no children of the hub.

Owns what the hub asks of systemd or Docker about a server that no spawner vouches for:
whether it still runs, and to end it. A hub that is killed in mid-spawn, or that stops
a server in vain, finds out here. Each engine's module is imported only where a lease
names it, since what it needs is an optional extra.
"""

from importlib import import_module
from typing import Any, Protocol

from jupyterhub_gpuworkshop.core.errors import GpuWorkshopError
from jupyterhub_gpuworkshop.core.leases import Lease

_MODULES = {
    "systemd": "jupyterhub_gpuworkshop.hub.spawners.systemd",
    "docker": "jupyterhub_gpuworkshop.hub.spawners.docker",
}
"""Where each engine is; its module has a function ``make_engine(app)``."""


class Engine(Protocol):
    """One engine, asked about servers by their leases.

    Either method may raise whatever the engine raises: then it is unknown whether the
    server runs, and its lease stays. Both come back in bounded time.
    """

    async def is_running(self, lease: Lease) -> bool:
        """Say whether any process of the lease's server is left."""
        ...

    async def end(self, lease: Lease) -> None:
        """End the lease's server and all of its processes; one that is gone is fine."""
        ...


class Engines:
    """The engines of one hub, made when the first lease names them.

    Args:
        app: the hub's application.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._engines: dict[str, Engine] = {}

    def of(self, lease: Lease) -> Engine:
        """Return the engine that a lease names.

        Raises:
            GpuWorkshopError: it is not installed, or this version does not know it.
        """
        name = lease.engine
        if name not in self._engines:
            if name not in _MODULES:
                raise GpuWorkshopError(
                    f"The ledger's lease of {lease.owner} names the engine {name!r}, "
                    "which this version does not know: upgrade jupyterhub-gpuworkshop."
                )
            try:
                module = import_module(_MODULES[name])
            except ImportError as error:
                raise GpuWorkshopError(
                    f"The server of {lease.owner} was started with {name}, and what "
                    f"that needs is not installed: {error}. Install "
                    f"jupyterhub-gpuworkshop[{name}] in the hub's environment."
                ) from error
            self._engines[name] = module.make_engine(self._app)
        return self._engines[name]
