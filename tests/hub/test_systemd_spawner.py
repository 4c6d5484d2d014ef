"""gpu-systemd without systemd: names, properties, and what is believed of systemctl."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from systemdspawner import SystemdSpawner
from traitlets.config import Config

from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.errors import (
    HostError,
    ShareRefused,
    WorkshopFileError,
)
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice, Ledger
from jupyterhub_gpuworkshop.hub.mixin import GpuSpawnerMixin
from jupyterhub_gpuworkshop.hub.setup import configure
from jupyterhub_gpuworkshop.hub.spawners.systemd import (
    GpuSystemdMixin,
    GpuSystemdSpawner,
)
from jupyterhub_gpuworkshop.hub.spawners.systemd_properties import (
    STAYS_OPEN,
    rule_devices,
)
from jupyterhub_gpuworkshop.hub.spawners.systemd_units import (
    SystemdEngine,
    look_at,
    why_not,
)

RULES = ("/dev/char/195:255 rw", "/dev/char/195:1 rw")


def ruled(admin, rules=RULES, *, private_devices=False):
    return rule_devices(
        admin,
        rules,
        private_devices=private_devices,
        opens_gpus=lambda line: "nvidia" in line,
    )


def a_lease(user, unit, server=""):
    return Lease(
        id=f"{user}{server}",
        user=user,
        server=server,
        share="cpu",
        granted_at=1.0,
        engine="systemd",
        engine_id=unit,
    )


@pytest.fixture
def make_spawner(monkeypatch):
    monkeypatch.setattr("systemdspawner.systemd.get_systemd_version", lambda: 252)

    def make(name="ada", server="", leases=(), cls=GpuSystemdSpawner, **config):
        ledger = Ledger()
        for lease in leases:
            ledger = ledger.with_lease(lease)
        runtime = SimpleNamespace(allocator=SimpleNamespace(ledger=ledger))
        user = SimpleNamespace(
            name=name, id=7, url="/", settings={"gpuworkshop": runtime}
        )
        c = Config()
        c.SystemdSpawner.update(config)
        row = SimpleNamespace(name=server, state=None, server=None)
        spawner = cls(user=user, orm_spawner=row, config=c)
        spawner._has_unit = True  # as when it is on record, or was started
        return spawner

    return make


@pytest.fixture
def systemctl(tmp_path, monkeypatch):
    """A systemctl that says what it is told to, and writes down how it was called."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    calls = tmp_path / "calls"
    calls.touch()

    def say(script):
        program = tmp_path / "systemctl"
        program.write_text(f'#!/bin/sh\necho "$@" >>{calls}\n{script}\n')
        program.chmod(0o755)
        return calls

    return say


def shown(state, *, transient="yes", load="loaded", cgroup=""):
    return (
        f"printf 'LoadState={load}\\nActiveState={state}\\nTransient={transient}\\n"
        f"ControlGroup={cgroup}\\n'"
    )


def test_the_rules_of_the_lease_follow_what_the_admin_opens():
    admin = {"DeviceAllow": ["/dev/snd/timer rw"], "CPUWeight": "20"}
    result = ruled(admin)
    assert result.properties == {
        "DevicePolicy": "closed",
        "DeviceAllow": ["/dev/snd/timer rw", *STAYS_OPEN, *RULES],
        "CPUWeight": "20",
    }
    assert result.overruled == ()
    assert admin == {"DeviceAllow": ["/dev/snd/timer rw"], "CPUWeight": "20"}


def test_a_single_line_of_the_admins_is_a_list_of_one():
    result = ruled({"DeviceAllow": "/dev/snd/timer rw"})
    assert result.properties["DeviceAllow"][0] == "/dev/snd/timer rw"


def test_a_lease_without_devices_closes_every_gpu():
    result = ruled({}, ())
    assert result.properties == {
        "DevicePolicy": "closed",
        "DeviceAllow": list(STAYS_OPEN),
    }


