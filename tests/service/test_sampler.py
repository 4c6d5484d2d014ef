"""The process that samples: it hangs, crashes and talks nonsense, and nobody minds."""

import asyncio
import os
import re
import signal
import sys

import psutil
import pytest

from jupyterhub_gpuworkshop.core.errors import (
    CallHangs,
    SourceLost,
    SourceUnavailable,
)
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from jupyterhub_gpuworkshop.service import sampler_child
from jupyterhub_gpuworkshop.service.host import Gpus
from jupyterhub_gpuworkshop.service.sampler import ChildSampler, sampler_command
from tests.machine.nvml_double.words import GPU_IS_LOST, Clock, gpu, only

from .service_process import gone

NVML = sampler_command("nvml")
HUNG = "nvmlDeviceGetMemoryInfo_v2"


@pytest.fixture
async def sampler(driver, monkeypatch):
    """Return a sampler whose child meets the double as its driver."""
    for name, value in driver.environment.items():
        monkeypatch.setenv(name, value)
    made = ChildSampler(NVML)
    yield made
    await made.close()


@pytest.fixture
async def simulated(tmp_path):
    create_devices(tmp_path / "gpus", 2, 16 * GIB)
    made = ChildSampler(sampler_command("simulated", tmp_path / "gpus"))
    yield made
    await made.close()


async def called(driver, more_than=0):
    """Wait until a process is in the call that hangs."""
    while True:
        if driver.calls(HUNG) > more_than:
            return
        await asyncio.sleep(0.02)


@pytest.mark.gcc
async def test_one_process_answers_for_hundreds_of_others_again_and_again(
    driver, sampler
):
    for device in "abcd":
        driver.say(gpu(f"GPU-{device}"))
        driver.say(*(f"process GPU-{device} {pid} -1 compute" for pid in range(1, 121)))
    inventory = await sampler.inventory()
    assert [d.uuid for d in inventory.devices] == ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]
    first = await sampler.sample()
    pid = sampler.pid
    second = await sampler.sample()
    assert sampler.pid == pid
    for sample in second:
        assert [use.pid for use in sample.processes] == list(range(1, 121))
        assert {use.memory_bytes for use in sample.processes} == {None}
    assert [s.utilisation for s in first] == [None] * 4
    assert [s.utilisation for s in second] == [0.0] * 4


@pytest.mark.gcc
async def test_what_a_library_prints_is_no_answer(driver, sampler):
    driver.say(gpu("GPU-a"), "print *")
    assert [d.uuid for d in (await sampler.inventory()).devices] == ["GPU-a"]
    assert only(await sampler.sample()).uuid == "GPU-a"


@pytest.mark.gcc
async def test_a_driver_that_hangs_costs_its_process_and_is_asked_by_another(
    driver, sampler
):
    driver.say(gpu("GPU-a"), "busy GPU-a 40 90")
    await sampler.inventory()
    await sampler.sample()
    hung, patience = sampler.pid, sampler._timeout_seconds
    driver.say(f"hang {HUNG}")
    sampler._timeout_seconds = 0.05
    with pytest.raises(CallHangs, match="The GPU driver has not answered"):
        await sampler.sample()
    await gone(hung)
    with pytest.raises(CallHangs):
        await sampler.inventory()
    driver.unsay("hang")
    sampler._timeout_seconds = patience
    back = only(await sampler.sample())
    # What was done in between, nobody has seen: that is not to say that it was idle.
    assert back.utilisation is None
    assert sampler.pid not in (0, hung)


@pytest.mark.gcc
async def test_a_library_that_crashes_takes_its_process_only(driver, sampler):
    driver.say(gpu("GPU-a"))
    await sampler.sample()
    driver.say(f"crash {HUNG}")
    with pytest.raises(SourceLost, match="killed by SIGABRT"):
        await sampler.sample()
    driver.unsay("crash")
    assert only(await sampler.sample()).uuid == "GPU-a"


