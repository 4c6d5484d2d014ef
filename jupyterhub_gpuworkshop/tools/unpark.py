"""`gpuworkshop unpark --all`: bring paused kernels back, once the service has ended.

Owns where the record of them is found, the order in which they come back, and what is
said of those that do not. How a kernel comes back is the service's own code; while a
service runs on the same state folder, this does nothing.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from jupyterhub_gpuworkshop.core.devices import Inventory
from jupyterhub_gpuworkshop.core.errors import (
    CallHangs,
    HostError,
    ParkError,
    SourceError,
)
from jupyterhub_gpuworkshop.core.returns import Waiting, who_returns
from jupyterhub_gpuworkshop.core.units import format_size
from jupyterhub_gpuworkshop.machine.parking import ParkState, open_parker
from jupyterhub_gpuworkshop.service.kept import STATE_FILE, Kept, ParkedKernel, read
from jupyterhub_gpuworkshop.service.only_one import OnlyOne
from jupyterhub_gpuworkshop.service.parking.moving import Mover, Turn
from jupyterhub_gpuworkshop.service.parking.parked import Parking, key_of
from jupyterhub_gpuworkshop.service.parking.settling import (
    bring_back,
    left_of,
    let_go,
    states_of,
)
from jupyterhub_gpuworkshop.service.rules import Rules
from jupyterhub_gpuworkshop.service.sampler import ChildSampler, sampler_command

from .unit import NAME, STATE_FOLDER

_LOG = logging.getLogger(__name__)
_SETTLES_WITHIN_SECONDS = 10
_AGAIN = "Then run this again."
_RESTART = (
    "It is stuck for good: have its owner restart the kernel, or stop the server from "
    "the hub's admin page."
)


class Outcome(str, Enum):
    """What became of a paused kernel."""

    BACK = "back"
    GONE = "gone"
    """It has ended, or runs already: there is nothing to bring back."""
    NO_ROOM = "no_room"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnparkOptions:
    """Whose paused kernels are to come back.

    Attributes:
        workshop: the workshop file; None for an empty workshop.
        state_dir: the service's state folder; None to find it.
        json: print one JSON object instead of sentences.
    """

    workshop: str | None = None
    state_dir: Path | None = None
    json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one paused kernel, and why, in sentences."""

    kernel: ParkedKernel
    outcome: Outcome
    text: str

    @property
    def is_left(self) -> bool:
        """Whether it is still paused, or lost."""
        return self.outcome in (Outcome.NO_ROOM, Outcome.FAILED)


def run(options: UnparkOptions, say: Callable[[str], None]) -> int:
    """Bring back whatever fits, and list what does not.

    Args:
        options: whose.
        say: is told line by line.

    Returns:
        The exit status: 0 where nothing is left, else 1.

    Raises:
        HostError: the service still runs, or there is no record to go by.
        WorkshopFileError: the workshop file has mistakes.
        ParkError: nothing can be moved here.
    """
    rules = Rules(options.workshop or "", _LOG)
    folder = _folder(options, rules)
    only_one = OnlyOne(folder)
    if why_not := only_one.take():
        if only_one.other:
            raise HostError(
                f"{only_one.other} still runs on {folder}, and would move the same "
                f"memory: stop the service first (sudo systemctl stop {NAME}; where "
                "the hub starts it, stop the hub)."
            )
        raise HostError(why_not)
    try:
        results = asyncio.run(_bring_all_back(folder, rules, options, say))
    finally:
        only_one.release()
    left = [result for result in results if result.is_left]
    if options.json:
        say(json.dumps(_document(folder, results)))
    elif not results:
        say("Nothing is paused.")
    elif left:
        say(
            f"{len(left)} of {len(results)} not back. What they hold stays in host "
            "memory until they end, and their cells wait."
        )
    return 1 if left else 0


def _folder(options: UnparkOptions, rules: Rules) -> Path:
    """Return the state folder.

    Raises:
        HostError: no service has been there, so that nothing could be said of it.
    """
    named = options.state_dir or rules.workshop.service.state_dir
    folders = [named] if named else [Path.cwd(), STATE_FOLDER]
    for folder in folders:
        try:
            if (folder / STATE_FILE).exists():
                return folder
        except OSError as error:
            raise HostError(
                f"{folder} cannot be read ({error}). Run this as root."
            ) from error
    raise HostError(
        f"There is no {STATE_FILE} in {' or '.join(map(str, folders))}: no GPU service "
        "has paused anything there. If it had another state folder, name it with "
        "--state-dir, or name the workshop file that says so."
    )


