"""`python -m benchmarks.viewers.clients SIDE ADDRESS ...`: those who look.

A process of its own, told how many viewers, devices and attendees there are. For each
viewer it opens a websocket as that side's own page does, and reads what comes. A line
on its stdin is a number of seconds: 0 for all to come, else for so long to count what
they get. It answers with a line.
"""

import asyncio
import itertools
import json
import re
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

ORGANISERS_OF = 40
"""One viewer in so many is an organiser."""

_AT_ONCE = 10
_OPEN_SECONDS = 300.0
_EVERY_MILLISECONDS = 1000


@dataclass(slots=True, eq=False)
class Viewer:
    """One who looks.

    Attributes:
        is_fed: set once there is something to see.
        socket: the websocket.
        heard: (when it came, what) for each message, while that is counted.
    """

    number: int
    is_fed: asyncio.Event = field(default_factory=asyncio.Event)
    socket: WebSocketClientConnection | None = None
    heard: list[tuple[float, bytes]] = field(default_factory=list)


Open = Callable[["Crowd", Viewer], Awaitable[None]]


class Crowd:
    """All viewers of one side.

    Args:
        address: host and port of what they look at.
        viewers: how many.
        devices: how many there are.
        attendees: how many of the viewers have a server.
    """

    def __init__(self, address: str, viewers: int, devices: int, attendees: int):
        self.address, self.devices, self.attendees = address, devices, attendees
        self.viewers = [Viewer(number) for number in range(viewers)]
        self.client = AsyncHTTPClient(force_instance=True, max_clients=_AT_ONCE)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._is_counting = False

    async def open(self, how: Open) -> None:
        """Let all come; return once each sees something."""

        async def come(viewer: Viewer) -> None:
            async with self._turns:
                await how(self, viewer)
                await viewer.is_fed.wait()

        everybody = asyncio.gather(*(come(viewer) for viewer in self.viewers))
        await asyncio.wait_for(everybody, _OPEN_SECONDS)

    async def get(self, path: str, headers: dict[str, str] | None = None) -> bytes:
        """Return what is at a path."""
        url = f"http://{self.address}{path}"
        answer = await self.client.fetch(
            url, headers=headers, request_timeout=_OPEN_SECONDS
        )
        return answer.body

    async def connect(
        self,
        viewer: Viewer,
        path: str,
        reading: re.Pattern[bytes],
        *,
        headers: dict[str, str],
        subprotocols: list[str] | None = None,
        reply: Callable[[bytes], list[str]] = lambda message: [],
        begins: re.Pattern[bytes] | None = None,
    ) -> None:
        """Open the websocket of a viewer, and keep reading.

        Args:
            viewer: whose.
            path: where.
            reading: what in a message tells when the devices were read.
            headers: of the handshake.
            subprotocols: to offer.
            reply: what to say to a message.
            begins: what in a message tells that this viewer sees something from now
                on; None for a reading.
        """

        def hear(message: str | bytes | None) -> None:
            came = time.time()
            if message is None:
                self._end_if(viewer)
                return
            data = message.encode() if isinstance(message, str) else message
            if self._is_counting:
                viewer.heard.append((came, data))
            elif not viewer.is_fed.is_set():
                for text in reply(data):
                    assert viewer.socket is not None
                    viewer.socket.write_message(text)
                if (begins or reading).search(data):
                    viewer.is_fed.set()

        request = HTTPRequest(
            f"ws://{self.address}{path}",
            headers={"Origin": f"http://{self.address}", **headers},
            request_timeout=_OPEN_SECONDS,
        )
        # Browsers offer compression; whether it is used is the server's to say.
        viewer.socket = await websocket_connect(
            request,
            on_message_callback=hear,
            subprotocols=subprotocols,
            compression_options={},
            max_message_size=2**26,
        )

    async def watch(
        self, seconds: float, reading: re.Pattern[bytes]
    ) -> dict[str, float]:
        """Count for a while what comes, and how late."""
        for viewer in self.viewers:
            viewer.heard.clear()
        self._is_counting = True
        begin, cpu = time.monotonic(), time.process_time()
        await asyncio.sleep(seconds)
        self._is_counting = False
        passed, cpu = time.monotonic() - begin, time.process_time() - cpu
        delays, gaps, messages, size = [], [], 0, 0
        for viewer in self.viewers:
            readings = []
            for came, data in viewer.heard:
                messages += 1
                size += len(data)
                if found := reading.search(data):
                    at = float(found[1])
                    # Bokeh and nvdashboard tell milliseconds.
                    readings.append((came, at / 1000 if at > 1e11 else at))
            delays += [came - at for came, at in readings]
            times = [came for came, _ in readings]
            gaps += [b - a for a, b in itertools.pairwise(times)]
        return {
            "ticks_per_second": len(delays) / len(self.viewers) / passed,
            "bytes_per_second": size / len(self.viewers) / passed,
            "cpu": cpu / passed,
            "delay_seconds": _late(delays),
            "longest_delay_seconds": max(delays, default=float("nan")),
            "gap_seconds": _late(gaps),
            "longest_gap_seconds": max(gaps, default=float("nan")),
        }

    def close(self) -> None:
        """Let all go."""
        for viewer in self.viewers:
            if viewer.socket is not None:
                viewer.socket.close()

    def _end_if(self, viewer: Viewer) -> None:
        if self._is_counting or not viewer.is_fed.is_set():
            sys.exit(f"the socket of viewer {viewer.number} was closed")


