"""How long to wait after a failure: longer each time.

Owns the seconds that pass before an act that did not succeed is tried again.
"""

from dataclasses import dataclass

_FIRST_SECONDS = 30.0
_LONGEST_SECONDS = 1800.0
_MOST_FAILURES = 16
"""More do not make it longer."""


@dataclass(slots=True)
class Pause:
    """How often something failed, and until when it is let be.

    Attributes:
        failures: in a row.
        until: monotonic seconds.
    """

    failures: int = 0
    until: float = float("-inf")

    def lengthen(self, now: float) -> float:
        """Wait from now on, longer each time; return for how many seconds."""
        seconds = min(_LONGEST_SECONDS, _FIRST_SECONDS * 2**self.failures)
        self.failures = min(self.failures + 1, _MOST_FAILURES)
        self.until = now + seconds
        return seconds
