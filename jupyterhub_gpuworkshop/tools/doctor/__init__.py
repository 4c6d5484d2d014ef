"""`gpuworkshop doctor`: is this machine ready for the workshop?

Owns which checks there are, and in which order. It changes nothing.
"""

import time
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console

from jupyterhub_gpuworkshop import __version__
from jupyterhub_gpuworkshop.machine.examination import ABSENT, Examination

from . import address, containers, gpus, host, hub, material, reclaiming, service
from .check import Check, fail, needs_root, skip
from .consult import Probe, consult
from .patient import DoctorOptions as DoctorOptions  # for the command line
from .patient import Patient
from .reading.containers import image_is_there
from .reading.driver import read_holdings, read_kernel_log
from .reading.host import (
    read_cgroups,
    read_memory,
    read_proc_mount,
    read_selinux,
    read_systemd,
    unreadable_parts,
)
from .reading.parking import read_parking
from .reading.service import days_left
from .report import as_json, exit_status, show
from .workshop import judge_doors, judge_file, judge_places

_PIPE_COLUMNS = 100
_NO_DRIVER = "The driver does not answer: see gpus.driver."


def run(options: DoctorOptions, console: Console | None = None) -> int:
    """Examine the machine and print what was found.

    Returns:
        The exit status: 1 where anything fails, else 0.
    """
    checks = examine_all(options)
    console = console or make_console()
    if options.json:
        console.file.write(as_json(checks) + "\n")
    else:
        show(checks, console)
    return exit_status(checks)


