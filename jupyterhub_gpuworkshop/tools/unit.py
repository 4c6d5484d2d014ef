"""`gpuworkshop unit`: the GPU service as a systemd unit of its own.

Owns the unit's text and putting it in place. The same unit serves TLJH and hubs on
plain hosts; what it may do, and why, is written in it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.workshop import Workshop
from jupyterhub_gpuworkshop.workshop_reading import split_source

NAME = "gpuworkshop.service"
UNITS = Path("/etc/systemd/system")

_TEMPLATE = Path(__file__).parent / "templates" / NAME
_MARK = "# Written by gpuworkshop"
STATE_FOLDER = Path("/var/lib/gpuworkshop")
"""Where the unit's service keeps its history and its state."""
_MINORS = (*range(16), 254, 255)
"""Of the GPUs, nvidia-modeset and nvidiactl, under the driver's major number 195."""
_PLAIN = re.compile(r"[\w./=:,@+#-]+", re.ASCII)
"""What stands in a command line without quotes; an apostrophe is one."""
_HOMES = tuple(map(Path, ("/home", "/root", "/run/user")))
_TMP = tuple(map(Path, ("/tmp", "/var/tmp")))  # noqa: S108  only compared with
_SYSTEMCTL_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What differs between two hosts.

    Attributes:
        workshop: the workshop file, with ``#section`` where it is one of a larger
            file; absolute. Empty for a workshop of defaults.
        environment: variables that say where the hub is.
        environment_files: files with more of them, secrets for example.
        writable: folders beside the state directory that the service writes to.
        readable: what else it reads, beside the workshop file.
        local_only: whether hub and servers are reached on this host alone.
        python: which runs the service.
        name: of the unit.
    """

    workshop: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_files: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    local_only: bool = False
    python: Path = Path(sys.executable)
    name: str = NAME

    def text(self) -> str:
        """Return the unit file."""
        command = [str(self.python), "-I", "-m", "jupyterhub_gpuworkshop", "service"]
        if self.workshop:
            command.append(f"--workshop={self.workshop}")
        # Its parent is systemd, which does not go.
        command.append("--GpuService.exit_with_parent=False")
        # A Python of somebody's own: pyenv, conda.
        read = [self.python, self.python.resolve(), *self.readable, *self.writable]
        if self.workshop:
            read.append(split_source(self.workshop)[0])
        return (
            Environment(undefined=StrictUndefined, keep_trailing_newline=True)  # noqa: S701  no HTML
            .from_string(_TEMPLATE.read_text("utf-8"))
            .render(
                name=self.name,
                command=" ".join(map(_argument, command)),
                environment={n: _quoted(v) for n, v in self.environment.items()},
                environment_files=[_path(file) for file in self.environment_files],
                writable=[f'"-{_quoted(str(path))}"' for path in self.writable],
                readable_home=_any_below(_HOMES, read),
                shared_tmp=_any_below(_TMP, read),
                local_only=self.local_only,
                minors=_MINORS,
            )
        )


def for_workshop(
    source: str, *, base_url: str = "/", api_url: str = "http://127.0.0.1:8081/hub/api"
) -> Unit:
    """Return the unit for a hub on a plain host.

    Args:
        source: the workshop file.
        base_url: of the hub.
        api_url: where the hub's API is.

    Raises:
        WorkshopFileError: a mistake in the workshop file, or it leaves the service to
            the hub.
        HostError: the workshop file cannot be told to a unit.
    """
    path, section = split_source(source)
    absolute = f"{path.absolute()}{f'#{section}' if section else ''}"
    workshop = Workshop.load(absolute)
    settings = workshop.service
    if settings.managed or settings.secret_file is None:
        raise HostError(
            f"{source} leaves the GPU service to the hub: a unit beside it would be a "
            "second one. Write there, and restart the hub:\n"
            "service:\n  managed: false\n"
            "  secret_file: /etc/gpuworkshop/secrets.env"
        )
    base = f"/{base_url.strip('/')}/" if base_url.strip("/") else "/"
    return Unit(
        workshop=absolute,
        environment={
            "JUPYTERHUB_API_URL": api_url,
            "JUPYTERHUB_BASE_URL": base,
            "JUPYTERHUB_SERVICE_PREFIX": f"{base}services/{settings.name}/",
        },
        environment_files=(settings.secret_file,),
        writable=writable(workshop),
        readable=readable(workshop),
    )


def writable(workshop: Workshop) -> tuple[Path, ...]:
    """Return where this workshop makes the service write, beside its own folder."""
    history = workshop.service.state_dir
    return () if history is None or history == STATE_FOLDER else (history,)


def readable(workshop: Workshop) -> tuple[Path, ...]:
    """Return what this workshop makes the service read, beside the workshop file."""
    simulated = workshop.gpus.simulated_dir
    archives = workshop.material.archives
    return (archives,) if simulated is None else (simulated, archives)


def put_in_place(unit: Unit, folder: Path = UNITS) -> bool:
    """Write the unit file where it has changed.

    Returns:
        Whether it has: systemd must then be told.

    Raises:
        HostError: a file of this name is there that is not ours.
    """
    path = folder / unit.name
    text = unit.text()
    for needed in unit.writable:
        needed.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        before = path.read_text("utf-8")
        if before == text:
            return False
        if not before.startswith(_MARK):
            raise HostError(
                f"{path} is not a file that gpuworkshop wrote, and is left as it is. "
                "Compare it with what `gpuworkshop unit` prints, or remove it and run "
                "this again."
            )
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, "utf-8")
    beside.chmod(0o644)
    beside.replace(path)
    return True


def is_ours(path: Path) -> bool:
    """Tell whether a unit file is one that we wrote."""
    try:
        return path.read_text("utf-8").startswith(_MARK)
    except OSError:
        return False


def install(unit: Unit, say: Callable[[str], None]) -> None:
    """Put the unit in place, enable it and start it.

    Args:
        unit: what to install.
        say: is told what was done.

    Raises:
        HostError: this user may not, or systemd does not do it.
    """
    require_root("gpuworkshop unit --install")
    changed = put_in_place(unit)
    if changed:
        systemctl("daemon-reload")
    systemctl("enable", "--quiet", unit.name)
    # Also where the unit is as it was: the workshop file or the code may not be.
    systemctl("restart", unit.name)
    say(f"{UNITS / unit.name} {'is written' if changed else 'was up to date'}.")
    say(f"The GPU service runs. Its log: journalctl -u {unit.name}")


def systemctl(*arguments: str, check: bool = True) -> str:
    """Run systemctl and return what it prints.

    Raises:
        HostError: there is no systemd, or it refuses (unless `check` is False).
    """
    program = shutil.which("systemctl")
    if program is None or not Path("/run/systemd/system").is_dir():
        raise HostError(
            "systemd does not run on this machine, so the GPU service cannot be a unit "
            "of it. Use `gpuworkshop service`, or let the hub start the service."
        )
    try:
        done = subprocess.run(  # noqa: S603  our own arguments
            [program, *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=_SYSTEMCTL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise HostError(
            f"`systemctl {' '.join(arguments)}` did not end within "
            f"{_SYSTEMCTL_SECONDS:.0f} s. See what it waits for: systemctl list-jobs"
        ) from None
    if check and done.returncode:
        raise HostError(
            f"`systemctl {' '.join(arguments)}` failed: {done.stderr.strip()}"
        )
    return done.stdout.strip()


def require_root(command: str) -> None:
    """Make sure that this is root.

    Raises:
        HostError: it is not.
    """
    if os.geteuid() != 0:
        raise HostError(f"This needs root. Run: sudo {command}")


def _any_below(folders: Sequence[Path], paths: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for path in paths for folder in folders)


def _quoted(text: str) -> str:
    """Escape a text that stands in double quotes in a unit file (systemd.syntax)."""
    if not text.isprintable():
        raise HostError(f"{text!r} cannot stand in a unit file. Rename it.")
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")


def _argument(text: str) -> str:
    """Escape one argument of a command line (systemd.service)."""
    quoted = _quoted(text).replace("$", "$$")
    return quoted if _PLAIN.fullmatch(text) else f'"{quoted}"'


def _path(path: Path) -> str:
    """Escape a path that is all that follows the equals sign."""
    if not str(path).isprintable():
        raise HostError(f"{str(path)!r} cannot stand in a unit file. Rename it.")
    return str(path).replace("%", "%%")
