"""``GET api/v1/usage`` of a real application: totals, for everybody who may look."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.service.pulse import Pulse, Pulses
from jupyterhub_gpuworkshop.service.usage import Span, Usage
from jupyterhub_gpuworkshop.service.web.usage_api import UsageAnswers
from tests.machine.nvml_double.words import Clock

from .stub_hub import StubHub
from .test_acts_api import Site, said
from .test_usage import glance

PATH = "api/v1/usage"
REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "rest-api.md"
READERS = ("organiser-token", "ada-token", "reading-service-token")


@pytest.fixture
async def seen(world):
    """Return a site after two readings of the first of its two devices."""
    usage = Usage(Pulses(world.gpus), world.history)
    hub = StubHub()
    made = Site(world, hub, usage=usage)
    made.usage = usage
    await world.look()
    uuid = world.devices[0].uuid
    reading = glance(uuid, 3 * GIB, utilisation=0.5, temperature_celsius=41.0)
    for seconds_ago in (2, 1):
        taken_at = time.time() - seconds_ago
        usage.take(Pulse(taken_at=taken_at, readings={uuid: reading}))
    yield made
    await made.close()
    await hub.stop()


async def asked(site, query, whose="ada-token"):
    answer = await site.ask("GET", f"{PATH}{query}", whose)
    assert answer.code == 200, answer.body
    assert answer.headers["Content-Type"] == "application/json"
    return json.loads(answer.body)


@pytest.mark.parametrize("token", READERS)
async def test_whoever_may_look_reads_the_totals_of_every_device(seen, token):
    answer = await asked(seen, "?span=minutes", token)
    first, second = (device.uuid for device in seen.world.devices)
    assert answer["span"] == "minutes"
    columns = answer["devices"][first]
    assert columns["memory_used_bytes"] == [3 * GIB] * 2
    assert columns["utilisation"] == [0.5, 0.5]
    assert columns["temperature_celsius"] == [41.0, 41.0]
    assert columns["power_watts"] == [None, None]
    # Nothing has been read of it yet: an empty state, and no device left out.
    assert answer["devices"][second] == {name: [] for name in columns}


async def test_usage_names_nobody(seen):
    await seen.world.look()
    for span in Span:
        told = json.dumps(await asked(seen, f"?span={span.value}"))
        assert "ada" not in told
        assert "thesis" not in told


async def test_an_hour_is_told_where_nothing_else_is_asked(seen):
    answer = await asked(seen, "")
    assert answer["span"] == "hour"
    (columns, _) = answer["devices"].values()
    assert "memory_used_max_bytes" in columns


async def test_one_device_is_asked_for_by_its_uuid(seen):
    first, second = (device.uuid for device in seen.world.devices)
    for uuid in (first, second):
        answer = await asked(seen, f"?span=day&device={uuid}")
        assert list(answer["devices"]) == [uuid]


async def test_what_cannot_be_answered_is_said_in_a_sentence(seen):
    wrong = await seen.ask("GET", f"{PATH}?span=year", "ada-token")
    assert wrong.code == 400
    assert said(wrong) == (
        "span is not one of minutes, hour, day, event: write span=hour, say"
    )
    wrong = await seen.ask("GET", f"{PATH}?device=%3Cb%3E%25s", "ada-token")
    assert wrong.code == 404
    assert said(wrong) == "there is no such GPU; api/v1/snapshot lists them"
    wrong = await seen.ask("POST", PATH, "organiser-token", body="{}")
    assert wrong.code in (403, 405)


@pytest.mark.parametrize(
    ("token", "code"), [("", 401), ("nobodys-token", 401), ("stranger-token", 403)]
)
async def test_who_may_not_look_reads_nothing(seen, token, code):
    answer = await seen.ask("GET", PATH, token)
    assert answer.code == code
    assert seen.world.devices[0].uuid not in answer.body.decode()


async def test_it_is_encoded_once_however_many_ask(seen, monkeypatch):
    made, clock = [], Clock()
    columns = seen.usage.columns
    monkeypatch.setattr(
        seen.usage, "columns", lambda *asked: made.append(asked) or columns(*asked)
    )
    answers = UsageAnswers(seen.usage, seen.world.monitor, clock=clock)
    uuid = seen.world.devices[0].uuid
    for _ in range(200):
        await answers.answer(Span.MINUTES, "")
        await answers.answer(Span.MINUTES, uuid)
    # Both devices for all of them, and the one.
    assert len(made) == 3
    seen.usage.take(Pulse(taken_at=time.time(), readings={uuid: glance(uuid, GIB)}))
    clock.now += 1
    answer = json.loads(await answers.answer(Span.MINUTES, uuid))
    assert answer["devices"][uuid]["memory_used_bytes"] == [3 * GIB, 3 * GIB, GIB]
    # What nobody asks for any more is not kept.
    assert list(answers._made) == [(Span.MINUTES, uuid)]


async def test_who_asks_without_end_holds_nobody_up(seen, monkeypatch):
    made, turns, clock, columns = [], [], Clock(), seen.usage.columns
    uuids = [device.uuid for device in seen.world.devices]

    def slowly(span, devices):
        made.append((devices, len(turns)))
        clock.now += 0.5
        return columns(span, devices)

    async def others():
        while True:
            turns.append(1)
            await asyncio.sleep(0)

    monkeypatch.setattr(seen.usage, "columns", slowly)
    answers = UsageAnswers(seen.usage, seen.world.monitor, clock=clock)
    someone = asyncio.ensure_future(others())
    asked = [answers.answer(Span.MINUTES, "") for _ in range(3)]
    first, *more = await asyncio.gather(*asked)
    someone.cancel()
    assert more == [first] * 2
    # Once for all three, and after each device others had their turn.
    assert [devices for devices, _ in made] == [[uuid] for uuid in uuids]
    assert made[0][1] < made[1][1]
    # It took a second: it is good for longer than one of a small room.
    clock.now += 19
    await answers.answer(Span.MINUTES, "")
    assert len(made) == 2
    clock.now += 2
    await answers.answer(Span.MINUTES, "")
    assert len(made) == 4


async def test_an_answer_that_fails_is_made_anew(seen, monkeypatch):
    def fails(*asked):
        raise RuntimeError("no columns")

    clock = Clock()
    answers = UsageAnswers(seen.usage, seen.world.monitor, clock=clock)
    with monkeypatch.context() as broken:
        broken.setattr(seen.usage, "columns", fails)
        with pytest.raises(RuntimeError):
            await answers.answer(Span.MINUTES, "")
    clock.now += 1
    assert b"minutes" in await answers.answer(Span.MINUTES, "")


async def test_the_reference_shows_every_key(seen):
    page = REFERENCE.read_text()
    for span in Span:
        for columns in (await asked(seen, f"?span={span.value}"))["devices"].values():
            assert all(f"`{name}`" in page for name in columns)
        assert f"`{span.value}`" in page
