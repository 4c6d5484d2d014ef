"""The demo's live table.

Owns how a snapshot and the last events look in a terminal of any size. It reads no
clock and writes nowhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from jupyterhub_gpuworkshop.core.units import format_duration, format_size

from .lines import clock_of, event_parts, owner_of, printable
from .settings import ATTENDEE_PATTERN, ORGANISER

_EVENT_STYLES = {
    "granted": "green",
    "refused": "red",
    "released": "dim",
    "reclaimed": "bold yellow",
}
_STATES = {
    "busy": ("● busy", "green"),
    "idle": ("○ idle", "yellow"),
    "starting": ("◌ starting", "cyan"),
    "unknown": ("? unknown", "red"),
}
_WIDE = 110
"""From so many columns on there is room for more about each kernel."""
_WIDEST_NAME = 24
_ROWS_OF_HEADER = 4
_ROWS_AROUND = 5
"""Two table headers, and the empty lines between the parts."""
_LEAST_EVENTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Everything that is shown.

    Attributes:
        hub_url: where to log in; empty while the hub starts.
        organiser_password: of the organiser.
        attendee_password: of every attendee.
        attendees_per_gpu: how many shares each device has.
        snapshot: the last, as the service tells it; empty before the first.
        events: as the service tells them, the oldest first.
    """

    hub_url: str = ""
    organiser_password: str = ""
    attendee_password: str = ""
    attendees_per_gpu: int
    snapshot: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]] = ()


def render(view: View, width: int, height: int) -> RenderableType:
    """Return the table for a terminal of this size."""
    devices = len(view.snapshot.get("devices") or ())
    kernels = len(view.snapshot.get("kernels") or ())
    rows = max(2, height - _ROWS_OF_HEADER - _ROWS_AROUND - devices)
    # Events give way to kernels, but not altogether.
    for_kernels = min(max(1, kernels), max(1, rows - _LEAST_EVENTS))
    for_events = max(1, rows - for_kernels)
    return Group(
        _header(view),
        Text(),
        _devices(view, width),
        Text(),
        _kernels(view.snapshot, for_kernels, width),
        Text(),
        _events(view, for_events),
    )


