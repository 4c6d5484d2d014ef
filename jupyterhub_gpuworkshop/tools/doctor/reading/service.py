"""Asks the GPU service, the hub and the address of the attendees, over HTTP."""

import contextlib
import http.client
import json
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SECONDS = 10.0
_MOST_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back from an address.

    Attributes:
        url: the address.
        status: None where nothing came back.
        problem: why; else empty.
        headers: by name in small letters.
        body: the JSON in it; None where it is none.
        bad_certificate: whether a certificate is the reason.
        final_url: after redirects.
    """

    url: str
    status: int | None = None
    problem: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    bad_certificate: bool = False
    final_url: str = ""


def ask(url: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Ask an address, not through a proxy that the environment names."""
    if not url.startswith(("http://", "https://")):
        return Answer(url=url, problem="an address starts with https:// or http://")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(url, headers=dict(headers or {}))  # noqa: S310
        with opener.open(request, timeout=_SECONDS) as answer:
            return _answer(url, answer)
    except urllib.error.HTTPError as error:
        with error:
            return _answer(url, error)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return Answer(
            url=url,
            problem=_words(reason),
            bad_certificate=isinstance(reason, ssl.SSLCertVerificationError),
        )


def _answer(url: str, answer: Any) -> Answer:
    body = None
    with contextlib.suppress(ValueError, OSError, http.client.HTTPException):
        body = json.loads(answer.read(_MOST_BYTES))
    return Answer(
        url=url,
        status=answer.status,
        headers={name.lower(): value for name, value in answer.headers.items()},
        body=body,
        final_url=answer.url,
    )


def _words(reason: object) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return reason.verify_message
    if isinstance(reason, TimeoutError):
        return f"nothing came within {_SECONDS:.0f} s"
    if isinstance(reason, socket.gaierror):
        return "no such name is known"
    return getattr(reason, "strerror", None) or str(reason)


def days_left(url: str) -> float | None:
    """Return for how many days a certificate is good; None where it is not known."""
    parts = urllib.parse.urlsplit(url)
    context = ssl.create_default_context()
    try:
        with (
            socket.create_connection(
                (parts.hostname or "", parts.port or 443), timeout=_SECONDS
            ) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as wrapped,
        ):
            found = wrapped.getpeercert()
    except (OSError, ValueError):
        return None
    until = str((found or {}).get("notAfter", ""))
    return (ssl.cert_time_to_seconds(until) - time.time()) / 86400 if until else None


def read_secrets(file: Path | None) -> dict[str, str]:
    """Read the secrets that hub and service share; empty where they are not ours."""
    if file is None:
        return {}
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line)
