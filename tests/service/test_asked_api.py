"""Kernels freed, servers stopped, notices given through the API: who may, and how."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from jupyterhub_gpuworkshop.core.attribution import Owner
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import EventKind

from .stub_hub import StubHub
from .test_acts_api import Site, said
from .test_asked_stops import Room
from .world import World

RESTART = b'{"action": "restart"}'
NOT_THEIRS = {
    "bob-token": 404,
    "reading-service-token": 404,
    "stranger-token": 403,
    "expired-token": 401,
    "": 401,
}


@pytest.fixture
async def site(tmp_path):
    hub = StubHub()
    world = await World(tmp_path).open()
    room = Room(world, hub)
    made = Site(world, hub, stopping=SimpleNamespace(asked=room.asked))
    made.room = room
    await world.look()
    yield made
    await made.close()
    await room.close()
    await world.close()
    await hub.stop()


def reclaim(site, kernel_id=None):
    return f"api/v1/kernels/{kernel_id or site.kernel_id}/reclaim"


async def done(site):
    while site.world.actor._acting:
        await site.world.look(0.5)
        await asyncio.sleep(0)


def untouched(site):
    """Nothing was asked of any server, of the hub, or told to anybody."""
    world = site.world
    asked = [x for x in world.attendee.asked if not x.startswith("GET")]
    return (
        not asked
        and not site.room.hub.stopped
        and not world.monitor.notices.standing
        and not world.events()
        and not world.actor._acting
        and not site.room.ends.under_way
    )


@pytest.mark.parametrize(
    ("token", "action", "reason"),
    [
        ("ada-token", "restart", "ada restarted it."),
        ("organiser-token", "stop_kernel", "Organiser olga stopped it."),
        ("admin-token", "restart", "Organiser root restarted it."),
        ("service-token", "restart", "The service robots restarted it."),
    ],
)
async def test_a_kernel_is_freed_and_what_came_of_it_is_among_the_events(
    site, token, action, reason
):
    body = json.dumps({"action": action})
    answer = await site.ask("POST", reclaim(site), token, body)
    assert answer.code == 202
    assert said(answer).startswith("thesis.ipynb: it is ")
    await done(site)
    events = json.loads((await site.ask("GET", "api/v1/events", "ada-token")).body)
    (event,) = events
    assert (event["kind"], event["reason"]) == ("kernel_reclaimed", reason)
    assert event["details"]["freed_bytes"] == 2 * GIB


@pytest.mark.parametrize("token", list(NOT_THEIRS))
async def test_what_is_anothers_answers_as_what_is_not_there(site, token):
    for paths, body in (
        ((reclaim(site), reclaim(site, "none")), RESTART),
        (("api/v1/leases/lease-ada/stop", "api/v1/leases/none/stop"), b"{}"),
    ):
        answers = [await site.ask("POST", path, token, body) for path in paths]
        assert [x.code for x in answers] == [NOT_THEIRS[token]] * 2
        assert answers[0].body == answers[1].body
        assert b"ada" not in answers[0].body
    assert untouched(site)


@pytest.mark.parametrize("token", ["ada-token", *NOT_THEIRS])
async def test_only_organisers_give_notices(site, token):
    text = b'{"text": "Hello"}'
    for name in ("ada", "bob"):
        path = f"api/v1/attendees/{name}/notice"
        answer = await site.ask("POST", path, token, text)
        assert answer.code == (401 if NOT_THEIRS.get(token) == 401 else 403)
    assert untouched(site)


async def test_a_browser_needs_the_token_of_its_own_page(site):
    headers, _ = await site.log_in("ada-token")
    other, _ = await site.log_in("organiser-token")
    calls = {
        reclaim(site): RESTART,
        "api/v1/leases/lease-ada/stop": b"{}",
        "api/v1/attendees/ada/notice": b'{"text": "Hello"}',
    }
    for path, body in calls.items():
        for wrong in ({}, {"X-XSRFToken": "x"}, {"X-XSRFToken": xsrf_of(other)}):
            answer = await site.ask("POST", path, "", body, {**headers, **wrong})
            assert answer.code in (401, 403), path
            assert (await site.ask("GET", path, headers=headers)).code == 405
    assert untouched(site)
    with_it = {**headers, "X-XSRFToken": xsrf_of(headers)}
    answer = await site.ask("POST", reclaim(site), "", RESTART, with_it)
    assert answer.code == 202
    await done(site)


def xsrf_of(headers):
    cookies = dict(x.split("=", 1) for x in headers["Cookie"].split("; "))
    return cookies["_xsrf"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"restart",
        b'{"action": "kill"}',
        b'{"action": "PARK"}',
        b'{"action": null}',
        b'{"action": ["restart"]}',
        b'{"action": "restart", "user": "bob"}',
        b'{"action": "restart"}' + b" " * 5000,
    ],
)
async def test_what_is_to_be_done_must_be_said_as_the_docs_have_it(site, body):
    answer = await site.ask("POST", reclaim(site), "organiser-token", body)
    assert answer.code == 400
    assert "send {" in said(answer) or "too long" in said(answer)
    assert untouched(site)


async def test_what_cannot_be_paused_is_refused_and_not_restarted(site):
    answer = await site.ask("POST", reclaim(site), "ada-token", b'{"action": "park"}')
    assert answer.code == 409
    assert "cannot be paused" in said(answer)
    assert untouched(site)


async def test_of_two_servers_with_one_kernel_id_the_one_that_is_meant_is_hit(site):
    world = site.world
    (owner,) = world.monitor.kernels
    watched = world.monitor.kernels[owner]
    liar = Owner(
        lease_id="lease-mallory",
        user="mallory",
        server="",
        kernel_id=owner.kernel_id,
    )
    world.monitor.watching.kernels = {owner: watched, liar: watched}
    path = reclaim(site)
    answer = await site.ask("POST", path, "organiser-token", RESTART)
    assert answer.code == 409
    assert "?user=NAME" in said(answer)
    answer = await site.ask("POST", f"{path}?user=eve", "organiser-token", RESTART)
    assert answer.code == 404
    assert untouched(site)
    # Whose kernel it is is known of an attendee.
    assert (await site.ask("POST", path, "ada-token", RESTART)).code == 202
    await done(site)
    assert [x.user for x in world.events()] == ["ada"]


async def test_of_two_who_ask_at_once_one_is_refused(site):
    answers = await asyncio.gather(
        *(site.ask("POST", reclaim(site), "ada-token", RESTART) for _ in range(2))
    )
    assert sorted(x.code for x in answers) == [202, 409]
    await done(site)
    assert len(site.world.events()) == 1


async def test_a_kernel_that_is_gone_is_not_there(site):
    site.world.attendee.kernels.pop(site.kernel_id).end()
    await site.world.look()
    answer = await site.ask("POST", reclaim(site), "organiser-token", RESTART)
    assert answer.code == 404
    assert untouched(site)


async def test_an_attendee_stops_the_server_and_the_hub_is_asked_once(site):
    path = "api/v1/leases/lease-ada/stop"
    answer = await site.ask("POST", path, "ada-token", b"{}")
    assert answer.code == 202
    assert "being stopped" in said(answer)
    again = await site.ask("POST", path, "organiser-token", b"")
    assert again.code == 409
    await site.room.hub_releases()
    assert (await site.room.comes_of_it()).kind is EventKind.SERVER_STOPPED
    assert len(site.room.hub.stopped) == 1
    assert (await site.ask("POST", path, "ada-token", b"{}")).code == 404


async def test_a_stop_is_asked_for_with_an_empty_object(site):
    path = "api/v1/leases/lease-ada/stop"
    answer = await site.ask("POST", path, "ada-token", b'{"now": true}')
    assert answer.code == 400
    assert untouched(site)


async def test_a_hub_that_does_not_say_who_somebody_is_has_nothing_done(site):
    site.room.hub.broken = True
    for path, body in (
        (reclaim(site), RESTART),
        ("api/v1/leases/lease-ada/stop", b"{}"),
        ("api/v1/attendees/ada/notice", b'{"text": "Hello"}'),
    ):
        assert (await site.ask("POST", path, "organiser-token", body)).code == 503
    assert untouched(site)


async def test_a_notice_of_500_characters_fits_however_it_is_written(site):
    path = "api/v1/attendees/ada/notice"
    body = json.dumps({"text": "\U0001f600" * 500})
    assert (await site.ask("POST", path, "organiser-token", body)).code == 200


async def test_an_organiser_says_something_that_its_attendee_reads(site):
    path = "api/v1/attendees/ada/notice"
    body = json.dumps({"text": "Please use <b>GPU 1</b>."})
    assert (await site.ask("POST", path, "organiser-token", body)).code == 200
    view = await site.ask("GET", "api/v1/snapshot", "ada-token")
    assert json.loads(view.body)["notices"] == []
    await site.world.look()
    view = await site.ask("GET", "api/v1/snapshot", "ada-token")
    (notice,) = json.loads(view.body)["notices"]
    assert notice["kind"] == NoticeKind.FROM_ORGANISER.value
    assert notice["text"] == "Organiser olga: Please use <b>GPU 1</b>."
    (kept,) = site.world.monitor.notices.standing
    assert kept.seen_at is not None


@pytest.mark.parametrize(
    "body",
    [
        b'{"text": ""}',
        b'{"text": "two\\nlines"}',
        b'{"text": "' + b"x" * 501 + b'"}',
        b'{"text": "\\ud800"}',
        b'{"text": 7}',
        b'{"text": "Hello", "user": "bob"}',
        b'"Hello"',
    ],
)
async def test_what_is_no_notice_is_refused(site, body):
    path = "api/v1/attendees/ada/notice"
    answer = await site.ask("POST", path, "organiser-token", body)
    assert answer.code == 400
    assert said(answer)
    assert untouched(site)


@pytest.mark.parametrize("name", ["bob", "x" * 300, "%3Cb%3E", "ada%2F..", "%00"])
async def test_who_is_not_here_cannot_be_told_anything(site, name):
    path = f"api/v1/attendees/{name}/notice"
    answer = await site.ask("POST", path, "organiser-token", b'{"text": "Hello"}')
    assert answer.code == 404
    assert "no share now" in said(answer)
    assert untouched(site)
