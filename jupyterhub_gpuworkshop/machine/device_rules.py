"""Which device nodes belong to which device, as systemd's `DeviceAllow=` names them.

Owns the numbers behind NVIDIA's nodes: of GPUs, of what all GPUs share, and of MIG's
capabilities. It opens no node and changes nothing.

Nodes are named by number (``/dev/char/195:0``), which systemd takes without the node:
one that is made later, or hidden from the hub, is ruled all the same.
"""

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.errors import SourceError

_PROC = Path("/proc")

_MAJOR = 195
"""Of all NVIDIA GPUs, for ever (Linux: Documentation/admin-guide/devices.txt)."""
_CONTROL, _MODESET = 255, 254
"""Minors of /dev/nvidiactl, which CUDA opens first, and of /dev/nvidia-modeset, which
rendering without a display needs. Neither reaches a GPU whose own node is closed."""

UVM = "nvidia-uvm"
"""The group of /dev/nvidia-uvm and -uvm-tools; its number is new with every boot."""
_CAPABILITIES = "nvidia-caps"
_CAPABILITY_MINOR = re.compile(r"^DeviceFileMinor:\s*(\d+)", re.MULTILINE)

_NUMBERED = re.compile(r"/dev/(?:char|block)/(\d+):(?:\d+|\*)")
_RESERVED = ("nvidia", _CAPABILITIES, UVM, "nvidia-frontend", "nvidiactl")
"""Groups that a driver may have, loaded just now or not."""


def device_rules(
    uuids: Iterable[str], inventory: Inventory, *, proc: Path = _PROC
) -> tuple[str, ...]:
    """Return what opens these devices, and no other, in `DeviceAllow=`'s words.

    Args:
        uuids: the devices of a lease; none opens nothing.
        inventory: where they are found. Simulated devices have no nodes.
        proc: where Linux lists its devices and the driver its capabilities.

    Raises:
        SourceError: the nodes of a device are not known.
    """
    wanted = tuple(uuids)
    if not wanted or inventory.source == "simulated":
        return ()
    rules = [f"/dev/char/{_MAJOR}:{minor} rw" for minor in (_CONTROL, _MODESET)]
    rules.append(f"char-{UVM} rw")
    for uuid in wanted:
        device = inventory.find(uuid)
        if device is None or device.minor is None:
            raise SourceError(
                f"The device node of {uuid} is not known: the driver does not tell its "
                "minor number. Run gpuworkshop doctor, which looks at the driver."
            )
        rules.append(f"/dev/char/{_MAJOR}:{device.minor} rw")
        rules.extend(_capability_rules(device, proc))
    return tuple(dict.fromkeys(rules))


def uvm_is_loaded(*, proc: Path = _PROC) -> bool:
    """Say whether the driver has a number for /dev/nvidia-uvm.

    After a boot it gets one when CUDA is first used, or nvidia-modprobe run.
    """
    return UVM in _majors(proc)


def opens_gpus(rule: str, *, proc: Path = _PROC) -> bool:
    """Say whether an admin's line of `DeviceAllow=` opens any NVIDIA device.

    Args:
        rule: ``/dev/nvidia0 rw``, ``char-nvidia*``, ``/dev/char/195:0`` ...
        proc: where Linux lists its devices.
    """
    node = rule.split()[0] if rule.split() else ""
    majors = _majors(proc)
    ours = {str(number) for name, number in majors.items() if _is_nvidia(name)}
    ours.add(str(_MAJOR))
    numbered = _NUMBERED.fullmatch(node)
    if numbered is not None:
        return node.startswith("/dev/char/") and numbered[1] in ours
    if node.startswith("char-"):
        pattern = node.removeprefix("char-")
        names = [*_RESERVED, *filter(_is_nvidia, majors)]
        return pattern in ours or any(fnmatchcase(name, pattern) for name in names)
    return node.startswith("/dev/nvidia")


def _capability_rules(device: Device, proc: Path) -> Iterator[str]:
    """Return what opens a MIG slice on a GPU whose own node is open."""
    if device.parent_uuid is None:
        return
    gpu, compute = device.gpu_instance, device.compute_instance
    major = _majors(proc).get(_CAPABILITIES)
    if gpu is None or compute is None or major is None:
        raise SourceError(
            f"The capability nodes of MIG slice {device.label} are not known: the "
            "driver does not tell its instances. Run gpuworkshop doctor."
        )
    top = proc / f"driver/nvidia/capabilities/gpu{device.minor}/mig/gi{gpu}"
    for path in (top / "access", top / f"ci{compute}" / "access"):
        try:
            found = _CAPABILITY_MINOR.search(path.read_text("ascii"))
        except OSError as error:
            raise SourceError(
                f"The capability nodes of MIG slice {device.label} are not known: "
                f"{error}. Was the slice made anew? Run nvidia-smi -L."
            ) from error
        if found is None:
            raise SourceError(f"{path} does not name a DeviceFileMinor.")
        yield f"/dev/char/{major}:{found[1]} r"


def _majors(proc: Path) -> dict[str, int]:
    """Return the numbers of Linux's character devices, by their groups' names."""
    found: dict[str, int] = {}
    try:
        text = (proc / "devices").read_text("ascii", "replace")
    except OSError:
        return found
    for line in text.partition("Block devices:")[0].splitlines():
        number, _, name = line.strip().partition(" ")
        if number.isdigit():
            found[name.strip()] = int(number)
    return found


def _is_nvidia(group: str) -> bool:
    return group.startswith("nvidia")
