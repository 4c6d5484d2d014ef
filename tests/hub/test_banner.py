"""The hub's banner: who reads which notices, and which count as seen."""

import asyncio
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest
import requests
from jinja2 import Environment
from jupyterhub.user import User

from jupyterhub_gpuworkshop.core.announcements import Announcement
from jupyterhub_gpuworkshop.core.notices import Notice, NoticeKind
from jupyterhub_gpuworkshop.core.wire import REPLY, REPORT, Reply
from jupyterhub_gpuworkshop.hub.banner import Banner
from jupyterhub_gpuworkshop.machine.simulated import SimulatedSource

from .running_hub import wait_for

_TEMPLATE = Environment(autoescape=True).from_string(
    "{% if announcement %}{{ announcement | safe }}{% endif %}"
)
_BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def _notice(number=0, user="ann", text="Your kernel is idle.", **more):
    return Notice(
        id=f"{user}-{number}",
        kind=NoticeKind.KERNEL_IDLE,
        user=user,
        text=text,
        given_at=1e9 + number,
        **more,
    )


def _announced(text="Doors open at 10.", until=None):
    return (Announcement(text=text, at=0.0, until=until, by="olga"),)


class _Attendee(User):
    def __init__(self, name):
        self.orm_user = SimpleNamespace(name=name, admin=False)


class _Hub:
    """What a banner is installed in, and what JupyterHub does with it for a page."""

    def __init__(self, **variables):
        self.now = 0.0
        self.changes = 0
        self.logged = []
        self.variables = variables
        self.tornado_settings = {
            "services": {"gpus": SimpleNamespace(href="/services/gpus/")}
        }
        self.tornado_application = SimpleNamespace(
            settings={"template_vars": variables, "log_function": self.logged.append}
        )
        self.banner = Banner(
            changed=self._changed, clock=lambda: self.now, wall=lambda: 1e9 + self.now
        )
        self.banner.install(self, "gpus")

    def _changed(self):
        self.changes += 1

    def page(self, name="ann", *, of="", method="GET", headers=_BROWSER, user=None):
        """Answer a request as `BaseHandler.template_namespace` and home.html do."""

        async def answer():
            who = user or (_Attendee(name) if name else None)
            ns = {
                key: value(who) if callable(value) else value
                for key, value in self.variables.items()
            }
            if isinstance(ns.get(f"announcement_{of}"), str):
                ns["announcement"] = ns[f"announcement_{of}"]
            html = _TEMPLATE.render(ns)
            request = SimpleNamespace(method=method, headers=headers)
            log = self.tornado_application.settings["log_function"]
            log(SimpleNamespace(request=request))
            return html

        return asyncio.run(answer())


def test_each_attendee_reads_their_own_and_nobody_elses():
    hub = _Hub()
    hub.banner.hear((_notice(text="For Ann."), _notice(user="bea", text="For Bea.")))
    assert "For Ann." in hub.page("ann")
    assert "For Bea." not in hub.page("ann")
    assert hub.banner.seen == ("ann-0",)
    assert hub.page("cem") == hub.page("") == ""
    service = SimpleNamespace(name="bea", kind="service", admin=False)
    assert hub.page(user=service) == ""
    assert hub.banner.seen == ("ann-0",)


def test_every_word_is_escaped_and_the_page_is_linked():
    hub = _Hub()
    hub.banner.hear((_notice(text="<script>1</script>\n a&b"),))
    assert hub.page() == (
        "&lt;script&gt;1&lt;/script&gt; a&amp;b<br>"
        '<a href="/services/gpus/">Your GPU share</a>'
    )


def test_of_many_the_most_pressing_are_shown_and_the_rest_do_not_count_as_seen():
    hub = _Hub()
    hub.banner.hear(
        (
            *(_notice(number, text=f"No {number}.") for number in range(6)),
            _notice(6, text="No 6.", acts_at=90.0),
            _notice(7, text="No 7.", acts_at=60.0),
        )
    )
    lines = hub.page().split("<br>")
    assert lines[:6] == ["No 7.", "No 6.", "No 5.", "No 4.", "No 3.", "and 3 more"]
    assert set(hub.banner.seen) == {f"ann-{number}" for number in range(3, 8)}


