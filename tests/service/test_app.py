"""The real service: who may see what, how it starts and how it ends."""

import asyncio
import json
import re
import resource
import signal
import time

import psutil
import pytest
from bs4 import BeautifulSoup

from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.core.wire import (
    REPLY,
    REPORT,
    Event,
    EventKind,
    Report,
    ServerInfo,
)
from jupyterhub_gpuworkshop.machine.simulated import create_devices
from jupyterhub_gpuworkshop.service.app import GpuService
from tests.machine.nvml_double.words import gpu

from .service_process import PREFIX, SECRET, ServiceProcess, gone
from .stub_hub import StubHub

HUNG = "nvmlDeviceGetMemoryInfo_v2"


def lease(user, device):
    return Lease(
        id=f"lease-of-{user}",
        user=user,
        server="",
        share="1/5",
        granted_at=1.0,
        devices=(
            LeasedDevice(
                uuid=device.uuid,
                label="0",
                memory_bytes=3 * GIB,
                total_bytes=16 * GIB,
            ),
        ),
    )


def granted(sequence, user):
    return Event(
        sequence=sequence,
        at=time.time(),
        kind=EventKind.LEASE_GRANTED,
        user=user,
        reason=f"granted to {user}",
    )


@pytest.fixture
async def hub():
    stub = StubHub()
    yield stub
    await stub.stop()


@pytest.fixture
async def service(tmp_path, hub):
    """Return a service with two attendees on one simulated GPU, after a report."""
    (device,) = create_devices(tmp_path / "gpus", 1, 16 * GIB)
    workshop = {
        "gpus": {"source": "simulated", "simulated_dir": str(tmp_path / "gpus")},
        "monitor": {"interval": "0.5s"},
    }
    process = ServiceProcess(tmp_path, workshop, hub_port=hub.port).start()
    try:
        await process.is_up()
        report = Report(
            hub_id="hub",
            sent_at=1.0,
            leases=(lease("ada", device), lease("bob", device)),
            servers=(
                ServerInfo(
                    lease_id="lease-of-bob",
                    user="bob",
                    server="",
                    url="http://127.0.0.1:1/",
                    token="bobs-token",
                ),
            ),
            events=(granted(1, "ada"), granted(2, "bob")),
        )
        response = await process.report(REPORT.dump_json(report))
        assert response.code == 200, response.body
        reply = REPLY.validate_json(response.body)
        assert reply.acknowledged == 2
        while True:
            # What limits them is found out after they are known.
            leases = (await api(process, "organiser-token"))["leases"]
            if leases and all(x["no_hard_limit"] for x in leases):
                break
            await asyncio.sleep(0.05)
        yield process
    finally:
        process.end()


async def api(process, token, path="api/v1/snapshot"):
    response = await process.get(path, headers={"Authorization": f"token {token}"})
    assert response.code == 200, response.body
    return json.loads(response.body)


async def test_an_organiser_sees_everything(service):
    for token in ["admin-token", "organiser-token", "service-token"]:
        view = await api(service, token)
        assert {x["user"] for x in view["leases"]} == {"ada", "bob"}
        (device,) = view["devices"]
        assert device["memory_total_bytes"] == 16 * GIB
        assert (device["leases"], device["promised_bytes"]) == (2, 6 * GIB)
        assert view["age_seconds"] >= 0
        assert view["needed"] is False
        events = await api(service, token, "api/v1/events?after=0&limit=10")
        assert [e["user"] for e in events] == ["ada", "bob"]


async def test_an_attendee_sees_her_own_and_the_totals(service):
    view = await api(service, "ada-token")
    assert [x["user"] for x in view["leases"]] == ["ada"]
    assert view["devices"][0]["leases"] == 2
    events = await api(service, "ada-token", "api/v1/events")
    page = await service.get("", headers={"Authorization": "token ada-token"})
    for text in (json.dumps(view), json.dumps(events), page.body.decode()):
        assert "ada" in text
        assert "bob" not in text
    assert view["problems"] == []


async def test_a_service_called_like_an_attendee_sees_only_totals(service):
    view = await api(service, "reading-service-token")
    assert (view["leases"], len(view["devices"])) == ([], 1)


