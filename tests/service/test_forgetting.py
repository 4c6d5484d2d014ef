"""Names become numbers in the service's history: in memory, on disk, and for good."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import pytest

from jupyterhub_gpuworkshop.core.snapshot import ProcessId
from jupyterhub_gpuworkshop.core.wire import Event, EventKind
from jupyterhub_gpuworkshop.service.history import History
from jupyterhub_gpuworkshop.service.kept import STATE_FILE, KeptState, ParkedKernel, Pin
from jupyterhub_gpuworkshop.service.store import Peak

from .test_acts_api import said
from .test_acts_api import site as site
from .test_ending import start as start

NAMES = ("ann", "bob", "attendee-07")
FORGET_AND_DIE = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from jupyterhub_gpuworkshop.service.store import Store

def die(_):
    os.kill(os.getpid(), signal.SIGKILL)  # rows are written, nothing is committed

Store(Path(sys.argv[1]), 100).rewrite(lambda x: replace(x, user="attendee 1"), die)
"""


def event(sequence, user, reason="because", server="", at=None, **details):
    return Event(
        sequence=sequence,
        at=at if at is not None else float(sequence),
        kind=EventKind.LEASE_GRANTED,
        user=user,
        server=server,
        reason=reason,
        details=details,
    )


def peak(user, lease_id, server=""):
    return Peak(lease_id=lease_id, user=user, server=server, memory_bytes=1, at=1.0)


async def opened(path, **kwargs):
    history = History(path, **kwargs)
    await history.open()
    return history


async def filled(path, **kwargs):
    """Return a history of three attendees, with a name in every place."""
    history = await opened(path, **kwargs)
    events = [
        event(1, "ann", "ann has room", "ann-thesis", notebook="work of ann.ipynb"),
        event(2, "anna", "granted to anna", detail="ann/ann-thesis holds 1 GiB"),
        event(3, "bob", "refused: /home/jupyter-bob/x", by="bob"),
        event(4, "attendee-07", "unit jupyter-attendee-07.service"),
        event(5, "ann", "again"),
    ]
    await history.take("hub", events)
    history.raise_peak(peak("ann", "lease-1", "ann-thesis"))
    history.raise_peak(peak("anna", "lease-2"))
    await history.flush()
    return history


def everything(history):
    return repr([history.after(0, 1000, None), history._peaks, history._by_user])


def files_that_hold(folder, name):
    """Return the files in which somebody would find a name, as a word."""
    found = []
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if name.encode() in content.replace(b"anna", b""):
            found.append(path.name)
    return found


@pytest.mark.parametrize("restarts", [False, True])
async def test_no_name_is_left_in_memory_nor_in_any_byte_of_the_folder(
    tmp_path, restarts
):
    history = await filled(tmp_path / "history.sqlite")
    if restarts:
        history = await opened(tmp_path / "history.sqlite")
    assert files_that_hold(tmp_path, "ann"), "or the search finds nothing"
    assert await history.forget(NAMES, 100.0)
    for name in NAMES:
        assert files_that_hold(tmp_path, name) == [], name
        assert history.latest(10, name) == []
        assert name not in everything(history).replace("anna", "")
    again = await opened(tmp_path / "history.sqlite")
    assert again.after(0, 1000, None) == history.after(0, 1000, None)
    assert again._peaks == history._peaks


async def test_the_same_person_has_one_number_and_others_keep_their_names(tmp_path):
    history = await filled(tmp_path / "history.sqlite")
    await history.forget(NAMES, 100.0)
    first, second, third, fourth, fifth = (
        x.event for x in history.after(0, 1000, None)
    )
    assert first.user == fifth.user
    assert first.server == "server"
    assert first.reason == f"{first.user} has room"
    assert len({first.user, third.user, fourth.user}) == 3
    assert second.user == "anna"
    assert second.reason == "granted to anna"
    assert second.details["detail"] == f"{first.user} holds 1 GiB"
    assert third.details["by"] == third.user
    assert fourth.reason == f"unit {fourth.user}.service"
    assert [x.event for x in history.latest(10, "anna")] == [second]
    assert history.peak_bytes("lease-1") == 1


async def test_what_a_hub_tells_late_gets_the_number_and_a_namesake_does_not(tmp_path):
    history = await filled(tmp_path / "history.sqlite")
    await history.forget(["ann"], 100.0)
    number = history.after(0, 1, None)[0].event.user
    await history.take("hub", [event(6, "ann", "ann stopped", at=99.0)])
    late = history.latest(1, None)[0].event
    assert (late.user, late.reason) == (number, f"{number} stopped")
    await history.take("hub", [event(7, "ann", "ann again", at=101.0)])
    assert history.latest(1, "ann")[0].event.reason == "ann again"
    await history.forget(["ann"], 200.0)
    namesake = history.latest(1, None)[0].event.user
    assert namesake != number
    assert history.after(0, 1, None)[0].event.user == number


async def test_numbers_of_an_earlier_life_are_not_given_again(tmp_path):
    history = await filled(tmp_path / "history.sqlite")
    await history.forget(["ann"], 100.0)
    for number in range(20):
        history = await opened(tmp_path / "history.sqlite")
        name = f"late-{number}"
        await history.take(f"hub-{number}", [event(1, name)])
        await history.forget([name], 100.0)
    users = [x.event.user for x in history.after(0, 1000, None)]
    assert len(set(users)) == len(users) - 1, "ann's two are the only ones alike"


