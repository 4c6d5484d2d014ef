"""Judges the machine beside its GPUs."""

from collections.abc import Sequence

from jupyterhub_gpuworkshop.core.units import GIB, MIB, format_size

from .check import Check, fail, ok, skip, warn
from .reading.driver import DriverFacts, Node
from .reading.host import (
    Cgroups,
    Disk,
    HostMemory,
    ProcMount,
    Selinux,
    Systemd,
)

_SERVER_BYTES = 128 * MIB
"""A server alone: 110 MB each were seen (facts: jupyterhub 38)."""
_WORKING_BYTES = 3 * GIB
"""A server with one notebook that has loaded a GPU framework and some data."""
_LEAST_HOME_BYTES = 100 * MIB
_GOOD_HOME_BYTES = 2 * GIB
_HOME_INODES = 2000
_UVM_MEND = (
    "$ sudo nvidia-modprobe -u -c=0\n"
    "So that it is there after every boot:\n"
    '$ echo \'ACTION=="add", DEVPATH=="/bus/pci/drivers/nvidia", '
    'RUN+="/usr/bin/nvidia-modprobe -u -c=0"\' '
    "| sudo tee /etc/udev/rules.d/70-gpuworkshop-uvm.rules\n"
    "$ sudo systemctl enable --now nvidia-persistenced"
)


def judge_nodes(linux: DriverFacts, minors: Sequence[int]) -> Check:
    """Judge the device nodes of the GPUs.

    Args:
        linux: the nodes that are there.
        minors: of the GPUs that the driver serves.
    """
    name = "host.devices"
    there = {node.path for node in linux.nodes}
    needed = [
        "/dev/nvidiactl",
        *(f"/dev/nvidia{minor}" for minor in sorted(set(minors))),
    ]
    missing = [path for path in needed if path not in there]
    if missing:
        return fail(
            name,
            f"{', '.join(missing)} missing: nobody can open the GPU.",
            "$ sudo nvidia-modprobe -c=0\n$ nvidia-smi",
        )
    shut = [
        node for node in linux.nodes if node.path in needed and not node.open_to_all
    ]
    if shut:
        return _shut(shut)
    return ok(name, f"{', '.join(needed)} are there and open to everybody.")


def _shut(nodes: Sequence[Node]) -> Check:
    said = ", ".join(f"{node.path} (mode {node.mode:04o})" for node in nodes)
    return warn(
        "host.devices",
        f"Not open to everybody: {said}. Attendees who are not in its group cannot "
        "use the GPU.",
        "Unless every attendee is in that group, set NVreg_DeviceFileMode=0666 and "
        "load the driver anew (see\n"
        "$ grep -r NVreg_DeviceFile /etc/modprobe.d\n"
        "), or until the next boot:\n"
        f"$ sudo chmod 0666 {' '.join(node.path for node in nodes)}",
    )


def judge_uvm(linux: DriverFacts) -> Check:
    """Judge whether CUDA finds its second node."""
    name = "host.uvm"
    node = next((x for x in linux.nodes if x.path == "/dev/nvidia-uvm"), None)
    if node is None:
        return fail(
            name,
            "/dev/nvidia-uvm is missing: it is made at the first use of CUDA by root, "
            "and until then attendees' programs find no GPU, and containers and units "
            "that are given devices start without it.",
            _UVM_MEND,
        )
    if not node.open_to_all:
        return warn(
            name,
            f"/dev/nvidia-uvm has mode {node.mode:04o}: attendees cannot open it, "
            "unless its group is theirs.",
            "$ sudo chmod 0666 /dev/nvidia-uvm",
        )
    return ok(name, "/dev/nvidia-uvm is there and open to everybody.")