def make_console() -> Console:
    """Return a console that fits a terminal, and writes long lines into a pipe."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPE_COLUMNS)
    return console


def examine_all(options: DoctorOptions) -> list[Check]:
    """Run every check; those of one machine take as long as the slowest."""
    patient = Patient(options)
    checks = consult(
        [
            *_of_the_workshop(patient),
            *_of_the_gpus(patient),
            *_of_the_host(patient),
            *_of_containers(patient),
            *_of_the_hub(patient),
            *_of_the_address(patient),
            *_of_the_service(patient),
        ]
    )
    if not options.prove_caps:
        return checks
    # When all else has been looked at: nothing else may run beside it.
    try:
        checks += _of_the_caps(patient, options)
    except Exception as error:
        checks.append(
            fail(
                "caps.python",
                f"The proof itself broke: {type(error).__name__}: {error}. Which caps "
                "hold is not known.",
                "Mend what fails above and run it again, or else please report it.",
            )
        )
    return checks


def _of_the_caps(patient: Patient, options: DoctorOptions) -> Iterator[Check]:
    """Prove caps; what has been proven stays where the rest breaks."""
    # Not at the top: it builds on `check` of this very package.
    from jupyterhub_gpuworkshop.tools.prove_caps import ProofOptions, prove_caps

    if patient.hub().uses_docker and options.python is None:
        yield skip(
            "caps.python",
            "Servers are containers: what holds in their image was not proven.",
            "Name a Python of this machine that has the same packages:\n"
            "$ gpuworkshop doctor --prove-caps --python PATH",
        )
        return
    folder = patient.hook_folder
    proof = ProofOptions(
        python=options.python,
        as_user=options.as_user,
        force=options.force,
        hook_folder=None if folder is None else str(folder),
    )
    yield from prove_caps(patient.workshop, proof)


def _probe(name: str, look: Callable[[], Check]) -> Probe:
    return Probe((name,), lambda: [look()])


def _of_the_workshop(patient: Patient) -> Sequence[Probe]:
    return (
        _probe("workshop.file", lambda: judge_file(patient.given())),
        _probe("workshop.places", lambda: judge_places(patient.workshop)),
        _probe("workshop.doors", lambda: judge_doors(patient.workshop, time.time())),
        _probe("workshop.material", lambda: material.judge_installed(patient.workshop)),
    )


def _of_the_gpus(patient: Patient) -> Sequence[Probe]:
    def on_driver(name: str, look: Callable[[Examination], Check]) -> Probe:
        """Make a probe of something that only a driver that answers tells."""

        def guarded() -> Check:
            if patient.simulated:
                return skip(name, gpus.SIMULATED)
            seen = patient.driver()
            return skip(name, _NO_DRIVER) if seen.problem else look(seen)

        return _probe(name, guarded)

    def driver() -> Check:
        if patient.simulated:
            return skip("gpus.driver", gpus.SIMULATED)
        seen = patient.driver()
        if seen.trouble == ABSENT and patient.given().needs_root:
            why = "there is no driver; whether the workshop wants one is not known."
            return needs_root("gpus.driver", why)
        return gpus.judge_driver(seen, patient.linux())

    def lock() -> Check:
        if patient.simulated:
            return skip("gpus.lock", gpus.SIMULATED)
        return gpus.judge_lock(patient.linux())

    def xid() -> Check:
        if patient.simulated:
            return skip("gpus.xid", gpus.SIMULATED)
        if not patient.linux().module and patient.driver().problem:
            return skip("gpus.xid", "There is no driver that could log one.")
        return gpus.judge_xid(read_kernel_log())

    return (
        _probe("gpus.driver", driver),
        on_driver("gpus.devices", lambda x: gpus.judge_devices(x, patient.linux())),
        on_driver("gpus.compute-mode", lambda x: gpus.judge_compute_mode(x.conditions)),
        _probe("gpus.lock", lock),
        on_driver("gpus.mig", lambda x: gpus.judge_mig(x.conditions)),
        on_driver(
            "gpus.utilisation",
            lambda x: reclaiming.judge_utilisation(
                x, without_utilisation=patient.workshop.idle.without_utilisation
            ),
        ),
        _probe(
            "gpus.parking",
            lambda: reclaiming.judge_parking(read_parking(patient.workshop)),
        ),
        on_driver("gpus.persistence", lambda x: gpus.judge_persistence(x.conditions)),
        on_driver(
            "gpus.memory-errors", lambda x: gpus.judge_memory_errors(x.conditions)
        ),
        _probe("gpus.xid", xid),
        on_driver(
            "gpus.foreign",
            lambda x: gpus.judge_foreign(
                read_holdings(x, in_containers=bool(patient.in_containers)),
                patient.workshop.gpus.keep_free_per_gpu,
            ),
        ),
    )


def _of_the_host(patient: Patient) -> Sequence[Probe]:
    def nodes() -> Check:
        if patient.simulated:
            return skip("host.devices", gpus.SIMULATED)
        if not patient.driver_version:
            return skip("host.devices", _NO_DRIVER)
        minors = [x.minor for x in patient.driver().gpus if x.minor is not None]
        return host.judge_nodes(patient.linux(), minors)

    def uvm() -> Check:
        if patient.simulated:
            return skip("host.uvm", gpus.SIMULATED)
        if not patient.driver_version:
            return skip("host.uvm", _NO_DRIVER)
        return host.judge_uvm(patient.linux())

    def hook() -> Check:
        folder = patient.hook_folder
        if folder is None:
            why = "Servers are given no import hook, or find it in their image."
            return skip("host.hook", why)
        if patient.hub().uses_docker:
            return skip("host.hook", "Servers are containers: root mounts it for them.")
        return host.judge_hook(str(folder), unreadable_parts(folder))

    return (
        _probe("host.devices", nodes),
        _probe("host.uvm", uvm),
        _probe(
            "host.cgroups",
            lambda: host.judge_cgroups(
                read_cgroups(),
                gpus.major(patient.driver_version),
                simulated=patient.simulated,
            ),
        ),
        _probe(
            "host.hidepid",
            lambda: host.judge_hidepid(read_proc_mount(), patient.service_is_root),
        ),
        _probe(
            "host.systemd",
            lambda: host.judge_systemd(read_systemd(), patient.hub().uses_systemd),
        ),
        _probe(
            "host.selinux",
            lambda: host.judge_selinux(read_selinux(), patient.hub().uses_docker),
        ),
        _probe(
            "host.disk",
            lambda: host.judge_disk(patient.disks(), patient.workshop.attendees),
        ),
        _probe(
            "host.memory",
            lambda: host.judge_memory(read_memory(), patient.workshop.attendees),
        ),
        _probe("host.material", lambda: _material(patient)),
        _probe(
            "host.archives",
            lambda: material.judge_archives(patient.workshop.material.archives),
        ),
        _probe("host.hook", hook),
    )


def _material(patient: Patient) -> Check:
    kept = patient.workshop.material
    return material.judge_place(
        material.read_place(patient.workshop),
        named=bool(kept.notebooks or kept.data),
        simulated=patient.simulated,
    )


def _of_containers(patient: Patient) -> Sequence[Probe]:
    def image() -> Check:
        engine, hub_facts = patient.engine(), patient.hub()
        name = str(hub_facts.traits.get("image") or "")
        needed = patient.in_containers
        there = image_is_there(engine, name) if needed and engine.answers else None
        return containers.judge_image(engine, name, there, needed)

    return (
        _probe(
            "containers.engine",
            lambda: containers.judge_engine(patient.engine(), patient.in_containers),
        ),
        _probe(
            "containers.nvidia",
            lambda: containers.judge_nvidia(
                patient.engine(), patient.driver_version, patient.in_containers
            ),
        ),
        _probe(
            "containers.daemon-reload",
            lambda: containers.judge_daemon_reload(
                patient.engine(),
                patient.driver_version,
                patient.has_char_links,
                patient.in_containers,
            ),
        ),
        _probe("containers.image", image),
    )


def _of_the_hub(patient: Patient) -> Sequence[Probe]:
    return (
        _probe("hub.config", lambda: hub.judge_config(patient.hub())),
        _probe(
            "hub.version",
            lambda: hub.judge_version(
                patient.hub(), patient.jupyterhub_version, patient.hub_version()
            ),
        ),
        _probe("hub.spawner", lambda: hub.judge_spawner(patient.hub())),
        _probe("hub.remove", lambda: hub.judge_remove(patient.hub())),
        _probe("hub.isolate-devices", lambda: hub.judge_isolate_devices(patient.hub())),
        _probe("hub.timeouts", lambda: hub.judge_timeouts(patient.hub())),
        _probe(
            "hub.spawn-limits",
            lambda: hub.judge_spawn_limits(patient.hub(), patient.workshop.attendees),
        ),
        _probe(
            "hub.memory-limit",
            lambda: hub.judge_memory_limit(patient.hub(), simulated=patient.simulated),
        ),
        _probe("hub.culler", lambda: hub.judge_culler(patient.hub(), patient.workshop)),
    )


def _of_the_address(patient: Patient) -> Sequence[Probe]:
    def reachable() -> Check:
        answer, url, is_public = patient.address()
        return address.judge_reachable(url, answer, is_public)

    def https() -> Check:
        answer, url, is_public = patient.address()
        covered = answer is not None and answer.final_url.startswith("https:")
        days = days_left(url) if covered and url.startswith("https:") else None
        return address.judge_https(url, answer, is_public, days)

    return (
        _probe("address.reachable", reachable),
        _probe("address.https", https),
    )


def _of_the_service(patient: Patient) -> Sequence[Probe]:
    return (
        _probe(
            "service.reachable",
            lambda: service.judge_reachable(
                patient.health(),
                patient.workshop,
                __version__,
                bool(patient.hub_version()),
            ),
        ),
        _probe("service.sampling", lambda: service.judge_sampling(patient.health())),
        _probe("service.link", lambda: service.judge_link(patient.health())),
        _probe(
            "service.scopes",
            lambda: service.judge_scopes(
                patient.hub(),
                patient.workshop,
                patient.who_is_the_service(),
                patient.has_secret,
            ),
        ),
        _probe(
            "service.servers",
            lambda: service.judge_servers(
                patient.health(), patient.hub(), patient.problems()
            ),
        ),
    )
