"""What an earlier life of the service has parked: how things stand with it now.

Owns what a record and the driver's word for each process add up to. It is asked when
the service starts, and by whoever brings everything back for good.
"""

from collections.abc import Mapping
from dataclasses import replace

from jupyterhub_gpuworkshop.core.errors import ParkError
from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.machine.parking import ParkState
from jupyterhub_gpuworkshop.machine.processes import boot_id
from jupyterhub_gpuworkshop.service.kept import ParkedKernel

from .moving import Turn

BETWEEN = frozenset({ParkState.LOCKED, ParkState.MOVING})
"""What a caller that was killed had begun goes on, and may end by itself."""


async def states_of(turn: Turn, record: ParkedKernel) -> Mapping[ProcessId, ParkState]:
    """Ask how things stand with each process of a record.

    Raises:
        ParkError: the driver does not say.
        CallHangs: it has not come back.
    """
    if record.boot_id != boot_id():
        return {}
    return {process: await turn.state(process) for process in record.processes}


async def let_go(
    turn: Turn, record: ParkedKernel, states: Mapping[ProcessId, ParkState]
) -> None:
    """Let go what was left locked: its memory is on the GPU, and needs no room.

    Raises:
        ParkError: it is not let go.
        CallHangs: the driver has not come back.
    """
    for process, state in states.items():
        if state is ParkState.LOCKED:
            await turn.unpark(process, sum(record.memory_bytes.values()))


async def bring_back(turn: Turn, record: ParkedKernel) -> None:
    """Bring all of a record back, for which there must be room; who has ended need not.

    Raises:
        ParkError: some of it is not back.
        CallHangs: the driver has not come back.
    """
    for process in record.processes:
        try:
            await turn.unpark(process, sum(record.memory_bytes.values()))
        except ParkError:
            if await turn.state(process) is not ParkState.GONE:
                raise


def left_of(
    record: ParkedKernel, states: Mapping[ProcessId, ParkState]
) -> ParkedKernel | None:
    """Return the record as it must be now; None where nothing of it is parked."""
    parked = tuple(
        process
        for process, state in states.items()
        if state not in (ParkState.GONE, ParkState.RUNNING, ParkState.LOCKED)
    )
    if not parked:
        return None
    if ParkState.FAILED in states.values():
        record = replace(record, is_broken=True)
    if len(parked) < len(record.processes):
        # Parked by half is of use to nobody: no activity brings it back at once.
        record = replace(record, last_activity="")
    return record.only(parked)