def judge_cgroups(groups: Cgroups, driver_major: int, *, simulated: bool) -> Check:
    """Judge what hard caps would stand on. Without them caps are soft, and that is ok.

    The driver's own cgroup limits came with r615 (facts: gpu).
    """
    name = "host.cgroups"
    if simulated:
        return ok(name, f"cgroup version {groups.version}; simulated GPUs need none.")
    if groups.version != 2:
        version = f"version {groups.version}" if groups.version else "no cgroups"
        return warn(
            name,
            f"cgroup {version}: servers are told apart, but the driver cannot limit "
            "GPU memory per server, and systemd's own limits are weaker.",
            "It is the default from Ubuntu 22.04 and Debian 11 on. Else boot with "
            "systemd.unified_cgroup_hierarchy=1 on the kernel's command line, in\n"
            "$ sudoedit /etc/default/grub && sudo update-grub && sudo reboot",
        )
    if "dmem" not in groups.controllers:
        limits = "no dmem controller (Linux 6.14 and later has it)"
    elif "dmem" not in groups.passed_on:
        limits = "the dmem controller is not passed on below the root"
    else:
        limits = "the dmem controller is on"
    if driver_major >= 615:
        return ok(name, f"cgroup version 2, {limits}; the driver offers hard caps.")
    return ok(
        name,
        f"cgroup version 2, {limits}. Hard caps need driver 615 or later besides: caps "
        "are soft here.",
    )


def judge_hidepid(mount: ProcMount, service_is_root: bool | None) -> Check:
    """Judge whether the service sees the processes that it must attribute.

    Args:
        mount: how /proc is mounted.
        service_is_root: None where that is not known.
    """
    name = "host.hidepid"
    if not mount.hidepid and not mount.only_pids:
        return ok(name, "Every process is visible in /proc.")
    how = f"/proc is mounted with hidepid={mount.hidepid}"
    if mount.only_pids:
        how = "/proc is mounted with subset=pid"
    if service_is_root:
        return ok(name, f"{how}; the GPU service is root and sees every process.")
    group = mount.gid
    say = warn if service_is_root is None or group is not None else fail
    member = (
        f"Let the service run as root, or in group {group}, which sees them:\n"
        f"$ getent group {group}"
        if group is not None
        else "Let the service run as root, or show processes again:\n"
        "$ sudo mount -o remount,hidepid=0 /proc\n"
        "and take hidepid out of /etc/fstab."
    )
    return say(
        name,
        f"{how}: a GPU service that is not root sees no attendee's process, and then "
        "attributes and reclaims nothing.",
        member,
    )


def judge_systemd(seen: Systemd, needed: bool) -> Check:
    """Judge systemd, which is needed where it starts servers."""
    name = "host.systemd"
    if not seen.is_pid_1:
        if needed:
            return fail(
                name,
                "Servers are to be started by systemd, but systemd is not process 1 "
                "here: this is a container, or another init.",
                "Run the hub on the host, or take another spawner "
                "(gpu-docker, gpu-local).",
            )
        return skip(name, "systemd does not run this machine; nothing here needs it.")
    said = f"systemd {seen.version}, {seen.state or 'state unknown'}"
    ours = [unit for unit in seen.failed if _concerns_us(unit)]
    if ours:
        return fail(
            name,
            f"{said}; failed: {', '.join(ours)}.",
            "\n".join(f"$ sudo systemctl status {unit}" for unit in ours)
            + f"\n$ sudo systemctl restart {' '.join(ours)}",
        )
    return ok(name, f"{said}.")


def _concerns_us(unit: str) -> bool:
    words = ("jupyterhub", "gpuworkshop", "traefik", "nvidia", "docker")
    return any(word in unit for word in words)


def judge_selinux(seen: Selinux, containers: bool) -> Check:
    """Judge whether SELinux lets containers use the GPUs."""
    name = "host.selinux"
    if seen.enforcing is None:
        return skip(name, "There is no SELinux here.")
    if not seen.enforcing:
        return ok(name, "SELinux is permissive.")
    if not containers:
        return ok(name, "SELinux enforces; servers are not containers.")
    if seen.container_use_devices:
        return ok(name, "SELinux enforces, and lets containers use devices.")
    return fail(
        name,
        "SELinux enforces and does not let containers use devices: they will not open "
        "/dev/nvidia*.",
        "$ sudo setsebool -P container_use_devices on\n"
        "Homes that are mounted into containers need a label, too: add ':z' to the "
        "mode of each volume.",
    )


