"""Judges driver and GPUs: from what they say of themselves to what to do."""

from jupyterhub_gpuworkshop.core.units import format_size
from jupyterhub_gpuworkshop.machine.examination import (
    ABSENT,
    MISMATCH,
    Condition,
    Examination,
)

from .check import Check, fail, needs_root, ok, skip, warn
from .reading.driver import (
    HANGS,
    UNASKED,
    DriverFacts,
    Holding,
    Holdings,
    KernelLog,
)

SIMULATED = "The workshop file says gpus.source: simulated: there is no driver to ask."
_OLDEST_DRIVER = 450
_INSTALL = (
    "Install NVIDIA's driver, then reboot. On Ubuntu:\n"
    "$ sudo ubuntu-drivers install --gpgpu\n"
    "Or rehearse without: gpus.source: simulated in the workshop file."
)
_REBOOT = "Reboot the machine; it is the sure way.\n$ sudo reboot"
_HARMFUL_XIDS = {
    48: "an uncorrected memory error",
    62: "an internal halt of the GPU",
    63: "memory was taken out of use",
    64: "memory could not be taken out of use",
    74: "an NVLink error",
    79: "the GPU has fallen off the bus",
    94: "a contained memory error",
    95: "an uncontained memory error",
    119: "the GPU's own processor does not answer",
    120: "the GPU's own processor failed",
    154: "the GPU wants a reset",
}
"""Xids of hardware or driver; others, such as 13, 31 and 43, a program can cause."""


def judge_driver(seen: Examination, linux: DriverFacts) -> Check:
    """Judge whether the driver answers, and whether its parts fit together."""
    name = "gpus.driver"
    module = linux.module
    if seen.trouble == MISMATCH or (seen.driver and module and seen.driver != module):
        library = f"library {seen.driver}" if seen.driver else "the library is another"
        return fail(
            name,
            "The NVIDIA driver was upgraded while it was in use: kernel module "
            f"{module or 'unknown'}, {library}. NVML and new CUDA programs fail.",
            _REBOOT,
        )
    if seen.trouble == ABSENT:
        return fail(name, *_absent(linux))
    if seen.trouble == UNASKED:
        return skip(name, seen.problem)
    if seen.trouble == HANGS:
        return fail(name, f"{seen.problem} Attendees' programs hang with it.", _REBOOT)
    if seen.problem:
        return fail(
            name,
            seen.problem,
            "See what the driver's own tool says, and the kernel's log:\n"
            "$ nvidia-smi\n$ sudo dmesg | grep -i nvrm",
        )
    versions = f"Driver {seen.driver}, NVML {seen.nvml}, CUDA up to {seen.cuda}"
    if major(seen.driver) < _OLDEST_DRIVER:
        return fail(name, f"{versions}: too old, we need {_OLDEST_DRIVER}.", _INSTALL)
    if not module:
        return ok(name, f"{versions}.")
    return ok(name, f"{versions}; the kernel module is of the same version.")


def _absent(linux: DriverFacts) -> tuple[str, str]:
    gpus = len(linux.on_the_bus)
    if linux.module:
        return (
            f"The kernel module {linux.module} is loaded, but libnvidia-ml.so.1 cannot "
            "be loaded: this is a container without the driver's libraries, or an "
            "unfinished installation.",
            "In a container: run it with --gpus all. On a host:\n"
            f"$ sudo apt install libnvidia-compute-{major(linux.module)}",
        )
    if not gpus:
        return (
            "There is no NVIDIA driver, and no NVIDIA GPU on the PCI bus.",
            "Look at what the machine, or the cloud's instance type, has:\n"
            "$ lspci -d 10de:\n"
            "Or rehearse without a GPU: gpus.source: simulated in the workshop file.",
        )
    instead = " The free driver nouveau holds them." if linux.nouveau else ""
    return (
        f"{_count(gpus, 'NVIDIA GPU')} on the bus, but no driver.{instead}",
        _INSTALL,
    )


