"""The workshop file: every key has a default, every mistake a sentence."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from jupyterhub_gpuworkshop.core.errors import WorkshopFileError
from jupyterhub_gpuworkshop.core.placement import Policy
from jupyterhub_gpuworkshop.core.rules import Action
from jupyterhub_gpuworkshop.core.units import GIB, MIB
from jupyterhub_gpuworkshop.workshop import Workshop


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Return a function that writes a workshop file and returns its path."""

    def _write(content: str | bytes) -> Path:
        path = tmp_path / "workshop.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return _write


def mistakes_of(source: Any) -> list[str]:
    with pytest.raises(WorkshopFileError) as caught:
        Workshop.load(source)
    return str(caught.value).split("\n")


@pytest.mark.parametrize(
    "text", ["", "# nothing yet\n", "{}", "gpus:\nidle:\nshares:\n"]
)
def test_a_file_without_a_key_is_a_working_workshop(write: Any, text: str) -> None:
    assert Workshop.load(write(text)) == Workshop()


def test_the_defaults_are_those_that_the_organiser_was_told() -> None:
    workshop = Workshop.load({})
    assert workshop.attendees is None
    assert workshop.gpus.keep_free_per_gpu == 512 * MIB
    assert workshop.gpus.oversubscribe == 1.0
    assert workshop.gpus.placement is Policy.ROUND_ROBIN
    assert workshop.gpus.when_full == "refuse"
    assert workshop.gpus.source == "nvml"
    assert (workshop.idle.needed_after, workshop.idle.after) == (1200.0, 7200.0)
    assert workshop.idle.min_memory == 256 * MIB
    assert workshop.idle.action is Action.RESTART
    assert (workshop.monitor.interval, workshop.monitor.timeout) == (5.0, 5.0)
    assert (workshop.service.name, workshop.service.port) == ("gpuworkshop", 10110)
    assert workshop.service.managed is True


FULL = """
attendees: 40
gpus:
  attendees_per_gpu: 8
  keep_free_per_gpu: 1GiB
  exclude: [0, GPU-1234, 1:0, 010]
  oversubscribe: 2
  placement: least-used
  sticky: true
  when_full: cpu
  source: simulated
  simulated_dir: simulation
shares:
  groups: {staff: 2 gpus, no: cpu}
  users:
    alice: 8GiB
    0123: 1/4
    on: none
idle: {needed_after: 90s, after: 1 h 30 min, min_memory: 0, action: stop_kernel}
monitor: {interval: 0.5s}
service: {managed: false, url: "https://gpu.example.org:8443/x", secret_file: /s}
ledger_url: postgresql+psycopg://hub:pw@localhost/leases
"""


def test_every_key_is_read(write: Any, tmp_path: Path) -> None:
    workshop = Workshop.load(write(FULL))
    assert workshop.gpus.attendees_per_gpu == 8
    assert workshop.gpus.keep_free_per_gpu == GIB
    assert workshop.gpus.oversubscribe == 2.0
    assert workshop.gpus.placement is Policy.LEAST_USED
    assert workshop.gpus.sticky is True
    assert workshop.gpus.when_full == "cpu"
    assert (workshop.idle.needed_after, workshop.idle.after) == (90.0, 5400.0)
    assert workshop.idle.min_memory == 0
    assert workshop.idle.action is Action.STOP_KERNEL
    assert workshop.monitor.interval == 0.5
    assert workshop.service.url == "https://gpu.example.org:8443/x"
    assert workshop.ledger_url == "postgresql+psycopg://hub:pw@localhost/leases"


def test_names_and_slices_stay_the_text_that_was_written(write: Any) -> None:
    """YAML 1.1 would read `no` as False, 0123 as 83 and 1:0 as 60."""
    workshop = Workshop.load(write(FULL))
    assert list(workshop.shares.users) == ["alice", "0123", "on"]
    assert list(workshop.shares.groups) == ["staff", "no"]
    assert workshop.gpus.exclude == ("0", "GPU-1234", "1:0", "010")


