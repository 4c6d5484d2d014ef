"""What the doctor makes of the GPU service, and of the attendees' address."""

from typing import Any

import pytest

from jupyterhub_gpuworkshop.hub.setup import ADMIN_SCOPE, READ_SCOPE
from jupyterhub_gpuworkshop.tools.doctor import address, service
from jupyterhub_gpuworkshop.tools.doctor.check import Check, Status
from jupyterhub_gpuworkshop.tools.doctor.reading.hub_facts import (
    HubFacts,
    RoleFacts,
    ServiceEntry,
)
from jupyterhub_gpuworkshop.tools.doctor.reading.service import Answer
from jupyterhub_gpuworkshop.workshop import Workshop

URL = "http://127.0.0.1:10110/services/gpuworkshop/health"
MANAGED = Workshop.load({})
EXTERNAL = Workshop.load(
    {"service": {"managed": False, "secret_file": "/etc/gpuworkshop/secrets.env"}}
)
REFUSED = Answer(url=URL, problem="Connection refused")


def health(**changes: Any) -> Answer:
    """Return what a service says that is well."""
    body = {
        "status": "ok",
        "version": "1.0",
        "rounds": 12,
        "age_seconds": 2.0,
        "devices": 4,
        "samples": 4,
        "devices_problem": "",
        "hub_problem": "",
        "servers": 3,
        "unknown_servers": 0,
    }
    return Answer(url=URL, status=200, body={**body, **changes})


def facts(**changes: Any) -> HubFacts:
    """Return what configure() makes of a hub."""
    access = "access:services!service=gpuworkshop"
    given: dict[str, Any] = {
        "file": "/etc/jupyterhub/jupyterhub_config.py",
        "bind_url": "http://:8000",
        "services": (
            ServiceEntry(
                name="gpuworkshop", client_scopes=(READ_SCOPE, ADMIN_SCOPE, "admin-ui")
            ),
        ),
        "roles": (RoleFacts(name="user", scopes=("self", READ_SCOPE, access)),),
        "custom_scopes": (READ_SCOPE, ADMIN_SCOPE),
    }
    return HubFacts(**{**given, **changes})


def assert_says(check: Check, status: Status, *words: str) -> None:
    said = f"{check.finding}\n{check.remedy}"
    assert check.status is status, said
    for word in words:
        assert word in said


def test_the_service_is_asked_below_the_hubs_base_url() -> None:
    assert service.service_url(MANAGED, facts(base_url="/jupyter/")) == (
        "http://127.0.0.1:10110/jupyter/services/gpuworkshop/"
    )


@pytest.mark.parametrize(
    ("answer", "workshop", "hub_runs", "status", "words"),
    [
        (health(), MANAGED, True, Status.OK, [URL]),
        (REFUSED, MANAGED, False, Status.SKIP, ["nothing has been started"]),
        (REFUSED, MANAGED, True, Status.FAIL, ["refused", "restart jupyterhub"]),
        (
            REFUSED,
            EXTERNAL,
            True,
            Status.FAIL,
            ["$ sudo systemctl restart gpuworkshop"],
        ),
        (Answer(url=URL, status=404), MANAGED, True, Status.FAIL, ["404", "ss -ltnp"]),
        (health(version="0.9"), EXTERNAL, True, Status.WARN, ["0.9", "upgrade"]),
    ],
)
def test_whether_the_service_answers(
    answer: Answer,
    workshop: Workshop,
    hub_runs: bool,
    status: Status,
    words: list[str],
) -> None:
    check = service.judge_reachable(answer, workshop, "1.0", hub_runs)
    assert_says(check, status, *words)


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (health(), Status.OK, ["4 devices"]),
        (health(rounds=0), Status.WARN, ["not looked"]),
        (health(age_seconds=300.0), Status.FAIL, ["5 min ago"]),
        (
            health(devices=0, samples=0, devices_problem="There is no driver."),
            Status.FAIL,
            ["There is no driver", "PrivateDevices"],
        ),
        (health(samples=0), Status.FAIL, ["could not read any"]),
        (REFUSED, Status.SKIP, ["service.reachable"]),
        (Answer(url=URL, status=200, body={"status": "ok"}), Status.SKIP, ["proxy"]),
    ],
)
def test_whether_the_service_sees_the_gpus(
    answer: Answer, status: Status, words: list[str]
) -> None:
    assert_says(service.judge_sampling(answer), status, *words)


