"""Write the reference pages that come from the code: workshop file, caps, metrics.

Owns how they read as Markdown. What they say comes from the code itself, so that the
pages cannot fall behind it. It needs no Sphinx.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from jupyterhub_gpuworkshop.core import errors
from jupyterhub_gpuworkshop.core.caps import framework_variables, lease_variables
from jupyterhub_gpuworkshop.core.devices import estimated_context_bytes
from jupyterhub_gpuworkshop.core.enforcement import HardCap, limits_in_force
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.units import GIB, format_size
from jupyterhub_gpuworkshop.service.metric_catalogue import (
    BY_ATTENDEE,
    TOTALS,
    Described,
)
from jupyterhub_gpuworkshop.tools.doctor.catalogue import AREAS, CHECKS
from jupyterhub_gpuworkshop.workshop import Workshop

GENERATED = Path(__file__).parent / "reference" / "generated"

EXAMPLE_LEASE = Lease(
    id="example",
    user="ada",
    server="",
    share="1/5",
    granted_at=0.0,
    hook=True,
    devices=(
        LeasedDevice(
            uuid="GPU-8f6d1c1e",
            label="0",
            memory_bytes=16 * GIB,
            total_bytes=80 * GIB,
            context_bytes=estimated_context_bytes(80 * GIB),
        ),
    ),
)
"""A share of 16 GiB of a GPU of 80 GiB, where a CUDA context takes 704 MiB.

The UUID is cut short, for the width of a page.
"""

LEASE_MEANINGS = {
    "CUDA_VISIBLE_DEVICES": "The devices of the lease by UUID, by index where "
    "`c.GpuSpawnerMixin.visible_indices` is True; `-1` for a share of `cpu`.",
    "CUDA_DEVICE_ORDER": "Indices, where they are used, count as nvidia-smi counts.",
    "NVIDIA_VISIBLE_DEVICES": "The same for NVIDIA's container runtime; `void` for a "
    "share of `cpu`.",
    "GPUWORKSHOP_SHARE": "The share, for people and programs to read.",
    "GPUWORKSHOP_MEMORY_LIMIT_BYTES": "What the lease may use of a device, in bytes, "
    "CUDA context included. Simulated GPUs keep to it; not set for a share of `cpu`.",
    "GPUWORKSHOP_MEMORY_FRACTION": "The part of the device's memory that the import "
    "hook lets PyTorch and TensorFlow take, the CUDA context off; not for a lease on "
    "several devices, which are whole ones, nor on a MIG slice of its own.",
    "GPUWORKSHOP_MEMORY_CAP_BYTES": "The same in bytes, for ONNX Runtime.",
}
"""What the variables of the lease say."""

FRAMEWORK_MEANINGS = {
    "TF_FORCE_GPU_ALLOW_GROWTH": (
        "TensorFlow",
        "takes memory as it needs it, not all at once",
        "no cap",
    ),
    "TF_PER_DEVICE_MEMORY_LIMIT_MB": (
        "TensorFlow",
        "up to 2.14: limits the process, in MiB; from 2.15 on: one allocation only",
        "soft up to 2.14, no cap from 2.15 on",
    ),
    "XLA_PYTHON_CLIENT_MEM_FRACTION": (
        "JAX 0.4.1 and later",
        "limits the process to this part of the device's memory",
        "soft",
    ),
    "XLA_PYTHON_CLIENT_PREALLOCATE": (
        "JAX",
        "takes memory as it needs it, not all of its part at once",
        "no cap",
    ),
    "CUPY_GPU_MEMORY_LIMIT": (
        "CuPy 7 and later",
        "limits the process, in bytes",
        "soft",
    ),
    "FLAGS_gpu_memory_limit_mb": (
        "Paddle 1.7.2 and later",
        "limits the process, in MiB",
        "soft",
    ),
    "CUDF_PANDAS_RMM_MODE": (
        "cuDF",
        "does not take a pool of 80 % of the device",
        "no cap",
    ),
    "OLLAMA_GPU_OVERHEAD": (
        "Ollama",
        "leaves so many bytes of the device to others",
        "soft",
    ),
}
"""Who reads a variable, what follows, and what it is worth as a cap."""


def workshop_file() -> str:
    """Return every key of the workshop file, by section."""
    parts = ["## Keys of the file", *_keys(Workshop, "")]
    for name, field in Workshop.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            parts += [f"## {name}", inspect.cleandoc(section.__doc__ or "")]
            parts += _keys(section, f"{name}.")
    return "\n\n".join(parts) + "\n"


def _keys(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        if field.description:
            yield f"### `{prefix}{name}`\n\n{field.description}"


def caps() -> str:
    """Return the tables of the environment variables that a server is given."""
    lease = lease_variables(EXAMPLE_LEASE)
    rows = [
        "| variable | here | what it says |",
        "| --- | --- | --- |",
        *(f"| `{k}` | `{v}` | {LEASE_MEANINGS[k]} |" for k, v in lease.items()),
        "",
        "| variable | here | read by | which then | as a cap |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, value in framework_variables(EXAMPLE_LEASE).items():
        reader, effect, worth = FRAMEWORK_MEANINGS[name]
        rows.append(f"| `{name}` | `{value}` | {reader} | {effect} | {worth} |")
    return "\n".join(rows) + "\n"


EXAMPLE_HARD_CAP = HardCap(
    lease_id="example",
    cgroup="/system.slice/jupyter-ada.service",
    by_device={"GPU-8f6d1c1e": 16 * GIB},
)
"""What the driver holds the example to, where it offers that."""


def limits() -> str:
    """Return the table of what holds a lease, first without the driver's limit."""
    rows = [
        "| programs | kind | limit here | enforced by |",
        "| --- | --- | --- | --- |",
    ]
    without = limits_in_force(EXAMPLE_LEASE)
    hard = limits_in_force(EXAMPLE_LEASE, EXAMPLE_HARD_CAP)[0]
    for limit in (without[0], hard, *without[1:]):
        size = "" if limit.limit_bytes is None else format_size(limit.limit_bytes)
        name = limit.applies_to
        if limit is hard:
            name += ", where the driver offers limits by cgroup"
        rows.append(f"| {name} | {limit.kind.value} | {size} | {limit.enforced_by} |")
    return "\n".join(rows) + "\n"


