"""Work, from a home to its attendee's browser: a real hub, service and collection."""

import gzip
import io
import os
import pwd
import shutil
import tarfile
from pathlib import Path
from urllib.parse import urljoin

import pytest
import requests
from bs4 import BeautifulSoup
from click.testing import CliRunner

from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.core.roster import Attendee, Organiser, Roster
from jupyterhub_gpuworkshop.hub.codes import hash_code, hash_password
from jupyterhub_gpuworkshop.hub.roster_file import change_roster
from tests.conftest import require_engine
from tests.hub.running_hub import HERE, wait_for
from tests.hub.test_local_users import _CONFIG, _PYTHON, _run
from tests.hub.test_local_users import open_folder as open_folder

pytestmark = pytest.mark.hub

_CODE, _PASSWORD = "KWXZ-2345", "correct horse battery"
_SERVICE = "/services/gpuworkshop/"


class Browser:
    """Goes where links lead; stands in for the proxy between hub and service."""

    def __init__(self, hub, name, code=_CODE):
        self.hub = hub
        self.session = requests.Session()
        self.session.headers["Sec-Fetch-Mode"] = "navigate"
        page = self.get("/hub/login")
        token = BeautifulSoup(page.text, "html.parser").find("input", {"name": "_xsrf"})
        landed = self.session.post(
            self.at("/hub/login"),
            data={"username": name, "password": code, "_xsrf": token["value"]},
            allow_redirects=False,
            timeout=30,
        )
        assert landed.status_code == 302, landed.text

    def at(self, path):
        port = self.hub.service_port if path.startswith(_SERVICE) else self.hub.port
        return f"http://127.0.0.1:{port}{path}"

    def get(self, path):
        """Follow redirects by their paths, as through the proxy."""
        for _ in range(10):
            answer = self.session.get(self.at(path), allow_redirects=False, timeout=30)
            if answer.status_code not in (301, 302, 303):
                return answer
            path = urljoin(path, answer.headers["Location"])
        raise AssertionError(f"redirected without end: {path}")

    def work(self):
        """Return the words of the page, and the download."""
        page = self.get(f"{_SERVICE}work")
        assert page.status_code == 200, page.text
        words = BeautifulSoup(page.text, "html.parser").main.text.split()
        return " ".join(words), self.get(f"{_SERVICE}work/archive")


def _files(archive):
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        return {x.name: tar.extractfile(x).read() for x in tar if x.isreg()}


def _collect(hub):
    line = ["material", "collect", "--workshop", str(hub.workshop_file)]
    done = CliRunner().invoke(main, line)
    assert done.exit_code == 0, done.output
    return done.output