def test_a_hub_that_is_silent_is_told() -> None:
    assert service.judge_link(health()).status is Status.OK
    check = service.judge_link(health(hub_problem="The hub has been silent for 2 min."))
    assert_says(check, Status.FAIL, "silent for 2 min", "service.secret_file")
    assert service.judge_link(REFUSED).status is Status.SKIP


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"internal_ssl": True}, ["internal_ssl = False"]),
        (
            {
                "lineage": ("dockerspawner.DockerSpawner",),
                "traits": {"network_name": "class"},
            },
            ["one Docker network", "docker network connect class"],
        ),
        ({"lineage": ("x.SystemdSpawner",)}, ["firewall"]),
    ],
)
def test_a_server_that_is_not_reached_has_the_remedy_of_its_kind(
    changes: dict[str, Any], words: list[str]
) -> None:
    check = service.judge_servers(health(unknown_servers=2), facts(**changes), None)
    assert_says(check, Status.FAIL, "2 of 3 servers", "service's page", *words)


def test_an_organisers_token_names_the_servers() -> None:
    problems = ["GPU 0: hot", "The server of bob is unknown: refused."]
    check = service.judge_servers(health(unknown_servers=1), facts(), problems)
    assert_says(check, Status.FAIL, "The server of bob")
    assert "hot" not in check.finding
    assert "JUPYTERHUB_API_TOKEN" not in check.remedy


def test_servers_that_are_all_reached_or_not_there() -> None:
    assert service.judge_servers(health(), facts(), None).status is Status.OK
    assert service.judge_servers(health(servers=0), facts(), None).status is Status.SKIP


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"services": ()}, ["No service 'gpuworkshop'"]),
        ({"custom_scopes": (READ_SCOPE,)}, [ADMIN_SCOPE]),
        (
            {
                "services": (
                    ServiceEntry(name="gpuworkshop", client_scopes=(READ_SCOPE,)),
                )
            },
            ["may not ask for", "admin-ui"],
        ),
        (
            {"roles": (RoleFacts(name="user", scopes=("self",)),)},
            ["The role user lacks", READ_SCOPE],
        ),
        ({"roles": ()}, ["The role user lacks"]),
    ],
)
def test_a_scope_that_is_missing_is_named(
    changes: dict[str, Any], words: list[str]
) -> None:
    check = service.judge_scopes(facts(**changes), MANAGED, None, False)
    assert_says(check, Status.FAIL, *words, "configure(c, ...)")


@pytest.mark.parametrize(
    ("who", "has_secret", "status", "words"),
    [
        (None, False, Status.SKIP, ["cannot read", "sudo"]),
        (None, True, Status.SKIP, ["hub does not answer"]),
        (Answer(url="", status=200), True, Status.OK, ["knows the service's token"]),
        (Answer(url="", status=403), True, Status.FAIL, ["restart jupyterhub"]),
    ],
)
def test_the_token_of_a_service_of_its_own_must_be_known_to_the_hub(
    who: Answer | None, has_secret: bool, status: Status, words: list[str]
) -> None:
    check = service.judge_scopes(facts(), EXTERNAL, who, has_secret)
    assert_says(check, status, *words)


def test_a_managed_service_is_given_its_token_by_the_hub() -> None:
    assert service.judge_scopes(facts(), MANAGED, None, False).status is Status.OK


