"""What the service's web side needs around it, where a test makes it without a process.

`parts_of` and `no_parts` stand in for `service.parts.Parts`: a new part that routes
need is added here, once for all tests.
"""

import logging
from types import SimpleNamespace

from jupyterhub.services.auth import HubOAuth

from jupyterhub_gpuworkshop.service.acts import Acts

from .service_process import PREFIX

SERVICE = SimpleNamespace(
    prefix=PREFIX, link_secret="secret", log=logging.getLogger("test")
)


def parts_of(world, **more):
    """Return the parts of a world; HubOAuth's instance must be there."""
    acts = Acts(world.monitor, world.rules, world.history)
    return no_parts(
        rules=world.rules,
        monitor=world.monitor,
        history=world.history,
        acts=acts,
        **more,
    )


def no_parts(**given):
    """Return parts of which only those given are there."""
    nothing = dict.fromkeys(("rules", "monitor", "history", "acts", "endings"))
    return SimpleNamespace(**{"auth": HubOAuth.instance(), **nothing, **given})
