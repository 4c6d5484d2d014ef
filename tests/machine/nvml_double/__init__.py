"""A double of the NVIDIA driver's library, and the scenario that it plays.

Reused by every test that needs a driver: `conftest.py` beside this folder has the
fixtures, `nvml_double.c` the words that a scenario is written in. `nvml_double_more.c`
adds what programs of others ask the driver for.
"""

import subprocess
from pathlib import Path

_HERE = Path(__file__).parent


def build(folder: Path, *flags: str, source: str = "nvml_double.c") -> Path:
    """Compile the double into a folder, and return the library."""
    library = folder / "libnvidia-ml.so.1"
    command = ["gcc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", *flags]
    command += ["-Wl,-soname,libnvidia-ml.so.1", "-o", str(library)]
    command.append(str(_HERE / source))
    subprocess.run(command, check=True)  # noqa: S603 - a fixed command
    return library


class Scenario:
    """What the double says. Every change counts from the next call on."""

    def __init__(self, folder: Path, library: Path) -> None:
        self.library = library
        self.path = folder / "scenario.txt"
        self.calls_path = folder / "calls.txt"
        self._lines: list[str] = []
        self._write()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in order to meet the double as its driver."""
        return {
            "LD_LIBRARY_PATH": str(self.library.parent),
            "NVML_DOUBLE_SCENARIO": str(self.path),
            "NVML_DOUBLE_CALLS": str(self.calls_path),
        }

    def say(self, *lines: str) -> None:
        """Add statements."""
        self._lines += lines
        self._write()

    def unsay(self, beginning: str) -> None:
        """Take back the statements that begin so."""
        kept = [line for line in self._lines if not line.startswith(beginning)]
        assert len(kept) < len(self._lines), f"nobody said {beginning!r}"
        self._lines = kept
        self._write()

    def change(self, beginning: str, line: str) -> None:
        """Put another statement in the place of the one that begins so."""
        (position,) = (
            i for i, old in enumerate(self._lines) if old.startswith(beginning)
        )
        self._lines[position] = line
        self._write()

    def calls(self, function: str, uuid: str = "") -> int:
        """Return how often a function was called, on one device or on all."""
        if not self.calls_path.exists():
            return 0
        calls = (line.split() for line in self.calls_path.read_text().splitlines())
        return sum(f == function and (not uuid or u == uuid) for f, u in calls)

    @property
    def limits(self) -> list[tuple[str, int, int, str]]:
        """What limits were set, in turn: (UUID, soft, hard, cgroup's folder)."""
        if not self._limits_path.exists():
            return []
        rows = (x.split(" ", 3) for x in self._limits_path.read_text().splitlines())
        return [(uuid, int(soft), int(hard), at) for uuid, soft, hard, at in rows]

    def forget_limits(self) -> None:
        """Lose all limits, as the driver does those of a cgroup that is removed."""
        self._limits_path.unlink()

    @property
    def _limits_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.limits")

    def _write(self) -> None:
        # Replaced as a whole: the double must never read half of it.
        new = self.path.with_suffix(".new")
        new.write_text("".join(f"{line}\n" for line in self._lines))
        new.replace(self.path)