def _header(view: View) -> RenderableType:
    title = Text.assemble(
        (" GPU workshop ", "bold reverse"),
        ("  simulated GPUs, a real JupyterHub", "dim"),
        no_wrap=True,
    )
    if not view.hub_url:
        return Group(title, Text("JupyterHub starts ...", "yellow"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(no_wrap=True)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_row("open", Text(view.hub_url, f"bold cyan link {view.hub_url}"), "")
    grid.add_row("organiser", ORGANISER, view.organiser_password)
    names = f"{ATTENDEE_PATTERN.format(1)}, {ATTENDEE_PATTERN.format(2)} ..."
    grid.add_row("attendees", names, view.attendee_password)
    heading = Table.grid(expand=True)
    heading.add_column()
    heading.add_column(justify="right")
    heading.add_row(title, Text("Ctrl-C ends it all", "dim"))
    return Group(heading, grid)


def _devices(view: View, width: int) -> RenderableType:
    devices = view.snapshot.get("devices") or ()
    if not devices:
        why = "; ".join(view.snapshot.get("problems") or ())
        return Text(why or "No GPUs are known yet.", "yellow")
    bar = max(8, min(48, width - 50))
    table = _grid("GPU", "memory", "used of total", "busy", "leases", right=(2, 3, 4))
    for device in devices:
        table.add_row(*_device_row(view, device, bar))
    return table


def _grid(*headings: str, right: Sequence[int] = ()) -> Table:
    table = Table.grid(padding=(0, 2))
    for number in range(len(headings)):
        table.add_column(no_wrap=True, justify="right" if number in right else "left")
    table.add_row(*(Text(heading, "dim") for heading in headings))
    return table


def _device_row(
    view: View, device: Mapping[str, Any], bar: int
) -> tuple[RenderableType, ...]:
    full = device["leases"] >= view.attendees_per_gpu
    leases = Text(
        f"{device['leases']} of {view.attendees_per_gpu}", "bold" if full else ""
    )
    used, total = device["memory_used_bytes"], device["memory_total_bytes"]
    label = Text(device["label"], "bold")
    if used is None:
        why = Text(device.get("problem") or "not read yet", "red")
        return label, why, Text(), Text(), leases
    busy = device["utilisation"]
    return (
        label,
        _bar(used / total if total else 0.0, bar),
        f"{format_size(used)} of {format_size(total)}",
        "-" if busy is None else f"{busy:.0%}",
        leases,
    )


def _bar(part: float, width: int) -> Text:
    full = round(min(1.0, max(0.0, part)) * width)
    colour = "red" if part > 0.9 else "yellow" if part > 0.7 else "green"
    return Text.assemble(("█" * full, colour), ("░" * (width - full), "dim"))


def _kernels(snapshot: Mapping[str, Any], rows: int, width: int) -> RenderableType:
    on = {
        lease["id"]: ",".join(device["label"] for device in lease["devices"])
        for lease in snapshot.get("leases") or ()
    }
    kernels = sorted(
        snapshot.get("kernels") or (),
        key=lambda kernel: (kernel["user"], kernel["server"], kernel["notebook"]),
    )
    headings = ["attendee", "notebook", "GPU", "memory", "kernel"]
    if width >= _WIDE:
        headings.append("peak")
        headings.append("")
    table = _grid(*headings, right=(3, 5) if width >= _WIDE else (3,))
    shown = kernels if len(kernels) <= rows else kernels[: max(0, rows - 1)]
    for kernel in shown:
        row = _kernel_row(kernel, on.get(kernel["lease_id"], ""))
        table.add_row(*row[: len(headings)])
    if width >= _WIDE:
        # Whoever must give way, it is what follows: a reclaim's reason is long.
        table.expand = True
        table.columns[-1].ratio = 1
    if len(shown) < len(kernels):
        table.add_row(Text(f"... {len(kernels) - len(shown)} more", "dim"))
    if not kernels:
        table.add_row(Text("no kernels yet", "dim"))
    return table


def _kernel_row(kernel: Mapping[str, Any], gpu: str) -> tuple[RenderableType, ...]:
    state = Text(*_STATES.get(kernel["state"], (kernel["state"], "")))
    if kernel["idle_seconds"] is not None and kernel["state"] == "idle":
        state.append(f" {format_duration(kernel['idle_seconds'])}")
    return (
        Text(owner_of(kernel)),
        Text(printable(kernel["notebook"] or kernel["kernel_id"][:8])),
        gpu,
        format_size(kernel["memory_bytes"]) if kernel["memory_bytes"] else "-",
        state,
        format_size(kernel["peak_memory_bytes"]),
        Text(printable(kernel["verdict"]), "dim", overflow="ellipsis"),
    )


def _events(view: View, rows: int) -> RenderableType:
    labels = labels_of(view.snapshot)
    # Whoever must give way in a narrow terminal, it is the reason.
    parts = [(clock_of(x), *event_parts(x, labels)) for x in list(view.events)[-rows:]]
    table = Table.grid(padding=(0, 2), expand=True)
    for column in range(3):
        widest = max((len(part[column]) for part in parts), default=1)
        table.add_column(no_wrap=True, min_width=min(widest, _WIDEST_NAME))
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for clock, word, who, reason in parts:
        style = _EVENT_STYLES.get(word, "")
        table.add_row(Text(clock, "dim"), Text(word, style), Text(who), Text(reason))
    return table if parts else Text("nothing has happened yet", "dim")


def labels_of(snapshot: Mapping[str, Any]) -> dict[str, str]:
    """Return devices' indices by UUID, for people's eyes."""
    return {x["uuid"]: x["label"] for x in snapshot.get("devices") or ()}