def test_relative_paths_start_at_the_folder_of_the_file(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(FULL)
    monkeypatch.chdir("/")
    workshop = Workshop.load(path)
    assert workshop.gpus.simulated_dir == tmp_path / "simulation"
    assert workshop.service.secret_file == Path("/s")


def test_a_workshop_is_loaded_from_a_path_a_text_path_a_mapping_or_itself(
    write: Any,
) -> None:
    path = write("attendees: 3")
    workshop = Workshop.load(path)
    assert Workshop.load(str(path)) == workshop
    assert Workshop.load(MappingProxyType({"attendees": 3})) == workshop
    assert Workshop.load(workshop) is workshop


def test_a_workshop_written_as_json_reads_back(write: Any) -> None:
    workshop = Workshop.load(write(FULL))
    assert Workshop.load(workshop.model_dump(mode="json")) == workshop


def test_a_workshop_cannot_be_changed_and_hides_the_password_of_its_ledger() -> None:
    workshop = Workshop.load({"ledger_url": "postgresql://hub:swordfish@host/leases"})
    with pytest.raises(ValidationError, match="frozen"):
        workshop.attendees = 4  # type: ignore[misc]
    assert "swordfish" not in repr(workshop)


@pytest.mark.parametrize(
    ("key", "value", "shown", "remedy"),
    [
        ("attendees", 0, "0", "at least 1"),
        ("attendees", True, "true", "Write one without quotes, for example 5"),
        ("attendees", "forty", "'forty'", "Write one without quotes"),
        ("gpus.attendees_per_gpu", 1001, "1001", "at most 1000"),
        ("gpus.memory_per_attendee", 8, "8", "Write for example 8GiB"),
        ("gpus.memory_per_attendee", 0, "0B", "Write at least 1MiB"),
        ("gpus.keep_free_per_gpu", "much", "'much'", "Write for example 8GiB"),
        ("gpus.keep_free_per_gpu", None, "nothing", "Write for example 8GiB"),
        ("gpus.exclude", "0", "'0'", "Write [first, second]"),
        ("gpus.oversubscribe", 0.5, "0.5", "at least 1"),
        ("gpus.oversubscribe", float("nan"), "nan", "Write for example 1.5"),
        ("gpus.oversubscribe", 11, "11", "at most 10"),
        ("gpus.placement", "pak", "'pak'", "Did you mean pack?"),
        ("gpus.sticky", "yes", "'yes'", "Write one of them, without quotes"),
        ("gpus.when_full", "wait", "'wait'", "none of refuse, cpu"),
        ("gpus", [1], "[1]", "Write its keys indented below it"),
        ("shares.default", "half", "'half'", "Write a part of a GPU (1/5)"),
        ("shares.default", {"a": 1}, "a section of keys", "Write for example 1/5"),
        ("shares.groups", ["staff"], "['staff']", "Write one line `name: value`"),
        ("shares.users.bob", None, "nothing", "Write for example 1/5"),
        ("idle.after", 7200, "7200", "Write for example 90s, 20 min or 2 h"),
        ("idle.after", 0, "0s", "Write between 1s and 366 d"),
        ("idle.needed_after", "soon", "'soon'", "Write for example 90s"),
        ("idle.max_cpu", 2, "2", "at most 1"),
        ("idle.action", "kill", "'kill'", "none of park, restart, stop_kernel"),
        ("idle.dry_run", None, "nothing", "take the line out"),
        ("monitor.interval", "0.1s", "0.1s", "Write between 0.5s and 10s"),
        ("monitor.interval", "1 min", "60s", "too long"),
        ("monitor.timeout", "400 d", "34560000s", "Write between 0.1s"),
        ("service.name", "My GPUs", "'My GPUs'", "Write small letters"),
        ("service.port", 0, "0", "at least 1"),
        ("service.url", "gpu:80", "'gpu:80'", "Write for example http://"),
        ("service.secret_file", 5, "5", "Write one, in quotes"),
        ("ledger_url", "leases.db", "'leases.db'", "Write for example sqlite:"),
        ("ledger_url", 5, "5", "Put it in quotes"),
    ],
)
def test_a_mistake_names_key_value_and_remedy(
    key: str, value: object, shown: str, remedy: str
) -> None:
    source: object = value
    for part in reversed(key.split(".")):
        source = {part: source}
    (line,) = mistakes_of(source)
    assert line.startswith(f"workshop: {key}: ")
    assert shown in line.removeprefix(f"workshop: {key}: ")
    assert remedy in line


def test_a_mistake_in_a_list_names_the_index() -> None:
    (line,) = mistakes_of({"gpus": {"exclude": ["0", [1]]}})
    assert line == "workshop: gpus.exclude[1]: [1] is not text. Put it in quotes."
    (line,) = mistakes_of({"gpus": {"exclude": [""]}})
    assert line.startswith("workshop: gpus.exclude[0]: '' names no GPU. Write a UUID")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            {"gpus": {"attendees_per_gpu": 5, "memory_per_attendee": "8GiB"}},
            "gpus.memory_per_attendee: 8 GiB was given beside gpus.attendees_per_gpu: "
            "5, and each sets the share. Take one of the two out.",
        ),
        (
            {"gpus": {"attendees_per_gpu": 5}, "shares": {"default": "1/4"}},
            "shares.default: 1/4 was given beside gpus.attendees_per_gpu",
        ),
        (
            {"gpus": {"memory_per_attendee": "8GiB"}, "shares": {"default": "cpu"}},
            "shares.default: cpu was given beside gpus.memory_per_attendee",
        ),
        (
            {"idle": {"after": "10 min"}},
            "needed_after (20 min) must not exceed after (10 min)",
        ),
        ({"gpus": {"source": "simulated"}}, "gpus.simulated_dir: nothing is given"),
        (
            {"service": {"url": "http://localhost:1"}},
            "Write service.managed: false, or take service.url out.",
        ),
    ],
)
def test_keys_that_exclude_each_other_are_told(
    source: Mapping[str, object], said: str
) -> None:
    (line,) = mistakes_of(source)
    assert said in line