def test_an_admin_cannot_open_gpus_past_the_lease_and_is_told():
    result = ruled({"DeviceAllow": ["/dev/nvidia0 rw", "/dev/snd/timer rw"]})
    assert "/dev/nvidia0 rw" not in result.properties["DeviceAllow"]
    assert "/dev/snd/timer rw" in result.properties["DeviceAllow"]
    (told,) = result.overruled
    assert "/dev/nvidia0 rw" in told
    assert "/dev/snd" not in told


@pytest.mark.parametrize(
    ("policy", "becomes", "is_told"),
    [
        ("closed", "closed", False),
        ("strict", "strict", False),
        ("auto", "closed", True),
    ],
)
def test_a_policy_that_opens_everything_is_closed(policy, becomes, is_told):
    result = ruled({"DevicePolicy": policy})
    assert result.properties["DevicePolicy"] == becomes
    assert bool(result.overruled) is is_told
    is_open = set(STAYS_OPEN) <= set(result.properties["DeviceAllow"])
    assert is_open is (becomes == "closed")


@pytest.mark.parametrize(
    ("admin", "private"),
    [({}, True), ({"PrivateDevices": "yes"}, False), ({"PrivateDevices": True}, False)],
)
def test_a_dev_of_its_own_gives_way_to_a_gpu_and_stays_without_one(admin, private):
    with_gpu = ruled(admin, private_devices=private)
    assert not with_gpu.private_devices
    assert "PrivateDevices" not in with_gpu.properties
    assert "isolate_devices" in with_gpu.overruled[0]
    without = ruled(admin, (), private_devices=private)
    assert without.private_devices
    assert without.overruled == ()


def test_private_devices_that_are_off_stay_off():
    result = ruled({"PrivateDevices": "no"}, ())
    assert not result.private_devices
    assert result.overruled == ()


@pytest.mark.parametrize("name", ["jupyter-ada", "jupyter-ada@x.org", "jupyter-A_1.b"])
def test_ordinary_names_fit_a_unit(name):
    assert why_not(name) == ""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("jupyter-*", r"cannot hold '\*'"),
        ("jupyter-a?[b]", r"cannot hold '\?\[\]'"),
        ("jupyter-ada lovelace", "cannot hold ' '"),
        ("jupyter-ada+gpu", r"cannot hold '\+'"),
        ("jupyter-zoë", "cannot hold 'ë'"),
        ("jupyter-a:b", "cannot hold ':'"),
        ("jupyter-a\\x2a", r"cannot hold '\\\\'"),
        ("jupyter-ada.service", "ends in .service"),
        ("jupyter-ada.slice", "ends in .slice"),
        ("--help", "cannot begin so"),
        ("", "cannot begin so"),
        ("j" * 300, "longer than 247"),
    ],
)
def test_a_name_that_does_not_fit_a_unit_is_told_why(name, told):
    assert re.search(told, why_not(name)), why_not(name)


def test_two_servers_of_one_attendee_have_units_of_their_own(make_spawner):
    assert make_spawner().unit_name == "jupyter-ada-singleuser"
    assert make_spawner(server="lab").unit_name == "jupyter-ada-singleuser--lab"
    tljh = {"unit_name_template": "jupyter-{USERNAME}"}
    assert make_spawner(**tljh).engine_id_ahead() == "jupyter-ada.service"


def test_a_unit_that_another_attendees_server_has_is_refused(make_spawner):
    taken = [a_lease("bea", "jupyter.service")]
    spawner = make_spawner(unit_name_template="jupyter", leases=taken)
    with pytest.raises(ShareRefused, match="another one runs under its name"):
        spawner.engine_id_ahead()


def test_a_unit_whose_last_server_has_not_ended_is_not_started_anew(make_spawner):
    # One cgroup would hold the processes of both, and the share be promised twice.
    mine = [a_lease("ada", "jupyter-ada-singleuser.service")]
    with pytest.raises(ShareRefused, match="have not ended"):
        make_spawner(leases=mine).engine_id_ahead()
    unit = make_spawner(server="lab", leases=mine).engine_id_ahead()
    assert unit == "jupyter-ada-singleuser--lab.service"


