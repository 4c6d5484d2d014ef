"""Has JupyterLab offer the GPU service's page: a button at the top, a menu entry.

Run by `jupyter_server_config.py`, in the attendee's server. JupyterLab takes both from
`labconfig/default_setting_overrides.json` in the folders of JUPYTER_CONFIG_PATH. Where
the page is, the server alone knows, so the file is written when it starts, to a folder
of its own, and goes with it. Owns these two items, which come behind whatever the
organiser or the attendee has set; adds nothing where that cannot be told. JupyterLab 3
has no bar at the top, and shows the entry alone.
"""

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Dict, List

NAME = "gpuworkshop"
LABEL = "GPU"
TEXT = "My GPU and kernels"

_BAR = "@jupyterlab/application-extension:top-bar"
_MENUS = "@jupyterlab/mainmenu-extension:plugin"
_FILE_MENU = "jp-mainmenu-file"
_BAR_RANK = 100
"""At the right end: behind the spacer, and behind what has no rank of its own."""
_MENU_RANK = 98.9
"""Above logging out and the hub's own entries, which begin at 99."""


def offer_page(page: str) -> None:
    """Have this process's JupyterLab offer a page, where it has a JupyterLab.

    Args:
        page: its address: a path at the hub's, or a whole URL.
    """
    try:
        overrides = _overrides()
        wanted = with_page(overrides, page)
    except Exception:  # whatever is there, the server starts, without us
        return
    if wanted is overrides:
        return
    try:
        folder = _private_folder()
        labconfig = folder / "labconfig"
        labconfig.mkdir()
        text = json.dumps({plugin: wanted[plugin] for plugin in (_BAR, _MENUS)})
        (labconfig / "default_setting_overrides.json").write_text(text, "utf-8")
    except OSError:  # there is no room to write a file: the page is in the hub's menu
        return
    theirs = os.environ.get("JUPYTER_CONFIG_PATH", "")
    ours = str(folder)
    os.environ["JUPYTER_CONFIG_PATH"] = ours + os.pathsep + theirs if theirs else ours


def with_page(overrides: Dict[str, Any], page: str) -> Dict[str, Any]:
    """Return JupyterLab's overrides with the button and the entry behind the others.

    Args:
        overrides: settings by plugin; they stay as they are where ours are among them.
        page: as for `offer_page`.
    """
    bar = overrides.get(_BAR, {})
    menus = overrides.get(_MENUS, {})
    buttons, trees = bar.get("toolbar", []), menus.get("menus", [])
    if any(button.get("name") == NAME for button in buttons):
        return overrides
    opens = {
        "command": "help:open",
        "args": {"url": page, "text": TEXT, "newBrowserTab": True},
    }
    entries = [
        {"type": "separator", "rank": _MENU_RANK},
        {**opens, "rank": _MENU_RANK},
    ]
    button = {"name": NAME, "label": LABEL, "caption": TEXT, "rank": _BAR_RANK, **opens}
    return {
        **overrides,
        _BAR: {**bar, "toolbar": [*buttons, button]},
        _MENUS: {**menus, "menus": _with_entries(trees, entries)},
    }


def _with_entries(trees: List[Any], entries: List[Any]) -> List[Any]:
    """Return menus with entries at the end of the file menu, which may not be there.

    JupyterLab adds what is said of a menu to its own menu of the same id.
    """
    ours = {"id": _FILE_MENU, "items": entries}
    if not any(tree.get("id") == _FILE_MENU for tree in trees):
        return [*trees, ours]
    return [
        {**tree, "items": [*tree.get("items", []), *entries]}
        if tree.get("id") == _FILE_MENU
        else tree
        for tree in trees
    ]


def _overrides() -> Dict[str, Any]:
    """Return what JupyterLab would take for its defaults, were we not there.

    Raises:
        Exception: whatever a Jupyter without JupyterLab, one of another time or a
            broken file brings.
    """
    from jupyterlab.commands import get_app_dir
    from jupyterlab_server.settings_utils import _get_overrides

    found, problem = _get_overrides(str(Path(get_app_dir()) / "settings"))
    if problem:
        raise ValueError(problem)
    return dict(found)


def _private_folder() -> Path:
    """Return a folder that nobody else may read, and that goes when the process does.

    It lies beside what Jupyter itself keeps for running servers, where nothing cleans
    up behind a server that lives for weeks, or else in the temporary folder.

    Raises:
        OSError: there is no such place.
    """
    from jupyter_core.paths import jupyter_runtime_dir

    prefix = NAME + "-"
    try:
        runtime = Path(jupyter_runtime_dir())
        runtime.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=prefix, dir=str(runtime))
    except OSError:
        folder = tempfile.mkdtemp(prefix=prefix)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


if os.environ.get("GPUWORKSHOP_PAGE"):
    offer_page(os.environ["GPUWORKSHOP_PAGE"])
