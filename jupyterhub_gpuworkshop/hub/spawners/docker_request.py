"""What the engine is asked for, so that a container gets its lease and no other GPU.

PURE: the arguments of one ``create container`` request in, the same with the lease in
them out. Owns the merge with what the admin configured; knows nothing of JupyterHub.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from jupyterhub_gpuworkshop.core.caps import lease_variables
from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.hub.memory_hook import settings_in

LEASE_LABEL = "gpuworkshop.lease"
"""The label with the lease's id: it finds a container whose hub was killed before it
could write down what the engine calls it."""

HOOK_TARGET = "/opt/gpuworkshop/startup"
"""Where the import hook is mounted in containers."""

NO_SWARM = (
    "Docker Swarm picks the GPU itself and tells nobody which: run the hub on the "
    "machine with the GPUs, and use DockerSpawner there."
)

_CDI_KIND = "nvidia.com/gpu"
_CDI_SINCE, _CDI_TOLD_SINCE = (25, 0), (28, 2)
"""Engines know CDI from the one on, and say which devices it names from the other."""

_NVIDIA_MAJOR = "195"
_GPU_CAPABILITIES = frozenset(
    ("gpu", "nvidia", "compute", "compat32", "graphics", "utility", "video", "display")
)
"""Each of them, in a device request, makes the engine choose NVIDIA's driver."""


class DeviceDriver(str, Enum):
    """How the engine hands devices into a container."""

    NVIDIA = "nvidia"
    CDI = "cdi"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the engine is asked for.

    Attributes:
        arguments: of docker-py's `create_container`.
        sentences: for the log: what was overruled, and what opens GPUs all the same.
    """

    arguments: Mapping[str, Any]
    sentences: tuple[str, ...]


def cdi_name(uuid: str) -> str:
    """Return a device's name as NVIDIA's CDI specifications have it."""
    return f"{_CDI_KIND}={uuid}"


def driver_of(info: Mapping[str, Any], uuids: Sequence[str]) -> DeviceDriver:
    """Return how an engine hands in these devices.

    Args:
        info: what the engine says of itself (``docker info``).
        uuids: the devices.

    An engine from 28.2 on lists the devices that CDI names. One from 25 on says where
    it looks for CDI's files, not what it found there: it is asked for CDI names only
    where it does not know NVIDIA's runtime.
    """
    discovered = {
        device.get("ID")
        for device in info.get("DiscoveredDevices") or ()
        if device.get("Source") == "cdi"
    }
    if uuids and discovered.issuperset(map(cdi_name, uuids)):
        return DeviceDriver.CDI
    if "nvidia" in (info.get("Runtimes") or {}):
        return DeviceDriver.NVIDIA
    version = _version(str(info.get("ServerVersion", "")))
    if info.get("CDISpecDirs") and _CDI_SINCE <= version < _CDI_TOLD_SINCE:
        return DeviceDriver.CDI
    return DeviceDriver.NVIDIA


def _version(text: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0]
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def lease_environment(
    lease: Lease, driver: DeviceDriver, *, by_index: bool = False
) -> dict[str, str]:
    """Return the variables that name a lease's devices, as the container sees them.

    Args:
        lease: of the server.
        driver: how the devices get there.
        by_index: as for `lease_variables`; a container's devices count from 0.
    """
    variables = lease_variables(lease, by_index=by_index)
    if driver is not DeviceDriver.NVIDIA:
        # NVIDIA's runtime reads it: there is nothing for that to hand in.
        variables["NVIDIA_VISIBLE_DEVICES"] = "void"
    visible = variables["CUDA_VISIBLE_DEVICES"]
    is_by_index = lease.devices and visible != ",".join(lease.uuids)
    if is_by_index and driver is not DeviceDriver.NONE:
        numbers = range(len(lease.devices))
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, numbers))
    return variables


def over_image(
    environment: Mapping[str, str], image: Sequence[str], hook: str
) -> dict[str, str]:
    """Return a container's variables, with what the image itself sets in mind.

    Args:
        environment: the server's; each replaces the image's of the same name.
        image: the image's own, as ``NAME=value``.
        hook: the import hook's folder.

    An image's PYTHONPATH stays, behind the hook: PySpark's images live by theirs. So
    does its JUPYTER_CONFIG_PATH, behind our settings. What would break the lease is
    emptied, since no request can unset it.
    """
    theirs = dict(line.split("=", 1) for line in image if "=" in line)
    result = dict(environment)
    for name, ours in (
        ("PYTHONPATH", hook),
        ("JUPYTER_CONFIG_PATH", settings_in(hook)),
    ):
        if theirs.get(name) and result.get(name) == ours:
            result[name] = f"{ours}:{theirs[name]}"
    short, long = "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"
    if short in theirs and long in result:
        result.setdefault(short, "")
    allocator = "TF_GPU_ALLOCATOR"
    if theirs.get(allocator) == "cuda_malloc_async" and long in result:
        result.setdefault(allocator, "")
    return result


def ask(
    arguments: Mapping[str, Any],
    lease: Lease,
    driver: DeviceDriver,
    *,
    by_index: bool = False,
    hook_volume: str = "",
) -> Asked:
    """Lay a lease over the arguments with which a container would be created.

    Args:
        arguments: of docker-py's `create_container`, the admin's merged in.
        lease: of the server.
        driver: how the engine hands its devices in.
        by_index: as for `lease_environment`.
        hook_volume: the volume with the import hook; empty where none is mounted.
    """
    host = dict(arguments.get("host_config") or {})
    requests, sentences = _device_requests(
        host.get("DeviceRequests") or (), lease, driver
    )
    host["DeviceRequests"] = requests
    if hook_volume:
        mount = {
            "Type": "volume",
            "Source": hook_volume,
            "Target": HOOK_TARGET,
            "ReadOnly": True,
            "VolumeOptions": {"NoCopy": True},
        }
        host["Mounts"] = [*(host.get("Mounts") or ()), mount]
    environment = dict(arguments.get("environment") or {})
    for name, ours in lease_environment(lease, driver, by_index=by_index).items():
        if environment.get(name) != ours:
            sentences.append(
                f"extra_create_kwargs sets {name}={environment.get(name)!r}, which "
                f"would break the lease of {lease.owner} ({lease.share}): {ours!r} is "
                "set instead."
            )
            environment[name] = ours
    return Asked(
        arguments={
            **arguments,
            "host_config": host,
            "environment": environment,
            "labels": {**_labels(arguments.get("labels")), LEASE_LABEL: lease.id},
        },
        sentences=(*sentences, *_open_all_the_same(host, lease)),
    )


def _device_requests(
    given: Sequence[Mapping[str, Any]], lease: Lease, driver: DeviceDriver
) -> tuple[list[dict[str, Any]], list[str]]:
    """Replace the admin's requests for GPUs with the lease's; keep the others.

    The capabilities and options of theirs stay: they may want graphics, say.
    """
    others: list[dict[str, Any]] = []
    theirs: list[Mapping[str, Any]] = []
    sentences = []
    for request in given:
        ids = [str(x) for x in request.get("DeviceIDs") or ()]
        if request.get("Driver") == "cdi":
            kept = [x for x in ids if not _is_gpu_kind(x)]
            if kept:
                others.append({**request, "DeviceIDs": kept})
            if kept == ids:
                continue
        elif not _is_for_gpus(request):
            others.append(dict(request))
            continue
        else:
            theirs.append(request)
        wanted = ", ".join(ids) or _count(int(request.get("Count") or 0))
        sentences.append(
            f"extra_host_config asks for GPUs in device_requests ({wanted}): "
            f"{lease.owner} gets "
            f"{', '.join(lease.uuids) or 'no GPU'} instead, by the lease."
        )
    if not lease.devices or driver is DeviceDriver.NONE:
        return others, sentences
    return [*others, _request(lease, driver, theirs)], sentences


def _request(
    lease: Lease, driver: DeviceDriver, theirs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the request for a lease's devices; `theirs` is what the admin asked."""
    if driver is DeviceDriver.CDI:
        return {
            "Driver": "cdi",
            "Count": 0,
            "DeviceIDs": [cdi_name(uuid) for uuid in lease.uuids],
            "Capabilities": [],
            "Options": {},
        }
    first: Mapping[str, Any] = theirs[0] if theirs else {}
    return {
        "Driver": first.get("Driver") or "",
        "Count": 0,
        "DeviceIDs": list(lease.uuids),
        "Capabilities": first.get("Capabilities") or [["gpu"]],
        "Options": first.get("Options") or {},
    }