def judge_disk(disks: Sequence[Disk], attendees: int | None) -> Check:
    """Judge the room for the homes; the fullest of the places counts."""
    name = "host.disk"
    broken = [disk for disk in disks if disk.problem]
    if broken:
        return fail(
            name,
            f"{broken[0].path} cannot be looked at: {broken[0].problem}.",
            f"$ df -h {broken[0].path}",
        )
    if not disks:
        return skip(name, "It is not known where the homes are.")
    disk = min(disks, key=lambda each: each.free_bytes)
    each_bytes = disk.free_bytes // (attendees or 1)
    said = f"{format_size(disk.free_bytes)} free in {disk.path}"
    if attendees:
        said += f", {format_size(each_bytes)} for each of {attendees} attendees"
    find = f"$ sudo du -xhd1 {disk.path} | sort -h | tail\n$ df -h {disk.path}"
    inodes = disk.free_inodes
    if inodes is not None and inodes < _HOME_INODES * (attendees or 1):
        return warn(
            name,
            f"{said}, but only {inodes} more files can be made.",
            f"Remove what is small and many:\n$ df -i {disk.path}",
        )
    if each_bytes < _LEAST_HOME_BYTES:
        return fail(name, f"{said}: not enough to work with.", find)
    if attendees and each_bytes < _GOOD_HOME_BYTES:
        return warn(
            name,
            f"{said}: a data set or a pip install of a GPU framework fills that.",
            f"Put data and packages where all share them, or make room:\n{find}",
        )
    if not attendees:
        said += ". To compare, write attendees: N in the workshop file"
    return ok(name, f"{said}.")


def judge_memory(memory: HostMemory, attendees: int | None) -> Check:
    """Judge whether the machine's memory is enough for a room."""
    name = "host.memory"
    said = (
        f"{format_size(memory.available_bytes)} of {format_size(memory.total_bytes)} "
        "available"
    )
    if not attendees:
        return ok(name, f"{said}. To compare, write attendees: N in the workshop file.")
    each = memory.available_bytes // attendees
    said += f", {format_size(each)} for each of {attendees} attendees"
    if each < _SERVER_BYTES:
        return fail(
            name,
            f"{said}: not even the servers fit, of about {format_size(_SERVER_BYTES)} "
            "each without a notebook.",
            "Take a larger machine or fewer attendees, and see what uses the memory:\n"
            "$ ps -eo pid,user,rss,cmd --sort=-rss | head",
        )
    if each < _WORKING_BYTES:
        return warn(
            name,
            f"{said}: a notebook with a GPU framework takes 1 to 3 GiB of it.",
            "Expect that not everyone can use a framework at once: take a larger "
            "machine, or limit each server (c.Spawner.mem_limit), so that one which "
            "takes too much ends itself and not the others.",
        )
    return ok(name, f"{said}.")


def judge_hook(folder: str, unreadable: Sequence[str]) -> Check:
    """Judge whether attendees can read the import hook's folder."""
    name = "host.hook"
    if unreadable:
        return fail(
            name,
            f"Attendees cannot read the import hook in {folder}, so PyTorch and "
            f"TensorFlow are not capped: {', '.join(unreadable)} closed to others.",
            "Install the package where all may read it, or copy the folder and name "
            "the copy in c.GpuSpawnerMixin.memory_hook_path:\n"
            f"$ sudo cp -r {folder} /opt/gpuworkshop-startup\n"
            "$ sudo chmod -R a+rX /opt/gpuworkshop-startup",
        )
    return ok(name, f"Attendees can read {folder}.")
