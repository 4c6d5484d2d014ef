"""What happened since the service started, in numbers that only rise.

Owns the counting. The history itself is bounded, and its numbers would fall.
"""

from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.core.wire import Event, EventKind


class Tally:
    """Numbers of one life of the service; the next begins at 0.

    Attributes:
        events: how many events there were, by kind.
        reclaimed_bytes: what kernels that memory was taken from held no more
            afterwards, by what was done to them.
    """

    def __init__(self) -> None:
        self.events = dict.fromkeys(EventKind, 0)
        self.reclaimed_bytes = {action.value: 0 for action in Action}

    def count(self, event: Event) -> None:
        """Take one event in."""
        self.events[event.kind] += 1
        done, freed_bytes = (event.details.get(x) for x in ("done", "freed_bytes"))
        if (
            event.kind is EventKind.KERNEL_RECLAIMED
            and done in self.reclaimed_bytes
            and isinstance(freed_bytes, int)
        ):
            self.reclaimed_bytes[str(done)] += max(0, freed_bytes)