async def test_who_has_no_scope_for_it_sees_nothing(service):
    for path in ["api/v1/snapshot", "api/v1/events", ""]:
        response = await service.get(
            path, headers={"Authorization": "token stranger-token"}
        )
        assert response.code == 403
        assert b"Ask the organiser" in response.body
        assert b"bob" not in response.body


async def test_a_program_without_a_token_is_told_to_send_one(service):
    for path in ["api/v1/snapshot", "api/v1/events"]:
        for headers in ({}, {"Authorization": "token junk"}, {"Cookie": "a=b"}):
            response = await service.get(path, headers=headers)
            assert response.code == 401
            assert "token" in json.loads(response.body)["message"]


async def test_a_person_logs_in_at_the_hub_and_comes_back(service):
    asked = await service.get("")
    assert asked.code == 302
    location = asked.headers["Location"]
    assert location.startswith("/hub/api/oauth2/authorize?")
    state = re.search(r"[?&]state=([^&]+)", location)[1]
    cookie = asked.headers["Set-Cookie"].split(";")[0]
    back = await service.get(
        f"oauth_callback?code=ada-token&state={state}", headers={"Cookie": cookie}
    )
    assert (back.code, back.headers["Location"]) == (302, PREFIX)
    cookies = [
        c.split(";")[0]
        for c in back.headers.get_list("Set-Cookie")
        if c.startswith("service-gpuworkshop=")
    ]
    page = await service.get("", headers={"Cookie": cookies[-1]})
    assert page.code == 200
    soup = BeautifulSoup(page.body, "html.parser")
    assert soup.select_one(".who > span").text == "ada"


async def test_a_hub_that_does_not_answer_opens_nothing(service, hub):
    hub.broken = True
    response = await service.get(
        "api/v1/snapshot", headers={"Authorization": "token new-token"}
    )
    assert response.code == 503
    message = json.loads(response.body)["message"]
    assert "JupyterHub" in message
    assert "127.0.0.1" not in message


async def test_a_bad_query_is_told_as_json(service):
    for query in ["after=x", "after=-1", "limit=0", "limit=1001", "after=" + "9" * 40]:
        response = await service.get(
            f"api/v1/events?{query}", headers={"Authorization": "token ada-token"}
        )
        assert response.code == 400
        assert query.split("=")[0] in json.loads(response.body)["message"]


async def test_events_come_in_portions_oldest_first(service):
    events = await api(service, "admin-token", "api/v1/events?limit=1")
    assert [e["id"] for e in events] == [1]
    events = await api(service, "admin-token", "api/v1/events?after=1")
    assert [(e["id"], e["kind"]) for e in events] == [(2, "lease_granted")]


async def test_the_page_holds_no_figures_and_its_files_are_served(service):
    page = await service.get("", headers={"Authorization": "token organiser-token"})
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    soup = BeautifulSoup(page.body, "html.parser")
    assert "bob" not in page.body.decode()
    assert "reaper" not in page.body.decode().lower()
    assert "holder" not in soup.main.get_text().lower()
    files = [x["href"] for x in soup.find_all("link", rel="stylesheet")]
    files += [x["src"] for x in soup.find_all("script", src=True)]
    assert len(files) >= 3
    for file in files:
        assert (await service.get(file.removeprefix(PREFIX))).code == 200


async def test_a_script_is_told_what_limits_each_program(service):
    (lease,) = (await api(service, "ada-token"))["leases"]
    limits = {x["applies_to"]: x for x in lease["memory_limits"]}
    everything = limits["all programs together"]
    assert (everything["limit_bytes"], everything["kind"]) == (None, "none")
    assert everything["enforced_by"] == "nothing"
    assert (limits["JAX"]["limit_bytes"], limits["JAX"]["kind"]) == (3 * GIB, "soft")
    hook = "nothing: the server has no import hook"
    assert limits["PyTorch"]["enforced_by"] == hook
    # How the machine is set up is the organiser's to see.
    assert lease["no_hard_limit"] == ""
    leases = (await api(service, "organiser-token"))["leases"]
    assert all("Simulated GPUs have no" in x["no_hard_limit"] for x in leases)


async def test_nothing_that_is_shown_holds_a_token(service):
    page = await service.get("", headers={"Authorization": "token organiser-token"})
    view = json.dumps(await api(service, "organiser-token"))
    health = await service.get("health")
    for text in (page.body.decode(), view, health.body.decode()):
        for secret in ("bobs-token", SECRET, "the-services-own-token"):
            assert secret not in text


