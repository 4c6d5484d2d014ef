"""Whose lack makes idle memory *needed*.

Owns the answer to "does anybody wait for memory, and where?". What follows from it
is for `reclaim` to say.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .leases import Lease
from .snapshot import DeviceSample
from .wire import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Whose lack makes idle memory needed.

    Attributes:
        refused: somebody was refused a share and still waits.
        short_bytes: what each device lacks for the leases on it, by UUID.
    """

    refused: bool = False
    short_bytes: Mapping[str, int] = field(default_factory=dict)

    @property
    def anywhere(self) -> bool:
        """Whether memory is needed at all."""
        return self.refused or bool(self.short_bytes)

    def on(self, uuids: Iterable[str]) -> bool:
        """Say whether memory on these devices is needed."""
        return self.refused or any(uuid in self.short_bytes for uuid in uuids)


def needed(
    refusals: Iterable[Refusal],
    samples: Iterable[DeviceSample],
    leases: Iterable[Lease],
    used_bytes: Mapping[str, Mapping[str, int]],
    keep_free_bytes: int = 0,
) -> Need:
    """Say where memory is needed.

    Args:
        refusals: who was refused and has not been granted since.
        samples: one reading of each device; a device without one is not judged.
        leases: all of them.
        used_bytes: what the holders of each lease use, by lease id, then by UUID.
        keep_free_bytes: how much memory that no process owns up to is no lack: it is
            what `gpus.keep_free_per_gpu` is kept free for. Without it a device whose
            shares are all granted would lack a few MiB for ever.
    """
    still_due: dict[str, int] = {}
    for lease in leases:
        for device in lease.devices:
            used = used_bytes.get(lease.id, {}).get(device.uuid, 0)
            due = max(0, device.memory_bytes - used)
            still_due[device.uuid] = still_due.get(device.uuid, 0) + due
    free = {x.uuid: _free_or_forgiven(x, keep_free_bytes) for x in samples}
    return Need(
        refused=any(True for _ in refusals),
        short_bytes={
            uuid: still_due[uuid] - free_bytes
            for uuid, free_bytes in free.items()
            if still_due.get(uuid, 0) > free_bytes
        },
    )


def _free_or_forgiven(sample: DeviceSample, keep_free_bytes: int) -> int:
    owned = sum(process.memory_bytes or 0 for process in sample.processes or ())
    unnamed = max(0, sample.memory_used_bytes - owned)
    return sample.memory_free_bytes + min(unnamed, keep_free_bytes)
