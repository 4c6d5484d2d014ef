"""DeviceSource: the one seam between this package and anything with GPUs.

Every implementation passes the same contract suite (tests/machine).
"""

from typing import Protocol

from jupyterhub_gpuworkshop.core.devices import Inventory
from jupyterhub_gpuworkshop.core.snapshot import DeviceSample


class DeviceSource(Protocol):
    """Where devices and readings come from. Blocking: call it in a thread."""

    def inventory(self) -> Inventory:
        """Return what exists.

        Raises:
            SourceUnavailable: there is nothing to read from.
            SourceLost: the driver went away; `close`, then call again.
        """

    def sample(self) -> tuple[DeviceSample, ...]:
        """Return one reading of each device that answers.

        Utilisation covers the time since the previous call; the first call of a
        source's life has none to tell and says None.

        Raises:
            SourceUnavailable: there is nothing to read from.
            SourceLost: the driver went away; `close`, then call again.
        """

    def close(self) -> None:
        """Let go of the driver. The next call starts again."""
