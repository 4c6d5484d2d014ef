"""Every error this package raises on purpose.

::

    GpuWorkshopError
    ├── UnitError (ValueError)      a size or a duration nobody can read
    ├── ShareError (ValueError)     a share nobody can read
    ├── WorkshopFileError           a mistake in the workshop file
    ├── RosterError                 a roster, or a list of people, that cannot be used
    ├── MaterialError               material that cannot be fetched, installed or read
    ├── ShareRefused                no device can take this share now
    ├── LedgerError                 the ledger cannot be used
    │   └── LedgerTooNew            ... because newer code has written it
    ├── SourceError                 the devices cannot be read now
    │   ├── SourceUnavailable       ... no driver, no library, no permission
    │   └── SourceLost              ... the driver went away: try again from the start
    ├── ParkError                   GPU memory did not move to host RAM, or back
    ├── CallHangs                   a blocking call has not come back
    ├── ServerError                 an attendee's server answers wrongly, or not at all
    ├── ActRefused                  what somebody asked for is not done
    │   ├── ActForbidden            ... because it is not theirs to ask for
    │   └── NothingThere            ... because nothing has that name now
    ├── LinkError                   hub and service cannot talk
    ├── HubError                    the hub does not do what it was asked to
    ├── PlotError                   a page's plots cannot be drawn
    ├── ProofError                  whether caps hold cannot be proven
    ├── HostError                   this machine cannot be set up so
    └── DemoError                   the demo cannot run

A message says what happened and what to do about it.
"""


class GpuWorkshopError(Exception):
    """The root of all of them."""


class UnitError(GpuWorkshopError, ValueError):
    """A size or a duration that cannot be read."""


class ShareError(GpuWorkshopError, ValueError):
    """A share that cannot be read."""


class WorkshopFileError(GpuWorkshopError):
    """The workshop file has a mistake; the message names key, value and remedy."""


class RosterError(GpuWorkshopError):
    """A roster, or a list of people, cannot be used; the message says which line."""


class MaterialError(GpuWorkshopError):
    """Material of the workshop cannot be fetched, installed or read."""


class ShareRefused(GpuWorkshopError):
    """No device can take this share now; the message is written for the attendee."""


class LedgerError(GpuWorkshopError):
    """The ledger cannot be read or written."""


class LedgerTooNew(LedgerError):
    """The ledger was written by a newer version than this one."""


class SourceError(GpuWorkshopError):
    """The devices cannot be read now."""


class SourceUnavailable(SourceError):
    """There is nothing to read from: no driver, no library, no permission."""


class SourceLost(SourceError):
    """The driver went away under us: shut down and start again."""


class ParkError(GpuWorkshopError):
    """A process's GPU memory did not move to host RAM, or back.

    Attributes:
        broken: the process is stuck for good, or it has ended. Else it uses its GPU
            again as far as the driver says, or another call may take it up: its
            state tells.
    """

    def __init__(self, message: str, *, broken: bool = False) -> None:
        super().__init__(message)
        self.broken = broken


class CallHangs(GpuWorkshopError):
    """A blocking call has not come back; nothing more is asked until it does."""


class ServerError(GpuWorkshopError):
    """An attendee's server answers wrongly, or not at all: it is unknown."""


class ActRefused(GpuWorkshopError):
    """What somebody asked for is not done; the message is written for them."""


class ActForbidden(ActRefused):
    """It is not theirs to ask for."""


class NothingThere(ActRefused):
    """There is nothing of that name, or not now, or not for them to see."""


class LinkError(GpuWorkshopError):
    """Hub and service cannot talk."""


class HubError(GpuWorkshopError):
    """The hub does not do what it was asked to, or does not answer."""


class PlotError(GpuWorkshopError):
    """The plots of a page cannot be drawn."""


class ProofError(GpuWorkshopError):
    """Whether caps hold cannot be proven here and now."""


class HostError(GpuWorkshopError):
    """This machine cannot be set up so: not root, no systemd, a file in the way."""


class DemoError(GpuWorkshopError):
    """The demo cannot run."""
