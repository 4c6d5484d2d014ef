"""What the demo says when it cannot run at all, and small parts of it."""

import json
import socket
from pathlib import Path

import nbformat
import pytest

from jupyterhub_gpuworkshop.tools import demo
from jupyterhub_gpuworkshop.tools.demo.browser import message_of
from jupyterhub_gpuworkshop.tools.demo.welcome import notebook, write_welcome

from .examples import make_options


def test_what_is_not_installed_is_told_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "_NEEDED", ("json", "no_such_module"))

    assert demo.run(make_options()) == 1
    said = capsys.readouterr().err
    assert "no_such_module" in said
    assert 'pip install "jupyterhub-gpuworkshop[demo]"' in said


def test_another_system_than_linux_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")

    assert demo.run(make_options()) == 1
    assert "needs Linux" in capsys.readouterr().err


def test_a_refusal_is_read_off_the_hubs_page() -> None:
    page = """
      <html><h1>Not found</h1><div class="error"><h1>503 : No GPU share</h1>
      <p>All 4 GPUs are taken: 5 of 5 shares each. &amp; so on</p></div></html>
    """

    assert message_of(page) == (
        "503 : No GPU share All 4 GPUs are taken: 5 of 5 shares each. & so on"
    )


def test_a_page_without_words_says_nothing() -> None:
    assert message_of("") == ""


def test_the_notebook_for_visitors_is_a_valid_one(tmp_path: Path) -> None:
    write_welcome(tmp_path / "attendee01")
    written = tmp_path / "attendee01" / "try-it.ipynb"

    nbformat.validate(json.loads(written.read_text()))
    nbformat.validate(notebook())
    assert "simcuda.allocate" in written.read_text()


def test_a_visitors_changes_to_the_notebook_stay(tmp_path: Path) -> None:
    write_welcome(tmp_path)
    (tmp_path / "try-it.ipynb").write_text("changed")
    write_welcome(tmp_path)

    assert (tmp_path / "try-it.ipynb").read_text() == "changed"


def test_a_taken_port_is_told_in_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert demo.run(make_options(port=port)) == 1
    said = capsys.readouterr().err
    assert f"Port {port} on 127.0.0.1 is taken." in said
    assert "Traceback" not in said