async def test_a_disk_that_is_broken_is_told_and_the_next_time_does_it(tmp_path):
    path = tmp_path / "history.sqlite"
    history = await filled(path)
    path.rename(tmp_path / "away")
    path.mkdir()
    assert not await history.forget(["ann"], 100.0)
    assert "ann" not in everything(history).replace("anna", "")
    number = history.after(0, 1, None)[0].event.user
    path.rmdir()
    (tmp_path / "away").rename(path)
    assert await history.forget(["ann"], 101.0)
    assert files_that_hold(tmp_path, "ann") == []
    assert (await opened(path)).after(0, 1, None)[0].event.user == number


async def test_a_log_that_somebody_reads_is_not_called_done(tmp_path):
    path = tmp_path / "history.sqlite"
    history = await filled(path)
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM events").fetchall()
        assert not await history.forget(["ann"], 100.0)
    assert await history.forget(["ann"], 100.0)
    assert files_that_hold(tmp_path, "ann") == []


async def test_without_a_file_it_is_in_memory_and_said_to_be():
    history = await filled(None)
    assert not await history.forget(["ann"], 100.0)
    assert "ann" not in everything(history).replace("anna", "")


ASK = {"names": ["ann", "attendee-07"]}


def pinned(user, by):
    return Pin(lease_id=f"lease-{user}", kernel_id="k", user=user, by=by, until=None)


async def test_an_organiser_has_names_forgotten_through_the_api(site, tmp_path):
    world = site.world
    await world.history.take("hub", [event(1, "ann", "ann has room"), event(2, "bob")])
    pins = (pinned("ann", "ann"), pinned("bob", "olga"))
    await world.kept.change(lambda state: replace(state, pins=pins))
    aside = tmp_path / f"{STATE_FILE}.unusable"
    aside.write_bytes(b'{"user": "ann", ')
    body = json.dumps(ASK)
    answer = await site.ask("POST", "api/v1/forget", "organiser-token", body)
    assert answer.code == 200, answer.body
    assert json.loads(answer.body)["on_disk"] is True
    users = [x.event.user for x in world.history.after(0, 10, None)]
    assert users[1] == "bob"
    assert users[0].startswith("attendee ")
    assert [pin.user for pin in world.kept.state.pins] == ["bob"]
    assert not aside.exists()
    assert files_that_hold(tmp_path, "ann") == []


async def test_what_is_left_beside_stays_where_it_names_nobody_of_them(site, tmp_path):
    aside = tmp_path / f"{STATE_FILE}.unusable"
    aside.write_bytes(b'{"user": "carl", ')
    body = json.dumps(ASK)
    assert (await site.ask("POST", "api/v1/forget", "admin-token", body)).code == 200
    assert aside.exists()


@pytest.mark.parametrize(
    ("token", "status"),
    [("", 401), ("stranger-token", 403), ("ada-token", 403), ("bob-token", 403)],
)
async def test_nobody_else_may(site, token, status):
    await site.world.history.take("hub", [event(1, "ann")])
    answer = await site.ask("POST", "api/v1/forget", token, json.dumps(ASK))
    assert answer.code == status
    assert [x.event.user for x in site.world.history.after(0, 10, None)] == ["ann"]


async def test_a_cookie_alone_does_not_do_it(site):
    cookies, _ = await site.log_in("admin-token")
    answer = await site.ask(
        "POST", "api/v1/forget", body=json.dumps(ASK), headers=cookies
    )
    assert answer.code == 401


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        '{"names": "ann"}',
        '{"names": []}',
        '{"names": [1]}',
        '{"names": [""]}',
        json.dumps({"names": ["ann"], "more": 1}),
        json.dumps({"names": [f"a{number}" for number in range(101)]}),
        json.dumps({"names": ["a" * 256]}),
        json.dumps({"names": ["a" * 200] * 50}),
    ],
)
async def test_what_is_no_list_of_names_is_refused_with_what_to_send(site, body):
    answer = await site.ask("POST", "api/v1/forget", "admin-token", body)
    assert answer.code == 400
    assert said(answer)


async def test_who_has_a_share_or_a_paused_kernel_is_not_forgotten(site):
    await site.world.history.take("hub", [event(1, "ada"), event(2, "ann")])
    body = json.dumps({"names": ["ann", "ada"]})
    answer = await site.ask("POST", "api/v1/forget", "admin-token", body)
    assert answer.code == 409
    assert "a share: ada." in said(answer)
    assert site.world.history.latest(1, "ann"), "all of it or nothing"
    parked = ParkedKernel(
        lease_id="x",
        user="ann",
        server="",
        kernel_id="k",
        processes=(ProcessId(pid=1, started=1),),
        boot_id="",
        memory_bytes={},
        parked_at=1.0,
        last_activity="",
    )
    await site.world.kept.change(lambda _: KeptState(parked=(parked,)))
    body = json.dumps({"names": ["ann"]})
    answer = await site.ask("POST", "api/v1/forget", "admin-token", body)
    assert answer.code == 409
    assert "a paused kernel: ann." in said(answer)


async def test_who_asks_is_not_forgotten(site):
    body = json.dumps({"names": ["root"]})
    answer = await site.ask("POST", "api/v1/forget", "admin-token", body)
    assert answer.code == 409


async def test_a_kill_in_the_middle_leaves_all_names_or_none(tmp_path):
    path = tmp_path / "history.sqlite"
    await filled(path)
    died = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", FORGET_AND_DIE, str(path)], check=False
    )
    assert died.returncode == -signal.SIGKILL
    history = await opened(path)
    users = [x.event.user for x in history.after(0, 10, None)]
    assert users == ["ann", "anna", "bob", "attendee-07", "ann"]
    assert await history.forget(NAMES, 100.0)
    assert [files_that_hold(tmp_path, name) for name in NAMES] == [[], [], []]