async def test_health_tells_numbers_to_who_asks_here_and_nothing_through_a_proxy(
    service,
):
    near = json.loads((await service.get("health")).body)
    assert near["status"] == "ok"
    assert near["devices"] == 1
    assert near["servers"] == 1
    assert near["unknown_servers"] == 1
    assert near["hub_problem"] == ""
    assert "bob" not in json.dumps(near)
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "x-forwarded-host"):
        far = await service.get("health", headers={header: "127.0.0.1"})
        assert json.loads(far.body) == {"status": "ok"}


async def test_only_the_hub_may_report(service):
    for secret in ["", "wrong", SECRET + " "]:
        body = REPORT.dump_json(Report(hub_id="evil", sent_at=9.0))
        response = await service.get(
            "link",
            method="POST",
            body=body,
            headers={"Authorization": f"Bearer x{secret}"} if secret else {},
        )
        assert response.code == 403
        assert (await api(service, "admin-token"))["leases"]


async def test_a_report_that_does_not_fit_is_refused_whole(service):
    for body in [
        b"",
        b"junk",
        b"[]",
        b'{"hub_id": 3}',
        b'{"hub_id": "a", "sent_at": "x"}',
    ]:
        response = await service.report(body)
        assert response.code == 400
        assert "does not fit" in json.loads(response.body)["message"]
        assert (await api(service, "admin-token"))["leases"]


async def test_who_does_not_know_the_secret_cannot_send_much(service):
    big = b"x" * 3_000_000
    try:
        response = await service.report(big, secret="wrong")
    except OSError:
        pass  # the connection was closed while we wrote
    else:
        assert response.code in (400, 403, 599)
    assert (await service.report(big)).code == 400