@pytest.mark.parametrize(
    ("given", "changes", "expected"),
    [
        ("https://hub.org", {}, ("https://hub.org/", True)),
        (None, {"public_url": "https://p.org/x/"}, ("https://p.org/x/", True)),
        (None, {"bind_url": "http://:8000/b/", "base_url": "/b/"}, None),
        (
            None,
            {"bind_url": "http://10.0.0.1:80", "base_url": "/"},
            ("http://10.0.0.1:80/", True),
        ),
        (
            None,
            {"bind_url": "http://:443", "has_certificate": True},
            ("https://127.0.0.1:443/", False),
        ),
    ],
)
def test_the_address_is_what_was_said_else_what_is_configured(
    given: str | None, changes: dict[str, Any], expected: tuple[str, bool] | None
) -> None:
    found = address.address_of(given, facts(**changes))
    assert found == (expected or ("http://127.0.0.1:8000/b/", False))


def test_without_a_configuration_no_address_is_known() -> None:
    assert address.address_of(None, HubFacts()) == ("", False)
    assert_says(address.judge_reachable("", None, False), Status.SKIP, "--url")
    assert_says(address.judge_https("", None, False, None), Status.SKIP, "--url")


def hub_answer(url: str, **changes: Any) -> Answer:
    headers = {"x-jupyterhub-version": "6.1.1"}
    given: dict[str, Any] = {"status": 200, "headers": headers, "final_url": url}
    return Answer(url=url, **{**given, **changes})


PUBLIC = "http://hub.org/"


@pytest.mark.parametrize(
    ("answer", "is_public", "status", "words"),
    [
        (hub_answer(PUBLIC), True, Status.OK, ["JupyterHub 6.1.1"]),
        (hub_answer(PUBLIC), False, Status.OK, ["on this machine", "--url"]),
        (hub_answer(PUBLIC, headers={}), True, Status.FAIL, ["not as a JupyterHub"]),
        (hub_answer(PUBLIC, status=502), True, Status.FAIL, ["status 502"]),
        (
            Answer(url=PUBLIC, problem="no such name is known"),
            True,
            Status.FAIL,
            ["no such name", "curl -v"],
        ),
        (
            Answer(url=PUBLIC, problem="refused"),
            False,
            Status.SKIP,
            ["does not run now"],
        ),
    ],
)
def test_whether_a_hub_answers_where_attendees_go(
    answer: Answer, is_public: bool, status: Status, words: list[str]
) -> None:
    assert_says(address.judge_reachable(PUBLIC, answer, is_public), status, *words)


@pytest.mark.parametrize(
    ("url", "answer", "is_public", "days", "status", "words"),
    [
        (PUBLIC, hub_answer(PUBLIC), True, None, Status.WARN, ["in the clear"]),
        (
            PUBLIC,
            hub_answer("https://hub.org/hub/health"),
            True,
            80.0,
            Status.OK,
            ["has HTTPS"],
        ),
        (
            "https://hub.org/",
            hub_answer("https://hub.org/"),
            True,
            3.4,
            Status.WARN,
            ["ends in 3 days", "certbot renew"],
        ),
        (
            "https://hub.org/",
            Answer(url="", problem="self-signed certificate", bad_certificate=True),
            True,
            None,
            Status.FAIL,
            ["self-signed", "tljh-config"],
        ),
        (
            "http://127.0.0.1:8000/",
            hub_answer("http://127.0.0.1:8000/"),
            False,
            None,
            Status.SKIP,
            ["--url"],
        ),
        (
            "http://localhost:8000/",
            hub_answer("http://localhost:8000/"),
            True,
            None,
            Status.OK,
            ["not needed"],
        ),
    ],
)
def test_whether_passwords_travel_under_cover(
    url: str,
    answer: Answer,
    is_public: bool,
    days: float | None,
    status: Status,
    words: list[str],
) -> None:
    check = address.judge_https(url, answer, is_public, days)
    assert_says(check, status, *words)