async def _bring_all_back(
    folder: Path, rules: Rules, options: UnparkOptions, say: Callable[[str], None]
) -> list[Result]:
    path = folder / STATE_FILE
    try:
        records = read(path).parked
    except (OSError, ValueError) as error:
        raise HostError(f"{path} cannot be read: {error}") from error
    if not records:
        return []
    gpus = rules.workshop.gpus
    mover = Mover(open_parker(gpus.source, simulated_dir=gpus.simulated_dir))
    if unavailable := mover.parker.unavailable():
        raise ParkError(f"Nothing can be brought back here: {unavailable}")
    kept = Kept(path)
    await kept.open()
    sampler = ChildSampler(sampler_command(gpus.source, gpus.simulated_dir))
    unparking = _Unparking(
        mover, Parking(mover, kept, rules, lambda: None), sampler, rules
    )

    async def one(record: ParkedKernel) -> Result:
        result = await unparking.bring_back(record)
        if not options.json:
            say(f"{_name(record)}: {result.text}")
        return result

    # The smallest first: as many as possible come back. Each waits for its devices.
    records = tuple(sorted(records, key=lambda x: sum(x.memory_bytes.values())))
    try:
        await unparking.learn_labels()
        results = await asyncio.gather(*(one(record) for record in records))
    finally:
        await sampler.close()
    if kept.problem:
        raise HostError(f"What is left could not be written down. {kept.problem}")
    return results


class _Unparking:
    """Brings one kernel after the other back.

    Args:
        mover: moves the memory.
        parking: knows which are parked.
        sampler: says what is free.
        rules: the organiser's.
    """

    def __init__(
        self, mover: Mover, parking: Parking, sampler: ChildSampler, rules: Rules
    ) -> None:
        self._mover = mover
        self._parking = parking
        self._sampler = sampler
        self._margin_bytes = rules.parking().margin_bytes
        self._labels: Mapping[str, str] = {}

    async def learn_labels(self) -> None:
        """Learn what people call the devices; without it their UUIDs do."""
        try:
            inventory = await self._sampler.inventory()
        except (SourceError, CallHangs):
            inventory = Inventory()
        self._labels = {x.uuid: x.label for x in inventory.devices}

    async def bring_back(self, record: ParkedKernel) -> Result:
        """Bring one back where it fits, and write down what is left of it."""
        async with self._mover.turn(record.memory_bytes) as turn:
            try:
                return await self._bring_back(turn, record)
            except ParkError as error:
                text = f"it has not come back. {error}"
                if error.broken:
                    await self._parking.put(replace(record, is_broken=True))
                    text = f"{text} {_RESTART}"
                else:
                    text = f"{text} Run this again."
            except CallHangs as error:
                text = f"nothing is known of it. {error} Run this again once it does."
        return Result(kernel=record, outcome=Outcome.FAILED, text=text)

    async def _bring_back(self, turn: Turn, record: ParkedKernel) -> Result:
        states = await states_of(turn, record)
        for _ in range(_SETTLES_WITHIN_SECONDS):
            if ParkState.MOVING not in states.values():
                break
            await asyncio.sleep(1)
            states = await states_of(turn, record)
        await let_go(turn, record, states)
        left = left_of(record, states)
        if left is None:
            await self._parking.drop(key_of(record))
            text = "it has ended, or runs on the GPU already: nothing to bring back."
            return Result(kernel=record, outcome=Outcome.GONE, text=text)
        if left.is_broken:
            await self._parking.put(left)
            return Result(
                kernel=record,
                outcome=Outcome.FAILED,
                text=f"it cannot come back: an earlier move of its memory failed. "
                f"{_RESTART}",
            )
        if text := await self._why_no_room(left):
            await self._parking.put(left)
            return Result(kernel=record, outcome=Outcome.NO_ROOM, text=text)
        await bring_back(turn, left)
        await self._parking.drop(key_of(record))
        size = format_size(sum(left.memory_bytes.values()))
        text = f"{size} are back on the GPU, and its variables are there."
        return Result(kernel=record, outcome=Outcome.BACK, text=text)

    async def _why_no_room(self, record: ParkedKernel) -> str:
        """Return why it must not be tried, and what to do; empty where it fits."""
        try:
            free_bytes = await self._sampler.free_bytes()
        except (SourceError, CallHangs) as error:
            return f"it stays paused: what is free is not known. {error} {_AGAIN}"
        need = Waiting(key=None, needs_bytes=record.memory_bytes, since=0.0)
        if who_returns([need], free_bytes, (), self._margin_bytes):
            return ""
        lacks = [
            f"{format_size(needed)} and {format_size(self._margin_bytes)} to spare "
            f"must be free on GPU {self._labels.get(uuid, uuid)}, which "
            + (
                f"has {format_size(free_bytes[uuid])} free"
                if uuid in free_bytes
                else "cannot be read"
            )
            for uuid, needed in record.memory_bytes.items()
            if free_bytes.get(uuid, -1) < needed + self._margin_bytes
        ]
        return (
            f"it stays paused: {'; '.join(lacks)}. Shut down other kernels there. "
            f"{_AGAIN}"
        )


def _name(record: ParkedKernel) -> str:
    what = record.notebook or f"kernel {record.kernel_id}"
    server = f", server {record.server}" if record.server else ""
    return f"{what} of {record.user}{server}"


def _document(folder: Path, results: list[Result]) -> dict[str, Any]:
    return {
        "state_dir": str(folder),
        "left": sum(result.is_left for result in results),
        "kernels": [
            {
                "user": result.kernel.user,
                "server": result.kernel.server,
                "kernel_id": result.kernel.kernel_id,
                "notebook": result.kernel.notebook,
                "memory_bytes": dict(result.kernel.memory_bytes),
                "outcome": result.outcome.value,
                "text": result.text,
            }
            for result in results
        ],
    }
