"""What the doctor makes of the material and its place."""

from pathlib import Path

from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.tools.doctor.check import Status
from jupyterhub_gpuworkshop.tools.doctor.material import (
    Place,
    judge_archives,
    judge_installed,
    judge_place,
    read_place,
)
from tests.tools.material.worlds import put, run, workshop

FOLDER = Path("/srv/m")


def test_what_is_named_and_not_installed_fails(tmp_path: Path) -> None:
    source = str(put(tmp_path / "src", {"a": b"1"}))
    named = workshop(tmp_path, notebooks={"a": source}, data={"b": source})
    check = judge_installed(named)
    assert check.status is Status.FAIL
    assert "Not installed: notebooks/a, data/b." in check.finding
    assert "$ sudo gpuworkshop material install" in check.remedy
    run(named)
    assert judge_installed(named).status is Status.OK


def test_what_is_installed_from_elsewhere_or_no_more_named_is_told(
    tmp_path: Path,
) -> None:
    source = str(put(tmp_path / "src", {"a": b"1"}))
    run(workshop(tmp_path, notebooks={"a": source}))
    moved = judge_installed(workshop(tmp_path, notebooks={"a": f"{source}/a"}))
    assert (moved.status, "does not say" in moved.finding) == (Status.WARN, True)
    past = judge_installed(workshop(tmp_path))
    assert (past.status, "any more: notebooks/a" in past.finding) == (Status.WARN, True)


def test_a_list_that_is_broken_is_told(tmp_path: Path) -> None:
    put(tmp_path / "m", {"installed.json": b"{"})
    check = judge_installed(workshop(tmp_path))
    assert check.status is Status.FAIL
    assert "installed.json: is no list" in check.finding


def test_without_material_its_place_does_not_matter() -> None:
    place = Place(folder=FOLDER, fleeting="It is memory")
    assert judge_place(place, named=False, simulated=False).status is Status.SKIP


def test_a_place_that_a_reboot_clears_fails_but_for_a_rehearsal() -> None:
    place = Place(folder=FOLDER, fleeting="/srv/m is on tmpfs")
    assert judge_place(place, named=True, simulated=False).status is Status.FAIL
    assert judge_place(place, named=True, simulated=True).status is Status.WARN


def test_a_place_that_attendees_cannot_read_or_could_change_fails() -> None:
    shut = judge_place(
        Place(folder=FOLDER, closed=[Path("/srv")]), named=True, simulated=False
    )
    assert (shut.status, shut.remedy) == (Status.FAIL, "$ sudo chmod o+x /srv")
    foreign = Place(folder=FOLDER, foreign="everybody may write in /srv")
    assert judge_place(foreign, named=True, simulated=False).status is Status.FAIL


def test_a_disk_without_room_for_an_update_is_told() -> None:
    place = Place(folder=FOLDER, free_bytes=GIB, largest_bytes=2 * GIB)
    check = judge_place(place, named=True, simulated=False)
    assert check.status is Status.WARN
    assert "needs 2 GiB beside it" in check.finding
    roomy = Place(folder=FOLDER, free_bytes=3 * GIB, largest_bytes=2 * GIB)
    assert judge_place(roomy, named=True, simulated=False).status is Status.OK


def test_a_real_place_is_read(tmp_path: Path) -> None:
    source = put(tmp_path / "src", {"a": bytes(5000)})
    named = workshop(tmp_path, data={"a": str(source)})
    run(named)
    place = read_place(named)
    assert place.folder == tmp_path / "m"
    assert place.largest_bytes == 5000
    assert place.free_bytes > 0
    assert place.fleeting.startswith(f"{tmp_path}/m is ")


def test_work_that_a_reboot_would_clear_is_told(tmp_path: Path) -> None:
    check = judge_archives(Path("/tmp/gpuworkshop-work"))  # noqa: S108  only looked at
    assert check.status is Status.WARN
    assert "may be gone" in check.finding
    assert judge_archives(Path("/var/lib/gpuworkshop-work")).status is Status.OK
