"""What a server needs of `notebook/startup`: the import hook, its page, our settings.

Owns these three variables. What the folder holds runs in the attendee's environment,
and nothing here imports it.
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import jupyterhub_gpuworkshop

FOLDER = Path(jupyterhub_gpuworkshop.__file__).parent / "notebook" / "startup"
"""Where this package keeps the hook: only a host that has the package has it there."""

_SETTINGS = "gpuworkshop_jupyter"
"""Its folder with settings for Jupyter servers: what they take for activity."""


def with_memory_hook(environment: Mapping[str, str], folder: str) -> dict[str, str]:
    """Put the hook's folder in front of a server's PYTHONPATH.

    Args:
        environment: the server's variables; its PYTHONPATH stays, behind ours.
        folder: where the server finds the hook; empty means the package's own.
    """
    ours = folder or str(FOLDER)
    return _in_front(environment, "PYTHONPATH", ours)


def with_jupyter_settings(
    environment: Mapping[str, str], folder: str
) -> dict[str, str]:
    """Put our settings for Jupyter servers in front of a server's JUPYTER_CONFIG_PATH.

    Args:
        environment: the server's variables; its JUPYTER_CONFIG_PATH stays, behind ours.
        folder: as for `with_memory_hook`; one without our settings does no harm.
    """
    return _in_front(environment, "JUPYTER_CONFIG_PATH", settings_in(folder))


def settings_in(folder: str) -> str:
    """Return where in the hook's folder our settings for Jupyter servers are."""
    return f"{folder or FOLDER}/{_SETTINGS}"


def _in_front(
    environment: Mapping[str, str], variable: str, ours: str
) -> dict[str, str]:
    theirs = environment.get(variable, "")
    return {**environment, variable: f"{ours}:{theirs}" if theirs else ours}


def page_url(environment: Mapping[str, str], service: str) -> str:
    """Return the GPU service's page as the attendee finds it: a path, or a whole URL.

    Args:
        environment: the server's variables; JupyterHub says there where it is, and
            the whole URL only where `c.JupyterHub.public_url` is set.
        service: the service's name.
    """
    base = environment.get("JUPYTERHUB_BASE_URL", "/")
    path = f"{base.rstrip('/')}/services/{service}/"
    hub = urlsplit(environment.get("JUPYTERHUB_PUBLIC_HUB_URL", ""))
    return f"{hub.scheme}://{hub.netloc}{path}" if hub.netloc else path
