"""One framework after the other: what it does under its cap, without, and with another.

Owns the order of the trials and that each begins only where it disturbs nobody. What
they prove is `verdict`'s to say.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from string import Template

from jupyterhub_gpuworkshop.core.leases import Lease
from jupyterhub_gpuworkshop.tools.doctor.check import Check, Status
from jupyterhub_gpuworkshop.workshop import Workshop

from .account import Account, plain_environment
from .environment import leased_environment, undone_environment
from .plan import Plan, obstacle_on
from .probing import Probe, ProbeFailed
from .reading import read_devices
from .verdict import Fill, Trial, report

_LOOKS = 10
_LOOK_AGAIN_SECONDS = 0.5
"""Some drivers count a process for a moment after its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What a probe's `kernel` answers: how a notebook's kernel starts."""

    python: str
    environment: Mapping[str, str]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What a probe's `start` answers."""

    installed: bool
    version: str = ""
    hooked: bool = False
    devices: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """What a probe's `compute` answers."""

    right: bool
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What a probe's `block` answers."""

    refused: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What a probe's `fill` answers."""

    held_bytes: int
    refused: str


class _Stop(Exception):
    """A framework goes no further, and this is why."""

    def __init__(self, status: Status, finding: str, remedy: str = "") -> None:
        super().__init__(finding)
        self.status, self.finding, self.remedy = status, finding, remedy


class _Disturbed(Exception):
    """A trial would disturb somebody now, and this is why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Where and how probes run.

    Attributes:
        workshop: the organiser's rules.
        plan: on which device, with which leases.
        account: whom they run as.
        python: the attendee's.
        folder: where they run.
        limit_seconds: for each answer of a probe.
        admin: what the admin adds to servers' environment.
        kernel: what the kernel's own settings add to that.
        hook_folder: see `environment.leased_environment`.
        force: see `plan.obstacle_on`.
    """

    workshop: Workshop
    plan: Plan
    account: Account
    python: str
    folder: str
    limit_seconds: float
    admin: Mapping[str, str] = field(default_factory=dict)
    kernel: Mapping[str, str] = field(default_factory=dict)
    hook_folder: str | None = ""
    force: bool = False

    def probe(self, lease: Lease, *, undone: bool = False) -> Probe:
        """Return a process with a lease's environment, or with its caps undone.

        Raises:
            ProbeFailed: it cannot be started.
        """
        plain = plain_environment(self.account, self.python, self.folder)
        variables = (
            undone_environment(plain, self.admin, lease)
            if undone
            else leased_environment(plain, self.admin, lease, self.hook_folder)
        )
        for name, text in self.kernel.items():
            variables[name] = Template(text).safe_substitute(variables)
        return Probe(
            self.python, variables, self.account, self.folder, self.limit_seconds
        )

    def find_kernel(self) -> "Bench":
        """Return a bench with the Python that notebooks start their kernels with."""
        with self.probe(self.plan.leases[0]) as probe:
            kernel = probe.ask(Kernel, "kernel")
        return replace(self, python=kernel.python, kernel=kernel.environment)

    def look(self) -> None:
        """See that a trial disturbs nobody.

        Raises:
            _Disturbed: it would, and why.
        """
        obstacle = ""
        for look in range(_LOOKS):
            if look:
                time.sleep(_LOOK_AGAIN_SECONDS)
            reading = read_devices(self.workshop)
            obstacle = obstacle_on(self.plan, reading, force=self.force)
            if not obstacle:
                return
        raise _Disturbed(obstacle)

    def counted_bytes(self, pid: int) -> int | None:
        """Return what the device counts for a process; None where it cannot say."""
        sample = read_devices(self.workshop).of(self.plan.device.uuid)
        processes = (sample and sample.processes) or ()
        return next((x.memory_bytes for x in processes if x.pid == pid), None)


def prove(bench: Bench, framework: str) -> Check:
    """Return what a framework proves.

    Args:
        bench: where.
        framework: as `notebook/probe.py` calls it.
    """
    try:
        trial = _trial(bench, framework)
    except _Stop as stop:
        return Check(f"caps.{framework}", stop.status, stop.finding, stop.remedy)
    except _Disturbed as disturbed:
        finding = f"{framework} was not tried: {disturbed}"
        return Check(f"caps.{framework}", Status.SKIP, finding)
    except ProbeFailed as error:
        return Check(
            f"caps.{framework}",
            Status.FAIL,
            f"{framework} does not work for an attendee on "
            f"{bench.plan.limits.device}: {error}",
            f"Run it in {bench.python} as {bench.account.name}, and mend what is "
            "broken there.",
        )
    return report(bench.plan.limits, trial)


