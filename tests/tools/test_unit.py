"""The systemd unit of the GPU service."""

import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.core.errors import HostError
from jupyterhub_gpuworkshop.tools.unit import Unit, for_workshop, put_in_place
from tests.conftest import require_engine

_EXTERNAL = "service:\n  managed: false\n  secret_file: secrets.env\n"


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """Return a workshop file that leaves the service to a unit."""
    path = tmp_path / "my workshop.yaml"
    path.write_text(_EXTERNAL)
    return path


def test_it_says_where_hub_and_secrets_are(workshop: Path) -> None:
    text = for_workshop(str(workshop), base_url="gpu", api_url="http://h:1/api").text()
    assert f"EnvironmentFile={workshop.parent}/secrets.env\n" in text
    assert 'Environment="JUPYTERHUB_API_URL=http://h:1/api"\n' in text
    prefix = "/gpu/services/gpuworkshop/"
    assert f'Environment="JUPYTERHUB_SERVICE_PREFIX={prefix}"\n' in text
    assert f'"--workshop={workshop}"' in text
    assert "IPAddressDeny" not in text, "servers may be on another network"


def test_a_service_that_the_hub_starts_gets_no_unit(workshop: Path) -> None:
    workshop.write_text("attendees: 4\n")
    with pytest.raises(HostError, match="managed: false"):
        for_workshop(str(workshop))


def test_what_lies_in_a_home_may_be_read_and_else_no_home_may() -> None:
    python = Path("/usr/bin/python3")
    away = Unit(workshop="/srv/w.yaml", python=python)
    assert "ProtectHome=yes\n" in away.text()
    for unit in (
        Unit(workshop="/home/o/w.yaml", python=python),
        Unit(workshop="/srv/w.yaml", python=Path("/root/conda/bin/python")),
        Unit(workshop="/srv/w.yaml", python=python, readable=(Path("/home/o/gpus"),)),
    ):
        assert "ProtectHome=read-only\n" in unit.text()


def test_the_archives_of_work_may_be_read_also_in_a_home(workshop: Path) -> None:
    archives = Path("/home/o/work")
    with workshop.open("a") as file:
        file.write(f"material:\n  archives: {archives}\n")
    unit = for_workshop(str(workshop))
    assert archives in unit.readable
    assert archives not in unit.writable
    assert "ProtectHome=read-only\n" in unit.text()


def test_what_lies_among_temporary_files_is_there_for_the_service() -> None:
    python, temporary = Path("/usr/bin/python3"), Path("/") / "tmp"
    away = Unit(workshop="/srv/w.yaml", python=python)
    assert "\nPrivateTmp=yes\nPrivateMounts=yes\n" in away.text()
    for unit in (
        Unit(workshop=f"{temporary}/w.yaml", python=python),
        Unit(workshop="/srv/w.yaml", python=Path("/var") / "tmp/venv/bin/python"),
        Unit(workshop="/srv/w.yaml", python=python, readable=(temporary / "gpus",)),
    ):
        assert "\nPrivateTmp=" not in unit.text()


def test_systemds_own_characters_are_escaped() -> None:
    text = Unit(
        workshop='/srv/50% "$x.yaml',
        environment={"A": '50% "$x'},
        writable=(Path("/srv/a b%"),),
    ).text()
    assert '"--workshop=/srv/50%% \\"$$x.yaml"' in text
    assert '"--workshop=/srv/o\'b"' in Unit(workshop="/srv/o'b").text()
    assert 'Environment="A=50%% \\"$x"' in text
    assert 'ReadWritePaths=-"/srv/a b%%"' in text or '"-/srv/a b%%"' in text
    with pytest.raises(HostError, match="cannot stand in a unit file"):
        Unit(workshop="/srv/a\nb").text()


def test_it_is_written_where_it_changed_and_a_foreign_one_stays(
    tmp_path: Path,
) -> None:
    assert put_in_place(Unit(), tmp_path)
    assert not put_in_place(Unit(), tmp_path)
    assert put_in_place(Unit(local_only=True), tmp_path)
    path = tmp_path / "gpuworkshop.service"
    path.write_text("[Service]\n")
    with pytest.raises(HostError, match="left as it is"):
        put_in_place(Unit(), tmp_path)
    assert path.read_text() == "[Service]\n"


def test_the_command_prints_it(workshop: Path) -> None:
    result = CliRunner().invoke(main, ["unit", str(workshop)])
    assert result.exit_code == 0, result.output
    assert result.stdout == for_workshop(str(workshop)).text()


def test_putting_it_in_place_needs_root(
    workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    result = CliRunner().invoke(main, ["unit", str(workshop), "--install"])
    assert result.exit_code == 1
    assert "sudo gpuworkshop unit" in result.stderr


@pytest.mark.systemd
@pytest.mark.parametrize("local_only", [False, True])
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path, local_only: bool) -> None:
    program = shutil.which("systemd-analyze")
    require_engine("systemd", program is not None, "apt install systemd")
    unit = Unit(
        workshop="/srv/o'brien/w%.yaml#gpuworkshop",
        environment={"JUPYTERHUB_BASE_URL": "/"},
        environment_files=(Path("/etc/gpuworkshop/secrets.env"),),
        writable=(Path("/srv/a b"),),
        local_only=local_only,
    )
    put_in_place(Unit(), tmp_path)
    path = tmp_path / "gpuworkshop.service"
    path.write_text(unit.text())
    done = subprocess.run(  # noqa: S603
        [str(program), "verify", str(path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "gpuworkshop.service" not in done.stderr