def test_properties_that_are_lists_are_filled_in_line_by_line(make_spawner):
    # systemdspawner 1.0.2 stumbles over them (facts: jupyterhub 18).
    filled = make_spawner()._expand_user_vars(["a {USERNAME}", "b {USERID}"])
    assert filled == ["a ada", "b 7"]


def test_the_configured_properties_are_lent_and_come_back(make_spawner):
    admin = {"DeviceAllow": ["/dev/snd/{USERNAME} rw"]}
    spawner = make_spawner(unit_extra_properties=admin, isolate_devices=True)
    with spawner._properties(ruled(spawner.unit_extra_properties)):
        assert "DevicePolicy" in spawner.unit_extra_properties
        assert not spawner.isolate_devices
        spawner.unit_extra_properties["DeviceAllow"].append("as the spawner writes")
    assert spawner.unit_extra_properties == admin
    assert spawner.isolate_devices


async def test_a_unit_is_started_under_the_rules_of_its_lease(
    make_spawner, systemctl, tmp_path
):
    systemctl(f"[ $1 = show ] || exit 3\n{shown('active')}")
    run, said = tmp_path / "systemd-run", tmp_path / "said"
    run.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{said}\n')
    run.chmod(0o755)
    admin = {"DeviceAllow": ["/dev/snd/timer rw"]}
    spawner = make_spawner(
        username_template="nobody", unit_extra_properties=admin, isolate_devices=True
    )
    device = Device(uuid="GPU-b", label="0", name="GPU", memory_bytes=1, minor=4)
    runtime = spawner.user.settings["gpuworkshop"]
    runtime.allocator.inventory = Inventory(devices=(device,), source="nvml")
    leased = LeasedDevice(uuid="GPU-b", label="0", memory_bytes=1, total_bytes=1)
    unit = "jupyter-ada-singleuser.service"
    spawner.lease = replace(a_lease("ada", unit), devices=(leased,))
    spawner.cmd, spawner.get_env, spawner.get_args = ["/bin/true"], dict, list
    # What comes after the claim, in whatever class the mixin is put in front of.
    await super(GpuSpawnerMixin, spawner).start()
    arguments = said.read_text().splitlines()
    assert "--property=DevicePolicy=closed" in arguments
    opens = [x.partition("=")[2] for x in arguments if "=DeviceAllow=" in x]
    assert opens == [
        *("DeviceAllow=/dev/snd/timer rw", f"DeviceAllow={STAYS_OPEN[0]}"),
        *("DeviceAllow=/dev/char/195:255 rw", "DeviceAllow=/dev/char/195:254 rw"),
        *("DeviceAllow=char-nvidia-uvm rw", "DeviceAllow=/dev/char/195:4 rw"),
    ]
    assert not any("PrivateDevices" in x for x in arguments)
    assert spawner.unit_extra_properties == admin
    assert spawner.isolate_devices


@pytest.mark.parametrize(
    ("template", "dynamic", "user", "known"),
    [
        ("{USERNAME}", False, "nobody", True),
        ("root", False, "root", False),
        ("workshop", False, "nobody", False),
        ("{USERNAME}", True, "nobody", False),
        ("{USERNAME}", False, "daemon", False),
        ("{USERNAME}", False, "no-such-user-here", False),
        ("{USERNAME}", False, "", False),
    ],
)
def test_a_unix_user_is_the_attendees_unless_others_use_it(
    make_spawner, template, dynamic, user, known
):
    spawner = make_spawner(username_template=template, dynamic_users=dynamic)
    spawner.load_state({"gpuworkshop_unix_user": user})
    assert (spawner.attendee_uid() is not None) is known


def test_the_unix_user_outlives_the_hub_in_the_spawners_state(make_spawner):
    spawner = make_spawner()
    assert "gpuworkshop_unix_user" not in spawner.get_state()
    spawner._unix_user = "jupyter-ada"  # as TLJH names it at each start
    again = make_spawner()
    again.load_state(spawner.get_state())
    assert again._unix_user == "jupyter-ada"


