"""The words for people: what they name exists, and what they show works."""

import importlib.util
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from click import Group
from pydantic import BaseModel
from traitlets.config import Configurable

from jupyterhub_gpuworkshop.cli import main
from jupyterhub_gpuworkshop.core import errors
from jupyterhub_gpuworkshop.core.caps import framework_variables, lease_variables
from jupyterhub_gpuworkshop.core.devices import Device, Inventory
from jupyterhub_gpuworkshop.core.leases import Lease, LeasedDevice
from jupyterhub_gpuworkshop.core.snapshot import (
    DeviceSample,
    Holder,
    HolderKind,
    KernelState,
    KernelView,
    ProcessId,
    Snapshot,
)
from jupyterhub_gpuworkshop.core.wire import Event, EventKind
from jupyterhub_gpuworkshop.hub.authenticator import RosterAuthenticator
from jupyterhub_gpuworkshop.hub.mixin import GpuSpawnerMixin
from jupyterhub_gpuworkshop.hub.runtime import GpuRuntime
from jupyterhub_gpuworkshop.hub.spawners.docker import GpuDockerMixin
from jupyterhub_gpuworkshop.service.app import GpuService
from jupyterhub_gpuworkshop.service.store import Recorded
from jupyterhub_gpuworkshop.service.web.asked import memory_answer
from jupyterhub_gpuworkshop.service.web.auth import Viewer
from jupyterhub_gpuworkshop.service.web.views import event_view, snapshot_view
from jupyterhub_gpuworkshop.workshop import Workshop

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)]
)
WRITTEN = [page for page in PAGES if "generated" not in page.parts]
CONFIGURABLE = [
    GpuSpawnerMixin,
    GpuDockerMixin,
    GpuRuntime,
    GpuService,
    RosterAuthenticator,
]

_FENCE = re.compile(r"^(`{3,})([^\n]*)\n(.*?)^\1\s*$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`\n]+)`")


def _generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = _generate()


def _blocks(*languages: str) -> Iterator[Any]:
    """Yield the code blocks in these languages, each with the page it stands on."""
    for page in WRITTEN:
        for number, (_, language, body) in enumerate(_FENCE.findall(page.read_text())):
            if language.strip() in languages:
                yield pytest.param(body, id=f"{page.relative_to(ROOT)}-{number}")


def _commands(program: str) -> Iterator[tuple[str, str]]:
    """Yield (page, what follows a program's name) wherever a page says to run it."""
    for page in WRITTEN:
        text = page.read_text()
        fences = [(lang, body) for _, lang, body in _FENCE.findall(text)]
        lines = [
            x for lang, body in fences if lang == "console" for x in body.split("\n")
        ]
        spans = _INLINE.findall(_FENCE.sub("", text))
        for said in [*(x.removeprefix("$ ") for x in lines), *spans]:
            words = said.split()
            if len(words) > 1 and words[0] == program:
                yield str(page.relative_to(ROOT)), words[1]


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        kind = field.annotation
        if inspect.isclass(kind) and issubclass(kind, BaseModel):
            yield from _keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


@pytest.mark.parametrize("configurable", CONFIGURABLE)
def test_every_trait_has_help_with_an_example(configurable: type[Configurable]) -> None:
    traits = configurable.class_own_traits(config=True)
    assert traits
    for name, trait in traits.items():
        ours = f"{configurable.__name__}.{name}"
        assert len(trait.help.split()) > 8, f"{ours} says too little"
        assert re.search(rf"(c\.|--){re.escape(ours)} ?=", trait.help), (
            f"the help of {ours} has no example"
        )


def test_every_key_of_the_workshop_file_is_in_the_reference() -> None:
    reference = GENERATE.workshop_file()
    keys = list(_keys(Workshop))
    assert len(keys) > 25
    for key in keys:
        assert f"### `{key}`\n\n" in reference


@pytest.mark.parametrize("key", list(_keys(Workshop)))
def test_the_reference_tells_default_and_when_a_key_takes_effect(key: str) -> None:
    entry = GENERATE.workshop_file().split(f"### `{key}`\n\n")[1].split("\n\n#")[0]
    assert re.search(r"Default:|Required with|Needed where", entry)
    assert "Takes effect" in entry


def test_every_variable_of_a_lease_is_in_the_table_of_caps() -> None:
    table = GENERATE.caps()
    lease = GENERATE.EXAMPLE_LEASE
    assert set(lease_variables(lease)) == set(GENERATE.LEASE_MEANINGS)
    assert set(framework_variables(lease)) == set(GENERATE.FRAMEWORK_MEANINGS)
    for name, value in (lease_variables(lease) | framework_variables(lease)).items():
        assert f"| `{name}` | `{value}` |" in table


def test_no_cap_is_called_hard() -> None:
    assert {worth for _, _, worth in GENERATE.FRAMEWORK_MEANINGS.values()} == {
        "soft",
        "no cap",
        "soft up to 2.14, no cap from 2.15 on",
    }


