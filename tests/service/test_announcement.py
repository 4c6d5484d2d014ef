"""What organisers announce to everybody: by whom, until when, and what survives."""

import asyncio
import json

import pytest

from jupyterhub_gpuworkshop.core.announcements import Announcement
from jupyterhub_gpuworkshop.core.errors import ActForbidden, ActRefused
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import REPLY, REPORT, Report
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from jupyterhub_gpuworkshop.service.acts import IN_MEMORY_ONLY
from jupyterhub_gpuworkshop.service.announcement import Announcing
from jupyterhub_gpuworkshop.service.history import History
from jupyterhub_gpuworkshop.service.kept import STATE_FILE, Kept, KeptState, read
from jupyterhub_gpuworkshop.service.link import Link
from jupyterhub_gpuworkshop.service.web.auth import Viewer

from .service_process import ServiceProcess
from .stub_hub import StubHub
from .test_acts_api import said
from .test_acts_api import site as site
from .world import Clock

_PATH = "api/v1/announcement"
_ADAS = "ada-token"
_OLGA = Viewer(name="olga", attendee=None)
_ADA = Viewer(name="ada", attendee="ada")


class _Life:
    """One life of the service, as far as announcements are concerned."""

    now = 5000.0

    def __init__(self, folder, why_not=""):
        self.clock = Clock()
        self.kept = Kept(folder / STATE_FILE)
        self.history = History(folder / "history.sqlite")
        self.announcing = Announcing(
            self.kept,
            self.history,
            Link(5, self.clock),
            why_not_act=lambda: why_not,
            wall=lambda: _Life.now,
        )

    async def open(self):
        await self.history.open()
        await self.kept.open()
        return self

    def events(self):
        found = self.history.after(0, 100, None)
        return [(each.event.kind.value, each.event.reason) for each in found]


@pytest.fixture(autouse=True)
def _the_same_time_for_each_test(monkeypatch):
    monkeypatch.setattr(_Life, "now", 5000.0)


async def test_it_outlives_the_service_and_ends_by_its_time(tmp_path):
    life = await _Life(tmp_path).open()
    assert life.announcing.for_hub == ()
    done = await life.announcing.announce(_OLGA, " Lunch \nat noon", 600)
    assert done.on_disk
    assert done.message == "Announced on every page of the hub, for 10 min."
    made = Announcement(text="Lunch\nat noon", at=5000.0, until=5600.0, by="olga")
    life = await _Life(tmp_path).open()
    assert life.announcing.announcement == made
    assert life.announcing.for_hub == (made,)
    await life.announcing.step()
    _Life.now = 5600.0
    assert life.announcing.for_hub == ()
    await life.announcing.step()
    await life.announcing.step()
    assert life.events() == [
        ("announcement_made", "olga announced to everybody: Lunch\nat noon"),
        ("announcement_ended", "Its time was over, announced by olga: Lunch\nat noon"),
    ]
    assert read(tmp_path / STATE_FILE).for_everybody is None


async def test_one_stands_at_a_time_and_until_it_is_taken_down(tmp_path):
    life = await _Life(tmp_path).open()
    await life.announcing.announce(_OLGA, "Lunch", None)
    await life.announcing.announce(_OLGA, "Coffee", None)
    _Life.now += 1e9
    await life.announcing.step()
    assert [one.text for one in life.announcing.for_hub] == ["Coffee"]
    done = await life.announcing.take_down(_OLGA)
    assert done.message == "Nothing is announced any more."
    assert (await life.announcing.take_down(_OLGA)).message == "Nothing is announced."
    assert (await _Life(tmp_path).open()).announcing.for_hub == ()
    assert [kind for kind, _ in life.events()] == [
        "announcement_made",
        "announcement_made",
        "announcement_ended",
    ]


async def test_a_state_that_cannot_be_read_leaves_the_hub_with_what_it_knows(tmp_path):
    (tmp_path / STATE_FILE).mkdir()
    life = await _Life(tmp_path).open()
    assert life.announcing.for_hub is None
    for done in (
        await life.announcing.take_down(_OLGA),
        await life.announcing.announce(_OLGA, "Lunch", None),
    ):
        assert done.message.startswith("As soon as the hub is told: ")
        assert done.message.endswith(IN_MEMORY_ONLY)
        assert f"The hub is not told before this ends: {tmp_path}" in done.message
        assert not done.on_disk
    (tmp_path / STATE_FILE).rmdir()
    await life.kept.open()
    assert [one.text for one in life.announcing.for_hub] == ["Lunch"]


