"""What people ask for: who did, in words, and what stands against a person's word.

Owns the sentences that name who asked, and why a kernel cannot be taken although a
person says so. That is less than what stands against the machine's own acts: a busy
kernel, a pinned one and a small one may be meant. It carries nothing out.
"""

from dataclasses import dataclass

from .announcements import unshowable
from .rules import Action
from .snapshot import KernelState

MOST_NOTICE_CHARACTERS = 500

_DONE = {
    Action.PARK: "paused",
    Action.RESTART: "restarted",
    Action.STOP_KERNEL: "stopped",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who asked for something, as others read it.

    Attributes:
        name: at the hub.
        is_organiser: whether that is why it was done.
        is_own: whether it is about what is theirs.
        is_user: whether it is a person, and no service.
    """

    name: str
    is_organiser: bool
    is_own: bool = False
    is_user: bool = True

    def __str__(self) -> str:
        """Return who, in the middle of a sentence."""
        if not self.is_user:
            return f"the service {self.name}"
        if self.is_organiser and not self.is_own:
            return f"organiser {self.name}"
        return self.name

    @property
    def at_the_beginning(self) -> str:
        """Return who, at the beginning of a sentence; a name stays as it is."""
        who = str(self)
        return who if who == self.name else who[0].upper() + who[1:]

    def did(self, action: Action) -> str:
        """Say what was done to a kernel, in a sentence."""
        return f"{self.at_the_beginning} {_DONE[action]} it."

    def wanted(self, action: Action) -> str:
        """Say what was asked for, in a sentence."""
        return f"{self.at_the_beginning} wanted it {_DONE[action]}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """What is known of the kernel that somebody means.

    Attributes:
        is_known: Linux vouches for which process it is.
        state: as its server says.
        memory_bytes: what it holds of GPUs.
        is_parked: its GPU memory is in host memory.
        why_not_park: why it cannot be parked, in a sentence; empty where it can be.
    """

    is_known: bool
    state: KernelState
    memory_bytes: int
    is_parked: bool = False
    why_not_park: str = ""


def why_not_take(action: Action, kernel: Meant) -> str:
    """Say why this is not done to a kernel, although a person says so; or nothing."""
    if not kernel.is_known:
        return (
            "Which process it is cannot be said now: its server does not answer, or "
            "the kernel has just started. Try again in some seconds."
        )
    if action is not Action.PARK:
        return ""
    if kernel.is_parked:
        return "It is paused already."
    if kernel.state is KernelState.BUSY:
        # It would be said to be back at once (`parking.listening`).
        return (
            "It works just now, and what is paused comes back as soon as it works: "
            "wait until it is idle, or restart it."
        )
    if not kernel.memory_bytes:
        return "It holds no GPU memory: there is nothing to pause."
    if kernel.why_not_park:
        return f"It cannot be paused: {kernel.why_not_park}"
    return ""


def why_no_notice(text: str) -> str:
    """Say why this is no text to put before somebody's eyes; or nothing."""
    if not text.strip():
        return "There is nothing to tell: the text is empty."
    if len(text) > MOST_NOTICE_CHARACTERS:
        return (
            f"The text has {len(text)} characters: a notice has "
            f"{MOST_NOTICE_CHARACTERS} at most."
        )
    if "\n" in text:
        return "The text has several lines: a notice has one."
    return unshowable(text)
