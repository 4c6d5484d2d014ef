"""The sections of the workshop file about taking memory back.

Owns the keys of `idle`, `over_share` and `parking`, their defaults and limits, and the
words that the reference prints for them.
"""

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from jupyterhub_gpuworkshop.core.rules import Action, OverShareAction
from jupyterhub_gpuworkshop.core.units import GIB, MIB, format_duration
from jupyterhub_gpuworkshop.workshop_reading import (
    DURATION_WORDS,
    SIZE_WORDS,
    Duration,
    Number,
    Size,
    YesNo,
    lasting,
)
from jupyterhub_gpuworkshop.workshop_sections import SOON, Section

_NOTICE_SECONDS = 5 * 60.0


class Idle(Section):
    """When memory is taken back from kernels that nobody uses."""

    needed_after: Annotated[Duration, AfterValidator(lasting(1))] = Field(
        default=20 * 60.0,
        description="After how long an idle kernel is reclaimed when its memory is "
        f"needed. {DURATION_WORDS} 1s to 366 d, no longer than `idle.after`. Default: "
        f"20 min. {SOON}",
    )
    after: Annotated[Duration, AfterValidator(lasting(1))] = Field(
        default=2 * 3600.0,
        description="After how long an idle kernel is reclaimed in any case. "
        f"{DURATION_WORDS} 1s to 366 d. Default: 2 h. {SOON}",
    )
    notice: Annotated[Duration, AfterValidator(lasting(0))] | None = Field(
        default=None,
        description="How long before that the attendee is told. Memory that is needed "
        "of a kernel idle for long already is taken so long after the notice, not at "
        f"once. {DURATION_WORDS} 0s (no notice) up to `idle.needed_after`. Default: "
        f"5 min, or half of `idle.needed_after` where that is shorter. {SOON}",
    )
    min_memory: Size = Field(
        default=256 * MIB,
        description="A kernel that holds less GPU memory than this is left alone. "
        f"{SIZE_WORDS} 0 or more. Default: 256MiB. {SOON}",
    )
    max_cpu: Annotated[Number, Field(ge=0.0, le=1.0)] = Field(
        default=0.05,
        description="A kernel whose processes together use more CPU than this is not "
        f"idle. Share of one core, 0.0 to 1.0. Default: 0.05. {SOON}",
    )
    action: Action = Field(
        default=Action.RESTART,
        description="How an idle kernel is reclaimed. `park`: its GPU memory goes to "
        "host memory, its variables stay, and all is back when its owner runs a cell; "
        "where that cannot be, `restart`. `restart`: the notebook stays connected, "
        "its variables are gone. `stop_kernel`: the kernel ends. Default: restart. "
        f"{SOON}",
    )
    groups: dict[str, Action] = Field(
        default={},
        description="Another `idle.action` for groups of the hub, one line `group: "
        "action` each. Who is in several has that of the one that stands first in the "
        f"file. Default: none. {SOON}",
    )
    without_utilisation: YesNo = Field(
        default=False,
        description="Whether kernel state and CPU time are trusted where the driver "
        "tells no utilisation, neither of a process nor of the device, as on MIG "
        "slices. A kernel that computes on the GPU from a background thread, with its "
        "cell ended and next to no CPU time, would be taken for idle. false: nothing "
        f"is reclaimed there. true or false. Default: false. {SOON}",
    )
    server_after: Annotated[Duration, AfterValidator(lasting(1))] = Field(
        default=3600.0,
        description="After how long a server is stopped and its share given back, when "
        "somebody was refused a share and would get this one: no GPU memory, every "
        "notebook idle, no browser open, no terminal, no process outside its "
        "notebooks, all that time. The attendee is told `idle.notice` before. Needs a "
        "server whose processes the service sees, and the scope `delete:servers`, "
        f"which `configure()` gives it. {DURATION_WORDS} 1s to 366 d. Default: 1 h. "
        f"{SOON}",
    )
    pin_max: Annotated[Duration, AfterValidator(lasting(0))] = Field(
        default=2 * 3600.0,
        description="For how long an attendee may pin a kernel of theirs, so that it "
        "is not reclaimed for idleness; they may do so again and again. Organisers pin "
        f"for as long as they like. {DURATION_WORDS} 0s (attendees may not pin) to "
        f"366 d. Default: 2 h. {SOON}",
    )
    dry_run: YesNo = Field(
        default=False,
        description="Whether to only say what would be reclaimed, in the log and in "
        "the history, and touch nothing and nobody. true or false. Default: false. "
        f"{SOON}",
    )

    @property
    def notice_seconds(self) -> float:
        """How long before the act the attendee is told."""
        if self.notice is None:
            return min(_NOTICE_SECONDS, self.needed_after / 2)
        return self.notice

    @model_validator(mode="after")
    def _needed_comes_first(self) -> "Idle":
        if self.needed_after > self.after:
            raise ValueError(
                f"needed_after ({format_duration(self.needed_after)}) must not exceed "
                f"after ({format_duration(self.after)}): memory that is needed is not "
                "kept longer than memory that is not. Shorten idle.needed_after or "
                "lengthen idle.after."
            )
        if self.notice is not None and self.notice > self.needed_after:
            raise ValueError(
                f"notice ({format_duration(self.notice)}) must not exceed needed_after "
                f"({format_duration(self.needed_after)}): it is given before that time "
                "is up. Shorten idle.notice or lengthen idle.needed_after."
            )
        return self


class OverShare(Section):
    """What happens where an attendee's processes together use more than the share."""

    grace: Annotated[Duration, AfterValidator(lasting(1))] = Field(
        default=60.0,
        description="How long processes may together exceed their share before the "
        "attendee is told, and from then on before anything is done. "
        f"{DURATION_WORDS} 1s to 366 d. Default: 60 s. {SOON}",
    )
    action: OverShareAction = Field(
        default=OverShareAction.IDLE_KERNELS,
        description="What is done then. `notice`: nothing. `idle_kernels`: idle "
        "kernels of that server are reclaimed as `idle.action` says, the largest "
        "first, until the rest fits. `restart`: where no idle kernel is left, the "
        "largest busy one is restarted, and what it computes is lost. Default: "
        f"idle_kernels. {SOON}",
    )


class Parking(Section):
    """How GPU memory goes to host memory and back (`idle.action: park`)."""

    margin: Size = Field(
        default=256 * MIB,
        description="GPU memory that must be free beyond what a paused kernel needs "
        "before it comes back; a return that runs out of memory loses the kernel. "
        f"{SIZE_WORDS} 0 or more. Default: 256MiB. {SOON}",
    )
    keep_free_host_memory: Size = Field(
        default=4 * GIB,
        description="Host memory that parking leaves free for everything else. "
        f"{SIZE_WORDS} 0 or more. Default: 4GiB. {SOON}",
    )
    make_room_after: Annotated[Duration, AfterValidator(lasting(1))] = Field(
        default=120.0,
        description="After how long an idle kernel may be paused, without notice, to "
        "make room for a paused one whose owner has come back. "
        f"{DURATION_WORDS} 1s to 366 d. Default: 2 min. {SOON}",
    )