@pytest.mark.gcc
async def test_a_driver_upgraded_in_use_is_seen_again_by_a_new_process(driver, sampler):
    driver.say(gpu("GPU-a"), "version 1")
    gpus = Gpus("nvml", sampler, pause_seconds=5, clock=(clock := Clock()))
    assert only(await gpus.sample()).uuid == "GPU-a"
    old = sampler.pid
    driver.change("version", "version 2")
    with pytest.raises(SourceLost, match="upgraded"):
        await gpus.sample()
    clock.now += 6
    assert only(await gpus.sample()).utilisation is None
    assert sampler.pid != old
    # At the time to look at what exists, it does not even cost a round.
    driver.change("version", "version 3")
    clock.now += 301
    assert only(await gpus.sample()).uuid == "GPU-a"


@pytest.mark.gcc
async def test_a_lost_gpu_is_still_known_to_the_next_process(driver, sampler):
    driver.say(gpu("GPU-a"), gpu("GPU-b", minor=1))
    gpus = Gpus("nvml", sampler, pause_seconds=5, clock=(clock := Clock()))
    await gpus.sample()
    driver.say(f"fail * GPU-b {GPU_IS_LOST}")
    os.kill(sampler.pid, signal.SIGKILL)
    with pytest.raises(SourceLost):
        await gpus.sample()
    clock.now += 6
    await gpus.sample()
    assert [(d.uuid, d.lost) for d in gpus.inventory.devices] == [
        ("GPU-a", False),
        ("GPU-b", True),
    ]
    driver.unsay("fail")
    clock.now += 301
    assert [s.uuid for s in await gpus.sample()] == ["GPU-a", "GPU-b"]
    assert [d.lost for d in gpus.inventory.devices] == [False, False]


@pytest.mark.gcc
async def test_a_process_killed_in_the_middle_of_a_sample_is_replaced(driver, sampler):
    driver.say(gpu("GPU-a"))
    await sampler.sample()
    driver.say(f"hang {HUNG}")
    before = driver.calls(HUNG)
    asking = asyncio.ensure_future(sampler.sample())
    await called(driver, more_than=before)
    os.kill(sampler.pid, signal.SIGKILL)
    with pytest.raises(SourceLost, match="killed by SIGKILL"):
        await asking
    driver.unsay("hang")
    assert only(await sampler.sample()).uuid == "GPU-a"


@pytest.mark.gcc
async def test_who_stops_waiting_leaves_no_answer_to_the_next_question(driver, sampler):
    driver.say(gpu("GPU-a", used=GIB))
    await sampler.inventory()
    await sampler.sample()
    driver.say(f"hang {HUNG}")
    before = driver.calls(HUNG)
    asking = asyncio.ensure_future(sampler.sample())
    await called(driver, more_than=before)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    driver.unsay("hang")
    driver.change("gpu", gpu("GPU-a", used=2 * GIB))
    back = only(await sampler.sample())
    assert (back.memory_used_bytes, back.utilisation) == (2 * GIB, None)


async def test_no_more_than_three_processes_that_cannot_be_killed(
    simulated, monkeypatch
):
    undead = []
    with monkeypatch.context() as patch:
        patch.setattr(sampler_child, "_DIES_WITHIN_SECONDS", 0.0)
        # As in an uninterruptible call: killed, and still there.
        patch.setattr(sampler_child.Child, "kill", lambda child: undead.append(child))
        for _ in range(3):
            await simulated.sample()
            await simulated.close()
        with pytest.raises(
            CallHangs, match=r"holds on to 3 processes .*reboot"
        ) as told:
            await simulated.sample()
    assert all(str(child.pid) in str(told.value) for child in undead)
    undead[0].kill()
    await undead[0].ended
    assert len(await simulated.sample()) == 2
    for child in undead:
        child.kill()
        await child.ended


