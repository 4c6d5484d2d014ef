"""Who is an organiser, as the hub knows its users.

Owns the name of the role, and who counts: opening hours do not bind organisers.
"""

from typing import Any

from jupyterhub.roles import get_roles_for

ORGANISER_ROLE = "gpuworkshop-organiser"


def is_organiser(user: Any) -> bool:
    """Whether a user of the hub is an admin of it, or has the organisers' role."""
    return bool(user.admin) or any(
        role.name == ORGANISER_ROLE for role in get_roles_for(user.orm_user)
    )
