"""JupyterLab shuts a kernel down with its notebook's last tab, where that is wanted.

Owns one setting in the overrides of the attendees' environment, and a note of what
stood there before, so that it can be taken back. Everything else in that file is the
organiser's.
"""

import json
from pathlib import Path
from typing import Any

from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.tools.tljh_places import TljhPlaces

_PLUGIN = "@jupyterlab/notebook-extension:tracker"
_SETTING = "kernelShutdown"


def overrides_file(places: TljhPlaces) -> Path:
    """Return where JupyterLab looks for settings that go before its own defaults."""
    return places.user_environment / "share/jupyter/lab/settings/overrides.json"


def set_stop_on_close(wanted: bool, places: TljhPlaces) -> None:
    """Set it, or take it back where we had set it.

    Raises:
        HostError: the file of overrides cannot be read as JSON; it is left alone.
    """
    path, note = overrides_file(places), places.state / "lab-overrides.json"
    if wanted == note.exists():
        return
    overrides = _read(path)
    section = overrides.setdefault(_PLUGIN, {})
    if wanted:
        before = {"file": path.exists(), "value": section.get(_SETTING)}
        section[_SETTING] = True
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        note.write_text(json.dumps(before), "utf-8")
        _write(path, overrides)
        return
    before = json.loads(note.read_text("utf-8"))
    if section.get(_SETTING) is True:  # else somebody has changed it since
        if before["value"] is None:
            del section[_SETTING]
        else:
            section[_SETTING] = before["value"]
        if not section:
            del overrides[_PLUGIN]
        if overrides or before["file"]:
            _write(path, overrides)
        else:
            path.unlink()
    note.unlink()


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        overrides = json.loads(path.read_text("utf-8"))
        if isinstance(overrides, dict) and isinstance(overrides.get(_PLUGIN, {}), dict):
            return overrides
        problem = "it is not an object of objects"
    except ValueError as error:
        problem = str(error)
    raise HostError(
        f"{path} is not plain JSON ({problem}), and is left as it is. Mend it, or set "
        f'{_SETTING} of "{_PLUGIN}" there yourself.'
    )


def _write(path: Path, overrides: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(json.dumps(overrides, indent=2) + "\n", "utf-8")
    beside.chmod(0o644)
    beside.replace(path)