def judge_devices(seen: Examination, linux: DriverFacts) -> Check:
    """Judge whether every GPU on the bus answers."""
    name = "gpus.devices"
    if seen.problem:
        return skip(name, "The driver does not answer: see gpus.driver.")
    broken = [gpu for gpu in seen.gpus if not gpu.uuid]
    if broken:
        said = "; ".join(f"GPU {gpu.label}: {gpu.problem}" for gpu in broken)
        return fail(
            name,
            f"{_count(len(broken), 'GPU')} cannot be used: {said}.",
            "End what uses it, reset it, and if that is refused, reboot:\n"
            f"$ sudo nvidia-smi --gpu-reset -i {broken[0].label}\n$ sudo reboot",
        )
    physical = len(seen.conditions)
    if not physical:
        return fail(
            name,
            "The driver runs but sees no GPU.",
            "See why, and what is on the bus:\n$ nvidia-smi\n$ lspci -d 10de:",
        )
    listed = ", ".join(
        f"{gpu.label}: {gpu.name} {format_size(gpu.memory_bytes)}" for gpu in seen.gpus
    )
    if len(linux.on_the_bus) > physical:
        return warn(
            name,
            f"{_count(len(linux.on_the_bus), 'NVIDIA GPU')} on the bus, but the driver "
            f"serves {physical} ({listed}).",
            "See why one is left out (Xid 79: it has fallen off the bus):\n"
            "$ sudo dmesg | grep -i nvrm",
        )
    return ok(name, f"{listed}.")


def judge_compute_mode(conditions: tuple[Condition, ...]) -> Check:
    """Judge whether several processes may use each GPU."""
    name = "gpus.compute-mode"
    shut = [x for x in conditions if x.compute_mode not in (None, "default")]
    if shut:
        return fail(
            name,
            f"{_these(shut)} in compute mode {shut[0].compute_mode}: only one process "
            "at a time, or none, can use it, so sharing fails.",
            "\n".join(f"$ sudo nvidia-smi -i {x.label} -c DEFAULT" for x in shut),
        )
    return ok(name, "Every GPU lets several processes in (compute mode default).")


def judge_lock(linux: DriverFacts) -> Check:
    """Judge whether a program has locked a whole GPU."""
    name = "gpus.lock"
    if linux.locks:
        numbers = ", ".join(path.rsplit(" ", 1)[-1] for path in linux.locks)
        return fail(
            name,
            f"A program such as CNTK has locked GPU {numbers} for itself: others of "
            "its kind wait, or go to the processor.",
            "See which process it is, and end it or exclude the GPU "
            "(gpus.exclude in the workshop file):\n"
            + "\n".join(f"$ sudo fuser -v '{path}'" for path in linux.locks),
        )
    return ok(name, "No software holds a lock on a whole GPU.")


def judge_mig(conditions: tuple[Condition, ...]) -> Check:
    """Judge whether MIG is as it will be."""
    name = "gpus.mig"
    waiting = [x for x in conditions if None not in (x.mig, x.mig_pending)]
    waiting = [x for x in waiting if x.mig != x.mig_pending]
    if waiting:
        word = "on" if waiting[0].mig_pending else "off"
        return warn(
            name,
            f"{_these(waiting)} waiting for a reset to switch MIG {word}: shares "
            "would change with the next reboot.",
            "\n".join(f"$ sudo nvidia-smi --gpu-reset -i {x.label}" for x in waiting),
        )
    empty = [x for x in conditions if x.mig and not x.slices]
    if empty:
        one = empty[0].label
        return fail(
            name,
            f"{_these(empty)} in MIG mode without a slice: nobody can use it.",
            "Cut slices, or switch MIG off:\n"
            f"$ sudo nvidia-smi mig -i {one} -lgip\n"
            f"$ sudo nvidia-smi mig -i {one} -cgi PROFILE -C\n"
            f"$ sudo nvidia-smi -i {one} -mig 0",
        )
    slices = sum(x.slices for x in conditions)
    if slices:
        return ok(
            name,
            f"{_count(slices, 'MIG slice')}: the hardware caps their memory.",
        )
    return ok(name, "MIG is off, or not offered.")


def judge_persistence(conditions: tuple[Condition, ...]) -> Check:
    """Judge whether the driver stays loaded between two programs."""
    name = "gpus.persistence"
    off = [x for x in conditions if x.persistence is False]
    if off:
        return warn(
            name,
            f"{_these(off)} without persistence mode: whenever nobody uses it the "
            "driver unloads, and the next program waits seconds for it.",
            "$ sudo systemctl enable --now nvidia-persistenced\n"
            "Without that unit, until the next boot:\n$ sudo nvidia-smi -pm 1",
        )
    return ok(name, "The driver stays loaded between two programs.")


