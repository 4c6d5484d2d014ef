"""What a server needs for the import hook: its folder on PYTHONPATH, and our page.

Owns these two variables. The hook itself runs in the attendee's environment
(`notebook/startup`) and nothing here imports it.
"""

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import jupyterhub_gpuworkshop

FOLDER = Path(jupyterhub_gpuworkshop.__file__).parent / "notebook" / "startup"
"""Where this package keeps the hook: only a host that has the package has it there."""


def with_memory_hook(environment: Mapping[str, str], folder: str) -> dict[str, str]:
    """Put the hook's folder in front of a server's PYTHONPATH.

    Args:
        environment: the server's variables; its PYTHONPATH stays, behind ours.
        folder: where the server finds the hook; empty means the package's own.
    """
    ours = folder or str(FOLDER)
    theirs = environment.get("PYTHONPATH", "")
    return {**environment, "PYTHONPATH": f"{ours}:{theirs}" if theirs else ours}


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