async def test_a_service_that_only_shows_announces_nothing(tmp_path):
    life = await _Life(tmp_path, "Another service acts.").open()
    with pytest.raises(ActRefused, match="Another service"):
        await life.announcing.announce(_OLGA, "Lunch", None)
    with pytest.raises(ActRefused, match="Another service"):
        await life.announcing.take_down(_OLGA)
    assert life.kept.state == KeptState()


async def test_who_is_no_organiser_is_refused_before_the_text_is_looked_at(tmp_path):
    life = await _Life(tmp_path).open()
    with pytest.raises(ActForbidden, match="Only an organiser"):
        await life.announcing.announce(_ADA, "", None)
    with pytest.raises(ActForbidden, match="Only an organiser"):
        await life.announcing.take_down(_ADA)


async def test_a_hub_that_is_silent_is_said_to_follow(tmp_path):
    life = await _Life(tmp_path).open()
    life.clock.now += 60
    done = await life.announcing.announce(_OLGA, "Lunch", None)
    assert "follows as soon as it does" in done.message


async def test_the_file_of_an_earlier_version_is_read(tmp_path):
    of_before = {"version": 1, "state": {"pins": [], "drained": ["GPU-1"]}}
    (tmp_path / STATE_FILE).write_text(json.dumps(of_before))
    life = await _Life(tmp_path).open()
    assert life.kept.problem == ""
    assert life.kept.state.drained == ("GPU-1",)
    assert life.announcing.for_hub == ()


async def test_what_who_is_forgotten_has_announced_goes(tmp_path):
    life = await _Life(tmp_path).open()
    await life.announcing.announce(_OLGA, "Lunch", None)
    await life.kept.forget(["ada"])
    assert life.announcing.announcement is not None
    await life.kept.forget(["olga"])
    assert life.announcing.announcement is None


async def test_a_service_that_is_killed_tells_it_as_soon_as_it_answers(tmp_path):
    hub = StubHub()
    create_devices(tmp_path / "gpus", 1, GIB)
    gpus = {"source": "simulated", "simulated_dir": str(tmp_path / "gpus")}
    service = ServiceProcess(tmp_path, {"gpus": gpus}, hub_port=hub.port)
    asked = {
        "method": "POST",
        "headers": {"Authorization": "token organiser-token"},
        "body": json.dumps({"text": "Lunch", "seconds": 600}),
    }
    report = REPORT.dump_json(Report(hub_id="hub", sent_at=1.0))
    try:
        await service.start().is_up()
        while True:
            answer = await service.get(_PATH, **asked)
            # It has yet to find out that no other service acts.
            if answer.code != 409:
                break
            await asyncio.sleep(0.05)
        assert answer.code == 200, answer.body
        service.process.kill()
        await service.ended()
        await service.start().is_up()
        told = None
        while told is None:  # while it reads it again, and what the hub knows stands
            answer = await service.report(report)
            told = REPLY.validate_json(answer.body).announced
        assert [one.text for one in told] == ["Lunch"]
    finally:
        service.end()
        await hub.stop()


async def _announced(site, token=_ADAS):
    answer = await site.ask("GET", _PATH, token)
    assert answer.code == 200, answer.body
    return json.loads(answer.body)["announcement"]


