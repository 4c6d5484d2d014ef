"""What the trials of a framework prove, and how that is told.

Owns the verdicts. Pure: figures in, a `Check` out.
"""

from dataclasses import dataclass
from enum import Enum

from jupyterhub_gpuworkshop.core.units import format_size
from jupyterhub_gpuworkshop.tools.doctor.check import Check, Status

_HOOKED = frozenset({"torch", "tensorflow"})
"""Capped by the import hook, not by a variable of their own."""

_UNCAPPED = frozenset({"cudf"})
"""No setting is known that caps them (docs/reference/environment-and-caps.md)."""

_LEAST = 0.75
"""A framework that gets less of its cap than this does not get its share."""

_WHOLE_INSTEAD = (
    "Give who works with it a whole GPU or a MIG slice (shares.users or "
    "shares.groups: 1 gpu), and watch the page for memory above a share."
)


class Verdict(str, Enum):
    """Whether a cap holds."""

    HOLDS = "holds"
    """Nothing that the attendee can unset lifts it."""
    SOFT = "soft: holds until unset"
    DOES_NOT_HOLD = "does not hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What was to be proven, and how far a trial goes.

    Attributes:
        device: for people: ``GPU 0``, ``MIG slice 0:1``.
        share: as the workshop file writes it.
        share_bytes: what the lease may use.
        cap_bytes: what a framework may allocate of it.
        block_bytes: the step.
        past_bytes: where a trial ends that nothing refuses.
        whole: the device ends before `past_bytes` does: the share is all of it.
    """

    device: str
    share: str
    share_bytes: int
    cap_bytes: int
    block_bytes: int
    past_bytes: int
    whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """How far one process came.

    Attributes:
        held_bytes: what its allocations came to.
        refused: how the next one was refused; empty where none was.
        counted_bytes: what the device counted for the process, context included;
            None where it cannot be read.
    """

    held_bytes: int
    refused: str
    counted_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a framework did.

    Attributes:
        framework: its name.
        version: empty where it has none.
        hooked: whether the import hook ran in its Python.
        leased: with a lease's environment.
        undone: without the caps; None where that was not tried.
        undone_why: why it was not.
        pair: two attendees at once; empty where that was not tried.
        pair_why: why it was not, or what went wrong.
        pair_failed: whether something went wrong.
    """

    framework: str
    version: str
    hooked: bool
    leased: Fill
    undone: Fill | None = None
    undone_why: str = ""
    pair: tuple[Fill, ...] = ()
    pair_why: str = ""
    pair_failed: bool = False

    @property
    def name(self) -> str:
        """The framework with its version."""
        return f"{self.framework} {self.version}".rstrip()


def judge(limits: Limits, trial: Trial) -> Verdict:
    """Return whether the cap of a framework holds."""
    leased, undone = trial.leased, trial.undone
    if not leased.refused:
        return Verdict.DOES_NOT_HOLD
    if limits.whole:
        return Verdict.HOLDS
    if leased.held_bytes > limits.cap_bytes:
        return Verdict.DOES_NOT_HOLD
    # It was refused for another reason than its settings: the device had the room.
    if undone is not None and undone.refused and undone.held_bytes <= limits.cap_bytes:
        return Verdict.HOLDS
    return Verdict.SOFT


def report(limits: Limits, trial: Trial) -> Check:
    """Return what the doctor says of a framework."""
    verdict = judge(limits, trial)
    troubles = [
        *_missed(verdict, trial),
        *_too_little(limits, trial),
        *_apart(limits, trial),
        *_above_the_share(limits, trial),
    ]
    status = Status.OK
    for wanted in (Status.WARN, Status.FAIL):
        if any(found is wanted for found, _ in troubles):
            status = wanted
    sentences = [
        f"{verdict.value}: {_got(limits, trial, verdict)}",
        _when_undone(trial),
        _two_attendees(trial),
    ]
    return Check(
        check=f"caps.{trial.framework}",
        status=status,
        finding=" ".join(x for x in sentences if x),
        remedy="\n".join(remedy for _, remedy in troubles),
    )


