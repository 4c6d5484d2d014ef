"""DeviceSource: the one seam between this package and anything with GPUs.

Every implementation passes the same contract suite (tests/machine).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.errors import SourceUnavailable
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample, Glance


class DeviceSource(Protocol):
    """Where devices and readings come from.

    Blocking, and a driver may never come back: the service has a process of its own
    for it. After `SourceLost`, `close` and call again; where the driver was upgraded in
    use, only a new process sees it again (facts/gpu.md 41).
    """

    def inventory(self) -> Inventory:
        """Return what exists.

        Raises:
            SourceUnavailable: there is nothing to read from.
            SourceLost: the driver went away.
        """

    def sample(self) -> tuple[DeviceSample, ...]:
        """Return one reading of each device that answers.

        Utilisation covers the time since the previous call; the first call of a
        source's life has none to tell and says None.

        Raises:
            SourceUnavailable: there is nothing to read from.
            SourceLost: the driver went away.
        """

    def glance(self) -> tuple[Glance, ...]:
        """Return what is cheap to read of each device that answers.

        It lists no processes, and moves nothing: the next sample's utilisation covers
        the time since the last sample, as if this had not been asked. A glance's own
        covers the time since the previous glance; the first one says None.

        Raises:
            SourceUnavailable: there is nothing to read from.
            SourceLost: the driver went away.
        """

    def free_bytes(self) -> dict[str, int]:
        """Return what an allocation could get on each device, by UUID.

        It moves nothing: the next sample's utilisation covers the time since the last
        sample, as if this had not been asked.

        Raises:
            SourceUnavailable: there is nothing to read from.
            SourceLost: the driver went away.
        """

    def close(self) -> None:
        """Let go of the driver. The next call starts again."""


def open_source(
    name: str, *, simulated_dir: Path | None = None, known: Sequence[Device] = ()
) -> DeviceSource:
    """Return the source of this name; it touches nothing before its first call.

    Args:
        name: ``"nvml"`` or ``"simulated"``.
        simulated_dir: where the simulated GPUs live.
        known: devices that were seen before: one that does not answer is said to be
            lost, which else would not be known to exist.

    Raises:
        SourceUnavailable: there is no such source, or it lacks its directory.
    """
    # Imported here: whoever simulates needs no pynvml, and the other way round.
    if name == "nvml":
        from .nvml import NvmlSource

        return NvmlSource(known=known)
    if name == "simulated":
        if simulated_dir is None:
            raise SourceUnavailable(
                "Simulated GPUs need a directory to live in: name one."
            )
        from .simulated import SimulatedSource

        return SimulatedSource(simulated_dir)
    raise SourceUnavailable(
        f"There are no GPUs called {name!r}: write nvml or simulated."
    )
