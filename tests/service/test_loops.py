"""Loops that go on, and calls that hang."""

import asyncio
import logging
import threading

import pytest

from jupyterhub_gpuworkshop.core.errors import CallHangs
from jupyterhub_gpuworkshop.service.loops import OneThread, forever

LOG = logging.getLogger("test")


async def test_a_loop_goes_on_after_errors_and_logs_each_new_one_once(caplog):
    rounds = []
    enough = asyncio.Event()

    async def step():
        rounds.append(1)
        if len(rounds) == 6:
            enough.set()
        elif len(rounds) < 5:
            raise ValueError("first" if len(rounds) < 4 else "second")

    task = asyncio.ensure_future(forever("It", step, interval_seconds=0, log=LOG))
    await asyncio.wait_for(enough.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [r.exc_info[1].args for r in caplog.records] == [("first",), ("second",)]


async def test_cancelling_a_loop_ends_it_within_a_step():
    begun = asyncio.Event()

    async def step():
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(forever("It", step, interval_seconds=9, log=LOG))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_call_is_made_in_a_thread_of_its_own_always_the_same():
    one = OneThread("It")
    names = [await one.call(lambda: threading.current_thread().name, 30)] * 2
    assert names == ["gpuworkshop: It"] * 2
    with pytest.raises(ZeroDivisionError):
        await one.call(lambda: 1 // 0, 30)


async def test_calls_at_the_same_time_wait_for_each_other():
    one = OneThread("It")
    assert await asyncio.gather(*(one.call(lambda: 1, 30) for _ in range(9))) == [1] * 9


async def test_a_call_that_hangs_is_told_and_no_other_is_made_until_it_is_back():
    one, gate, calls = OneThread("The driver"), threading.Event(), []
    with pytest.raises(CallHangs, match="The driver has not answered"):
        await one.call(lambda: gate.wait(60), 0.01)
    with pytest.raises(CallHangs):
        await one.call(lambda: calls.append(1), 30)
    assert calls == []
    gate.set()
    while True:
        try:
            assert await one.call(lambda: 7, 30) == 7
        except CallHangs:
            await asyncio.sleep(0)
        else:
            break