def test_in_two_minutes_counts_from_when_it_was_said():
    hub = _Hub()
    hub.banner.hear(
        (
            _notice(text="In 2 min it is restarted.", acts_at=1e9 + 120),
            _notice(1, text="It was restarted."),
        )
    )
    assert hub.page().startswith("In 2 min it is restarted.<br>It was")
    hub.now = 45.0
    hub.banner.hear(hub.banner.of("ann"))
    assert hub.page().startswith("45 s ago: In 2 min it is restarted.<br>It was")


@pytest.mark.parametrize("lunch", ["Lunch", lambda user: "Lunch"])
def test_what_an_admin_announces_stays_below_on_every_page(lunch):
    hub = _Hub(announcement=lunch, announcement_home=lunch, other=1)
    assert hub.page() == hub.page(of="home") == "Lunch"
    hub.banner.hear((_notice(),))
    for of in ("", "home", "spawn"):
        assert hub.page(of=of).startswith("Your kernel is idle.<br>")
        assert hub.page(of=of).endswith("<hr>Lunch")
    assert hub.variables["other"] == 1


def test_an_announcement_of_nothing_leaves_the_page_to_the_notices():
    hub = _Hub(announcement_spawn=lambda user: None)
    assert hub.page(of="spawn") == ""
    hub.banner.hear((_notice(),))
    assert "idle" in hub.page(of="spawn")


@pytest.mark.parametrize(
    "request_",
    [
        {"headers": {"Accept": "image/avif,image/webp,*/*"}},
        {"headers": {"Accept": "*/*"}},
        {"headers": {}},
        {"headers": {**_BROWSER, "Sec-Purpose": "prefetch;prerender"}},
        {"method": "HEAD"},
    ],
)
def test_what_no_browser_shows_does_not_count_as_seen(request_):
    hub = _Hub()
    hub.banner.hear((_notice(),))
    assert "idle" in hub.page(**request_)
    assert hub.banner.seen == ()
    assert len(hub.logged) == 1
    hub.page()
    assert hub.banner.seen == ("ann-0",)


def test_an_announcement_that_the_page_leaves_out_does_not_count_as_seen():
    hub = _Hub()
    hub.banner.hear((_notice(),))
    hub.variables["announcement_home"] = "set in spite of all"
    assert hub.page(of="home") == "set in spite of all"
    assert hub.banner.seen == ()


def test_what_was_seen_is_told_once_and_until_it_is_answered():
    hub = _Hub()
    hub.banner.hear((_notice(),))
    hub.page()
    hub.page()
    assert hub.changes == 1
    reported = hub.banner.seen
    hub.banner.hear((_notice(), _notice(1)))
    hub.page()
    hub.banner.told(reported)
    assert hub.banner.seen == ("ann-1",), "what was seen meanwhile is not told yet"
    hub.banner.told(hub.banner.seen)
    hub.banner.hear((_notice(seen_at=5.0),))
    assert "idle" in hub.page()
    assert hub.banner.seen == ()


def test_notices_of_a_service_that_is_silent_stand_for_a_minute():
    hub = _Hub()
    hub.banner.hear((_notice(),))
    hub.now = 60.0
    assert "idle" in hub.page()
    hub.now = 60.1
    assert hub.page() == ""
    hub.banner.hear((_notice(),))
    assert "idle" in hub.page()


def test_what_is_announced_is_for_everybody_also_before_they_log_in():
    hub = _Hub()
    hub.banner.announce(_announced())
    service = SimpleNamespace(name="robots", kind="service", admin=False)
    for page in (hub.page("ann"), hub.page(""), hub.page(user=service)):
        assert page == "Doors open at 10."
    assert (hub.banner.seen, hub.changes) == ((), 0)
    hub.banner.announce(())
    assert hub.page("ann") == hub.page("") == ""


