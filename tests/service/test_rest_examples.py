"""The reference of the REST API, held against a real service: its examples are run.

Each `console` example of curl on the page is run as it stands there, with real ids for
its placeholders. What its answer holds is what its section says, no less and no more.
"""

import asyncio
import gzip
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from unittest.mock import MagicMock

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.web import RequestHandler

from jupyterhub_gpuworkshop.core.archives import marked, stem_of
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.lock_out import Locked
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import REPORT, Event, EventKind, Report
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from jupyterhub_gpuworkshop.service.web import routes

from .attendee_server import PROGRAM, ROOT, AttendeeServer
from .service_process import PREFIX, ServiceProcess
from .site import SERVICE
from .stub_hub import TOKENS, StubHub

PAGE = (ROOT / "docs" / "reference" / "rest-api.md").read_text()
HOST = "http://127.0.0.1:8000"
SINCE = "2025-11-24T16:00:00.250000Z"
NAME = "grace"
HOLD = 'held.append(simcuda.allocate("1GiB"))'
# Their keys are data, or they say of everything that can happen what else there is.
FREE = {"details"}


@dataclass(frozen=True)
class Section:
    """One call, or a few, as the page has them.

    Attributes:
        calls: (method, path) of its heading.
        examples: its lines of curl.
        text: all of it.
    """

    calls: tuple
    examples: tuple
    text: str

    @property
    def said(self):
        """Whatever it writes as code; where it points above, what is there too."""
        text = PAGE if re.search(r"\babove\b", self.text) else self.text
        code = re.findall(r"`([^`\n]+)`", text)
        return {*code, *re.findall(r'"(\w+)":', " ".join(code))}

    @property
    def tables(self):
        """Its tables of keys, by the key whose value they describe; "" for the root."""
        found, about = {}, ""
        for before, line in pairwise(["", *self.text.splitlines()]):
            if each := re.fullmatch(r"Each of `(\w+)`:", before or line):
                about = each[1]
            if re.match(r"\| (?:- )?key \|", line):
                found[about] = set()
            elif found and line.startswith("| `"):
                found[about] |= set(re.findall(r"`(\w+)`", line.split("|")[1]))
        return found


