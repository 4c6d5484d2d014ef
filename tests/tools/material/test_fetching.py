"""Downloads from a real server, with every habit that a server may have."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.core.errors import MaterialError
from jupyterhub_gpuworkshop.tools.material.fetching import (
    Download,
    Fetched,
    Telling,
    Validators,
)
from jupyterhub_gpuworkshop.tools.material.sources import Wanted
from jupyterhub_gpuworkshop.workshop_event import MaterialSource

from .web import Site

OLD = bytes(range(256)) * 4000
NEW = bytes(reversed(range(256))) * 4000


@dataclass(slots=True)
class Client:
    """One who fetches, and what it was told."""

    folder: Path
    url: str
    largest: int = 10_000_000
    waited: list[float] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    mend: Site | None = None

    def download(self) -> Download:
        given = MaterialSource.model_validate({"from": self.url})
        return Download(
            wanted=Wanted(kind="data", name="x", given=given),
            folder=self.folder,
            largest_bytes=self.largest,
            telling=Telling(total=self.totals.append, done=self.counts.append),
            wait=self.wait,
        )

    def wait(self, seconds: float) -> None:
        self.waited.append(seconds)
        if self.mend is not None:
            self.mend.break_after, self.mend.status = None, 200

    def fetch(self, known: Validators | None = None) -> Fetched | None:
        return self.download().fetch(known)


@pytest.fixture
def client(tmp_path: Path, site: Site) -> Client:
    site.content, site.etag = OLD, '"old"'
    return Client(folder=tmp_path, url=f"{site.url}/some/set.tar.gz?key=secret")


def headers(site: Site, which: int) -> dict[str, str]:
    return site.asked[which][1]


def broken_once(client: Client, site: Site) -> None:
    """Leave half a download behind."""
    site.break_after = 300_000
    client.download().folder.mkdir(exist_ok=True)
    original, site.ranges = site.ranges, False
    with pytest.raises(MaterialError, match="tried 5 times; run this again"):
        client.fetch()
    site.ranges, site.break_after = original, None
    assert 0 < client.download().part.stat().st_size <= 300_000
    site.asked.clear()


def test_a_file_is_fetched_and_it_is_told_how_far(client: Client, site: Site) -> None:
    fetched = client.fetch()
    assert fetched is not None
    assert fetched.path.read_bytes() == OLD
    assert fetched.name == "set.tar.gz"
    assert fetched.validators == Validators(etag='"old"')
    assert client.totals == [len(OLD)]
    assert client.counts[-1] == len(OLD)


def test_a_broken_download_goes_on_in_the_same_run(client: Client, site: Site) -> None:
    site.break_after = 300_000
    fetched = client.fetch()
    assert fetched is not None
    assert fetched.path.read_bytes() == OLD
    starts = [asked[1].get("Range") for asked in site.asked]
    assert starts[:2] == [None, "bytes=300000-"]
    assert headers(site, 1)["If-Range"] == '"old"'
    assert set(client.waited) == {1.0}


def test_a_broken_download_goes_on_in_the_next_run(client: Client, site: Site) -> None:
    broken_once(client, site)
    fetched = client.fetch()
    assert fetched is not None
    assert fetched.path.read_bytes() == OLD
    assert headers(site, 0)["Range"] == "bytes=300000-"


def test_a_date_will_do_where_there_is_no_etag(client: Client, site: Site) -> None:
    site.etag, site.modified = "", "Mon, 30 Nov 2026 08:00:00 GMT"
    broken_once(client, site)
    fetched = client.fetch()
    assert fetched is not None
    assert fetched.path.read_bytes() == OLD
    assert headers(site, 0)["If-Range"] == site.modified


def test_a_file_that_changed_meanwhile_is_fetched_anew(
    client: Client, site: Site
) -> None:
    broken_once(client, site)
    site.content, site.etag = NEW, '"new"'
    fetched = client.fetch()
    assert fetched is not None
    assert fetched.path.read_bytes() == NEW
    assert fetched.validators.etag == '"new"'


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_nothing_is_resumed_of_which_it_cannot_be_told_that_it_is_the_same(
    client: Client, site: Site, etag: str
) -> None:
    site.etag = etag
    broken_once(client, site)
    site.content = NEW
    fetched = client.fetch()
    assert fetched is not None
    assert fetched.path.read_bytes() == NEW
    assert "Range" not in headers(site, 0)


def test_a_server_without_ranges_sends_all_of_it_again(
    client: Client, site: Site
) -> None:
    broken_once(client, site)
    site.ranges = False
    fetched = client.fetch()
    assert fetched is not None
    assert fetched.path.read_bytes() == OLD


def test_half_of_another_file_is_no_use(client: Client, site: Site) -> None:
    broken_once(client, site)
    client.url = f"{site.url}/other.tar.gz"
    fetched = client.fetch()
    assert fetched is not None
    assert "Range" not in headers(site, 0)


def test_a_busy_server_is_asked_again_and_waited_for_longer_each_time(
    client: Client, site: Site
) -> None:
    site.status = 503
    with pytest.raises(MaterialError, match="status 503"):
        client.fetch()
    assert client.waited == [1.0, 2.0, 4.0, 8.0]
    client.mend = site
    assert client.fetch() is not None


def test_a_file_that_is_not_there_is_asked_for_once(client: Client, site: Site) -> None:
    site.status = 404
    with pytest.raises(MaterialError, match="there is no such file"):
        client.fetch()
    assert len(site.asked) == 1
    assert client.waited == []


def test_a_file_that_has_not_changed_is_not_sent(client: Client) -> None:
    assert client.fetch(Validators(etag='"old"')) is None


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/"]
)
def test_a_server_cannot_lead_to_anything_but_the_web(
    client: Client, site: Site, location: str
) -> None:
    site.location = location
    with pytest.raises(MaterialError, match="not http or https"):
        client.fetch()
    assert not client.download().part.exists()


def test_a_server_cannot_lead_round_and_round(client: Client, site: Site) -> None:
    site.location = f"{site.url}/again"
    with pytest.raises(MaterialError, match="leads on more than 5 times"):
        client.fetch()


@pytest.mark.parametrize("told", [True, False])
def test_a_file_that_is_too_large_ends_there(
    client: Client, site: Site, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.largest = 100_000
    if not told:
        # The length is not looked at before.
        monkeypatch.setattr(Download, "_check_room", lambda *_: None)
    with pytest.raises(MaterialError, match=r"material\.largest"):
        client.fetch()
    assert not client.download().part.exists()


def test_a_file_larger_than_the_disk_is_not_begun(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "jupyterhub_gpuworkshop.tools.material.fetching.free_bytes", lambda _: 1000
    )
    with pytest.raises(MaterialError, match="are free on the disk"):
        client.fetch()
    assert client.counts == []


def test_no_secret_of_an_address_is_told(tmp_path: Path) -> None:
    client = Client(folder=tmp_path, url="http://ada:pass@127.0.0.1:1/x?key=secret")
    with pytest.raises(MaterialError) as error:
        client.fetch()
    said = str(error.value)
    assert "http://127.0.0.1:1/x?…" in said
    assert not any(word in said for word in ("ada", "pass@", "secret"))


def test_a_password_goes_to_the_server(client: Client, site: Site) -> None:
    client.url = client.url.replace("://", "://ada:p%40ss@")
    assert client.fetch() is not None
    assert headers(site, 0)["Authorization"] == "Basic YWRhOnBAc3M="


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ('attachment; filename="real.zip"', "real.zip"),
        ('attachment; filename="../../up.zip"', "up.zip"),
        ('attachment; filename="..\\\\up.zip"', "up.zip"),
        ("attachment", "set.tar.gz"),
    ],
)
def test_a_server_may_say_what_its_file_is_called(
    client: Client, site: Site, said: str, name: str
) -> None:
    site.headers["Content-Disposition"] = said
    fetched = client.fetch()
    assert fetched is not None
    assert fetched.name == name
