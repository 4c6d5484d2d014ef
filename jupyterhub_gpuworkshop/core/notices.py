"""What attendees are told before something happens to what is theirs, and after.

Owns the shape of a notice. Who gives it and when it ends is the service's; the hub
shows it as a banner.
"""

from dataclasses import dataclass
from enum import Enum


class NoticeKind(str, Enum):
    """What a notice is about."""

    KERNEL_IDLE = "kernel_idle"
    """An idle kernel's memory will be taken back."""
    SERVER_IDLE = "server_idle"
    """An idle server will be stopped, since somebody waits for its share."""
    OVER_SHARE = "over_share"
    """The processes of a server use more than its share."""
    KERNEL_TAKEN = "kernel_taken"
    """A kernel was paused, restarted or stopped."""
    PROCESS_ENDED = "process_ended"
    """An organiser has ended a process."""
    DEVICE_GONE = "device_gone"
    """A device of a server is out of service, or lost."""
    SERVER_STOPPED = "server_stopped"
    """A server was stopped, and its share given back."""
    RETURN_WAITS = "return_waits"
    """A paused kernel is to come back, and its memory is not free yet."""
    FROM_ORGANISER = "from_organiser"
    """An organiser has something to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A notice that stands.

    Attributes:
        id: unique for ever.
        kind: what it is about.
        user: the attendee.
        server: the server's name.
        kernel_id: the kernel; empty where it is about the server.
        text: what the attendee reads: sentences, no markup.
        given_at: wall-clock seconds since the epoch.
        acts_at: when it happens, in wall-clock seconds; None where nothing follows.
        seen_at: when it was first put before the attendee's eyes, on a page of the
            hub or of the service, or handed to a program of theirs; None where it
            never was. Nothing may say that somebody was warned who was not.
    """

    id: str
    kind: NoticeKind
    user: str
    server: str = ""
    kernel_id: str = ""
    text: str
    given_at: float
    acts_at: float | None = None
    seen_at: float | None = None
