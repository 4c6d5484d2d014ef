"""Who is locked out, as the service is told, and whom the hub lets in for it."""

import asyncio
import logging
import threading
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.lock_out import Locked
from jupyterhub_gpuworkshop.core.roster import joining_name
from jupyterhub_gpuworkshop.core.wire import MOST_LOCKED, Unlock
from jupyterhub_gpuworkshop.hub.lock_outs import LockOuts
from jupyterhub_gpuworkshop.hub.unlocking import Unlocking, most_of

_ROOM = "192.0.2.7"


class _Hub:
    """Real lock-outs, and what the link has of them."""

    def __init__(self, folder: Path, known: tuple[str, ...] = ()) -> None:
        self.lock_outs = LockOuts(folder / "lock-outs.sqlite")
        self.now = 100.0
        self.changes = 0
        self.unlocking = Unlocking(
            self.lock_outs,
            lambda: known,
            changed=self._changed,
            log=logging.getLogger("test-unlocking"),
            clock=lambda: self.now,
        )

    def _changed(self) -> None:
        self.changes += 1

    def lock(self, name: str) -> None:
        """Give wrong codes until this name has to wait."""
        while not self.lock_outs.attempt(name, _ROOM):
            pass

    async def look(self) -> list[str] | None:
        """Return who is reported some seconds later."""
        self.now += 5
        self.unlocking.soon()
        await self.unlocking.settled()
        locked = self.unlocking.locked
        return None if locked is None else [one.name for one in locked]

    async def order(self, *orders: Unlock) -> tuple[str, ...]:
        """Hear these orders; return which are reported as done."""
        self.unlocking.hear(orders)
        await self.unlocking.settled()
        return self.unlocking.done


@pytest.fixture
def hub(tmp_path: Path):
    made = _Hub(tmp_path)
    yield made
    made.lock_outs.close()


def _order(name: str, order_id: str = "1") -> Unlock:
    return Unlock(id=order_id, name=name, by="olga")


async def test_before_it_has_looked_nothing_is_said(hub):
    assert hub.unlocking.locked is None
    assert await hub.look() == []


async def test_who_has_to_wait_is_reported_and_the_link_is_woken_for_it(hub):
    await hub.look()
    before = hub.changes
    hub.lock("ann")
    assert await hub.look() == ["ann"]
    assert hub.changes == before + 1
    (one,) = hub.unlocking.locked
    assert one.address == _ROOM
    assert await hub.look() == ["ann"]
    assert hub.changes == before + 1, "who waits still is no news"


async def test_the_file_is_not_read_with_every_report(hub):
    await hub.look()
    hub.lock("ann")
    hub.now += 1
    hub.unlocking.soon()
    await hub.unlocking.settled()
    assert hub.unlocking.locked == ()


async def test_where_reading_takes_long_it_is_done_less_often(hub, monkeypatch):
    readings = []
    read = hub.lock_outs.locked

    def take_long():
        readings.append(1)
        hub.now += 0.5
        return read()

    monkeypatch.setattr(hub.lock_outs, "locked", take_long)
    await hub.look()
    await hub.look()
    assert len(readings) == 1
    await hub.look()
    assert len(readings) == 2


@pytest.mark.parametrize("typed", ["ann", " Ann "])
async def test_an_order_lets_somebody_in_and_says_so_until_it_is_withdrawn(
    hub, caplog, typed
):
    caplog.set_level(logging.INFO)
    hub.lock("ann")
    hub.lock("bea")
    assert await hub.look() == ["ann", "bea"]
    assert await hub.order(_order(typed)) == ("1",)
    assert [one.name for one in hub.unlocking.locked] == ["bea"]
    assert hub.lock_outs.wait_seconds("ann", _ROOM) == 0
    assert "'olga' lets 'ann' try again: 1 wait ended" in caplog.text
    # The answer to the report that said so was lost: it is said again, not done again.
    hub.lock("ann")
    assert await hub.order(_order(typed)) == ("1",)
    assert hub.lock_outs.wait_seconds("ann", _ROOM) > 0
    assert await hub.order() == ()
    # ... and a new order is carried out.
    assert await hub.order(_order("ann", "2")) == ("2",)
    assert hub.lock_outs.wait_seconds("ann", _ROOM) == 0


async def test_who_wants_to_join_is_let_in_too(hub):
    hub.lock(joining_name("ann"))
    assert await hub.look() == ["joining ann"]
    await hub.order(_order("ann"))
    assert hub.unlocking.locked == ()


async def test_a_disk_that_hangs_holds_up_nobody(hub, monkeypatch):
    hangs = threading.Event()
    readings = []
    read = hub.lock_outs.locked

    def hang():
        readings.append(1)
        hangs.wait()
        return read()

    monkeypatch.setattr(hub.lock_outs, "locked", hang)
    hub.unlocking.soon()
    for _ in range(20):
        hub.now += 60
        hub.unlocking.soon()
        hub.unlocking.hear((_order("ann"),))
        await asyncio.sleep(0)
    assert hub.unlocking.locked is None
    hangs.set()
    await hub.unlocking.settled()
    assert len(readings) == 1
    assert await hub.order(_order("ann")) == ("1",)


async def test_what_fails_is_tried_again(hub, monkeypatch, caplog):
    hub.lock("ann")
    unlock = hub.lock_outs.unlock

    def fail(name):
        raise RuntimeError("no")

    monkeypatch.setattr(hub.lock_outs, "unlock", fail)
    assert await hub.order(_order("ann")) == ()
    assert "Reading who is locked out failed" in caplog.text
    monkeypatch.setattr(hub.lock_outs, "unlock", unlock)
    assert await hub.order(_order("ann")) == ("1",)


def test_who_guesses_pushes_no_attendee_off_the_list():
    invented = [Locked(name=f"a{n:05}", address=_ROOM, until=1.0) for n in range(5000)]
    of_one = [Locked(name="bob", address=f"10.0.{n}.1", until=1.0) for n in range(255)]
    zoe = Locked(name="zoe", address=_ROOM, until=1.0)
    kept = most_of([*invented, *of_one, zoe], {"bob", "zoe"})
    assert len(kept) == MOST_LOCKED
    assert zoe in kept
    assert sum(one.name == "bob" for one in kept) == 1
    assert most_of([*of_one, zoe], {"bob", "zoe"})[-1] == zoe


async def test_a_flood_of_names_is_cut_to_what_a_report_takes(tmp_path):
    hub = _Hub(tmp_path, known=("zoe",))
    for number in range(MOST_LOCKED + 20):
        hub.lock(f"a{number:04}")
    hub.lock("zoe")
    try:
        names = await hub.look()
        assert len(names) == MOST_LOCKED
        assert "zoe" in names
    finally:
        hub.lock_outs.close()
