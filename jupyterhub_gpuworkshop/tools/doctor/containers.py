"""Judges the container engine, and how its containers get their GPUs."""

import shlex

from .check import Check, fail, needs_root, ok, skip, warn
from .reading.containers import Engine

_NO_ENGINE = "There is no container engine to ask."
_GENERATE_CDI = "$ sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
_CONFIGURE = (
    "$ sudo apt install nvidia-container-toolkit\n"
    "$ sudo nvidia-ctk runtime configure --runtime=docker\n"
    "$ sudo systemctl restart docker"
)


def judge_engine(engine: Engine, needed: bool | None) -> Check:
    """Judge whether the engine answers, which it must where servers are containers.

    Args:
        engine: the engine.
        needed: whether servers are containers; None where that is not known.
    """
    name = "containers.engine"
    if engine.answers:
        return ok(
            name,
            f"{engine.name} {engine.version} answers, cgroup driver "
            f"{engine.cgroup_driver or 'unknown'}.",
        )
    if engine.needs_root:
        return needs_root(name, f"{engine.address} is closed to this user.")
    if not needed:
        said = (
            f"An engine is installed but does not answer ({engine.problem})."
            if engine.problem
            else f"No container engine runs here; {_whether(needed)}."
        )
        return skip(name, said)
    if engine.problem:
        return fail(
            name,
            f"The engine at {engine.address} does not answer: {engine.problem}.",
            "$ sudo systemctl restart docker\n$ sudo journalctl -u docker -n 50",
        )
    return fail(
        name,
        "Servers are to be containers, but there is no Docker or Podman here.",
        "$ sudo apt install docker.io\n$ sudo systemctl enable --now docker",
    )


def judge_nvidia(engine: Engine, driver: str, needed: bool | None) -> Check:
    """Judge how containers would get GPUs.

    Args:
        engine: the engine.
        driver: the version of the driver that runs; empty without one.
        needed: whether servers are containers; None where that is not known.
    """
    name = "containers.nvidia"
    if not engine.answers:
        return skip(name, _NO_ENGINE)
    if not driver:
        return skip(name, "There is no driver whose GPUs containers could get.")
    stale = [x for x in engine.cdi if x.driver and x.driver != driver]
    by_runtime = "nvidia" in engine.runtimes or engine.nvidia_hook
    by_cdi = bool(engine.cdi) and (bool(engine.cdi_folders) or engine.name == "Podman")
    if stale and by_cdi:
        say = warn if by_runtime else fail
        return say(
            name,
            f"{stale[0].path} was made for driver {stale[0].driver}, but {driver} "
            "runs: containers that get their GPU by CDI do not start.",
            f"$ sudo nvidia-ctk cdi generate --output={shlex.quote(stale[0].path)}",
        )
    ways = [
        *(["NVIDIA's runtime"] if by_runtime else []),
        *(["CDI"] if by_cdi else []),
    ]
    if ways:
        return ok(name, f"Containers get GPUs by {' and by '.join(ways)}.")
    remedy = _GENERATE_CDI if engine.name == "Podman" else _CONFIGURE
    finding = f"{engine.name} has neither NVIDIA's runtime nor a CDI specification"
    if needed:
        return fail(name, f"{finding}: containers get no GPU.", remedy)
    return skip(name, f"{finding}; {_whether(needed)}.")


def judge_daemon_reload(
    engine: Engine, driver: str, has_links: bool, needed: bool | None
) -> Check:
    """Judge whether systemctl daemon-reload takes the GPUs away from containers.

    NVIDIA's nvidia-docker#1730 and nvidia-container-toolkit#1227: with systemd as the
    cgroup driver it forgets devices that have no link in /dev/char, which NVIDIA's
    driver does not make.
    """
    name = "containers.daemon-reload"
    if not engine.answers or not driver:
        return skip(name, _NO_ENGINE if driver else "There is no driver.")
    if engine.cgroup_driver != "systemd":
        return ok(name, f"The cgroup driver is {engine.cgroup_driver}, not systemd.")
    if has_links:
        return ok(name, "/dev/char has links to the GPUs' nodes: systemd knows them.")
    say = warn if needed else skip
    return say(
        name,
        "After systemctl daemon-reload (an upgrade of any package runs it) running "
        "containers lose their GPUs: the cgroup driver is systemd, and /dev/char has "
        "no links to the GPUs' nodes.",
        "$ sudo nvidia-ctk system create-dev-char-symlinks --create-all\n"
        "after each boot, or give /etc/docker/daemon.json the line\n"
        '    "exec-opts": ["native.cgroupdriver=cgroupfs"]\n'
        "$ sudo systemctl restart docker",
    )


def judge_image(
    engine: Engine, image: str, there: bool | None, needed: bool | None
) -> Check:
    """Judge whether the attendees' image would be pulled while they wait.

    Args:
        engine: the engine.
        image: its name; empty where the configuration names none.
        there: None where it is not known.
        needed: whether servers are containers; None where that is not known.
    """
    name = "containers.image"
    if not needed:
        words = _whether(needed)
        return skip(name, f"{words[0].upper()}{words[1:]}.")
    if not image:
        return skip(name, "The hub's configuration names no image.")
    if not engine.answers or there is None:
        return skip(
            name, f"Nobody says whether {image} is here: see containers.engine."
        )
    if not there:
        return fail(
            name,
            f"The attendees' image {image} is not here: the first servers would wait "
            "for it, and time out.",
            f"$ docker pull {shlex.quote(image)}",
        )
    return ok(name, f"{image} is here.")


def _whether(needed: bool | None) -> str:
    if needed is None:
        return "it is not known whether servers are containers: see hub.config"
    return "servers are not containers"
