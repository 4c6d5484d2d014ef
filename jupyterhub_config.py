"""A JupyterHub for a GPU workshop on one host: runnable as it stands.

As root, on a machine with an NVIDIA driver, and a Unix user for each attendee::

    pip install . jupyterlab configurable-http-proxy
    jupyterhub -f jupyterhub_config.py
"""

from pathlib import Path

from jupyterhub_gpuworkshop.hub.setup import configure

c = get_config()  # noqa: F821  # JupyterHub puts it here

c.JupyterHub.bind_url = "http://:8000"

# Everybody who has an account on this machine, with its password (PAM).
c.PAMAuthenticator.allow_all = True
c.Authenticator.admin_users = {"organiser"}

# What the organiser decides stands in the workshop file, beside this one. Without the
# file the defaults hold: five attendees a GPU, in turn.
workshop = Path(__file__).with_name("workshop.yaml")

# Last: it adds to what is set above.
configure(c, workshop if workshop.exists() else None)
