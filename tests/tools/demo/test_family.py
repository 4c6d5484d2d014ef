"""Every process that the demo started, and no other."""

import subprocess
import sys

import psutil

# In a process of its own: a family has one subreaper.
PROGRAM = """
import asyncio, subprocess, sys
stranger = subprocess.Popen(["sleep", "600"])
from jupyterhub_gpuworkshop.tools.demo.family import Family
family = Family()
started = subprocess.Popen(
    # It leaves an orphan in a session of its own that will not be asked, and dies.
    ["sh", "-c", "setsid sh -c 'trap \\"\\" TERM; sleep 600; sleep 600' & echo"],
    stdout=subprocess.PIPE,
)
started.stdout.readline()
stays = subprocess.Popen(["sleep", "600"])

async def main():
    started.wait()
    while len(family.members()) < 3:  # sleep, sh and its sleep
        await asyncio.sleep(0.01)
    found = [member.pid for member in family.members()]
    ended = await family.end(leave=stays.pid, patience_seconds=0.1)
    return found, ended

found, ended = asyncio.run(main())
print(ended, stranger.poll(), stays.wait(), len(family.members()), *found)
stranger.kill()
stranger.wait()
"""


def test_it_ends_orphans_and_stubborn_ones_and_leaves_strangers() -> None:
    done = subprocess.run(  # noqa: S603  # the program above
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    ended, stranger, stays, left, *found = done.stdout.split()

    assert (ended, stranger, left) == ("True", "None", "0")
    assert int(stays) < 0  # by a signal
    assert len(found) == 3
    assert not any(psutil.pid_exists(int(pid)) for pid in found)