def test_attendees_without_a_server_download_their_own_work_and_no_others(
    make_hub, tmp_path
):
    roster = Roster(
        attendees=tuple(
            Attendee(name=name, code_hash=hash_code(_CODE)) for name in ("ann", "zoe")
        ),
        organisers=(Organiser(name="olga", password_hash=hash_password(_PASSWORD)),),
    )
    change_roster(tmp_path / "roster.json", lambda _: roster, new=True)
    hub = make_hub(
        service=True,
        workshop={"material": {"archives": str(tmp_path / "archives")}},
        early='c.JupyterHub.authenticator_class = "gpuworkshop-roster"',
    ).start()
    ann, zoe = Browser(hub, "ann"), Browser(hub, "zoe")
    wait_for(lambda: "listens at" in hub.log, why=hub.log[-2000:])
    words, download = ann.work()
    assert "has not been packed yet" in words
    assert download.status_code == 404

    homes = tmp_path / "roster.homes.json"
    hub.spawn("ann")
    wait_for(lambda: homes.exists() and '"ann"' in homes.read_text())
    (tmp_path / "home/ann/thesis.ipynb").write_text("ann's thesis")
    hub.stop_server("ann")
    output = _collect(hub)
    assert "1 of 1 packed" in output
    assert "1 never had a server here: zoe." in output

    words, download = ann.work()
    assert "as they were on" in words
    assert download.headers["Content-Disposition"].endswith('"ann-work.tar.gz"')
    assert _files(download.content)["ann/thesis.ipynb"] == b"ann's thesis"
    assert gzip.decompress(download.content)
    words, download = zoe.work()
    assert "has not been packed yet" in words
    for query in ("", "?name=ann", "?name=ann.tar.gz"):
        assert zoe.get(f"{_SERVICE}work/archive{query}").status_code == 404

    for scopes, status in (
        (None, 200),
        (["custom:gpuworkshop:read", "read:users!user"], 200),
        (["custom:gpuworkshop:read"], 404),
        (["read:users!user"], 403),
    ):
        made = hub.api("POST", "users/ann/tokens", json=scopes and {"scopes": scopes})
        answer = requests.get(
            ann.at(f"{_SERVICE}work/archive"),
            headers={"Authorization": f"token {made.json()['token']}"},
            timeout=30,
        )
        assert answer.status_code == status, scopes

    olga = Browser(hub, "olga", _PASSWORD)
    words, _ = olga.work()
    assert "ann" in words
    download = olga.get(f"{_SERVICE}work/archive?name=ann")
    assert _files(download.content)["ann/thesis.ipynb"] == b"ann's thesis"

    # The account is deleted, and somebody else gets its name.
    assert hub.api("DELETE", "users/ann").ok
    words, download = Browser(hub, "ann").work()
    assert "an account that was here before yours" in words
    assert download.status_code == 404
    assert b"thesis" not in download.content


@pytest.fixture
def unix_users():
    can = os.geteuid() == 0 and None not in (shutil.which("useradd"), _PYTHON)
    require_engine("root", can, "run as root on a machine with useradd and a python3")
    # Of this test's own: others may run beside it.
    names = [f"gpuws-{kind}-{os.getpid()}" for kind in ("evil", "victim")]
    for name in names:
        _run("useradd", "--create-home", name)
    yield names
    for name in names:
        _run("userdel", "--force", "--remove", name)


@pytest.mark.root
def test_links_in_a_home_of_a_unix_user_bring_nothing_of_anybodys(
    make_hub, tmp_path, unix_users, open_folder
):
    archives = tmp_path / "archives"
    stub = shutil.copy(HERE / "stub_server.py", open_folder)
    hub = make_hub(
        workshop={"material": {"archives": str(archives)}},
        early=_CONFIG.format(python=_PYTHON, stub=stub),
    ).start()
    hub.add_users(*unix_users)
    homes = tmp_path / "roster.homes.json"
    for name in unix_users:
        hub.spawn(name)
        wait_for(lambda name=name: homes.exists() and name in homes.read_text())
        hub.stop_server(name)
    evil, victim = (Path("/home", name) for name in unix_users)
    (victim / "thesis.ipynb").write_text("the victim's")
    (victim / "thesis.ipynb").chmod(0o600)
    victim.chmod(0o755)
    os.link(victim / "thesis.ipynb", evil / "hard.ipynb")
    for name, target in (
        ("shadow", "/etc/shadow"),
        ("victims", str(victim)),
        ("up", f"../{victim.name}/thesis.ipynb"),
    ):
        (evil / name).symlink_to(target)
    (evil / "own.ipynb").write_text("own")
    owner = pwd.getpwnam(evil.name)
    os.chown(evil / "own.ipynb", owner.pw_uid, owner.pw_gid)
    (evil / "own.ipynb").chmod(0o600)

    line = ["material", "collect", "--all", "--workshop", str(hub.workshop_file)]
    done = CliRunner().invoke(main, line)
    assert done.exit_code == 0, done.output
    assert archives.stat().st_mode & 0o777 == 0o700
    content = _files((archives / f"{evil.name}.tar.gz").read_bytes())
    assert content[f"{evil.name}/own.ipynb"] == b"own"
    assert not any(b"the victim's" in x or b"root:x" in x for x in content.values())
    for name in ("hard.ipynb", "shadow", "victims", "up"):
        assert f"{evil.name}/{name}" not in content
        assert name.encode() in content[f"{evil.name}/LEFT-OUT.txt"]
