"""configure(c, workshop): what it sets, and what it leaves alone."""

import runpy
import stat

import pytest
from jupyterhub.spawner import (
    LocalProcessSpawner,
    SimpleLocalProcessSpawner,
    Spawner,
)
from traitlets import Integer
from traitlets.config import Config

from jupyterhub_gpuworkshop.core.errors import WorkshopFileError
from jupyterhub_gpuworkshop.hub.mixin import GpuSpawnerMixin
from jupyterhub_gpuworkshop.hub.runtime import GpuRuntime
from jupyterhub_gpuworkshop.hub.setup import configure
from jupyterhub_gpuworkshop.hub.spawners.local import (
    GpuLocalMixin,
    GpuLocalSpawner,
    GpuSimpleSpawner,
)

from .running_hub import ROOT


class _Elsewhere(Spawner):
    async def start(self):
        return ""

    async def stop(self, now=False):
        pass

    async def poll(self):
        return 0


def _configured(workshop=None, **jupyterhub):
    c = Config()
    for name, value in jupyterhub.items():
        c.JupyterHub[name] = value
    configure(c, workshop)
    return c


@pytest.mark.parametrize(
    ("chosen", "result"),
    [
        (None, "gpu-local"),
        ("default", "gpu-local"),
        ("localprocess", "gpu-local"),
        ("jupyterhub.spawner.LocalProcessSpawner", "gpu-local"),
        ("simple", "gpu-simple"),
        ("gpu-simple", "gpu-simple"),
        (GpuLocalSpawner, GpuLocalSpawner),
        (
            "jupyterhub_gpuworkshop.hub.spawners.local.GpuSimpleSpawner",
            GpuSimpleSpawner,
        ),
    ],
)
def test_a_bare_spawner_is_replaced_by_the_one_with_shares(chosen, result):
    given = {} if chosen is None else {"spawner_class": chosen}
    assert _configured(**given).JupyterHub.spawner_class == result


def test_a_spawner_that_cannot_take_shares_is_refused_with_the_remedy():
    class Mine(_Elsewhere):
        pass

    with pytest.raises(WorkshopFileError, match=r"class GpuSpawner\(GpuSpawnerMixin"):
        _configured(spawner_class=Mine)

    class Gpu(GpuSpawnerMixin, Mine):
        pass

    assert _configured(spawner_class=Gpu).JupyterHub.spawner_class is Gpu


@pytest.mark.parametrize(
    ("chosen", "result"),
    [
        (LocalProcessSpawner, "gpu-local"),
        (SimpleLocalProcessSpawner, "gpu-simple"),
        ("Simple", "gpu-simple"),
        ("LocalProcess", "gpu-local"),
    ],
)
def test_a_bare_spawner_is_replaced_however_it_is_named(chosen, result):
    assert _configured(spawner_class=chosen).JupyterHub.spawner_class == result


def test_a_class_of_local_processes_is_told_of_the_mixin_that_keeps_their_records():
    class Mine(LocalProcessSpawner):
        pass

    with pytest.raises(WorkshopFileError, match=r"\(GpuLocalMixin, Mine\)"):
        _configured(spawner_class=Mine)

    class Gpu(GpuLocalMixin, Mine):
        pass

    assert _configured(spawner_class=Gpu).JupyterHub.spawner_class is Gpu


def test_timeouts_that_a_spawner_has_longer_by_itself_are_not_cut_short():
    class Patient(GpuSpawnerMixin, _Elsewhere):
        start_timeout = Integer(600, config=True)

    c = _configured(spawner_class=Patient)
    assert "start_timeout" not in c.Spawner
    assert c.Spawner.http_timeout > 60


def test_a_spawner_that_nobody_has_is_told():
    with pytest.raises(WorkshopFileError, match=r"'dokcer' cannot be imported"):
        _configured(spawner_class="dokcer")


def test_what_the_admin_has_set_stays():
    c = Config()
    c.JupyterHub.services = [{"name": "mine", "api_token": "x"}]
    c.JupyterHub.load_roles = [
        {"name": "user", "scopes": ["self", "read:users"]},
        {"name": "mine", "scopes": ["list:users"], "services": ["mine"]},
    ]
    c.JupyterHub.custom_scopes = {"custom:mine:do": {"description": "mine"}}
    c.Spawner.http_timeout = 7
    configure(c, {})
    assert [service["name"] for service in c.JupyterHub.services] == [
        "mine",
        "gpuworkshop",
    ]
    roles = {role["name"]: role for role in c.JupyterHub.load_roles}
    assert len(roles) == len(c.JupyterHub.load_roles)
    assert roles["user"]["scopes"] == [
        "self",
        "read:users",
        "custom:gpuworkshop:read",
        "access:services!service=gpuworkshop",
    ]
    assert roles["mine"]["scopes"] == ["list:users"]
    assert "custom:mine:do" in c.JupyterHub.custom_scopes
    assert c.Spawner.http_timeout == 7
    assert c.Spawner.start_timeout > 60


