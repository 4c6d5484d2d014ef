"""Hard limits on GPU memory by cgroup, where the driver offers them.

Owns which directory is the cgroup of a server, and setting, reading and lifting limits
on it (facts/gpu.md, first section). It remembers nothing: what is set stands with the
driver, and outlives whoever set it.

A driver can hang, and a call into it then never returns: call this in a thread.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from jupyterhub_gpuworkshop.core.cgroups import Place, place_of
from jupyterhub_gpuworkshop.core.errors import SourceUnavailable

from . import nvml_limits as nvml

_MOUNT = Path("/sys/fs/cgroup")


class CgroupLimits:
    """The driver's limits by cgroup.

    Only a hard limit is ever set, never a soft one: that would be guaranteed memory,
    which the driver adds up on all cgroups above and does not take off again where a
    cgroup is removed without its knowing.
    """

    def __init__(self, mount: Path = _MOUNT) -> None:
        """Touch nothing yet.

        Args:
            mount: where the tree of cgroups is.
        """
        self._mount = mount

    def find(self, places: Collection[Place]) -> dict[Place, str]:
        """Return the cgroups of servers that run, as paths in the tree.

        Args:
            places: the servers' units and containers.

        Raises:
            SourceUnavailable: there is no tree of cgroups of version 2.
        """
        if not (self._mount / "cgroup.controllers").exists():
            raise SourceUnavailable(
                f"{self._mount} has no cgroups of version 2, for which the NVIDIA "
                "driver has limits. Boot Linux with "
                "systemd.unified_cgroup_hierarchy=1."
            )
        found: dict[Place, str] = {}
        wanted = set(places)
        for folder, children, _ in os.walk(self._mount):
            into = []
            for child in children:
                path = f"{folder}/{child}"[len(str(self._mount)) :]
                place = place_of(path)
                if place is None:
                    into.append(child)
                elif place in wanted and self._is_the_systems(path):
                    found[place] = path
            # What is below a unit or a container is its own to name.
            children[:] = into
        return found

    def is_there(self, cgroup: str) -> bool:
        """Tell whether a cgroup exists."""
        return Path(self._folder(cgroup)).is_dir()

    def hold(self, cgroup: str, most: Mapping[str, int]) -> tuple[dict[str, int], bool]:
        """See to it that a cgroup gets no more than this; a lower limit stays.

        Args:
            cgroup: its path in the tree.
            most: bytes by the UUIDs of devices, none of them MIG slices.

        Returns:
            The limits as read back, and whether any had to be set.

        Raises:
            SourceError: not all of them hold; its text says why.
        """
        folder, held, changed = self._folder(cgroup), {}, False
        with nvml.initialised():
            for uuid, limit_bytes in most.items():
                now = nvml.memory_limit(uuid, folder)
                if now is None or now > limit_bytes:
                    nvml.set_memory_limit(uuid, folder, limit_bytes)
                    now, changed = nvml.memory_limit(uuid, folder), True
                if now is None or now > limit_bytes:
                    raise SourceUnavailable(
                        "The NVIDIA driver took the limit by cgroup and does not keep "
                        f"it (read back: {now})."
                    )
                held[uuid] = now
        return held, changed

    def lift(self, cgroup: str, uuids: Collection[str]) -> None:
        """Take the limits of a cgroup away; one that is gone has none.

        Raises:
            SourceError: they may still stand.
        """
        if self.is_there(cgroup):
            with nvml.initialised():
                for uuid in uuids:
                    nvml.set_memory_limit(uuid, self._folder(cgroup), None)

    def _folder(self, cgroup: str) -> str:
        return f"{self._mount}{cgroup}"

    def _is_the_systems(self, cgroup: str) -> bool:
        """Tell whether nobody but the tree's owner can have made a cgroup."""
        parent = Path(self._folder(cgroup)).parent
        try:
            return parent.stat().st_uid == self._mount.stat().st_uid
        except OSError:
            return False  # it has just gone
