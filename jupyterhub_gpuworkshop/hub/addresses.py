"""Strangers at the door: where they come from, and what is told of and to them.

Owns which proxies are believed. What is counted by address is `lock_outs`'.
"""

import ipaddress
from math import ceil
from typing import Any

_LONGEST_SHOWN = 32


def address_of(handler: Any) -> str:
    """Return the address that a login comes from, as the last proxy of ours saw it.

    Proxies of ours are those on this host, and `c.JupyterHub.trusted_downstream_ips`.
    What stands to the left of a stranger's address was written by that stranger, as
    X-Real-IP may be: neither is believed.
    """
    request = handler.request
    context = getattr(request.connection, "context", None)
    peer = getattr(context, "address", None)
    ours = {_read_address(text) for text in getattr(context, "trusted_downstream", ())}
    forwarded = request.headers.get("X-Forwarded-For", "")
    seen = [str(peer[0])] if isinstance(peer, tuple) else []
    nearest = "127.0.0.1"
    for text in (*seen, *reversed(forwarded.split(","))):
        address = _read_address(text)
        if address is None:
            break
        nearest = str(address)
        if not address.is_loopback and address not in ours:
            break
    return nearest


def _read_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address, with the port and the brackets that some proxies add."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def shown_name(name: str) -> str:
    """Return a name for the log: no line of its own, and not a page of it."""
    return repr(name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}...")


def come_back(wait_seconds: float) -> str:
    """Return what is told to who has given too many wrong codes."""
    minutes = max(1, ceil(wait_seconds / 60))
    return (
        f"Too many wrong codes. Try again in {minutes} "
        f"{'minute' if minutes == 1 else 'minutes'}, or ask the organisers."
    )
