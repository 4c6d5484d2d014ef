"""What attendees' servers answer, read with suspicion.

PURE: what a server said in, values out. A server runs as its attendee: whatever it
answers is hostile until it fits, and what does not fit makes it unknown.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from jupyterhub_gpuworkshop.core.errors import ServerError
from jupyterhub_gpuworkshop.core.snapshot import KernelState

MOST_KERNELS = 200
"""A server with more is not believed."""

_MAX_TERMINALS = 1000
_MAX_COUNT = 1_000_000
_MAX_TEXT = 300

_KERNEL_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TIME = re.compile(r"[0-9TZ:.+-]{1,40}")
_STATES = {
    "idle": KernelState.IDLE,
    "busy": KernelState.BUSY,
    "starting": KernelState.STARTING,
    "restarting": KernelState.STARTING,
    "autorestarting": KernelState.STARTING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelInfo:
    """What a server says of one kernel.

    Attributes:
        kernel_id: the Jupyter kernel id.
        state: what it does.
        last_activity: in the server's own words.
        connections: open websockets; None where it does not say.
    """

    kernel_id: str
    state: KernelState
    last_activity: str
    connections: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server says of its kernels.

    Attributes:
        kernels: by kernel id; None where the server is unknown.
        notebooks: the notebook's path by kernel id, as last heard.
        problem: why it is unknown, in a sentence; else empty.
    """

    kernels: Mapping[str, KernelInfo] | None = None
    notebooks: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """What a server says of itself.

    Attributes:
        kernels: how many it has.
        connections: open websockets to all its kernels.
        last_activity: in the server's own words. It moves with every call of a page
            that is looked at, and with the kernels' own; not with ours.
        started: when it started, in its own words.
        terminals: how many are open in it; None where it does not say.
    """

    kernels: int
    connections: int
    last_activity: str
    started: str
    terminals: int | None = None


def read_kernels(answer: Any) -> dict[str, KernelInfo]:
    """Read the answer of api/kernels: all of it fits, or nothing counts."""
    if not isinstance(answer, list) or len(answer) > MOST_KERNELS:
        raise ServerError("its answer is no list of kernels")
    kernels = [read_kernel(item) for item in answer]
    by_id = {kernel.kernel_id: kernel for kernel in kernels}
    if len(by_id) != len(kernels):
        raise ServerError("it lists one kernel twice")
    return by_id


def read_kernel(item: Any) -> KernelInfo:
    """Read one kernel."""
    if not isinstance(item, dict):
        raise ServerError("its answer is no kernel")
    kernel_id, state = item.get("id"), item.get("execution_state")
    last_activity, connections = item.get("last_activity"), item.get("connections")
    if not (
        isinstance(kernel_id, str)
        and _KERNEL_ID.fullmatch(kernel_id)
        and isinstance(state, str)
        and _is_time(last_activity)
    ):
        raise ServerError("its answer is no kernel")
    return KernelInfo(
        kernel_id=kernel_id,
        state=_STATES.get(state, KernelState.UNKNOWN),
        last_activity=last_activity,
        connections=connections if _is_count(connections) else None,
    )


def read_notebooks(answer: Any) -> dict[str, str]:
    """Read the answer of api/sessions, as far as it fits."""
    notebooks: dict[str, str] = {}
    for item in answer[:MOST_KERNELS] if isinstance(answer, list) else ():
        kernel = item.get("kernel") if isinstance(item, dict) else None
        kernel_id = kernel.get("id") if isinstance(kernel, dict) else None
        path = item.get("path") if isinstance(item, dict) else None
        if isinstance(kernel_id, str) and _KERNEL_ID.fullmatch(kernel_id):
            notebooks[kernel_id] = cut(path) if isinstance(path, str) else ""
    return notebooks


def read_status(answer: Any, terminals: int | None) -> ServerStatus:
    """Read the answer of api/status.

    Args:
        answer: as decoded.
        terminals: how many there are, as far as is known.
    """
    said = answer if isinstance(answer, dict) else {}
    kernels, connections = said.get("kernels"), said.get("connections")
    last_activity, started = said.get("last_activity"), said.get("started")
    if not (
        _is_count(kernels)
        and _is_count(connections)
        and _is_time(last_activity)
        and _is_time(started)
    ):
        raise ServerError("its answer is no status")
    return ServerStatus(
        kernels=kernels,
        connections=connections,
        last_activity=last_activity,
        started=started,
        terminals=terminals,
    )


def read_terminals(answer: Any) -> int:
    """Count what api/terminals lists."""
    if not isinstance(answer, list) or len(answer) > _MAX_TERMINALS:
        raise ServerError("its answer is no list of terminals")
    return len(answer)


def _is_count(said: Any) -> TypeGuard[int]:
    return type(said) is int and 0 <= said <= _MAX_COUNT


def _is_time(said: Any) -> TypeGuard[str]:
    return isinstance(said, str) and bool(_TIME.fullmatch(said))


def cut(text: str) -> str:
    """Make text of an attendee's fit for a page and a log."""
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_TEXT])
