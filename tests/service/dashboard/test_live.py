"""The websocket of the pages, over a real server: who gets in, and what they get."""

import asyncio
import json
import logging
import re
from pathlib import Path

import pytest
from tornado.httpclient import HTTPClientError

from jupyterhub_gpuworkshop.core.errors import SourceError
from jupyterhub_gpuworkshop.core.notices import NoticeKind
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.service.dashboard import live
from jupyterhub_gpuworkshop.service.dashboard.feed import MOST_OF_ONE
from tests.service import stub_hub
from tests.service.service_process import PREFIX
from tests.service.stub_hub import StubHub

from .live_site import LiveSite

READ = stub_hub.READ
DOCS = Path(__file__).parents[3] / "docs" / "reference" / "live-feed.md"


@pytest.fixture
async def site(world):
    hub = StubHub()
    made = LiveSite(world, hub)
    await made.open()
    yield made
    await made.close()
    await hub.stop()


async def refused(site, query, token="", headers=()):
    """Return the status and the message of a handshake that fails."""
    with pytest.raises(HTTPClientError) as caught:
        await site.connect(query, token, headers)
    response = caught.value.response
    assert "Location" not in response.headers
    return response.code, response.body.decode()


async def test_an_attendee_gets_their_own_and_the_totals_and_nobody_elses(site):
    viewer = await site.connect("?view=attendee", "ada-token")
    first = await viewer.first()
    assert list(first) == ["hello", "devices", "mine", "tick"]
    assert (first["hello"]["view"], first["hello"]["name"]) == ("attendee", "ada")
    (kernel,) = first["mine"]["kernels"]
    assert kernel["notebook"] == "<b>thesis</b>.ipynb"
    assert kernel["memory_bytes"] == 2 * GIB
    assert [x["id"] for x in first["mine"]["leases"]] == ["lease-ada"]
    devices, tick = first["devices"], first["tick"]
    assert tick["version"] == devices["version"]
    assert [x["leases"] for x in devices["devices"]] == [1, 1]
    assert [x[0] for x in tick["devices"]] == [2 * GIB, 0]
    assert "bob" not in "".join(viewer.texts)

    bob = await site.connect("?view=attendee", "bob-token")
    mine = (await bob.first())["mine"]
    assert [x["id"] for x in mine["leases"]] == ["lease-bob"]
    assert (mine["kernels"], mine["holders"]) == ([], [])
    assert "ada" not in "".join(bob.texts)
    assert "thesis" not in "".join(bob.texts)


async def test_an_organiser_gets_everybodys_and_names_with_markup_are_data(site):
    viewer = await site.connect("?view=organiser", "organiser-token")
    first = await viewer.first()
    assert list(first) == ["hello", "devices", "room", "tick"]
    room = first["room"]
    assert room["base"] is None
    assert set(room["leases"]) == {"lease-ada", "lease-bob"}
    (kernel,) = room["kernels"].values()
    assert kernel["notebook"] == "<b>thesis</b>.ipynb"
    assert kernel["why_not_pause"] == "It cannot be paused: parking is not set up."
    assert first["devices"]["devices"][0]["problem"] == ""

    site.world.attendee.kernels[site.kernel_id].run(HOLD_MORE)
    await site.world.look()
    changes = await viewer.until("room")
    assert changes["base"] == room["version"]
    (row,) = changes["kernels"].values()
    assert row["memory_bytes"] == 3 * GIB
    assert list(changes["leases"]) == ["lease-ada"]
    assert changes["notices"] == {}


HOLD_MORE = 'held.append(simcuda.allocate("1GiB"))'


async def test_an_organiser_may_look_at_their_own_alone_and_at_the_wall(site):
    own = await site.connect("?view=attendee", "admin-token")
    assert (await own.first())["mine"]["kernels"] == []
    wall = await site.connect("?view=wall", "organiser-token")
    named = await site.connect("?view=wall&names=yes", "service-token")
    held = (await wall.first())["wall"]["devices"]
    uuid = site.world.devices[0].uuid
    assert held[uuid] == [{"bytes": 2 * GIB, "over": False, "user": ""}]
    assert (await named.first())["wall"]["devices"][uuid][0]["user"] == "ada"
    for text in wall.texts:
        assert "ada" not in text
        assert "thesis" not in text