@pytest.mark.parametrize(
    "beside",
    [
        {"gpus": {"attendees_per_gpu": 5}},
        {"gpus": {"memory_per_attendee": "8GiB"}},
        {"shares": {"default": "1/4"}},
    ],
)
def test_attendees_may_stand_beside_any_of_them(beside: dict[str, object]) -> None:
    assert Workshop.load({"attendees": 40, **beside}).attendees == 40


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            {"atendees": 3},
            "Did you mean attendees? The keys of the file are: attendees,",
        ),
        (
            {"gpus": {"atendees_per_gpu": 3}},
            "Did you mean gpus.attendees_per_gpu? The keys of gpus are: attendees_per",
        ),
        ({"memory_per_attendee": "8GiB"}, "Did you mean gpus.memory_per_attendee?"),
        ({"idle": {"xyzzy": 1}}, "Take it out. The keys of idle are: needed_after,"),
    ],
)
def test_an_unknown_key_suggests_the_nearest_and_lists_those_of_its_section(
    source: Mapping[str, object], said: str
) -> None:
    (line,) = mistakes_of(source)
    assert "there is no such key" in line
    assert said in line


def test_a_password_is_not_told_in_a_message() -> None:
    for key in ("ledger_url", "ledgerurl"):
        (line,) = mistakes_of({key: "Postgresql://hub:secret@host/leases"})
        assert "secret" not in line
        assert "Postgresql://hub:***@host" in line


def test_several_mistakes_are_all_told_one_a_line(write: Any) -> None:
    path = write("attendees: 0\ngpus: {sticky: 1, colour: red}\nidle: {after: 5}\n")
    lines = mistakes_of(path)
    assert [line.split(": ")[1] for line in lines] == [
        "attendees",
        "gpus.sticky",
        "gpus.colour",
        "idle.after",
    ]
    assert all(line.startswith(f"{path}: ") for line in lines)