def test_an_announcement_stands_above_ones_own_notices_and_beside_the_admins():
    hub = _Hub(
        announcement="Lunch", announcement_login=lambda user: "Cards at the desk"
    )
    hub.banner.announce(_announced())
    hub.banner.hear((_notice(),))
    assert hub.page() == (
        "Doors open at 10.<hr>Your kernel is idle.<br>"
        '<a href="/services/gpus/">Your GPU share</a><hr>Lunch'
    )
    assert hub.banner.seen == ("ann-0",)
    assert hub.page("") == "Doors open at 10.<hr>Lunch"
    assert hub.page("", of="login") == "Doors open at 10.<hr>Cards at the desk"


def test_every_word_of_an_announcement_is_escaped_and_its_lines_are_kept():
    hub = _Hub()
    hub.banner.announce(_announced("<script>1</script> \"a\" & 'b'\n{{ 7 * 7 }}"))
    assert hub.page("") == (
        "&lt;script&gt;1&lt;/script&gt; &quot;a&quot; &amp; &#x27;b&#x27;"
        "<br>{{ 7 * 7 }}"
    )


def test_an_announcement_ends_by_its_time_however_silent_the_service_is():
    hub = _Hub()
    hub.banner.announce(_announced(until=1e9 + 600))
    hub.banner.hear((_notice(),))
    hub.now = 599.0
    assert hub.page() == "Doors open at 10.", "notices are void by now, this is not"
    hub.now = 600.0
    assert hub.page() == ""


class _Service:
    """Stands where the GPU service does, and answers the link as it is told."""

    def __init__(self, port, reply):
        self.reports = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self._answer(b"{}")

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(REPLY.dump_json(reply))
                service.reports.append(REPORT.validate_json(body))

            def _answer(self, body):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = Thread(target=self._server.serve_forever)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _log_in(hub, name):
    session = requests.Session()
    url = f"http://127.0.0.1:{hub.port}/hub"
    session.get(f"{url}/login", timeout=20)
    answer = session.post(
        f"{url}/login",
        params={"next": "/hub/home"},
        data={"username": name, "_xsrf": session.cookies["_xsrf"]},
        headers={"Accept": "application/json"},
        allow_redirects=False,
        timeout=20,
    )
    assert answer.status_code == 302, answer.text
    return lambda page, **headers: session.get(
        f"{url}/{page}", headers=headers, timeout=20
    )


@pytest.mark.hub
def test_the_hub_shows_notices_heeds_drains_and_says_what_was_seen(make_hub):
    hub = make_hub(
        gpus=2,
        late="""
c.JupyterHub.template_vars = {"announcement_home": "Lunch at noon"}
""",
    )
    inventory = SimulatedSource(hub.devices).inventory()
    reply = Reply(
        inventory=inventory,
        drained=(inventory.devices[0].uuid,),
        notices=(
            _notice(text="Ann's <kernel> is idle."),
            _notice(user="bea", text="Bea's kernel is idle."),
        ),
    )
    with _Service(hub.service_port, reply) as service:
        hub.start()
        wait_for(lambda: "The GPU service answers" in hub.log)
        hub.add_users("ann", "bea")
        for group in ("teachers", "big"):
            assert hub.api("POST", f"groups/{group}").ok
            joined = {"users": ["ann"]}
            assert hub.api("POST", f"groups/{group}/users", json=joined).ok
        hub.spawn("ann")
        assert [lease.uuids for lease in hub.leases()] == [(inventory.devices[1].uuid,)]
        get = _log_in(hub, "ann")
        for page in ("home", "token", "nowhere"):
            text = get(page, Accept="*/*").text
            assert "Ann&#x27;s &lt;kernel&gt; is idle." in text, page
            assert 'href="/services/gpuworkshop/"' in text
            assert "Bea" not in text
            assert ("Lunch at noon" in text) == (page == "home")
        before = len(service.reports)
        wait_for(lambda: len(service.reports) > before + 1)
        assert not [report.seen for report in service.reports if report.seen]
        get("token", **_BROWSER)
        wait_for(lambda: any(report.seen for report in service.reports))
        wait_for(lambda: not service.reports[-1].seen, why="it is told for ever")
        assert {seen for each in service.reports for seen in each.seen} == {"ann-0"}
        (server,) = service.reports[-1].servers
        assert server.groups == ("big", "teachers")
    kept = hub.folder / "gpuworkshop-servers" / "drained-devices.json"
    assert json.loads(kept.read_text()) == [inventory.devices[0].uuid]
