"""What the service's web side needs around it, where a test makes it without a process.

`parts_of` and `no_parts` stand in for `service.parts.Parts`: a new part that routes
need is added here, once for all tests.
"""

import logging
from types import SimpleNamespace

from jupyterhub.services.auth import HubOAuth

from jupyterhub_gpuworkshop.service.acts import Acts
from jupyterhub_gpuworkshop.service.announcement import Announcing
from jupyterhub_gpuworkshop.service.asked_acts import AskedActs
from jupyterhub_gpuworkshop.service.exchange import Exchange
from jupyterhub_gpuworkshop.service.locked import LockedOut
from jupyterhub_gpuworkshop.service.pulse import Pulses
from jupyterhub_gpuworkshop.service.usage import Usage

from .service_process import PREFIX

SERVICE = SimpleNamespace(
    prefix=PREFIX, link_secret="secret", log=logging.getLogger("test")
)


def parts_of(world, **more):
    """Return the parts of a world; HubOAuth's instance must be there."""
    acts = Acts(world.monitor, world.rules, world.history)
    announcing = Announcing(world.kept, world.history, world.link)
    locked_out = LockedOut(world.link, world.kept, world.history)
    more.setdefault("usage", Usage(Pulses(world.gpus), world.history))
    return no_parts(
        announcing=announcing,
        locked_out=locked_out,
        exchange=Exchange(world.monitor, announcing, locked_out),
        rules=world.rules,
        monitor=world.monitor,
        history=world.history,
        acts=acts,
        asked=AskedActs(world.monitor, world.actor, world.history),
        **more,
    )


def no_parts(**given):
    """Return parts of which only those given are there."""
    known = ("rules", "monitor", "history", "acts", "endings")
    others = ("announcing", "locked_out", "exchange", "asked", "feed", "usage")
    nothing = dict.fromkeys((*known, *others))
    nothing["stopping"] = SimpleNamespace(asked=None)
    always = {"auth": HubOAuth.instance(), "cookie_secret": b"0" * 32}
    return SimpleNamespace(**{**always, **nothing, **given})