def test_appended_services_and_roles_stay_too():
    c = Config()
    c.JupyterHub.services.append({"name": "mine", "api_token": "x"})
    c.JupyterHub.load_roles.append({"name": "mine", "scopes": []})
    configure(c, {})
    assert {service["name"] for service in c.JupyterHub.services} == {
        "mine",
        "gpuworkshop",
    }
    assert {role["name"] for role in c.JupyterHub.load_roles} >= {"mine", "user"}


@pytest.mark.parametrize("managed", [True, False])
def test_the_services_token_may_stop_servers_and_nothing_else(tmp_path, managed):
    service = {"managed": managed, "secret_file": str(tmp_path / "secrets.env")}
    c = _configured({"service": {"name": "gpus", **service}})
    theirs = [r for r in c.JupyterHub.load_roles if "gpus" in r.get("services", [])]
    assert [role["scopes"] for role in theirs] == [["delete:servers"]]
    (registered,) = c.JupyterHub.services
    assert not registered.get("admin")


def test_an_admins_role_of_the_services_name_gains_what_it_lacks():
    mine = {
        "name": "gpuworkshop-service",
        "scopes": ["read:hub"],
        "services": ["mine"],
    }
    c = _configured(load_roles=[mine])
    (role,) = (
        role
        for role in c.JupyterHub.load_roles
        if role["name"] == "gpuworkshop-service"
    )
    assert role["scopes"] == ["read:hub", "delete:servers"]
    assert role["services"] == ["mine", "gpuworkshop"]
    assert mine["scopes"] == ["read:hub"]


def test_a_second_call_is_refused():
    c = _configured()
    with pytest.raises(WorkshopFileError, match="twice"):
        configure(c, {})


def test_a_mistake_in_the_workshop_file_names_key_and_value(tmp_path):
    path = tmp_path / "workshop.yaml"
    path.write_text("gpus:\n  attendees_per_gpu: none\n")
    with pytest.raises(WorkshopFileError, match=r"gpus\.attendees_per_gpu.*none"):
        _configured(path)


def test_each_start_has_a_secret_of_its_own_that_only_the_service_is_given():
    first, second = _configured(), _configured()
    assert first.GpuRuntime.link_secret != second.GpuRuntime.link_secret
    (service,) = first.JupyterHub.services
    assert service["environment"]["GPUWORKSHOP_LINK_SECRET"] == (
        first.GpuRuntime.link_secret
    )
    assert first.GpuRuntime.link_secret not in " ".join(service["command"])


def test_an_external_service_shares_secrets_by_a_private_file(tmp_path):
    path = tmp_path / "secrets.env"
    workshop = {"service": {"managed": False, "secret_file": str(path)}}
    first, second = _configured(workshop), _configured(workshop)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first.GpuRuntime.link_secret == second.GpuRuntime.link_secret
    (service,) = first.JupyterHub.services
    assert "command" not in service
    assert f"JUPYTERHUB_API_TOKEN={service['api_token']}" in path.read_text()

    with pytest.raises(WorkshopFileError, match=r"service\.secret_file: is needed"):
        _configured({"service": {"managed": False}})
    path.write_text("JUPYTERHUB_API_TOKEN=x\n")
    with pytest.raises(WorkshopFileError, match="lacks GPUWORKSHOP_LINK_SECRET"):
        _configured(workshop)


@pytest.mark.parametrize("cls", [GpuRuntime, GpuSpawnerMixin])
def test_every_configurable_trait_has_help_with_an_example(cls):
    traits = cls.class_own_traits(config=True)
    assert traits
    for name, trait in traits.items():
        assert f"c.{cls.__name__}.{name} = " in trait.help or "def share" in trait.help


def test_the_configuration_at_the_root_is_a_working_one(monkeypatch):
    c = Config()
    monkeypatch.chdir(ROOT)
    before = set(ROOT.iterdir())
    runpy.run_path(
        str(ROOT / "jupyterhub_config.py"), init_globals={"get_config": lambda: c}
    )
    assert c.JupyterHub.spawner_class == "gpu-local"
    assert c.GpuRuntime.service_url == "http://127.0.0.1:10110"
    assert set(ROOT.iterdir()) == before


def test_seats_and_the_names_that_have_shares_reach_the_authenticator():
    c = Config()
    c.RosterAuthenticator.reserved_names.add("teacher")
    configure(c, {"roster": {"seats": 40}, "shares": {"users": {"vip": "1 gpu"}}})
    assert c.RosterAuthenticator.seats == 40
    assert c.RosterAuthenticator.reserved_names == {"teacher", "vip"}


def test_nobody_may_choose_the_name_of_who_has_a_role():
    c = Config()
    role = {"name": "gpuworkshop-organiser", "users": ["tina"]}
    c.JupyterHub.load_roles = [role, {"name": "user", "scopes": ["self"]}]
    configure(c)
    assert c.RosterAuthenticator.reserved_names == {"tina"}


def test_what_an_admin_set_of_seats_and_names_stays():
    c = Config()
    c.RosterAuthenticator.seats = 3
    c.RosterAuthenticator.reserved_names = {"teacher"}
    configure(c, {"roster": {"seats": 40}})
    assert c.RosterAuthenticator.seats == 3
    assert c.RosterAuthenticator.reserved_names == {"teacher"}
    assert _configured().RosterAuthenticator.seats == 0
