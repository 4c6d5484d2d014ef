"""TLJH's spawner in shape: a SystemdSpawner that makes the Unix user when it starts."""

import pwd
import subprocess

from systemdspawner import SystemdSpawner
from traitlets import Dict, List, Unicode


def _run(*command):
    subprocess.check_call(command)  # noqa: S603


class UserCreatingSpawner(SystemdSpawner):
    """Starts each attendee's server as a Unix user of their own."""

    user_groups = Dict(key_trait=Unicode(), value_trait=List(Unicode()), config=True)

    def start(self):
        """Make the Unix user, then start."""
        name = self.username_template = f"jupyter-{self.user.name}"
        try:
            pwd.getpwnam(name)
        except KeyError:
            _run("/usr/sbin/useradd", "--create-home", name)
            _run("/usr/bin/chmod", "o-rwx", pwd.getpwnam(name).pw_dir)
        _run("/usr/bin/gpasswd", "--add", name, "jupyterhub-users")
        self.disable_user_sudo = not self.user.admin
        return super().start()
