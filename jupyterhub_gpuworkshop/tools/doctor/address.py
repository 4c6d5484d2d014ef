"""Judges the address that attendees will use."""

import urllib.parse

from .check import Check, fail, ok, skip, warn
from .reading.hub_facts import HubFacts
from .reading.service import Answer

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EVERYWHERE = ("", "0.0.0.0", "::", "*")  # noqa: S104  # only compared with
_SOON_DAYS = 7
_ASK = (
    "Say what attendees will type:\n$ gpuworkshop doctor --url https://hub.example.org"
)


def address_of(given: str | None, hub: HubFacts) -> tuple[str, bool]:
    """Return the address to ask, and whether attendees would type it.

    An empty one where nothing is known of it.
    """
    if given or hub.public_url:
        return (given or hub.public_url).rstrip("/") + "/", True
    if not hub.known:
        return "", False
    parts = urllib.parse.urlsplit(hub.bind_url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    local = "127.0.0.1" if host in _EVERYWHERE else host
    bracketed = f"[{local}]" if ":" in local else local
    scheme = "https" if hub.has_certificate else "http"
    url = f"{scheme}://{bracketed}{port}{hub.base_url.rstrip('/')}/"
    return url, local not in _LOOPBACK


def health_url(address: str) -> str:
    """Return the page that every hub answers without a login."""
    return f"{address.rstrip('/')}/hub/health"


def judge_reachable(address: str, answer: Answer | None, is_public: bool) -> Check:
    """Judge whether a hub answers there.

    Args:
        address: what attendees type; empty where it is not known.
        answer: of the hub's health page.
        is_public: whether attendees would type it; else it is this machine's own.
    """
    name = "address.reachable"
    if not address or answer is None:
        return skip(name, "It is not known which address attendees will use.", _ASK)
    if answer.status is None and not answer.bad_certificate:
        finding = f"Nobody answers at {address}: {answer.problem}."
        if not is_public:
            return skip(
                name, f"{finding} Its proxy does not run now, or not there.", _ASK
            )
        return fail(
            name,
            finding,
            "See that the hub runs, that the name leads here, and that no firewall "
            "is in between:\n"
            f"$ curl -v {address}hub/health\n$ sudo ss -ltnp\n$ sudo ufw status",
        )
    if answer.bad_certificate:
        return ok(name, f"Something answers at {address}; see address.https.")
    hub = answer.headers.get("x-jupyterhub-version")
    if answer.status != 200 or not hub:
        return fail(
            name,
            f"{address} answers, but not as a JupyterHub (status {answer.status}).",
            "See which program has the port, and whether the address lacks the hub's "
            "base_url:\n$ sudo ss -ltnp",
        )
    if not is_public:
        return ok(
            name,
            f"JupyterHub {hub} answers at {address} on this machine. {_ASK}",
        )
    return ok(name, f"JupyterHub {hub} answers at {address}, asked from this machine.")


def judge_https(
    address: str, answer: Answer | None, is_public: bool, days_left: float | None
) -> Check:
    """Judge whether passwords travel under cover.

    Args:
        address: what attendees type; empty where it is not known.
        answer: of the hub's health page.
        is_public: whether attendees would type it.
        days_left: of the certificate; None where it is not known.
    """
    name = "address.https"
    if not address or answer is None:
        return skip(name, "It is not known which address attendees will use.", _ASK)
    host = urllib.parse.urlsplit(address).hostname or ""
    final = answer.final_url or address
    if answer.bad_certificate:
        return fail(
            name,
            f"The certificate of {host} is not one that browsers take: "
            f"{answer.problem}. Attendees meet a warning page.",
            "Get one that they take:\n"
            f"$ sudo certbot certonly --standalone -d {host}\n"
            "On TLJH:\n"
            f"$ sudo tljh-config add-item https.letsencrypt.domains {host}\n"
            "$ sudo tljh-config set https.enabled true\n"
            "$ sudo tljh-config reload proxy",
        )
    if final.startswith("https:"):
        if days_left is not None and days_left < _SOON_DAYS:
            return warn(
                name,
                f"The certificate of {host} ends in {max(0, int(days_left))} days.",
                "$ sudo certbot renew",
            )
        return ok(name, f"{address} has HTTPS, and browsers take its certificate.")
    if not is_public:
        return skip(
            name,
            "Only this machine's own address is known, where HTTPS is not needed.",
            _ASK,
        )
    if host in _LOOPBACK:
        return ok(name, f"{address} is this machine's own: HTTPS is not needed.")
    return warn(
        name,
        f"{address} has no HTTPS: passwords travel in the clear, and whoever is on "
        "the same network can take over a session.",
        "Put a proxy with a certificate in front, or give the hub one "
        "(c.JupyterHub.ssl_cert, ssl_key). On TLJH:\n"
        "$ sudo tljh-config set https.enabled true",
    )
