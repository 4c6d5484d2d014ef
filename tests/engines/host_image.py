"""An image that borrows the host's programs: made in a second, without a registry.

The image holds folders and accounts only. What runs in it is the host's own /usr, this
Python with its packages and this repository, mounted read-only at the same paths.
"""

import io
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from .docker_engine import DockerEngine, _program

ROOT = Path(__file__).parent.parent.parent
NAME = "gpuworkshop-host:latest"

_FOLDERS = {
    **dict.fromkeys(("dev", "home", "mnt", "opt", "proc", "root", "srv", "sys"), 0o755),
    **dict.fromkeys(("etc", "etc/sudoers.d", "run", "usr", "var", "var/lib"), 0o755),
    **dict.fromkeys(("var/log", "var/cache", "var/spool"), 0o755),
    **dict.fromkeys(("tmp", "var/tmp"), 0o1777),
}
_USR_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
"""At the root of a host, links into /usr or folders of their own."""
_FROM_HOST = (
    *("nsswitch.conf", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives"),
    *("pam.d", "security", "login.defs", "default", "skel", "ssl", "services"),
    *("protocols", "shells", "profile", "bash.bashrc", "localtime", "mime.types"),
)
_HIGHEST_SYSTEM_ID = 999
_NOBODY = 65534


def mounted_paths() -> list[Path]:
    """Return the host's paths that a container of this image gets, read-only."""
    wanted = [
        Path("/usr"),
        *(Path("/", name) for name in _USR_LINKS if _is_folder(Path("/", name))),
        Path(sys.base_prefix).resolve(),
        Path(sys.prefix),
        ROOT,
    ]
    chosen: list[Path] = []
    for path in wanted:
        if not any(path.is_relative_to(other) for other in chosen):
            chosen = [p for p in chosen if not p.is_relative_to(path)]
            chosen.append(path)
    return chosen


def mount_arguments() -> list[str]:
    """Return `docker run`'s arguments for these mounts."""
    return [f"--volume={path}:{path}:ro" for path in mounted_paths()]


def read_only_volumes() -> dict[str, str]:
    """Return the mounts as DockerSpawner's `read_only_volumes` has them."""
    return {str(path): str(path) for path in mounted_paths()}


def make_image(
    engine: DockerEngine,
    name: str = NAME,
    *,
    files: Mapping[str, str] | None = None,
    executable: Iterable[str] = (),
    links: Mapping[str, str] | None = None,
    changes: Iterable[str] = (),
) -> str:
    """Make the image in an engine.

    Args:
        engine: where.
        name: what to call it.
        files: more files, by path; mode 0644.
        executable: paths of `files` whose mode is 0755.
        links: more symbolic links: path to target.
        changes: lines of a Dockerfile to apply (`ENV X=y`, `USER 1000`).

    Returns:
        Its name.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add_skeleton(tar)
        for path, text in {**_accounts(), **(files or {})}.items():
            mode = 0o755 if path in set(executable) else 0o644
            _add_file(tar, path, text, 0o640 if path == "etc/shadow" else mode)
        for path, target in (links or {}).items():
            _add_link(tar, path, target)
    arguments = [f"--change={line}" for line in changes]
    subprocess.run(  # noqa: S603  Docker's own client
        [_program("docker"), "import", *arguments, "-", name],
        input=buffer.getvalue(),
        env=engine.environment,
        check=True,
        capture_output=True,
    )
    return name


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _add_skeleton(tar: tarfile.TarFile) -> None:
    parents = {
        str(parent).lstrip("/"): 0o755
        for path in mounted_paths()
        for parent in (path, *path.parents)
        if str(parent) != "/"
    }
    # Ordinary users pass through what is closed to them on the host, /root say.
    for path, mode in sorted({**parents, **_FOLDERS}.items()):
        if not Path("/", path).is_symlink():
            _add_folder(tar, path, mode)
    for name in _USR_LINKS:
        if Path("/", name).is_symlink():
            _add_link(tar, name, str(Path("/", name).readlink()))
    for name in _FROM_HOST:
        if Path("/etc", name).exists():
            tar.add(Path("/etc", name), arcname=f"etc/{name}")


def _accounts() -> dict[str, str]:
    """Return the host's system accounts, and none of its people."""
    return {
        "etc/passwd": _system_lines("/etc/passwd"),
        "etc/group": _system_lines("/etc/group"),
        "etc/shadow": "".join(
            f"{line.split(':')[0]}:*:19000:0:99999:7:::\n"
            for line in _system_lines("/etc/passwd").splitlines()
        ),
        "etc/hostname": "gpuworkshop-test\n",
        # systemd presets every unit of /usr where a machine has no id yet.
        "etc/machine-id": f"{uuid.uuid4().hex}\n",
    }


def _system_lines(path: str) -> str:
    lines = Path(path).read_text().splitlines(keepends=True)
    return "".join(
        line
        for line in lines
        if (number := int(line.split(":")[2])) <= _HIGHEST_SYSTEM_ID
        or number == _NOBODY
    )


def _add_folder(tar: tarfile.TarFile, path: str, mode: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    tar.addfile(entry)


def _add_file(tar: tarfile.TarFile, path: str, text: str, mode: int) -> None:
    data = text.encode()
    entry = tarfile.TarInfo(path)
    entry.mode, entry.size = mode, len(data)
    tar.addfile(entry, io.BytesIO(data))


def _add_link(tar: tarfile.TarFile, path: str, target: str) -> None:
    entry = tarfile.TarInfo(path)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    tar.addfile(entry)
