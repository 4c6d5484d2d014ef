"""What a path in the cgroup tree says about whose process it is.

Owns reading such paths. The kernel keeps them and an attendee cannot leave a cgroup,
but a Unix user with a service manager of their own (``user@1001.service``) makes
cgroups of any name below it: where in the path a name stands decides.
"""

import re

# docker-, libpod-, nerdctl-, crio-, cri-containerd-: whose engine it is, is all one.
_CONTAINER = re.compile(r"(?:[a-z][a-z-]*-)?([0-9a-f]{64})(?:\.scope)?")
_OWN_MANAGER = re.compile(r"user@\d+\.service")

Place = tuple[str, str]
"""(engine, what it calls the server), as `Lease.engine` and `Lease.engine_id`."""


def place_of(cgroup: str) -> Place | None:
    """Return the container or the system unit that a process runs in.

    A container: the outermost, for what is inside it is its own to name, and none
    below a user's own manager, where an engine without root would have it. A unit: the
    system's only, which has nothing but slices above it; those names are unique.

    Args:
        cgroup: the path, as ``/system.slice/docker-<id>.scope`` or ``/docker/<id>``,
            ``/system.slice/jupyter-ada.service``; empty where unknown.

    Returns:
        None for anything else.
    """
    parts = cgroup.strip("/").split("/")
    for part in parts:
        if match := _CONTAINER.fullmatch(part):
            return ("docker", match[1])
        if _OWN_MANAGER.fullmatch(part):
            break
    for part in parts:
        if part.endswith(".service"):
            return ("systemd", part)
        if not part.endswith(".slice"):
            return None
    return None