def _is_for_gpus(request: Mapping[str, Any]) -> bool:
    wanted = {name for names in request.get("Capabilities") or () for name in names}
    return request.get("Driver") == "nvidia" or bool(wanted & _GPU_CAPABILITIES)


def _is_gpu_kind(name: str) -> bool:
    """Whether a CDI name is of a GPU: ``management.nvidia.com/gpu=all`` is, too."""
    return name.partition("=")[0].endswith(_CDI_KIND)


def _count(count: int) -> str:
    return "all of them, count -1" if count == -1 else f"count {count}"


def _labels(given: Any) -> dict[str, str]:
    """Return labels as a mapping: docker-py takes a list of names as well."""
    return dict(given) if isinstance(given, Mapping) else dict.fromkeys(given or (), "")


def _open_all_the_same(host: Mapping[str, Any], lease: Lease) -> list[str]:
    """Say what of the admin's opens GPUs beside the lease."""
    found = []
    if host.get("Privileged"):
        found.append("privileged=True opens every device of the host")
    devices = [str(x.get("PathOnHost", "")) for x in host.get("Devices") or ()]
    named = [x for x in devices if x.startswith("/dev/nvidia")]
    if named:
        found.append(f"devices opens {', '.join(named)}")
    rules = [str(x) for x in host.get("DeviceCgroupRules") or ()]
    wide = [x for x in rules if _opens_gpus(x)]
    if wide:
        found.append(f"device_cgroup_rules opens {', '.join(wide)}")
    return [
        f"extra_host_config: {what} to {lease.owner}, whatever the lease "
        f"({lease.share}) says. Take it out."
        for what in found
    ]


def _opens_gpus(rule: str) -> bool:
    """Whether a rule such as ``c 195:* rwm`` matches NVIDIA's device files."""
    kind, _, rest = rule.strip().partition(" ")
    return kind == "a" or (
        kind == "c" and rest.partition(":")[0] in ("*", _NVIDIA_MAJOR)
    )