async def test_a_service_that_reads_gets_totals_alone_though_called_like_an_attendee(
    site,
):
    viewer = await site.connect("?view=attendee", "reading-service-token")
    mine = (await viewer.first())["mine"]
    assert all(mine[kind] == [] for kind in ("leases", "kernels", "holders"))
    assert mine["may"] == {"pin_seconds": 0}
    assert "thesis" not in "".join(viewer.texts)


async def test_who_may_not_look_is_told_so_at_the_handshake(site):
    for query, token, code in (
        ("?view=attendee", "", 401),
        ("?view=attendee", "expired-token", 401),
        ("?view=attendee", "stranger-token", 403),
        ("?view=organiser", "stranger-token", 403),
        ("?view=organiser", "ada-token", 403),
        ("?view=wall", "ada-token", 403),
        ("?view=wall&names=yes", "reading-service-token", 403),
        ("?view=organiser", "reading-service-token", 403),
        ("?view=everything", "organiser-token", 400),
        ("", "organiser-token", 400),
    ):
        status, body = await refused(site, query, token)
        assert (query, token, status) == (query, token, code)
        assert json.loads(body)["message"]
    assert site.feed.viewers == 0
    assert not site.messages.encoded


async def test_a_token_in_the_address_opens_nothing(site):
    for more in ("", "ada-token"):
        query = "?view=organiser&token=organiser-token"
        status, body = await refused(site, query, more)
        assert status == 400
        assert "header" in json.loads(body)["message"]


async def test_a_hub_that_does_not_answer_lets_nobody_in(site):
    site.hub.broken = True
    status, body = await refused(site, "?view=attendee", "ada-token")
    assert status == 503
    assert str(site.hub.port) not in body


async def test_a_page_of_this_service_gets_in_with_its_cookie_and_says_so(site):
    headers, xsrf = await site.cookies("ada-token")
    viewer = await site.connect("?view=attendee", headers=headers)
    # Nothing comes before it has said where it is from.
    assert site.feed.viewers == 0
    await viewer.socket.write_message(json.dumps({"xsrf": xsrf}))
    assert (await viewer.first())["hello"]["name"] == "ada"
    asked = {"X-XSRFToken": xsrf, "Sec-Fetch-Mode": "cors", **headers}
    assert (await site.ask("live?view=attendee", asked)).code == 426
    assert (await site.ask("live?view=wall", asked)).code == 403
    del asked["X-XSRFToken"]
    assert (await site.ask("live?view=attendee", asked)).code == 401


ELSEWHERE = (
    None,
    "",
    "null",
    "http://evil.example",
    "https://evil.example:443",
    "http://127.0.0.1",
    "http://127.0.0.1.evil.example:{port}",
    "http://evil.example/127.0.0.1:{port}",
    "http://127.0.0.1:{port}@evil.example",
    "file://127.0.0.1:{port}",
    "http://[::1",
)


async def test_a_page_of_elsewhere_gets_in_with_nobodys_cookie(site):
    headers, _ = await site.cookies("organiser-token")
    del headers["Origin"]
    for origin in ELSEWHERE:
        given = {**headers, "Sec-Fetch-Site": "same-site"}
        if origin is not None:
            given["Origin"] = origin.format(port=site.port)
        status, body = await refused(site, "?view=organiser", headers=given)
        assert (origin, status) == (origin, 403)
        assert "own pages" in body


async def test_a_proxy_in_front_may_say_by_which_name_the_page_is_known(site):
    headers, xsrf = await site.cookies("organiser-token")
    headers["Origin"] = "https://hub.example"
    headers["X-Forwarded-Host"] = "HUB.example:443, inner"
    viewer = await site.connect("?view=organiser", headers=headers)
    await viewer.socket.write_message(json.dumps({"xsrf": xsrf}))
    assert (await viewer.first())["room"]["leases"]


async def test_a_program_with_a_token_needs_no_origin_and_may_have_any(site):
    for headers in ({}, {"Origin": "http://elsewhere.example"}):
        viewer = await site.connect("?view=attendee", "ada-token", headers)
        assert (await viewer.first())["mine"]["leases"]


