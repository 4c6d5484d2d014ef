"""Repositories, with the real git program."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from jupyterhub_gpuworkshop.machine.material import read_installed
from jupyterhub_gpuworkshop.tools.material import cloning
from jupyterhub_gpuworkshop.tools.material.installing import Became, Outcome
from tests.conftest import require_engine

from .worlds import files_in, leftovers, put, run, seen, workshop

INTRO = {"start.ipynb": b"{}", "sub/x.csv": b"1\n"}


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    return subprocess.check_output(  # noqa: S603
        ["git", *who, *arguments],  # noqa: S607
        cwd=folder,
        text=True,
        stderr=subprocess.DEVNULL,
    ).strip()


def commit(folder: Path) -> str:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=x")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    require_engine("git", shutil.which("git") is not None, "apt install git")
    folder = put(tmp_path / "course.git", INTRO)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder)
    return folder


def only(outcomes: list[Outcome]) -> Outcome:
    (one,) = outcomes
    return one


def test_a_repository_is_installed_without_its_insides(
    tmp_path: Path, repository: Path
) -> None:
    what = workshop(tmp_path, notebooks={"course": str(repository)})
    assert only(run(what)).became is Became.INSTALLED
    assert seen(tmp_path / "m") == {"notebooks/course": INTRO}
    part = read_installed(tmp_path / "m").notebooks[0]
    assert part.revision == git(repository, "rev-parse", "HEAD")
    assert not leftovers(tmp_path / "m")


def test_an_update_fetches_a_repository_that_has_moved_on_only(
    tmp_path: Path, repository: Path
) -> None:
    what = workshop(tmp_path, notebooks={"course": str(repository)})
    run(what)
    assert only(run(what, again=True)).became is Became.UNCHANGED
    put(repository, {"more.ipynb": b"{}"})
    commit(repository)
    assert only(run(what)).became is Became.UNCHANGED
    assert only(run(what, again=True)).became is Became.INSTALLED
    assert "more.ipynb" in seen(tmp_path / "m")["notebooks/course"]


@pytest.mark.parametrize("how", ["branch", "tag", "annotated", "commit"])
def test_a_revision_is_a_branch_a_tag_or_a_commit(
    tmp_path: Path, repository: Path, how: str
) -> None:
    first = git(repository, "rev-parse", "HEAD")
    git(repository, "branch", "branch")
    git(repository, "tag", "tag")
    git(repository, "tag", "--annotate", "--message=x", "annotated")
    put(repository, {"more.ipynb": b"{}"})
    commit(repository)
    given = {"from": str(repository), "revision": first if how == "commit" else how}
    what = workshop(tmp_path, notebooks={"course": given})
    assert only(run(what)).became is Became.INSTALLED
    assert seen(tmp_path / "m") == {"notebooks/course": INTRO}
    assert read_installed(tmp_path / "m").notebooks[0].revision == first
    assert only(run(what, again=True)).became is Became.UNCHANGED


def test_a_revision_that_is_not_there_is_told(tmp_path: Path, repository: Path) -> None:
    given = {"from": str(repository), "revision": "v9"}
    outcome = only(run(workshop(tmp_path, notebooks={"course": given})))
    assert outcome.became is Became.FAILED
    assert "v9" in outcome.says


def test_hooks_filters_and_links_of_a_repository_do_nothing(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    script = f"#!/bin/sh\ntouch {ran}\n"
    for hook in ("post-checkout", "pre-auto-gc", "reference-transaction"):
        path = repository / ".git/hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)
    template = put(tmp_path / "template", {"hooks/post-checkout": script.encode()})
    (template / "hooks/post-checkout").chmod(0o755)
    config = tmp_path / "gitconfig"
    config.write_text(
        f"[core]\nhooksPath={template}/hooks\n[init]\ntemplateDir={template}\n"
        f'[filter "x"]\nsmudge=touch {ran}\n[core]\nfsmonitor=touch {ran}\n'
    )
    put(repository, {".gitattributes": b"* filter=x\n"})
    commit(repository)
    ran.unlink(missing_ok=True)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(template))
    monkeypatch.setenv("GIT_SSH_COMMAND", f"touch {ran}")
    what = workshop(tmp_path, notebooks={"course": str(repository)})
    assert only(run(what)).became is Became.INSTALLED
    assert only(run(what, again=True)).became is Became.UNCHANGED
    assert not ran.exists()


def test_a_repository_with_a_link_out_is_refused(
    tmp_path: Path, repository: Path
) -> None:
    (repository / "passwd").symlink_to("/etc/passwd")
    commit(repository)
    outcome = only(run(workshop(tmp_path, notebooks={"c": str(repository)})))
    assert "passwd is a link to /etc/passwd, outside" in outcome.says
    assert seen(tmp_path / "m") == {}
    assert not leftovers(tmp_path / "m")


def test_submodules_are_not_fetched(tmp_path: Path, repository: Path) -> None:
    other = put(tmp_path / "other", {"x": b"1"})
    git(other, "init", "--quiet")
    commit(other)
    allow = ("-c", "protocol.file.allow=always")
    git(repository, *allow, "submodule", "--quiet", "add", str(other), "sub2")
    commit(repository)
    run(workshop(tmp_path, notebooks={"c": str(repository)}))
    assert not files_in(tmp_path / "m/notebooks/c/sub2")


def test_a_server_that_is_not_there_is_told_without_its_password(
    tmp_path: Path, repository: Path
) -> None:
    address = "http://ada:letmein@127.0.0.1:1/course.git"
    outcome = only(run(workshop(tmp_path, notebooks={"c": address})))
    assert outcome.became is Became.FAILED
    assert "http://127.0.0.1:1/course.git cannot be fetched" in outcome.says
    assert "letmein" not in outcome.says


def test_a_password_is_never_on_a_command_line(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    said = tmp_path / "said"
    fake = programs / "git"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {said}\nexit 1\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    run(workshop(tmp_path, notebooks={"c": "https://ada:letmein@h.example/c.git"}))
    told = said.read_text()
    assert "init --quiet" in told
    assert "letmein" not in told


def test_where_git_is_missing_it_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloning.shutil, "which", lambda _: None)
    outcome = only(run(workshop(tmp_path, notebooks={"c": "https://h.example/c.git"})))
    assert "sudo apt install git" in outcome.says
