"""Who may log in to the demo's hub: one organiser, and attendees by their number.

Owns nothing but that. JupyterHub's own shared-password authenticator came in 5.3, and
the demo runs on 5.2 too.
"""

import re
from hmac import compare_digest
from typing import Any

from jupyterhub.auth import Authenticator
from traitlets import Unicode

from .settings import ORGANISER

_ATTENDEE = re.compile(r"attendee\d{2,4}")


class DemoAuthenticator(Authenticator):
    """Two passwords, made anew for each run."""

    organiser_password = Unicode(
        help="""
        The organiser's password; the demo makes it. Empty lets nobody in.

        Example::

            c.DemoAuthenticator.organiser_password = secrets.token_hex()
        """,
    ).tag(config=True)

    attendee_password = Unicode(
        help="""
        The password of every attendee; the demo makes it. Empty lets nobody in.

        Example::

            c.DemoAuthenticator.attendee_password = secrets.token_hex()
        """,
    ).tag(config=True)

    async def authenticate(
        self, handler: Any, data: dict[str, str]
    ) -> dict[str, Any] | None:
        """Return who it is, organisers as admins; None for anybody else."""
        name, given = data["username"], data["password"].strip()
        if name == ORGANISER:
            expected = self.organiser_password
        elif _ATTENDEE.fullmatch(name):
            expected = self.attendee_password
        else:
            return None
        if not expected or not compare_digest(given.encode(), expected.encode()):
            return None
        return {"name": name, "admin": name == ORGANISER}