SAID = ("", "x", "null", "[]", '{"xsrf": ""}', '{"xsrf": 1}', "[" * 4000, b"\xff")


async def test_an_attendees_own_server_opens_no_socket_of_its_visitor(site):
    headers, _ = await site.cookies("organiser-token")
    # The last is a real one, of somebody else.
    bobs = json.dumps({"xsrf": (await site.cookies("bob-token"))[1]})
    for said in (*SAID, bobs):
        viewer = await site.connect("?view=organiser", headers=headers)
        await viewer.socket.write_message(said, binary=isinstance(said, bytes))
        code, last = await viewer.end()
        assert (said, code, last["type"]) == (said, 4401, "bye")
        assert len(viewer.texts) == 1
    assert not {"room", "devices"} & set(site.messages.encoded)


async def test_a_page_of_an_earlier_login_is_led_to_the_login(site):
    # As a page asks why its socket does not open.
    _, old = await site.cookies("bob-token")
    headers, new = await site.cookies("organiser-token")
    asked = {"Cookie": headers["Cookie"], "Sec-Fetch-Mode": "cors"}
    for xsrf, code in ((old, 401), (new, 426)):
        answer = await site.ask("live?view=organiser", {**asked, "X-XSRFToken": xsrf})
        assert answer.code == code


async def test_a_page_that_says_nothing_is_not_kept(site, monkeypatch):
    monkeypatch.setattr(live, "_PROOF_SECONDS", 0.0)
    headers, _ = await site.cookies("ada-token")
    viewer = await site.connect("?view=attendee", headers=headers)
    code, last = await viewer.end()
    assert (code, last["code"]) == (1013, 1013)


async def test_who_talks_is_hung_up_on(site):
    for size in (2, 4096):
        viewer = await site.connect("?view=attendee", "ada-token")
        await viewer.first()
        await viewer.socket.write_message("x" * size)
        code, last = await viewer.end()
        assert (code, last["type"]) == (1008, "bye")
    assert site.feed.viewers == 0


async def test_who_talks_at_length_is_not_even_read(site):
    viewer = await site.connect("?view=attendee", "ada-token")
    await viewer.first()
    await viewer.socket.write_message("x" * 5000)
    assert (await viewer.end())[0] == 1009
    assert site.feed.viewers == 0


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (None, 4401),
        ({"scopes": ["self"]}, 4403),
        ({"scopes": [READ]}, 4403),
        ({"name": "eve"}, 4403),
    ],
)
async def test_who_may_look_no_more_is_shown_out_within_minutes(
    site, monkeypatch, now, code
):
    viewer = await site.connect("?view=organiser", "organiser-token")
    stays = await site.connect("?view=attendee", "ada-token")
    await viewer.first()
    await stays.first()
    if now is None:
        monkeypatch.delitem(stub_hub.TOKENS, "organiser-token")
    else:
        model = {**stub_hub.TOKENS["organiser-token"], **now}
        monkeypatch.setitem(stub_hub.TOKENS, "organiser-token", model)
    await site.pulse()
    assert (await viewer.until("tick"))["type"] == "tick"
    site.now += 300
    await site.pulse()
    closed, last = await viewer.end()
    assert (closed, last["code"]) == (code, code)
    await stays.until("tick")
    await site.pulse()
    await stays.until("tick")
    assert site.feed.viewers == 1


async def test_a_hub_that_restarts_shows_nobody_out_but_one_that_stays_away_does(site):
    viewer = await site.connect("?view=attendee", "ada-token")
    await viewer.first()
    site.hub.broken = True
    for _ in range(3):
        site.now += 250
        await site.pulse()
        await viewer.until("tick")
        while site.feed._asking:
            await site.pulse()
            await viewer.until("tick")
    site.now += 250
    await site.pulse()
    code, last = await viewer.end()
    assert (code, last["code"]) == (1013, 1013)


