"""TLJH's spawner with GPU shares.

Owns which mixin goes in front of it.
"""

from typing import Any, cast

from jupyterhub.app import JupyterHub
from jupyterhub.spawner import LocalProcessSpawner, Spawner

from jupyterhub_gpuworkshop.hub.mixin import GpuSpawnerMixin
from jupyterhub_gpuworkshop.hub.spawners.local import GpuLocalMixin


def with_shares(c: Any) -> type[Spawner]:
    """Return the hub's spawner class with GPU shares.

    TLJH's own is a SystemdSpawner that makes the Unix user. Another plugin may have
    set another.
    """
    chosen = c.JupyterHub.get("spawner_class", "default")
    found = _imported(chosen) if isinstance(chosen, str) else chosen
    if issubclass(found, GpuSpawnerMixin):
        return cast("type[Spawner]", found)
    # Leftmost: some spawners do not call super (facts: jupyterhub 16).
    return cast(
        "type[Spawner]",
        type(
            f"Gpu{found.__name__}",
            (_mixin_for(found), found),
            {
                "__doc__": f"{found.__name__} with GPU shares.",
                "__module__": __name__,
            },
        ),
    )


def _mixin_for(spawner: type[Spawner]) -> type[Any]:
    if any(kind.__module__.startswith("systemdspawner.") for kind in spawner.__mro__):
        # Here, for without such a spawner its package need not be there.
        from jupyterhub_gpuworkshop.hub.spawners.systemd import GpuSystemdMixin

        return GpuSystemdMixin
    local = issubclass(spawner, LocalProcessSpawner)
    return GpuLocalMixin if local else GpuSpawnerMixin


def _imported(name: str) -> type[Spawner]:
    trait = JupyterHub.spawner_class
    entry = trait.load_entry_points().get(name.lower())
    return cast("type[Spawner]", entry.load() if entry else trait._resolve_string(name))