def test_the_table_of_limits_calls_nothing_hard_but_the_drivers() -> None:
    rows = [line.split(" | ") for line in GENERATE.limits().splitlines()[2:]]
    hard = [row for row in rows if row[1] == "hard"]
    assert [row[3] for row in hard] == [
        "the driver, on cgroup /system.slice/jupyter-ada.service |"
    ]
    assert {row[1] for row in rows} == {"hard", "soft", "none"}


def test_every_error_is_drawn_in_the_tree() -> None:
    tree = GENERATE.error_tree()
    for name, _ in inspect.getmembers(errors, inspect.isclass):
        drawn, table = tree.split("| error | meaning |")
        assert re.search(rf"\b{name}\b", drawn)
        assert f"| `{name}` |" in table


def test_every_subcommand_that_a_page_names_exists() -> None:
    assert isinstance(main, Group)
    said = list(_commands("gpuworkshop"))
    assert {word for _, word in said} >= {"demo", "check", "service"}
    for page, word in said:
        assert word in main.commands, f"{page}: gpuworkshop {word}"


def test_every_make_target_that_a_page_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    said = list(_commands("make"))
    assert {word for _, word in said} >= {"demo", "test", "docs"}
    for page, word in said:
        assert word in targets, f"{page}: make {word}"


@pytest.mark.parametrize("body", list(_blocks("yaml")))
def test_every_workshop_file_on_a_page_is_one(body: str) -> None:
    content = yaml.safe_load(body)
    content = content.get("gpuworkshop", content)  # as in TLJH's config.yaml
    loaded = Workshop.load(content)
    assert loaded.model_fields_set == set(content)


@pytest.mark.parametrize("body", list(_blocks("python")))
def test_every_python_block_on_a_page_compiles(body: str) -> None:
    assert compile(body, "page", "exec")


@pytest.mark.parametrize("page", WRITTEN, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_on_a_page_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(_FENCE.sub("", page.read_text())):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_file(), f"{target} on {page.name}"
        assert there.is_relative_to(ROOT)
        if anchor:
            assert anchor in _anchors(there), f"{target} on {page.name}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_page_has_one_title_and_is_in_the_contents(page: Path) -> None:
    prose = _FENCE.sub("", page.read_text())
    assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1
    if page.is_relative_to(DOCS) and page != DOCS / "index.md":
        above = page.parent if page.name != "index.md" else page.parent.parent
        named = (above / "index.md").read_text()
        name = str(page.relative_to(above).with_suffix(""))
        assert re.search(rf"^({re.escape(name)}|\*)$", named, re.MULTILINE)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_page_names_the_machine_it_was_written_on(page: Path) -> None:
    for line in page.read_text().splitlines():
        assert str(ROOT) not in line
        assert not re.search(r"\btmp/|\bhelpers?\b|\bTODO\b", line), line


def test_every_key_of_the_rest_api_is_in_its_reference() -> None:
    page = (DOCS / "reference" / "rest-api.md").read_text()
    said = set(_INLINE.findall(page))
    organiser = Viewer(name="organiser", attendee=None)
    view = snapshot_view(_full_snapshot(), organiser, 1.0)
    assert all(view[part] for part in ("devices", "leases", "kernels", "holders"))
    event = Event(at=0.0, kind=EventKind.LEASE_GRANTED, user="ada")
    told = event_view(Recorded(id=1, origin="hub", event=event), organiser)
    memory = memory_answer(
        _full_snapshot(), _full_snapshot().inventory.devices[0], organiser
    )
    assert _json_keys(json.loads(json.dumps([view, told, memory]))) <= said
    for words in (EventKind, HolderKind, KernelState):
        assert {word.value for word in words} <= said


def _json_keys(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(_json_keys, value))
    if isinstance(value, dict):
        return set(value).union(*map(_json_keys, value.values()))
    return set()


def _full_snapshot() -> Snapshot:
    """Return a snapshot with one of everything."""
    process = ProcessId(pid=1, started=1)
    return Snapshot(
        inventory=Inventory(
            devices=(Device(uuid="GPU-0", label="0", name="", memory_bytes=1),)
        ),
        samples=(
            DeviceSample(
                uuid="GPU-0",
                memory_total_bytes=1,
                memory_used_bytes=1,
                memory_free_bytes=0,
            ),
        ),
        leases=(
            Lease(
                id="lease",
                user="ada",
                server="",
                share="1/1",
                granted_at=0.0,
                devices=(
                    LeasedDevice(
                        uuid="GPU-0", label="0", memory_bytes=1, total_bytes=1
                    ),
                ),
            ),
        ),
        kernels=(KernelView(lease_id="lease", user="ada", server="", kernel_id="k"),),
        holders=(
            Holder(
                process=process,
                device="GPU-0",
                memory_bytes=1,
                utilisation=None,
                kind=HolderKind.FOREIGN,
            ),
        ),
    )
