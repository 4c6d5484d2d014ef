"""A hub ends when each of its tasks does: one that goes on keeps it for ever."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuworkshop.hub.banner import Banner
from jupyterhub_gpuworkshop.hub.drains import Drains
from jupyterhub_gpuworkshop.hub.link import HubLink
from tests.hub.running_hub import free_port

from .test_engines import Room


class RoomOfAHub(Room):
    """A room whose reconciler runs by itself."""

    reconcile_seconds = 60.0

    async def poll_unstopped(self) -> None: ...


def link_of(room: Room, folder: Path) -> HubLink:
    """Return a link whose service is not there."""
    return HubLink(
        f"http://127.0.0.1:{free_port()}/",
        "secret",
        allocator=room.allocator,
        banner=Banner(changed=lambda: None),
        drains=Drains(folder, room.allocator, room.log),
        servers=tuple,
        interval_seconds=60.0,
        log=room.log,
    )


async def is_asleep(loop: "asyncio.Task[None]", wake: asyncio.Event) -> None:
    """Wait until the loop waits to be woken."""
    while not wake._waiters:
        assert not loop.done()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("what", ["link", "reconciler"])
async def test_a_loop_ends_that_is_woken_and_ended_at_once(
    tmp_path: Path, what: str, turns: int
) -> None:
    # As the last lease does, whose server was stopped because the hub ends.
    room = RoomOfAHub(tmp_path)
    looped: Any = link_of(room, tmp_path) if what == "link" else room.reconciler
    loop = asyncio.ensure_future(looped.run())
    await is_asleep(loop, looped._wake)
    looped._wake.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    loop.cancel()
    await asyncio.wait({loop}, timeout=5)
    assert loop.done()
