"""The plugin of The Littlest JupyterHub: `--plugin` with this package is all it takes.

Owns the hooks that TLJH calls, and nothing else: each imports what it needs when it is
called. TLJH itself is never imported while this module is loaded; its marker is a name
(facts: jupyterhub 24).
"""

from typing import Any

import pluggy

_hookimpl = pluggy.HookimplMarker("tljh")


@_hookimpl
def tljh_custom_jupyterhub_config(c: Any) -> None:
    """Share the GPUs of the hub that is starting; never stop it.

    Args:
        c: the hub's configuration, as far as TLJH has set it.
    """
    from .hub_config import apply

    apply(c)


@_hookimpl
def tljh_post_install() -> None:
    """Finish an installation or an upgrade; the hub is already running."""
    from .installation import finish

    finish()