async def test_everybody_who_may_look_reads_it_and_only_organisers_who_made_it(site):
    assert await _announced(site) is None
    body = json.dumps({"text": "<b>Lunch</b>\n🎉", "seconds": 600})
    answer = await site.ask("POST", _PATH, "organiser-token", body)
    assert answer.code == 200, answer.body
    made = json.loads(answer.body)["announcement"]
    assert (made["text"], made["by"]) == ("<b>Lunch</b>\n🎉", "olga")
    assert made["until"] == made["at"] + 600
    for token in ("ada-token", "bob-token", "reading-service-token"):
        shown = await _announced(site, token)
        assert shown == {key: made[key] for key in ("text", "at", "until")}
    assert await _announced(site, "service-token") == made
    # The hub is told with its next report.
    told = await site.ask(
        "POST",
        "link",
        body=REPORT.dump_json(Report(hub_id="hub", sent_at=1.0)),
        headers={"Authorization": "Bearer secret"},
    )
    assert [x.text for x in REPLY.validate_json(told.body).announced] == [made["text"]]
    answer = await site.ask("DELETE", _PATH, "organiser-token")
    assert json.loads(answer.body)["announcement"] is None
    assert await _announced(site) is None


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_nobody_else_announces_anything_or_takes_it_down(site, method):
    lunch = json.dumps({"text": "Lunch", "seconds": None})
    assert (await site.ask("POST", _PATH, "service-token", lunch)).code == 200
    body = json.dumps({"text": "Pizza", "seconds": None}) if method == "POST" else None
    for token, status in (
        ("ada-token", 403),
        ("reading-service-token", 403),
        ("stranger-token", 403),
        ("wrong-token", 401),
        ("", 401),
    ):
        answer = await site.ask(method, _PATH, token, body)
        assert answer.code == status, token
        assert said(answer)
    assert (await _announced(site))["text"] == "Lunch"
    assert (await site.ask("GET", _PATH, "stranger-token")).code == 403
    assert (await site.ask("GET", _PATH)).code == 401


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_browsers_cookie_alone_announces_nothing(site, method):
    lunch = json.dumps({"text": "Lunch", "seconds": None})
    assert (await site.ask("POST", _PATH, "organiser-token", lunch)).code == 200
    olga, _ = await site.log_in("organiser-token")
    pizza = json.dumps({"text": "Pizza", "seconds": None})
    body = pizza if method == "POST" else None
    for more in ({}, {"X-XSRFToken": "guessed"}):
        answer = await site.ask(method, _PATH, body=body, headers={**olga, **more})
        assert answer.code in (401, 403)
    assert (await _announced(site))["text"] == "Lunch"
    token = dict(c.split("=", 1) for c in olga["Cookie"].split("; "))["_xsrf"]
    answer = await site.ask(
        method, _PATH, body=body, headers={**olga, "X-XSRFToken": token}
    )
    assert answer.code == 200, answer.body
    left = await _announced(site)
    assert (left and left["text"]) == ("Pizza" if method == "POST" else None)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "does not fit"),
        ("{", "no JSON"),
        ('{"text": "Lunch"}', "does not fit"),
        ('{"text": "Lunch", "seconds": null, "more": 1}', "does not fit"),
        ('{"text": 5, "seconds": null}', "no text"),
        ('{"text": null, "seconds": null}', "no text"),
        ('{"text": " \\n ", "seconds": null}', "empty"),
        ('{"text": "a\\u0007", "seconds": null}', "U+0007"),
        ('{"text": "a\\ud800", "seconds": null}', "U+D800"),
        ('{"text": "Lunch", "seconds": 59}', "from 60 to 604800"),
        ('{"text": "Lunch", "seconds": 604801}', "from 60 to 604800"),
        ('{"text": "Lunch", "seconds": true}', "from 60 to 604800"),
        ('{"text": "Lunch", "seconds": NaN}', "from 60 to 604800"),
        ('{"text": "Lunch", "seconds": "600"}', "from 60 to 604800"),
        (json.dumps({"text": "x" * 501, "seconds": None}), "501 characters"),
        (json.dumps({"text": "x" * 9000, "seconds": None}), "too long"),
    ],
)
async def test_what_makes_no_sense_is_refused_whole(site, body, why):
    answer = await site.ask("POST", _PATH, "organiser-token", body)
    assert answer.code == 400
    assert why in said(answer)
    assert await _announced(site) is None


async def test_the_longest_text_is_taken_however_it_is_written(site):
    body = json.dumps({"text": "🎉" * 500, "seconds": None})
    answer = await site.ask("POST", _PATH, "organiser-token", body)
    assert answer.code == 200, answer.body
    assert (await _announced(site))["text"] == "🎉" * 500
