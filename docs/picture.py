"""Take the picture of a workshop for README and documentation: docs/images/demo.svg.

It runs the real demo, waits until memory was taken back, and draws the demo's own table
from what the GPU service says at that moment::

    python docs/picture.py            # two minutes; port 8000 must be free
    python docs/picture.py --port 0   # any port that is free
"""

import argparse
import io
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from jupyterhub_gpuworkshop.tools.demo.table import View, render

PICTURE = Path(__file__).parent / "images" / "demo.svg"
ATTENDEES_PER_GPU = 5
COLUMNS, ROWS = 132, 32
RECLAIMS = 2
LONGEST_SECONDS = 300.0

# The picture stands by itself: no font is fetched from elsewhere.
_SVG = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def main() -> None:
    """Run the demo and take its picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", default="8000")
    port = parser.parse_args().port
    command = [sys.executable, "-m", "jupyterhub_gpuworkshop", "demo", "--json"]
    command += ["--attendees", "12", "--idle-timeout", "30s", "--port", port]
    command += ["--attendees-per-gpu", str(ATTENDEES_PER_GPU), "--seed", "1"]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603  # our own command
    try:
        ready = _wait_for_the_moment(demo)
        picture = draw(ready, _ask(ready, "snapshot"), _ask(ready, "events?limit=1000"))
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(30)
    PICTURE.write_text(picture, "utf-8")


def _wait_for_the_moment(demo: "subprocess.Popen[str]") -> dict[str, Any]:
    """Return what the demo says first, once memory was taken back."""
    until = time.monotonic() + LONGEST_SECONDS
    ready: dict[str, Any] = {}
    reclaimed = 0
    for line in demo.stdout or ():
        said = json.loads(line)
        if said["event"] == "ready":
            ready = said
        reclaimed += said["event"] == "kernel_reclaimed"
        if reclaimed == RECLAIMS:
            return ready
        if time.monotonic() > until:
            break
    sys.exit("The demo ended, or took too long: run `gpuworkshop demo` to see why.")


def _ask(ready: Mapping[str, Any], path: str) -> Any:
    request = urllib.request.Request(  # noqa: S310  # the demo's own address
        f"{ready['service_url']}api/v1/{path}",
        headers={"Authorization": f"token {ready['api_token']}"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        return json.load(response)


def draw(
    ready: Mapping[str, Any], snapshot: Mapping[str, Any], events: list[dict[str, Any]]
) -> str:
    """Return the demo's table as SVG."""
    view = View(
        hub_url=ready["hub_url"],
        organiser_password=ready["organiser"]["password"],
        attendee_password=ready["attendee"]["password"],
        attendees_per_gpu=ATTENDEES_PER_GPU,
        snapshot=snapshot,
        events=events,
    )
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(render(view, COLUMNS, ROWS))
    svg = console.export_svg(title="gpuworkshop demo", code_format=_SVG)
    return svg.replace("Fira Code, monospace", "monospace")


if __name__ == "__main__":
    main()