def _got(limits: Limits, trial: Trial, verdict: Verdict) -> str:
    fill = trial.leased
    place = f"share {limits.share}, {limits.device}"
    cap = f"a cap of {format_size(limits.cap_bytes)} ({place}"
    counted = _counted(limits, fill)
    got = format_size(fill.held_bytes)
    start = f"{trial.name} computed right, and with {cap})"
    if verdict is Verdict.DOES_NOT_HOLD:
        ended = "was then refused" if fill.refused else "could have had more"
        return f"{start} got {got} and {ended}{counted}."
    if limits.whole:
        return (
            f"{start} got {got}{counted}. The share is all of {limits.device}, which "
            "itself ends there."
        )
    return f"{start} got {got} and no more{counted}."


def _counted(limits: Limits, fill: Fill) -> str:
    if fill.counted_bytes is None:
        return ""
    text = f"; the device counted {format_size(fill.counted_bytes)} for the process"
    above = fill.counted_bytes - limits.share_bytes
    if above > 0:
        text += f", {format_size(above)} above the share"
    return text


def _when_undone(trial: Trial) -> str:
    if trial.undone_why:
        return f"Not tried without the settings: {trial.undone_why}"
    if trial.undone is None:
        return ""
    got = format_size(trial.undone.held_bytes)
    if trial.undone.refused:
        return f"Without the settings it got {got} and no more."
    return f"Without the settings it got {got}, where the trial ended."


def _two_attendees(trial: Trial) -> str:
    if trial.pair_why:
        tried = "failed" if trial.pair_failed else "not tried"
        return f"Two attendees at once: {tried}: {trial.pair_why}"
    if not trial.pair:
        return ""
    each = " and ".join(format_size(fill.held_bytes) for fill in trial.pair)
    return f"Two attendees at once got {each}."


def _missed(verdict: Verdict, trial: Trial) -> list[tuple[Status, str]]:
    if verdict is not Verdict.DOES_NOT_HOLD:
        return []
    if trial.framework in _UNCAPPED:
        known = f"No setting is known that caps {trial.framework}. {_WHOLE_INSTEAD}"
        return [(Status.WARN, known)]
    if trial.framework in _HOOKED and not trial.hooked:
        return [
            (
                Status.FAIL,
                "The import hook did not run in the attendee's Python: the attendee "
                "must be able to read its folder, and Python must start without -I, "
                "-E or -S. GPUWORKSHOP_DEBUG=1 makes the hook say why.",
            )
        ]
    return [(Status.FAIL, f"Do not rely on this cap. {_WHOLE_INSTEAD}")]


def _too_little(limits: Limits, trial: Trial) -> list[tuple[Status, str]]:
    fill = trial.leased
    if not fill.refused or fill.held_bytes >= _LEAST * limits.cap_bytes:
        return []
    return [
        (
            Status.FAIL,
            f"The share cannot be used: {trial.name} was refused already at "
            f"{format_size(fill.held_bytes)} ({fill.refused}).",
        )
    ]


def _apart(limits: Limits, trial: Trial) -> list[tuple[Status, str]]:
    if trial.pair_failed:
        return [(Status.FAIL, "What one can have alone, two must have at once.")]
    alone = min(trial.leased.held_bytes, limits.cap_bytes) - 2 * limits.block_bytes
    short = [fill for fill in trial.pair if fill.held_bytes < alone]
    if not short:
        return []
    return [
        (
            Status.FAIL,
            "One attendee's memory was not there because of the other: "
            f"{short[0].refused or 'no reason was given'}. Write a larger "
            "gpus.keep_free_per_gpu, or fewer attendees a GPU.",
        )
    ]


def _above_the_share(limits: Limits, trial: Trial) -> list[tuple[Status, str]]:
    counted = trial.leased.counted_bytes
    if counted is None or counted <= limits.share_bytes:
        return []
    if limits.whole or not trial.leased.refused:
        return []  # nobody is beside it; or worse is said already
    return [
        (
            Status.WARN,
            "A CUDA context takes more here than was set aside for it. Write a "
            "gpus.keep_free_per_gpu that is larger by this much for each attendee.",
        )
    ]
