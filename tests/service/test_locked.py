"""Who is locked out, and the orders to let them in: by whom, and until when."""

import json
from dataclasses import replace
from urllib.parse import quote

import pytest

from jupyterhub_gpuworkshop.core.errors import ActForbidden, ActRefused, NothingThere
from jupyterhub_gpuworkshop.core.lock_out import Locked
from jupyterhub_gpuworkshop.core.wire import MOST_LOCKED, REPLY, REPORT, Report
from jupyterhub_gpuworkshop.service.history import History
from jupyterhub_gpuworkshop.service.kept import STATE_FILE, Kept
from jupyterhub_gpuworkshop.service.link import Link
from jupyterhub_gpuworkshop.service.locked import NO_LOCK_OUTS, LockedOut
from jupyterhub_gpuworkshop.service.web.auth import Viewer

from .test_acts_api import said
from .test_acts_api import site as site
from .world import Clock

_OLGA = Viewer(name="olga", attendee=None)
_ADA = Viewer(name="ada", attendee="ada")
_ROOM = "192.0.2.7"


def _waits(name, until=9000.0, address=_ROOM):
    return Locked(name=name, address=address, until=until)


class _Life:
    """One life of the service, and what the hub reports to it."""

    def __init__(self, folder, why_not=""):
        self.now = 5000.0
        self.clock = Clock()
        self.link = Link(5, self.clock)
        self.kept = Kept(folder / STATE_FILE)
        self.history = History(folder / "history.sqlite")
        self.locked_out = LockedOut(
            self.link,
            self.kept,
            self.history,
            why_not_act=lambda: why_not,
            wall=lambda: self.now,
        )

    async def open(self, *locked):
        await self.history.open()
        await self.kept.open()
        await self.report(locked)
        return self

    async def report(self, locked=(), unlocked=()):
        """Let the hub report; return the orders that it is given."""
        self.clock.now += 1
        report = Report(
            hub_id="hub", sent_at=self.clock.now, locked=locked, unlocked=unlocked
        )
        self.link.hear(report)
        await self.locked_out.hear(report)
        return self.locked_out.orders

    def events(self):
        found = self.history.after(0, 100, None)
        return [
            (x.event.kind.value, x.event.user, x.event.details["by"]) for x in found
        ]


async def test_an_order_is_given_until_the_hub_says_that_it_is_done(tmp_path):
    life = await _Life(tmp_path).open(_waits("ann"), _waits("bea"))
    message = await life.locked_out.unlock(_OLGA, "ann")
    assert message == "The hub lets ann try again within seconds."
    (order,) = await life.report((_waits("ann"),))
    assert (order.name, order.by) == ("ann", "olga")
    # A reply was lost, and the order is asked for again: it stays the same one.
    await life.locked_out.unlock(_OLGA, " Ann ")
    assert await life.report((_waits("ann"),)) == (order,)
    assert life.events() == []
    assert await life.report((), (order.id,)) == ()
    assert await life.report((), (order.id,)) == ()
    assert life.events() == [("attendee_unlocked", "ann", "olga")]


async def test_an_order_outlives_the_service(tmp_path):
    life = await _Life(tmp_path).open(_waits("ann"))
    await life.locked_out.unlock(_OLGA, "ann")
    (order,) = life.locked_out.orders
    life = await _Life(tmp_path).open(_waits("ann"))
    assert life.locked_out.orders == (order,)


async def test_an_order_is_given_up_after_minutes_and_that_is_said(tmp_path):
    life = await _Life(tmp_path).open(_waits("ann"))
    await life.locked_out.unlock(_OLGA, "ann")
    life.now += 300
    await life.locked_out.step()
    assert len(life.locked_out.orders) == 1
    life.now += 1
    assert life.locked_out.orders == ()
    await life.locked_out.step()
    await life.locked_out.step()
    assert life.events() == [("unlock_failed", "ann", "olga")]
    (event,) = life.history.after(0, 10, None)
    assert "did not do it within 5 min" in event.event.reason
    # ... and asked for again it is a new one.
    await life.locked_out.unlock(_OLGA, "ann")
    assert len(life.locked_out.orders) == 1


async def test_who_wants_to_join_is_found_by_either_name(tmp_path):
    life = await _Life(tmp_path).open(_waits("joining ann"), _waits("joining bea"))
    await life.locked_out.unlock(_OLGA, "joining ann")
    await life.locked_out.unlock(_OLGA, "Bea")
    orders = life.locked_out.orders
    assert [order.name for order in orders] == ["joining ann", "bea"]
    await life.report((), tuple(order.id for order in orders))
    assert {user for _, user, _ in life.events()} == {"ann", "bea"}


async def test_whose_wait_is_over_is_not_locked_any_more(tmp_path):
    life = await _Life(tmp_path).open(_waits("ann", until=5010.0))
    assert [one.name for one in life.locked_out.locked] == ["ann"]
    life.now = 5010.0
    assert life.locked_out.locked == ()
    with pytest.raises(NothingThere, match="Nobody of this name"):
        await life.locked_out.unlock(_OLGA, "ann")


async def test_of_a_list_that_was_cut_others_may_be_unlocked_too(tmp_path):
    locked = [_waits(f"a{number:03}") for number in range(MOST_LOCKED)]
    life = await _Life(tmp_path).open(*locked)
    await life.locked_out.unlock(_OLGA, "Zoe")
    assert [order.name for order in life.locked_out.orders] == ["zoe"]
    life = await _Life(tmp_path).open(*locked[1:])
    with pytest.raises(NothingThere):
        await life.locked_out.unlock(_OLGA, "yan")