def talking(text, *, before="pass"):
    """Return the command of a child that greets, and answers with this code."""
    code = (
        "import sys, os, time\n"
        "def say(text): sys.stdout.write(text); sys.stdout.flush()\n"
        f"{before}\n"
        "say('{\"number\": 0}\\n')\n"
        f"for line in sys.stdin:\n    {text}\n"
    )
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (talking("say('hello\\n')"), "has not answered what was asked"),
        (talking("say('{\"number\": 7}\\n')"), "has not answered what was asked"),
        (talking("say('{\"number\": 1}\\n{}\\n')"), "has not answered what was asked"),
        (talking("say('{\"number\": 1'); os._exit(3)"), "has ended .exit status 3"),
        (talking("sys.exit(0)"), "has ended .exit status 0"),
        (talking("pass", before="sys.exit(9)"), "has ended .exit status 9"),
        (talking("pass", before="say('?\\n')"), "has not answered what was asked"),
    ],
    ids=["garbage", "another", "twice", "half", "end", "no start", "no hello"],
)
async def test_nonsense_is_no_reading(command, error):
    sampler = ChildSampler(command)
    with pytest.raises(SourceLost, match=error):
        await sampler.sample()
    assert sampler.pid == 0
    await sampler.close()


async def test_an_answer_without_end_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(sampler_child, "_MOST_BYTES", 2**20)
    sampler = ChildSampler(talking("while True: say('x' * 65536)"))
    with pytest.raises(SourceLost, match="has ended"):
        await sampler.sample()
    await sampler.close()


async def test_a_process_that_cannot_be_started_is_told_and_not_killed():
    sampler = ChildSampler(["/nonexistent/python"])
    with pytest.raises(SourceUnavailable, match="could not be started"):
        await sampler.sample()
    await sampler.close()


async def test_a_source_that_breaks_in_its_own_way_is_told(simulated, tmp_path, capfd):
    description = tmp_path / "gpus" / "devices.json"
    await simulated.sample()
    description.write_text(
        re.sub('(memory_bytes": )[0-9]+', r"\g<1>1e999", description.read_text())
    )
    with pytest.raises(SourceLost, match="Reading the GPUs failed: OverflowError"):
        await simulated.sample()
    # Where it broke is in the log, which the child shares.
    assert "Traceback" in capfd.readouterr().err


async def test_what_is_not_there_is_told_and_asked_again_by_the_same_process(
    simulated, tmp_path
):
    await simulated.sample()
    pid = simulated.pid
    (tmp_path / "gpus").rename(tmp_path / "away")
    with pytest.raises(SourceUnavailable, match="Cannot read the simulated GPUs"):
        await simulated.sample()
    (tmp_path / "away").rename(tmp_path / "gpus")
    assert len(await simulated.sample()) == 2
    assert simulated.pid == pid


@pytest.mark.gcc
@pytest.mark.parametrize("hangs", [False, True], ids=["idle", "hanging"])
async def test_it_ends_with_the_process_that_asks_even_if_that_is_killed(
    driver, tmp_path, hangs
):
    driver.say(gpu("GPU-a"), *([f"hang {HUNG}"] if hangs else []))
    code = (
        "import asyncio, sys\n"
        "from jupyterhub_gpuworkshop.service.sampler import *\n"
        "async def main():\n"
        "    sampler = ChildSampler(sampler_command('nvml'))\n"
        "    asking = asyncio.ensure_future(sampler.inventory())\n"
        "    while not sampler.pid: await asyncio.sleep(0.01)\n"
        "    print(sampler.pid, flush=True)\n"
        "    await asyncio.wait([asking])\n"
        "    print(flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    asker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        env=os.environ | driver.environment,
        stdout=asyncio.subprocess.PIPE,
    )
    pid = int(await asker.stdout.readline())
    if hangs:
        await called(driver)
    else:
        await asker.stdout.readline()
    assert psutil.pid_exists(pid)
    asker.kill()
    await asker.wait()
    await gone(pid)
