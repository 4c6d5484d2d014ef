"""A double of the CUDA driver's checkpoint API, and the processes that it knows.

The real cuda-core and cuda-bindings load it, by LD_LIBRARY_PATH. `cuda_double.c` has
the words that a scenario is written in.
"""

import subprocess
from pathlib import Path

_HERE = Path(__file__).parent

LOCK, CHECKPOINT, RESTORE, UNLOCK = (
    f"cuCheckpointProcess{name}" for name in ("Lock", "Checkpoint", "Restore", "Unlock")
)
GET_STATE = "cuCheckpointProcessGetState"
OUT_OF_MEMORY, NOT_READY, NOT_SUPPORTED = 2, 600, 801
RUNNING, LOCKED, CHECKPOINTED, FAILED, CHECKPOINTING = range(5)


def build(folder: Path) -> Path:
    """Compile the double into a folder, and return the library."""
    library = folder / "libcuda.so.1"
    command = ["gcc", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    command += ["-Wl,-soname,libcuda.so.1", "-o", str(library)]
    command.append(str(_HERE / "cuda_double.c"))
    subprocess.run(command, check=True)  # noqa: S603 - a fixed command
    return library


class CudaDriver:
    """What the double does. Every change counts from the next call on."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._folder = folder
        self._lines: list[str] = []
        folder.mkdir()
        self.environment = {
            "LD_LIBRARY_PATH": str(library.parent),
            "CUDA_DOUBLE": str(folder),
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

    def put(self, pid: int, state: int) -> None:
        """Have a process use CUDA, in this state."""
        (self._folder / str(pid)).write_text(f"{state}\n")

    def state(self, pid: int) -> int:
        """Return the state of a process."""
        return int((self._folder / str(pid)).read_text().split()[0])

    @property
    def calls(self) -> list[str]:
        """The functions that were called, in turn, but for those that only ask."""
        path = self._folder / "calls"
        if not path.exists():
            return []
        names = [line.split()[0] for line in path.read_text().splitlines()]
        return [name for name in names if name != GET_STATE]

    def _write(self) -> None:
        # Replaced as a whole: the double must never read half of it.
        new = self._folder / "scenario.new"
        new.write_text("".join(f"{line}\n" for line in self._lines))
        new.replace(self._folder / "scenario")
