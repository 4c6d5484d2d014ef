"""The hooks, by the names that TLJH 2.0 gives them."""

import pluggy

hookspec = pluggy.HookspecMarker("tljh")


@hookspec
def tljh_extra_user_conda_packages():
    """Return conda packages for the users' environment."""


@hookspec
def tljh_extra_user_conda_channels():
    """Return channels for them."""


@hookspec
def tljh_extra_user_pip_packages():
    """Return pip packages for the users' environment."""


@hookspec
def tljh_extra_hub_pip_packages():
    """Return pip packages for the hub's environment."""


@hookspec
def tljh_extra_apt_packages():
    """Return packages of the distribution."""


@hookspec
def tljh_custom_jupyterhub_config(c):
    """Change the hub's configuration."""


@hookspec
def tljh_config_post_install(config):
    """Change config.yaml."""


@hookspec
def tljh_post_install():
    """Finish the installation."""


@hookspec
def tljh_new_user_create(username):
    """Greet a new Unix user."""


def plugin_manager():
    """Return the plugins, found as TLJH finds them."""
    from tljh import hooks

    manager = pluggy.PluginManager("tljh")
    manager.add_hookspecs(hooks)
    manager.load_setuptools_entrypoints("tljh")
    return manager