async def test_the_history_outlives_the_service(service):
    service.process.send_signal(signal.SIGTERM)
    assert await service.ended() == 0
    service.start()
    await service.is_up()
    while True:
        if events := await api(service, "admin-token", "api/v1/events"):
            break
        await asyncio.sleep(0.05)
    assert [e["user"] for e in events] == ["ada", "bob"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_without_gpus_it_serves_and_ends_on_a_signal(tmp_path, signum):
    workshop = {"gpus": {"source": "simulated", "simulated_dir": str(tmp_path / "no")}}
    process = ServiceProcess(tmp_path, workshop).start()
    try:
        await process.is_up()
        while True:
            body = REPORT.dump_json(Report(hub_id="hub", sent_at=1.0))
            reply = REPLY.validate_json((await process.report(body)).body)
            if reply.inventory is not None:
                break
            await asyncio.sleep(0.05)
        assert "Cannot read the simulated GPUs" in reply.inventory.problem
        process.process.send_signal(signum)
        assert await process.ended() == 0
    finally:
        process.end()
    assert "Traceback" not in process.log.read_text()


IMPATIENT = """
import sys
from jupyterhub_gpuworkshop.service import app, parts

make = parts.ChildSampler
parts.ChildSampler = lambda command: make(
    command, timeout_seconds=float(sys.argv.pop())
)
app.GpuService.launch_instance(sys.argv[1:])
"""


@pytest.mark.gcc
async def test_a_driver_that_hangs_keeps_the_service_from_nothing(tmp_path, driver):
    driver.say(gpu("GPU-a"), f"hang {HUNG}")
    process = ServiceProcess(tmp_path, {}, **driver.environment).start()
    try:
        await process.is_up()
        while True:
            if driver.calls(HUNG):
                break
            await asyncio.sleep(0.02)
        children = psutil.Process(process.process.pid).children()
        assert children
        body = REPORT.dump_json(Report(hub_id="hub", sent_at=1.0))
        assert (await process.report(body)).code == 200
        process.process.send_signal(signal.SIGINT)
        assert await process.ended() == 0
        for child in children:
            await gone(child.pid)
    finally:
        process.end()
    assert "Traceback" not in process.log.read_text()


@pytest.mark.gcc
async def test_a_driver_that_hangs_and_comes_back_is_seen_again(tmp_path, driver, hub):
    driver.say(gpu("GPU-a"))
    process = ServiceProcess(
        tmp_path,
        {"monitor": {"interval": "0.5s"}},
        hub_port=hub.port,
        program=IMPATIENT,
        **driver.environment,
    )
    process.command.append("3")
    process.start()

    async def view(is_so):
        while True:
            if is_so(shown := await api(process, "admin-token")):
                return shown
            await asyncio.sleep(0.05)

    try:
        await process.is_up()
        await view(lambda x: x["devices"] and not x["problems"])
        driver.say(f"hang {HUNG}")
        shown = await view(lambda x: "driver has not answered" in str(x["problems"]))
        # What exists is known; how it is, is not.
        assert [device["uuid"] for device in shown["devices"]] == ["GPU-a"]
        assert shown["devices"][0]["memory_used_bytes"] is None
        driver.unsay("hang")
        await view(lambda x: not x["problems"])
    finally:
        process.end()
    log = process.log.read_text()
    assert "The GPUs cannot be read: The GPU driver has not answered" in log
    assert "The GPUs can be read again" in log


async def test_a_managed_service_ends_when_the_hub_is_gone(tmp_path):
    process = ServiceProcess(tmp_path, {}, JUPYTERHUB_SERVICE_NAME="gpuworkshop")
    # The shell stands for the hub: it starts the service and is killed.
    process.command = [
        "/bin/sh",
        "-c",
        '"$@" & echo $! > service.pid; wait',
        "hub",
        *process.command,
    ]
    process.start()
    try:
        await process.is_up()
        process.process.kill()
        process.process.wait()
        while True:
            try:
                await process.get("health")
            except OSError:
                break
            await asyncio.sleep(0.05)
    finally:
        process.end()
    assert "is gone" in process.log.read_text()


async def test_a_mistake_in_the_workshop_file_ends_it_with_a_sentence(tmp_path):
    (tmp_path / "workshop.yaml").write_text("idle:\n  after: soon\n")
    process = ServiceProcess(tmp_path, str(tmp_path / "workshop.yaml")).start()
    try:
        assert await process.ended() == 1
    finally:
        process.end()
    log = process.log.read_text()
    assert "idle.after" in log
    assert "Traceback" not in log


async def test_a_port_that_is_taken_ends_it_with_a_sentence(service, tmp_path):
    second = ServiceProcess(tmp_path, {})
    second.log = tmp_path / "second.log"
    second.environment["JUPYTERHUB_SERVICE_URL"] = f"http://127.0.0.1:{service.port}"
    second.start()
    try:
        assert await second.ended() == 1
    finally:
        second.end()
    assert "in use" in second.log.read_text()
    assert "Traceback" not in second.log.read_text()


async def test_idle_connections_do_not_use_up_its_descriptors(service):
    soft, hard = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
    assert soft == hard


def test_every_configurable_trait_says_what_it_is_for():
    for name, trait in GpuService.class_own_traits(config=True).items():
        assert len(trait.help.strip()) > 40, name
        assert "GpuService" in trait.help, name
        assert "default" in trait.help, name


async def test_an_external_service_reads_its_secrets_from_their_file(tmp_path, hub):
    (tmp_path / "secrets").write_text(
        f"GPUWORKSHOP_LINK_SECRET={SECRET}\nJUPYTERHUB_API_TOKEN=from-the-file\n"
    )
    workshop = {
        "service": {"managed": False, "secret_file": str(tmp_path / "secrets")},
        "gpus": {"source": "simulated", "simulated_dir": str(tmp_path)},
    }
    process = ServiceProcess(tmp_path, workshop, hub_port=hub.port)
    for name in ("GPUWORKSHOP_LINK_SECRET", "JUPYTERHUB_API_TOKEN"):
        del process.environment[name]
    for name in ("JUPYTERHUB_CLIENT_ID", "JUPYTERHUB_SERVICE_PREFIX"):
        del process.environment[name]
    process.start()
    try:
        await process.is_up()
        body = REPORT.dump_json(Report(hub_id="hub", sent_at=1.0))
        assert (await process.report(body)).code == 200
        assert (await api(process, "admin-token"))["leases"] == []
        login = (await process.get("")).headers["Location"]
        assert "client_id=service-gpuworkshop&" in login
        process.process.send_signal(signal.SIGTERM)
        assert await process.ended() == 0
    finally:
        process.end()
    assert "JUPYTERHUB_API_TOKEN" not in process.log.read_text()
