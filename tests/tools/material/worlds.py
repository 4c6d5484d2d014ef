"""What the tests of material share: workshops in a folder, archives, and looking."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyterhub_gpuworkshop.machine.material import read_installed
from jupyterhub_gpuworkshop.tools.material.installing import (
    Outcome,
    Run,
    Watcher,
    install,
)
from jupyterhub_gpuworkshop.workshop import Workshop

Files = Mapping[str, bytes]


def workshop(folder: Path, **material: Any) -> Workshop:
    """Return a rehearsal, which may keep its material in a test's own folder."""
    return Workshop.load(
        {
            "gpus": {"source": "simulated", "simulated_dir": str(folder)},
            "material": {"folder": str(folder / "m"), **material},
        }
    )


def run(what: Workshop, *, again: bool = False) -> list[Outcome]:
    """Install, or update."""
    return install(Run(workshop=what, again=again, watcher=Watcher(), warn=_hear))


def _hear(_: str) -> None:
    """Keep to oneself that a test's folder does not last."""


def put(folder: Path, files: Files) -> Path:
    """Write files in a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def tar_of(files: Files, mode: str = "w:gz") -> bytes:
    """Return a tar file."""
    return tar_with(*((entry(name), data) for name, data in files.items()), mode=mode)


def entry(name: str, kind: bytes = tarfile.REGTYPE, **more: Any) -> tarfile.TarInfo:
    """Return an entry of a tar file."""
    made = tarfile.TarInfo(name)
    made.type = kind
    for key, value in more.items():
        setattr(made, key, value)
    return made


def tar_with(*entries: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> bytes:
    """Return a tar file with any entries."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for member, data in entries:
            if member.isreg():
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


def zip_of(files: Files) -> bytes:
    """Return a zip file."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


def seen(folder: Path) -> dict[str, dict[str, bytes]]:
    """Return every file that attendees see, by part."""
    return {
        f"{kind}/{part.name}": files_in(part)
        for kind in ("notebooks", "data")
        if (folder / kind).is_dir()
        for part in sorted((folder / kind).iterdir())
    }


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def listed(folder: Path) -> dict[str, dict[str, bytes]]:
    """Return the same as the hub finds it: by the list of what is installed."""
    return {
        f"{part.kind}/{part.name}": files_in(part.path(folder))
        for part in read_installed(folder).parts
    }


def leftovers(folder: Path) -> set[str]:
    """Return what is there beside what is installed."""
    linked = {
        path.resolve().name
        for kind in ("notebooks", "data")
        for path in (folder / kind).iterdir()
    }
    versions = {x.name.removesuffix(".json") for x in (folder / ".versions").iterdir()}
    known = {"notebooks", "data", "installed.json", ".lock", ".incoming", ".versions"}
    return {
        *(versions - linked),
        *(x.name for x in (folder / ".incoming").iterdir()),
        *({x.name for x in folder.iterdir()} - known),
    }