@pytest.mark.parametrize(
    "source",
    [{1: 2}, {"shares": {"users": {123: "1/5"}}}],
    ids=["key", "user"],
)
def test_a_name_that_is_no_text_is_asked_to_be_quoted(source: Any) -> None:
    (line,) = mistakes_of(source)
    assert "Put the name in quotes" in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: b: c", "line 1, column 5 is not what YAML expects: mapping values"),
        (
            "gpus:\n\tsticky: true",
            "line 2, column 1 is not what YAML expects: there is a tab",
        ),
        (
            "attendees: 1\nattendees: 2",
            "line 2, column 1 .* attendees is given a second",
        ),
        (
            "gpus: {sticky: true, sticky: false}",
            "column 22 .* sticky is given a second",
        ),
        ("? [1]\n: 2", "line 1, column 3 .* a key must be a word"),
        ("service: {name: 2026-99-99}", "line 1, column 17 .* cannot be read .month"),
        ("attendees: !!int x", "line 1, column 12 .* a value cannot be read"),
        ("attendees: !!bool x", "line 1, column 12 .* a value cannot be read"),
        ("!!python/name:os.system x", "line 1, column 1 .* could not determine"),
        ("attendees: 1\n---\nattendees: 2", "line 2, column 1"),
        ("attendees: 1\n\x00", "line 2, column 1 has a character"),
        (b"attendees: 1\n# \xff", "line 2 is not UTF-8 text. Save the file"),
        ("[" * 5000, "nested too deeply"),
        ("- 1\n- 2", r"\[1, 2\] is no workshop. Write lines of `key: value`"),
        ("forty", "'forty' is no workshop"),
    ],
)
def test_what_is_not_yaml_is_told_in_a_sentence_with_its_place(
    write: Any, content: str | bytes, said: str
) -> None:
    path = write(content)
    with pytest.raises(WorkshopFileError, match=said) as caught:
        Workshop.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_cannot_be_read_is_told(tmp_path: Path) -> None:
    (missing,) = mistakes_of(tmp_path / "none.yaml")
    assert "there is no such file. Correct the path, or create it" in missing
    (folder,) = mistakes_of(tmp_path)
    assert "cannot be read: Is a directory" in folder


def test_a_key_that_is_merged_in_may_be_given_again(write: Any) -> None:
    text = "gpus: &a {sticky: true}\nidle: {dry_run: true}\n"
    assert Workshop.load(write(text)).gpus.sticky is True
    merged = "shares:\n  groups: &g {a: cpu}\n  users: {<<: *g, a: 1/5, b: cpu}\n"
    users = Workshop.load(write(merged)).shares.users
    assert {name: str(share) for name, share in users.items()} == {
        "a": "1/5",
        "b": "cpu",
    }


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*Workshop.model_fields, "x\ny"]),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(
                    st.sampled_from(["exclude", "after", "users", "url", "y\x00"]),
                    inner,
                ),
            ),
            max_leaves=5,
        ),
    )
)
def test_any_values_are_read_or_refused_one_mistake_a_line(
    source: dict[str, object],
) -> None:
    try:
        told = f"workshop: {Workshop.load(source)}"
    except WorkshopFileError as error:
        told = str(error)
    assert all(line.startswith("workshop: ") for line in told.split("\n"))


def every_key(
    model: type[BaseModel] = Workshop, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            assert kind.__doc__
            yield from every_key(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, field


@pytest.mark.parametrize(
    ("key", "field"), [*every_key()], ids=[k for k, _ in every_key()]
)
def test_every_key_is_described_with_its_default_and_when_it_takes_effect(
    key: str, field: FieldInfo
) -> None:
    description = field.description or ""
    assert "Default: " in description, key
    assert "Takes effect " in description, key
    assert description.endswith("."), key


def test_the_file_has_a_json_schema_for_editors() -> None:
    schema = Workshop.model_json_schema()
    assert list(schema["properties"]) == list(Workshop.model_fields)
