"""The hub of a GPU workshop in containers; compose.yaml starts it."""

import os

from jupyterhub_gpuworkshop.hub.setup import configure

c = get_config()  # noqa: F821  # JupyterHub puts it here

# Attendees' containers and the GPU service find the hub by its name in compose.yaml.
c.JupyterHub.bind_url = "http://:8000"
c.JupyterHub.hub_ip = "0.0.0.0"  # noqa: S104  # in its container: 8081 is not published
c.JupyterHub.hub_connect_ip = "hub"

# What must outlive the hub's container, and attendees' containers outlive its restart.
state = "/srv/jupyterhub/state"
c.JupyterHub.db_url = f"sqlite:///{state}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = f"{state}/jupyterhub_cookie_secret"
c.JupyterHub.cleanup_servers = False
c.GpuRuntime.state_dir = f"{state}/servers"

# One password for the room: who has it can log in as anybody but the organiser. Good
# for a workshop of a day; JupyterHub has other authenticators for anything longer.
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = os.environ["WORKSHOP_PASSWORD"]
c.SharedPasswordAuthenticator.admin_password = os.environ["WORKSHOP_ADMIN_PASSWORD"]
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {"organiser"}

c.JupyterHub.spawner_class = "gpu-docker"
c.DockerSpawner.image = "gpuworkshop-attendee"
c.DockerSpawner.pull_policy = "never"  # it was built here
c.DockerSpawner.network_name = "gpuworkshop"
# A container goes with its server. What is saved in "work" stays, in a volume.
c.DockerSpawner.remove = True
c.DockerSpawner.volumes = {"jupyter-{username}": "/home/jovyan/work"}
# Without raw sockets nobody can pass themselves off as another on the network.
c.DockerSpawner.extra_host_config = {
    "cap_drop": ["NET_RAW"],
    "security_opt": ["no-new-privileges"],
}

# Last: it adds to what is set above.
configure(c, "/srv/jupyterhub/workshop.yaml")