async def test_without_lock_outs_or_a_hub_nothing_is_promised(tmp_path):
    life = _Life(tmp_path)
    await life.open()
    await life.report(None)
    assert (life.locked_out.problem, life.locked_out.is_known) == (NO_LOCK_OUTS, False)
    with pytest.raises(ActRefused, match="does not say who is locked out"):
        await life.locked_out.unlock(_OLGA, "ann")
    await life.report((_waits("ann"),))
    life.clock.now += 30
    assert life.locked_out.is_known, "what it said last is shown"
    with pytest.raises(ActRefused, match="silent for 30 s"):
        await life.locked_out.unlock(_OLGA, "ann")
    life.clock.now += 60
    assert not life.locked_out.is_known
    assert life.locked_out.orders == ()


async def test_who_only_shows_or_is_no_organiser_orders_nothing(tmp_path):
    life = await _Life(tmp_path, "Another service acts.").open(_waits("ann"))
    with pytest.raises(ActRefused, match="Another service"):
        await life.locked_out.unlock(_OLGA, "ann")
    with pytest.raises(ActForbidden, match="Only an organiser"):
        await life.locked_out.unlock(_ADA, "ann")
    assert life.locked_out.orders == ()


async def test_orders_about_who_is_forgotten_go(tmp_path):
    life = await _Life(tmp_path).open(_waits("joining ann"), _waits("bea"))
    await life.locked_out.unlock(_OLGA, "joining ann")
    await life.locked_out.unlock(_OLGA, "bea")
    await life.kept.forget(["ann"])
    assert [order.name for order in life.locked_out.orders] == ["bea"]


async def _lock(site, *names):
    """Let the hub report, through the link, that these have to wait."""
    locked = tuple(_waits(name, until=9e12) for name in names)
    site.world.report = replace(site.world.report, locked=locked)
    answer = await site.ask(
        "POST",
        "link",
        body=REPORT.dump_json(site.world.report),
        headers={"Authorization": "Bearer secret"},
    )
    return REPLY.validate_json(answer.body)


async def test_an_organiser_sees_who_is_locked_out_and_lets_them_in(site):
    await _lock(site, "ada", "<b>x/y</b>")
    seen = await site.ask("GET", "api/v1/locked", "organiser-token")
    assert json.loads(seen.body) == {
        "locked": [
            {"name": name, "address": _ROOM, "until": 9e12}
            for name in ("ada", "<b>x/y</b>")
        ],
        "problem": "",
    }
    for name in ("ada", "<b>x/y</b>"):
        path = f"api/v1/attendees/{quote(name, safe='')}/unlock"
        answer = await site.ask("POST", path, "organiser-token", b"{}")
        assert answer.code == 202, answer.body
        assert name in said(answer)
    reply = await _lock(site, "ada", "<b>x/y</b>")
    assert [order.name for order in reply.unlocks] == ["ada", "<b>x/y</b>"]
    site.world.report = replace(
        site.world.report, unlocked=tuple(order.id for order in reply.unlocks)
    )
    assert (await _lock(site)).unlocks == ()
    kinds = [event.kind.value for event in site.world.events()]
    assert kinds == ["attendee_unlocked"] * 2
    gone = await site.ask(
        "POST", "api/v1/attendees/ada/unlock", "organiser-token", b"{}"
    )
    assert gone.code == 404


async def test_where_the_hub_locks_nobody_out_it_is_said(site):
    seen = await site.ask("GET", "api/v1/locked", "organiser-token")
    assert json.loads(seen.body) == {"locked": None, "problem": NO_LOCK_OUTS}
    answer = await site.ask(
        "POST", "api/v1/attendees/ada/unlock", "organiser-token", b"{}"
    )
    assert (answer.code, said(answer)) == (409, NO_LOCK_OUTS)


async def test_nobody_else_sees_or_unlocks_anybody_not_even_themselves(site):
    await _lock(site, "ada")
    for token, status in (
        ("ada-token", 403),
        ("reading-service-token", 403),
        ("stranger-token", 403),
        ("wrong-token", 401),
        ("", 401),
    ):
        seen = await site.ask("GET", "api/v1/locked", token)
        assert seen.code == status, token
        assert _ROOM.encode() not in seen.body
        for name in ("ada", "nobody"):
            path = f"api/v1/attendees/{name}/unlock"
            answer = await site.ask("POST", path, token, b"{}")
            assert answer.code == status, token
    assert (await _lock(site, "ada")).unlocks == ()


async def test_a_browsers_cookie_alone_unlocks_nobody(site):
    await _lock(site, "ada")
    olga, _ = await site.log_in("organiser-token")
    path = "api/v1/attendees/ada/unlock"
    for more in ({}, {"X-XSRFToken": "guessed"}):
        answer = await site.ask("POST", path, body=b"{}", headers={**olga, **more})
        assert answer.code in (401, 403)
    assert (await _lock(site, "ada")).unlocks == ()
    token = dict(c.split("=", 1) for c in olga["Cookie"].split("; "))["_xsrf"]
    answer = await site.ask(
        "POST", path, body=b"{}", headers={**olga, "X-XSRFToken": token}
    )
    assert answer.code == 202, answer.body


async def test_a_body_that_does_not_fit_unlocks_nobody(site):
    await _lock(site, "ada")
    path = "api/v1/attendees/ada/unlock"
    for body in (b"{", b'{"name": "bob"}', b"[]"):
        assert (await site.ask("POST", path, "organiser-token", body)).code == 400
    assert (await _lock(site, "ada")).unlocks == ()