def error_tree() -> str:
    """Return the exception tree, and what each one means."""
    tree = inspect.cleandoc(errors.__doc__ or "").split("::\n", 1)[1]
    drawing = [line for line in tree.splitlines() if line.startswith("    ")]
    rows = ["```text", *(line[4:] for line in drawing), "```", ""]
    rows += ["| error | meaning |", "| --- | --- |"]
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        meaning = inspect.cleandoc(kind.__doc__ or "").split("\n", 1)[0]
        if kind is errors.GpuWorkshopError:
            meaning = "The root: catch this for every error that is raised on purpose."
        rows.append(f"| `{name}` | {meaning} |")
    return "\n".join(rows) + "\n"


def doctor() -> str:
    """Return what each check of the doctor looks at, by area."""
    parts = []
    for area, heading in AREAS.items():
        rows = [f"## {heading}", "", "| check | looks at |", "| --- | --- |"]
        rows += [
            f"| `{name}` | {looks_at} |"
            for name, looks_at in CHECKS.items()
            if name.startswith(f"{area}.")
        ]
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def metrics() -> str:
    """Return every metric, those that name attendees apart."""
    return "\n".join(
        [
            "## For everybody who may look",
            "",
            *_metric_items(TOTALS),
            "",
            "## By attendee",
            "",
            "For tokens of organisers alone, where `metrics.by_attendee` of the "
            "workshop file is true. The leases of one server are added up.",
            "",
            *_metric_items(BY_ATTENDEE),
            "",
        ]
    )


def _metric_items(described: tuple[Described, ...]) -> Iterator[str]:
    for metric in described:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        kind = f"{metric.kind.value} by {labels}" if labels else metric.kind.value
        yield f"- `{metric.name}` ({kind}): {metric.help}"


def write_all() -> None:
    """Write the pages for Sphinx to include."""
    GENERATED.mkdir(parents=True, exist_ok=True)
    pages = {
        "workshop-file": workshop_file,
        "caps": caps,
        "limits": limits,
        "errors": error_tree,
        "doctor": doctor,
        "metrics": metrics,
    }
    for name, make in pages.items():
        (GENERATED / f"{name}.md").write_text(make(), "utf-8")