def sections():
    """Return those that describe a call."""
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        calls = re.findall(r"`(GET|POST|DELETE) ([^?`]+)[^`]*`", heading)
        console = re.findall(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        lines = "\n".join(console).splitlines()
        examples = [x.removeprefix("$ ") for x in lines if x.startswith("$ curl ")]
        if calls:
            yield Section(tuple(calls), tuple(examples), text)


SECTIONS = list(sections())


def call_of(example):
    """Return (method, path below the service) that an example calls."""
    words = shlex.split(example)
    (address,) = (x for x in words if x.startswith(HOST))
    method = words[words.index("-X") + 1] if "-X" in words else "GET"
    return method, address.removeprefix(HOST + PREFIX).partition("?")[0]


def test_every_call_of_a_heading_has_an_example_and_no_other_is_shown():
    assert len(SECTIONS) > 10
    for section in SECTIONS:
        assert set(map(call_of, section.examples)) == set(section.calls)


def test_every_call_that_the_service_answers_is_on_the_page():
    calls = {call for section in SECTIONS for call in section.calls}
    answered = 0
    for path, handler, _ in routes._routes(SERVICE, MagicMock()):
        if not re.match(r"api/v1/|metrics$|health$", path):
            continue
        for method in ("GET", "POST", "DELETE"):
            act = getattr(handler, method.lower())
            if act is not getattr(RequestHandler, method.lower()):
                answered += 1
                said = [m for m, p in calls if m == method and re.fullmatch(path, p)]
                assert said, f"{method} {path}"
    assert answered > 15


def keys_of(value):
    """Return every key in an answer, but what is data."""
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    if not isinstance(value, dict):
        return set()
    below = {k: set() if k in FREE else keys_of(v) for k, v in value.items()}
    return set().union(*below.values(), {k for k in value if not k.startswith("GPU-")})


def misfits(section, answer):
    """Say in which keys an answer and its section differ."""
    tables, found = section.tables, keys_of(answer)
    for key in sorted(found - section.said):
        yield f"`{key}` is not documented"
    for about, keys in tables.items():
        for key in sorted(keys - found):
            yield f"`{key}` is documented and not there"
        things = answer[about] if about else answer
        # A section that goes on in words has but a part of the root in its table.
        if not about and re.search(r"^The answer ", section.text, re.MULTILINE):
            continue
        for thing in things if isinstance(things, list) else [things]:
            if set(thing) != keys:
                yield f"{about or 'the answer'} has not just the keys of its table"


class Room:
    """A real service, an attendee with a kernel and a process beside it, and a hub."""

    def __init__(self, folder):
        self.folder = folder
        (self.device,) = create_devices(folder / "gpus", 1, 16 * GIB, seed=1)
        self.hub = StubHub()
        self.attendee = AttendeeServer(
            folder / "gpus", devices=self.device.uuid, user=NAME
        ).start()
        self.kernel_id = self.attendee.start_kernel()
        self.attendee.kernels[self.kernel_id].run(HOLD)
        self.attendee.sessions.append(
            {"path": "thesis.ipynb", "kernel": {"id": self.kernel_id}}
        )
        self.beside = self._start_beside()
        archives = folder / "archives"
        archives.mkdir(mode=0o700)
        content = marked(gzip.compress(b"work", mtime=0), 1_764_000_000.0)
        (archives / f"{stem_of('olga')}.tar.gz").write_bytes(content)
        workshop = {
            "gpus": {"source": "simulated", "simulated_dir": str(folder / "gpus")},
            "monitor": {"interval": "0.5s"},
            "material": {"archives": str(archives)},
        }
        self.service = ServiceProcess(
            folder,
            workshop,
            hub_port=self.hub.port,
            JUPYTERHUB_API_TOKEN="service-token",
        ).start()

    def _start_beside(self):
        """Start a process of the server's that is in no kernel and holds memory."""
        process = subprocess.Popen(  # noqa: S603 - runs a test's own text
            [sys.executable, "-c", PROGRAM, "train.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                "PYTHONPATH": str(ROOT),
                "PYTHONDONTWRITEBYTECODE": "1",
                "GPUWORKSHOP_SIMULATED_GPUS": str(self.folder / "gpus"),
                "CUDA_VISIBLE_DEVICES": self.device.uuid,
            },
        )
        for line in ("ready\n", "done\n"):
            assert process.stdout.readline() == line
            if line == "ready\n":
                process.stdin.write(f"{HOLD}\n")
                process.stdin.flush()
        return process

    async def report(self):
        """Be the hub that reports."""
        lease = Lease(
            id=f"lease-{NAME}",
            user=NAME,
            server="",
            share="1/5",
            granted_at=1.0,
            devices=(
                LeasedDevice(
                    uuid=self.device.uuid,
                    label="0",
                    memory_bytes=3 * GIB,
                    total_bytes=16 * GIB,
                ),
            ),
        )
        now = time.time()
        report = Report(
            hub_id="hub",
            sent_at=now,
            leases=(lease,),
            servers=(self.attendee.info,),
            events=(
                Event(sequence=1, at=1.0, kind=EventKind.LEASE_GRANTED, user=NAME),
            ),
            locked=(Locked(name=NAME, address="10.0.0.7", until=now + 600),),
        )
        answer = await self.service.report(REPORT.dump_json(report))
        assert answer.code == 200, answer.body

    async def get(self, path):
        """Return an answer to the organiser."""
        headers = {"Authorization": "token organiser-token"}
        return json.loads((await self.service.get(path, headers=headers)).body)

    async def until(self, is_there):
        """Return the first snapshot that is as it should be."""
        while True:
            view = await self.get("api/v1/snapshot")
            if is_there(view):
                return view
            await asyncio.sleep(0.05)

    async def is_whole(self):
        """Wait until there is one of everything that the page describes."""
        await self.report()
        view = await self.until(lambda x: x["kernels"] and len(x["holders"]) == 2)
        (beside,) = (x for x in view["holders"] if x["kind"] != "kernel")
        self.process = f"{beside['pid']}-{beside['started']}"
        told = await self.service.get(
            f"api/v1/attendees/{NAME}/notice",
            method="POST",
            body='{"text": "Hello."}',
            headers={"Authorization": "token organiser-token"},
        )
        assert told.code == 200, told.body
        await self.until(lambda x: x["notices"])

    def filled_in(self, example):
        """Return an example with what is here for its placeholders."""
        for placeholder, real in (
            ("kernels/ID", f"kernels/{self.kernel_id}"),
            ("leases/ID", f"leases/lease-{NAME}"),
            ("/NAME", f"/{NAME}"),
            ("UUID", self.device.uuid),
            ("PID-STARTED", self.process),
            ("$TOKEN", "organiser-token"),
            (HOST, f"http://127.0.0.1:{self.service.port}"),
        ):
            example = example.replace(placeholder, real)
        assert not re.search(r"\b(ID|NAME|UUID|TOKEN|LEASE|SPAN)\b", example), example
        return shlex.split(example)

    async def run(self, example):
        """Run an example; return the status and the body of its answer."""
        words = self.filled_in(example)
        if shutil.which("curl") is None:
            return await self._as_curl_would(words)
        curl = await asyncio.create_subprocess_exec(
            *words,
            *("--silent", "--show-error", "--max-time", "60"),
            *("--write-out", "\n%{http_code}"),
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await curl.communicate()
        body, _, status = out.decode().rpartition("\n")
        return int(status), body

    async def _as_curl_would(self, words):
        """Do what the options that the page uses mean."""
        asked, headers, rest = {"method": "GET"}, {}, iter(words[1:])
        for word in rest:
            if word == "-X":
                asked["method"] = next(rest)
            elif word == "-d":
                asked["body"] = next(rest)
            elif word == "-H":
                name, _, value = next(rest).partition(":")
                headers[name] = value.strip()
            elif word == "-OJ":
                continue
            else:
                asked["request"] = word
        client = AsyncHTTPClient(force_instance=True)
        try:
            answer = await client.fetch(
                **asked,
                headers=headers,
                raise_error=False,
                follow_redirects=False,
                allow_nonstandard_methods=True,
            )
        finally:
            client.close()
        return answer.code, answer.body.decode("utf-8", "replace")

    async def close(self):
        """End all of it."""
        self.service.end()
        await self.attendee.stop()
        await self.hub.stop()
        self.beside.kill()
        self.beside.wait()
        self.beside.stdin.close()
        self.beside.stdout.close()


@pytest.fixture
async def room(tmp_path, monkeypatch):
    monkeypatch.setitem(
        TOKENS, "organiser-token", {**TOKENS["organiser-token"], "created": SINCE}
    )
    made = Room(tmp_path)
    try:
        await made.service.is_up()
        await made.is_whole()
        yield made
    finally:
        await made.close()


async def test_every_example_works_and_answers_what_its_section_says(room):
    wrong = []
    for section in SECTIONS:
        for example in section.examples:
            # The hub goes on reporting, however long this machine takes.
            await room.report()
            status, body = await room.run(example)
            if not 200 <= status < 300:
                wrong.append(f"{status} {body}: {example}")
            elif body.startswith(("{", "[")):
                said = misfits(section, json.loads(body))
                wrong += [f"{x}: {example}" for x in said]
    assert not wrong, "\n".join(wrong)


async def test_no_example_works_without_a_token_that_may(room):
    for token in ("", "junk", "stranger-token"):
        for example in (x for section in SECTIONS for x in section.examples):
            if call_of(example) != ("GET", "health"):
                status, _ = await room.run(example.replace("$TOKEN", token))
                assert status in (302, 401, 403), example
