"""The hub's configuration in the order of TLJH's: defaults, config.yaml, plugins."""

from glob import glob

from tljh import config, hooks
from tljh.user_creating_spawner import UserCreatingSpawner

c = get_config()  # noqa: F821
c.JupyterHub.spawner_class = UserCreatingSpawner
c.JupyterHub.cleanup_servers = False
c.JupyterHub.hub_port = 15001
# In place of traefik: hub and servers are talked to directly.
c.JupyterHub.proxy_class = "null_proxy.NullProxy"
c.SystemdSpawner.extra_paths = ["/opt/tljh/user/bin"]
c.SystemdSpawner.default_shell = "/bin/bash"
c.SystemdSpawner.unit_name_template = "jupyter-{USERNAME}"

config.apply(config.load(), c)
hooks.plugin_manager().hook.tljh_custom_jupyterhub_config(c=c)

for extra in sorted(glob("/opt/tljh/config/jupyterhub_config.d/*.py")):  # noqa: PTH207
    load_subconfig(extra)  # noqa: F821
