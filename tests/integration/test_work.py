"""Work, from a home to its attendee's browser: a real hub, service and collection."""

import gzip
import io
import tarfile
from urllib.parse import urljoin

import pytest
import requests
from bs4 import BeautifulSoup
from click.testing import CliRunner

from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.core.roster import Attendee, Organiser, Roster
from jupyterhub_gpuworkshop.hub.codes import hash_code, hash_password
from jupyterhub_gpuworkshop.hub.roster_file import change_roster
from tests.hub.running_hub import wait_for

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