def judge_memory_errors(conditions: tuple[Condition, ...]) -> Check:
    """Judge the health of the GPUs' memory."""
    name = "gpus.memory-errors"
    broken = [x for x in conditions if x.remap_failed]
    if broken:
        return fail(
            name,
            f"{_named(broken)}: memory is broken and could not be repaired.",
            "Exclude it (gpus.exclude in the workshop file) and have it replaced:\n"
            f"$ nvidia-smi -i {broken[0].label} -q -d ROW_REMAPPER,ECC",
        )
    waiting = [x for x in conditions if x.remap_pending or x.pages_pending]
    errors = [x for x in conditions if x.ecc_uncorrected]
    if waiting or errors:
        numbers = ", ".join(f"GPU {x.label}: {x.ecc_uncorrected}" for x in errors)
        said = f"Uncorrected ECC errors since the driver started ({numbers}). "
        return warn(
            name,
            (said if errors else "")
            + (
                f"{_named(waiting)}: memory waits for a reset to be repaired."
                if waiting
                else ""
            ),
            "Before the workshop, with nobody on it:\n"
            + "\n".join(
                f"$ sudo nvidia-smi --gpu-reset -i {x.label}"
                for x in dict.fromkeys([*waiting, *errors])
            ),
        )
    return ok(name, "No uncorrected memory error, and none that waits for a reset.")


def judge_xid(log: KernelLog) -> Check:
    """Judge what the kernel's log says of the GPUs since boot."""
    name = "gpus.xid"
    if log.problem:
        if log.needs_root:
            return needs_root(
                name, f"the kernel's log is not readable ({log.problem})."
            )
        return skip(name, f"The kernel's log cannot be read: {log.problem}.")
    if not log.xids:
        return ok(name, "No Xid in the kernel's log since boot.")
    said = "; ".join(
        f"Xid {x.number} on {x.gpu}, {_count(x.times, 'time')}"
        + (f" ({_HARMFUL_XIDS[x.number]})" if x.number in _HARMFUL_XIDS else "")
        for x in log.xids
    )
    if any(x.number in _HARMFUL_XIDS for x in log.xids):
        return warn(
            name,
            f"Trouble with hardware or driver since boot: {said}.",
            "Reset or replace that GPU before the workshop, or exclude it; see\n"
            "$ sudo dmesg | grep 'NVRM: Xid'",
        )
    return warn(
        name,
        f"Since boot: {said}. Programs can cause such Xids; many of them point to the "
        "GPU.",
        "$ sudo dmesg | grep 'NVRM: Xid'",
    )


def judge_foreign(seen: Holdings, keep_free_bytes: int) -> Check:
    """Judge who is on the GPUs already, from outside the hub."""
    name = "gpus.foreign"
    outside = [x for x in seen.holdings if not x.of_the_hub]
    by_gpu: dict[str, list[Holding]] = {}
    for holding in outside:
        by_gpu.setdefault(holding.gpu, []).append(holding)
    in_the_way = {
        gpu: holdings
        for gpu, holdings in by_gpu.items()
        if sum(x.memory_bytes or 0 for x in holdings) > keep_free_bytes
    }
    if in_the_way:
        said = "; ".join(
            f"GPU {gpu}: "
            + ", ".join(
                f"process {x.pid} ({x.command or 'not visible from here'}) "
                + (format_size(x.memory_bytes) if x.memory_bytes else "unknown memory")
                for x in holdings
            )
            for gpu, holdings in in_the_way.items()
        )
        pids = " ".join(str(x.pid) for h in in_the_way.values() for x in h)
        return warn(
            name,
            "Processes outside the hub hold more than is kept free "
            f"({format_size(keep_free_bytes)}): {said}.",
            "End them, exclude the GPU (gpus.exclude), or keep more free "
            f"(gpus.keep_free_per_gpu):\n$ ps -o user,pid,etime,cmd -p {pids}",
        )
    if seen.unlisted:
        return skip(
            name,
            f"The driver does not list the processes of {', '.join(seen.unlisted)}.",
        )
    if outside:
        return ok(
            name,
            f"{_count(len(outside), 'process', 'processes')} outside the hub, within "
            f"the {format_size(keep_free_bytes)} that are kept free.",
        )
    return ok(name, "No process outside the hub holds GPU memory.")


def _these(gpus: list[Condition]) -> str:
    return f"{_named(gpus)} {'is' if len(gpus) == 1 else 'are'}"


def _named(gpus: list[Condition]) -> str:
    return f"GPU{'s' if len(gpus) > 1 else ''} {', '.join(x.label for x in gpus)}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def major(version: str) -> int:
    """Return the first number of a version; 0 where there is none."""
    first = version.partition(".")[0]
    return int(first) if first.isdigit() else 0