def _trial(bench: Bench, framework: str) -> Trial:
    limits = bench.plan.limits
    bench.look()
    with bench.probe(bench.plan.leases[0]) as probe:
        started = _start(bench, probe, framework)
        leased = _fill_past_the_cap(bench, probe)
    trial = Trial(
        framework=framework,
        version=started.version,
        hooked=started.hooked,
        leased=leased,
    )
    if leased.refused and not limits.whole:
        trial = _undone(bench, trial)
    if bench.plan.why_alone:
        return replace(trial, pair_why=f"{bench.plan.why_alone.rstrip('.')}.")
    return _pair(bench, trial)


def _start(bench: Bench, probe: Probe, framework: str) -> Started:
    """See that the framework is there, sees its GPU, and computes right."""
    started = probe.ask(Started, "start", framework=framework)
    if not started.installed:
        install = f"$ {bench.python} -m pip install jupyterhub-gpuworkshop"
        raise _Stop(
            Status.SKIP,
            f"{framework} is not installed in {bench.python}.",
            install if framework == "simcuda" else "",
        )
    name = f"{framework} {started.version}".rstrip()
    ours = len(bench.plan.leases[0].devices)
    if not started.devices:
        why = f" ({started.why})" if started.why else ""
        raise _Stop(
            Status.WARN,
            f"{name} sees no GPU{why}: attendees compute without one, and no cap can "
            "be proven.",
            f"Install the build of {framework} for this driver's CUDA in "
            f"{bench.python}.",
        )
    if started.devices > ours:
        raise _Stop(
            Status.FAIL,
            f"does not hold: {name} sees {started.devices} GPUs, and the lease names "
            f"{ours}. Something in the attendee's Python sets CUDA_VISIBLE_DEVICES.",
            f"Find what sets it in {bench.python} or the kernel's settings.",
        )
    computed = probe.ask(Computed, "compute")
    if not computed.right:
        raise _Stop(
            Status.FAIL,
            f"{name} computes wrong on {bench.plan.limits.device}: a small product "
            f"came to {computed.result}.",
            "Take this GPU out (gpus.exclude) or install another build, and look for "
            "trouble:\n$ nvidia-smi -q -d ECC,PAGE_RETIREMENT",
        )
    return started


def _fill_past_the_cap(bench: Bench, probe: Probe) -> Fill:
    """Ask for too much at once, then for a little again and again."""
    limits = bench.plan.limits
    if not probe.ask(Block, "block", size_bytes=limits.past_bytes).refused:
        return Fill(held_bytes=limits.past_bytes, refused="")
    return _fill(bench, probe)


def _fill(bench: Bench, probe: Probe) -> Fill:
    limits = bench.plan.limits
    filled = probe.ask(
        Filled,
        "fill",
        block_bytes=limits.block_bytes,
        up_to_bytes=limits.past_bytes,
    )
    return Fill(
        held_bytes=filled.held_bytes,
        refused=filled.refused,
        counted_bytes=bench.counted_bytes(probe.pid),
    )


def _undone(bench: Bench, trial: Trial) -> Trial:
    """Try what an attendee gets who undoes the settings."""
    try:
        bench.look()
        with bench.probe(bench.plan.leases[0], undone=True) as probe:
            probe.ask(Started, "start", framework=trial.framework)
            return replace(trial, undone=_fill(bench, probe))
    except (_Disturbed, ProbeFailed) as error:
        return replace(trial, undone_why=str(error))


def _pair(bench: Bench, trial: Trial) -> Trial:
    """Have two attendees take their shares at once, each up to the cap."""
    limits = bench.plan.limits
    try:
        bench.look()
    except _Disturbed as disturbed:
        return replace(trial, pair_why=str(disturbed))
    try:
        with ExitStack() as stack:
            probes = [
                stack.enter_context(bench.probe(lease)) for lease in bench.plan.leases
            ]
            for probe in probes:
                probe.tell("start", framework=trial.framework)
            for probe in probes:
                probe.answer(Started)
            for probe in probes:
                probe.tell("compute")
            right = [probe.answer(Computed).right for probe in probes]
            for probe in probes:
                probe.tell(
                    "fill",
                    block_bytes=limits.block_bytes,
                    up_to_bytes=limits.cap_bytes,
                )
            filled = [probe.answer(Filled) for probe in probes]
    except ProbeFailed as error:
        return replace(trial, pair_why=str(error), pair_failed=True)
    if not all(right):
        why = "a small product came out wrong beside another attendee."
        return replace(trial, pair_why=why, pair_failed=True)
    pair = tuple(Fill(held_bytes=x.held_bytes, refused=x.refused) for x in filled)
    return replace(trial, pair=pair)
