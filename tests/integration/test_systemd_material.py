"""Material under systemd itself: homes of Unix users, and of users systemd makes up."""

import sys
from pathlib import Path

import pytest

from tests.hub.running_hub import ROOT, wait_for
from tests.hub.test_material import install

from .test_systemd import folder, machine, make_hub, pytestmark

__all__ = ["folder", "machine", "make_hub", "pytestmark"]


def test_notebooks_come_into_the_homes_of_unix_users(make_hub, machine, folder):
    material = folder / "material"
    material.mkdir()
    install(material, 1, {"start.ipynb": "1"})
    hub = make_hub("ada", workshop={"material": {"folder": str(material)}})
    hub.spawn("ada")
    notebook = "/home/ada/intro/start.ipynb"
    assert machine.read(notebook) == "1"
    said = machine.run("stat", "-c", "%U %a", notebook).stdout.strip()
    assert said == "ada 644"
    install(material, 2, {"start.ipynb": "2"})
    wait_for(lambda: machine.read(notebook) == "2", why=hub.log[-3000:])


@pytest.mark.skipif(
    ROOT.is_relative_to("/tmp") or Path(sys.prefix).is_relative_to("/tmp"),  # noqa: S108
    reason="users that systemd makes up have a /tmp of their own: clone elsewhere",
)
def test_notebooks_come_into_homes_of_users_that_systemd_makes_up(
    make_hub, machine, folder
):
    material = folder / "material"
    material.mkdir()
    install(material, 1, {"start.ipynb": "1"})
    hub = make_hub(
        "ada",
        workshop={"material": {"folder": str(material)}},
        early="c.SystemdSpawner.dynamic_users = True\n",
    )
    hub.spawn("ada")
    assert not machine.run("ls", "/home/ada").stdout
    where = "/var/lib/private/ada"
    assert machine.read(f"{where}/intro/start.ipynb") == "1", hub.log[-3000:]
    owners = machine.run("stat", "-c", "%u", where, f"{where}/intro/start.ipynb")
    home, notebook = owners.stdout.split()
    assert home == notebook != "0"