async def test_nobody_keeps_all_the_seats(site):
    viewers = [
        await site.connect("?view=attendee", "ada-token") for _ in range(MOST_OF_ONE)
    ]
    for viewer in viewers:
        await viewer.first()
    one_more = await site.connect("?view=attendee", "ada-token")
    code, last = await one_more.end()
    assert (code, last["reason"]) == (1013, "Too many pages are open.")
    other = await site.connect("?view=attendee", "bob-token")
    await other.first()
    assert site.messages.encoded["mine"] == 2
    viewers[0].socket.close()
    await viewers[0].end()
    again = await site.connect("?view=attendee", "ada-token")
    await again.first()


async def test_a_notice_is_seen_once_it_was_handed_to_its_attendee(site):
    notices = site.world.monitor.notices
    for user in ("ada", "bob"):
        notices.give(NoticeKind.PROCESS_ENDED, user=user, text=f"For {user}.")
    await site.world.look()
    organiser = await site.connect("?view=organiser", "organiser-token")
    service = await site.connect("?view=attendee", "reading-service-token")
    assert len((await organiser.first())["room"]["notices"]) == 2
    assert (await service.first())["mine"]["notices"] == []
    assert [x.seen_at for x in notices.standing] == [None, None]
    ada = await site.connect("?view=attendee", "ada-token")
    (notice,) = (await ada.first())["mine"]["notices"]
    assert (notice["text"], notice["seen_at"]) == ("For ada.", None)
    await site.pulse()
    await ada.until("tick")
    seen = {x.user: x.seen_at for x in notices.standing}
    assert seen["ada"] is not None
    assert seen["bob"] is None
    await site.world.look()
    assert (await ada.until("mine"))["notices"][0]["seen_at"] == seen["ada"]


async def test_a_service_that_ends_says_so(site):
    token = await site.connect("?view=attendee", "ada-token")
    await token.first()
    headers, _ = await site.cookies("ada-token")
    silent = await site.connect("?view=attendee", headers=headers)
    await site.feed.close()
    for viewer in (token, silent):
        code, last = await viewer.end()
        assert (code, last["code"]) == (1001, 1001)


async def test_readings_go_on_with_nulls_while_the_driver_is_away(site, monkeypatch):
    viewer = await site.connect("?view=attendee", "ada-token")
    before = (await viewer.first())["tick"]

    async def gone():
        raise SourceError("The driver is gone.")

    monkeypatch.setattr(site.world.gpus, "glance", gone)
    await site.pulse()
    tick = await viewer.until("tick")
    assert tick["devices"] == [[None] * 4] * 2
    assert tick["at"] == before["at"]


async def test_the_example_of_the_docs_works(site, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    names = {}
    exec(example, names)  # noqa: S102 - our own page
    address = f"ws://{site.host}{PREFIX}"
    watching = asyncio.ensure_future(names["watch"](address, "ada-token"))
    viewer = await site.connect("?view=attendee", "ada-token")
    await viewer.first()
    while site.feed.viewers < 2:
        await site.pulse()
        await viewer.until("tick")
    await site.feed.close()
    await watching
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"GPU 0: {2 * GIB} bytes"
    assert printed[-1] == "The service ends."


@pytest.mark.parametrize(
    "path",
    [
        *("oauth_callback?state=x&code=", "oauth_callback?code=", "wall?token="),
        *("api/v1/events?limit=x&token=", "live?view=none&names="),
        *("live?view=wall&token=", "api/v1/usage?span=x&token=", "?token="),
    ],
)
async def test_what_stands_in_an_address_stands_in_no_log(site, caplog, path):
    caplog.set_level(logging.DEBUG)
    for token in ("", "ada-token"):
        headers = {"Authorization": f"token {token}"} if token else {}
        await site.ask(f"{path}very-secret", headers)
    assert "very-secret" not in caplog.text


async def test_what_a_browser_brings_back_is_one_line_of_the_log(site, caplog):
    brought = "x%0A[I] organiser grace unlocks ada" + "x" * 2000
    await site.ask(f"oauth_callback?error={brought.replace(' ', '%20')}")
    said = [x.getMessage() for x in caplog.records if "in oauth" in x.getMessage()]
    (line,) = said
    assert "\n" not in line
    assert len(line) < 400
