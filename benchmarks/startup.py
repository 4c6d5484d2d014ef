"""The start of a Python with the import hook that caps frameworks.

Against the same Python without it, both as a server's would start.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from jupyterhub_gpuworkshop.hub.memory_hook import with_memory_hook

from .report import Row, paired, seconds

_AIM_MS = 10.0


def run(folder: Path, *, turns: int = 60) -> Iterator[Row]:
    """Compare.

    Args:
        folder: where Python starts.
        turns: pairs of turns.
    """
    bare = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    lease = {
        "GPUWORKSHOP_MEMORY_FRACTION": "0.2",
        "GPUWORKSHOP_MEMORY_CAP_BYTES": str(2**34),
        "GPUWORKSHOP_MEMORY_LIMIT_BYTES": str(2**34),
    }
    hooked = with_memory_hook({**bare, **lease}, "")

    def start(environment: Mapping[str, str]) -> float:
        command = [sys.executable, "-c", "pass"]
        return seconds(
            lambda: subprocess.run(command, env=environment, cwd=folder, check=True)  # noqa: S603 - this Python
        )

    start(hooked)  # the bytecode is there from the second start on
    ours, without = paired(lambda: start(hooked), lambda: start(bare), turns)
    yield Row(what="Python with the hook / bare", ours=ours, bare=without)
    yield Row(
        what="added to each start",
        ours=ours,
        bare=without,
        added_per=1,
        aim=_AIM_MS,
    )