async def test_a_systemd_that_does_not_answer_makes_no_server_dead(
    make_spawner, systemctl, monkeypatch
):
    monkeypatch.setattr(
        "jupyterhub_gpuworkshop.hub.spawners.systemd._ASK_AGAIN_SECONDS", (0, 0)
    )
    calls = systemctl("echo Failed to connect to bus >&2; exit 1")
    with pytest.raises(HostError, match="Failed to connect to bus"):
        await make_spawner().poll()
    assert len(calls.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("state", "status"),
    [("active", None), ("reloading", None), ("failed", 1), ("deactivating", 1)],
)
async def test_a_server_runs_while_its_main_process_does(
    make_spawner, systemctl, state, status
):
    systemctl(shown(state))
    assert await make_spawner().poll() == status


async def test_a_spawner_that_started_nothing_takes_no_unit_for_its_own(
    make_spawner, systemctl
):
    calls = systemctl(shown("active"))
    spawner = make_spawner()
    spawner._has_unit = False
    assert await spawner.poll() == 1
    assert calls.read_text() == ""


async def test_a_unit_that_somebody_installed_is_never_stopped(make_spawner, systemctl):
    calls = systemctl(shown("active", transient="no", cgroup="/system.slice/ssh"))
    spawner = make_spawner(unit_name_template="ssh")
    assert await spawner.poll() == 1
    await spawner.stop()
    engine = SystemdEngine()
    lease = a_lease("ada", "ssh.service")
    assert not await engine.is_running(lease)
    await engine.end(lease)
    assert {call.split()[0] for call in calls.read_text().splitlines()} == {"show"}


async def test_a_name_with_a_pattern_never_reaches_systemctl(make_spawner, systemctl):
    calls = systemctl(shown("active"))
    spawner = make_spawner(name="*")
    assert await spawner.poll() == 1
    await spawner.stop()
    assert not await SystemdEngine().is_running(a_lease("*", "jupyter-*.service"))
    assert calls.read_text() == ""


async def test_a_unit_that_does_not_exist_has_no_server(systemctl):
    systemctl(shown("inactive", transient="no", load="not-found"))
    unit = await look_at("jupyter-ada")
    assert unit.is_ours
    assert not unit.is_up
    assert not unit.is_alive(Path("/nowhere"))


@pytest.mark.parametrize("tree", ["", "systemd", "unified"])
async def test_a_process_left_in_a_units_cgroup_keeps_it_running(
    systemctl, tmp_path, tree
):
    systemctl(shown("failed", cgroup="/system.slice/jupyter-ada.service"))
    engine = SystemdEngine(tmp_path / "cgroup")
    lease = a_lease("ada", "jupyter-ada.service")
    top = tmp_path / "cgroup" / tree / "system.slice/jupyter-ada.service"
    below = top / "kernels"
    below.mkdir(parents=True)
    (top / "cgroup.procs").write_text("")
    (below / "cgroup.procs").write_text("")
    assert not await engine.is_running(lease)
    (below / "cgroup.procs").write_text("4711\n")
    assert await engine.is_running(lease)


async def test_a_systemctl_that_hangs_is_given_up(systemctl, monkeypatch):
    monkeypatch.setattr(
        "jupyterhub_gpuworkshop.hub.spawners.systemd_units._CALL_SECONDS", 0.1
    )
    systemctl("exec sleep 60")
    with pytest.raises(HostError, match="does not come back"):
        await look_at("jupyter-ada")


def test_configure_chooses_the_spawner_with_shares():
    c = Config()
    c.JupyterHub.spawner_class = "systemd"
    configure(c, {})
    assert c.JupyterHub.spawner_class == "gpu-systemd"


def test_a_subclass_is_told_of_its_mixin_and_takes_it(make_spawner):
    class UserCreating(SystemdSpawner):
        def start(self):
            self.username_template = "jupyter-" + self.user.name
            return super().start()

    c = Config()
    c.JupyterHub.spawner_class = UserCreating
    with pytest.raises(WorkshopFileError, match=r"\(GpuSystemdMixin, UserCreating\)"):
        configure(c, {})

    class Gpu(GpuSystemdMixin, UserCreating):
        pass

    assert make_spawner(cls=Gpu, server="lab").unit_name.endswith("--lab")
