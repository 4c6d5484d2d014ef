"""The command line holds arguments only, and tells errors in one sentence."""

import subprocess
import sys
from collections.abc import Sequence
from types import ModuleType

import pytest
from click.testing import CliRunner

import jupyterhub_gpuworkshop.tools.demo
from jupyterhub_gpuworkshop import __version__
from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.core.errors import DemoError
from jupyterhub_gpuworkshop.core.units import GIB
from jupyterhub_gpuworkshop.tools.demo.options import DemoOptions


def test_it_tells_its_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert __version__ in result.stdout


def test_help_lists_every_command() -> None:
    result = CliRunner().invoke(main, ["--help"])
    for command in ("check", "demo", "service"):
        assert command in result.stdout


def test_help_imports_neither_the_hub_nor_the_model() -> None:
    script = (
        "import sys; from jupyterhub_gpuworkshop import cli; "
        "print([m for m in ('jupyterhub', 'pydantic', 'rich') if m in sys.modules])"
    )
    output = subprocess.check_output(  # noqa: S603  our own script
        [sys.executable, "-c", script], text=True
    )
    assert output.strip() == "[]"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[DemoOptions]:
    """Return what the demo is asked, in place of running it."""
    asked: list[DemoOptions] = []

    def run(options: DemoOptions) -> int:
        asked.append(options)
        return 3

    monkeypatch.setattr(jupyterhub_gpuworkshop.tools.demo, "run", run, raising=False)
    return asked


def test_the_demo_has_the_defaults_of_the_readme(asked: list[DemoOptions]) -> None:
    result = CliRunner().invoke(main, ["demo"])
    assert asked == [
        DemoOptions(
            gpus=4,
            gpu_memory_bytes=16 * GIB,
            attendees=8,
            attendees_per_gpu=5,
            idle_timeout_seconds=60.0,
            port=8000,
            json=False,
            seed=None,
        )
    ]
    assert result.exit_code == 3


def test_the_demo_is_told_every_option(asked: list[DemoOptions]) -> None:
    arguments = "--gpus 2 --gpu-memory 8GiB --attendees 0 --attendees-per-gpu 3 "
    arguments += "--idle-timeout 20s --port 8123 --json --seed 7"
    CliRunner().invoke(main, ["demo", *arguments.split()])
    assert asked == [
        DemoOptions(
            gpus=2,
            gpu_memory_bytes=8 * GIB,
            attendees=0,
            attendees_per_gpu=3,
            idle_timeout_seconds=20.0,
            port=8123,
            json=True,
            seed=7,
        )
    ]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--idle-timeout", "60"),
        ("--idle-timeout", "0s"),
        ("--port", "-1"),
        ("--gpus", "0"),
        ("--gpu-memory", "16"),
        ("--attendees", "-1"),
    ],
)
def test_the_demo_refuses_what_cannot_be(
    asked: list[DemoOptions], option: str, value: str
) -> None:
    result = CliRunner().invoke(main, ["demo", option, value])
    assert result.exit_code == 2
    assert option in result.stderr
    assert not asked


def test_an_expected_error_is_one_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(options: DemoOptions) -> int:
        raise DemoError("Port 8000 is taken. Choose another with --port.")

    monkeypatch.setattr(jupyterhub_gpuworkshop.tools.demo, "run", run, raising=False)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == "Error: Port 8000 is taken. Choose another with --port.\n"


def test_the_service_gets_all_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Sequence[str]] = []

    class GpuService:
        @classmethod
        def launch_instance(cls, argv: Sequence[str]) -> None:
            got.append(argv)

    app = ModuleType("jupyterhub_gpuworkshop.service.app")
    app.GpuService = GpuService  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, app.__name__, app)
    arguments = ["--help", "--GpuService.port=1", "-f", "x.py", "--", "--debug"]
    result = CliRunner().invoke(main, ["service", *arguments])
    assert result.exit_code == 0, result.output
    assert got == [["--help", "--GpuService.port=1", "-f", "x.py", "--", "--debug"]]