def _late(values: list[float]) -> float:
    """Return what 99 of 100 values do not exceed."""
    if len(values) < 2:
        return values[0] if values else float("nan")
    return statistics.quantiles(values, n=100, method="inclusive")[98]


async def open_ours(crowd: Crowd, viewer: Viewer) -> None:
    """Fetch what the page fetches, and open its websocket."""
    prefix = "/services/gpuworkshop/"
    organisers = max(1, len(crowd.viewers) // ORGANISERS_OF)
    view, name, plots = "attendee", f"attendee{viewer.number - organisers:03d}", 0
    if viewer.number < organisers:
        # One of them has thrown the wall onto the projector.
        is_wall = viewer.number == 1
        view, name = "wall" if is_wall else "organiser", f"organiser{viewer.number}"
        plots = 0 if is_wall else crowd.devices
    elif viewer.number - organisers < crowd.attendees:
        plots = 1
    headers = {"Authorization": f"token {name}"}
    await crowd.get(prefix + ("wall" if view == "wall" else ""), headers)
    await crowd.connect(
        viewer, f"{prefix}live?view={view}", READING["ours"], headers=headers
    )
    for slot in range(plots):
        uuid = f"GPU-{slot:02x}"
        await crowd.get(f"{prefix}plots/device.json?theme=light&slot={slot}", headers)
        await crowd.get(f"{prefix}api/v1/usage?span=hour&device={uuid}", headers)


async def open_bokeh(crowd: Crowd, viewer: Viewer) -> None:
    """Fetch the page, open its session, and ask for the document, as BokehJS does."""
    page = await crowd.get("/room")
    found = re.search(rb'"token":"([^"]+)"', page)
    if found is None:
        raise AssertionError("Bokeh's page has no token")

    def reply(message: bytes) -> list[str]:
        if b'"msgtype": "ACK"' not in message:
            return []
        return [json.dumps({"msgid": "1", "msgtype": "PULL-DOC-REQ"}), "{}", "{}"]

    await crowd.connect(
        viewer,
        "/room/ws",
        READING["bokeh"],
        headers={},
        subprotocols=["bokeh", found[1].decode()],
        reply=reply,
        # Rows are sent to who has no document yet, too.
        begins=re.compile(rb'"msgtype": "PULL-DOC-REPLY"'),
    )


async def open_nvdashboard(crowd: Crowd, viewer: Viewer) -> None:
    """Open the websocket of the panel GPU Resources, and ask for a row a second."""

    def reply(message: bytes) -> list[str]:
        if b'"connected"' not in message:
            return []
        return [json.dumps({"updateFrequency": _EVERY_MILLISECONDS, "isPaused": False})]

    await crowd.connect(
        viewer,
        "/nvdashboard/gpu_resource",
        READING["nvdashboard"],
        headers={"Authorization": "token of-this-server"},
        reply=reply,
    )


OPEN: dict[str, Open] = {
    "ours": open_ours,
    "bokeh": open_bokeh,
    "nvdashboard": open_nvdashboard,
}
READING = {
    "ours": re.compile(rb'^\{"type":"tick".*?"at":([\d.]+)'),
    "bokeh": re.compile(rb'"ColumnsStreamed".*"sent",\[([\d.]+)\]'),
    "nvdashboard": re.compile(rb'"time": ([\d.]+)'),
}


async def _main(side: str, address: str, *counts: str) -> None:
    viewers, devices, attendees = map(int, counts)
    crowd = Crowd(address, viewers, devices, attendees)
    while line := await asyncio.to_thread(sys.stdin.readline):
        seconds = float(line)
        answer: dict[str, float] = {}
        if seconds:
            answer = await crowd.watch(seconds, READING[side])
        else:
            await crowd.open(OPEN[side])
        print(json.dumps(answer), flush=True)
    crowd.close()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
