"""From the text of the workshop file to values.

Owns the YAML dialect and the notations of sizes, durations, shares and paths as
types that pydantic reads and writes.
"""

import os
import re
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)

from jupyterhub_gpuworkshop.core.errors import WorkshopFileError
from jupyterhub_gpuworkshop.core.shares import Share
from jupyterhub_gpuworkshop.core.units import MIB, parse_duration, parse_size
from jupyterhub_gpuworkshop.workshop_errors import shown

_LONGEST_SECONDS = 366 * 86400.0

SIZE_WORDS = "A size: a number with a unit, such as 512MiB or 8GiB."
DURATION_WORDS = "A duration: a number with a unit, such as 90s, 20 min or 2 h."
PATH_WORDS = "A path; a relative one starts at the folder of the workshop file."

_INT = "tag:yaml.org,2002:int"
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key stands once and is text as it is written.

    Two things that YAML 1.1 reads into plain words would harm attendees: a user
    ``no`` or ``0123`` would become False or 83, and the MIG slice ``1:0`` would
    become 60.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  PyYAML's own shape of it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _INT]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Read a value; what YAML takes for a date need not be in the calendar."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise yaml.constructor.ConstructorError(
                None, None, f"a value cannot be read ({error})", node.start_mark
            ) from error

    def construct_mapping(
        self, node: yaml.MappingNode, deep: bool = False
    ) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a word", key.start_mark
                )
            if key.tag == _MERGE:
                continue
            key.tag = "tag:yaml.org,2002:str"
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is given a second time", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    _INT, re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789")
)


def split_source(source: str | Path) -> tuple[Path, str]:
    """Return the file of a workshop, and the section that the workshop is, or ``""``.

    Args:
        source: ``/path/workshop.yaml``, or ``/path/config.yaml#gpuworkshop``. A file
            that has a ``#`` in its name is a file.
    """
    path, mark, section = str(source).rpartition("#")
    # os.path: a folder that this user may not enter is for `read_file` to tell of.
    if not mark or not section or "/" in section or os.path.exists(source):  # noqa: PTH110
        return Path(source), ""
    return Path(path), section


def read_section(path: Path, section: str) -> object:
    """Read one section of a YAML file; None where the file does not have it.

    Raises:
        WorkshopFileError: there is no such file, or it is not YAML, or has no
            sections.
    """
    values = read_file(path)
    if values is None:
        return None
    if not isinstance(values, Mapping):
        raise WorkshopFileError(
            f"{path}: {shown(values)} has no section {section}. Write a line "
            f"`{section}:` with the workshop's keys indented below it."
        )
    return values.get(section)


def read_file(path: Path) -> object:
    """Read a YAML file into plain values; an empty one gives None.

    Raises:
        WorkshopFileError: there is no such file, or it is not YAML.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise WorkshopFileError(
            f"{path}: there is no such file. Correct the path, or create it: an empty "
            "file is a working workshop."
        ) from None
    except PermissionError:
        raise WorkshopFileError(
            f"{path}: this user may not read it. Run the command as root, with sudo in "
            "front of it, or give the path of a file that this user may read."
        ) from None
    except OSError as error:
        raise WorkshopFileError(
            f"{path}: cannot be read: {error.strerror}. Give the path of a file that "
            "this user may read."
        ) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise WorkshopFileError(
            f"{path}: line {line} is not UTF-8 text. Save the file as UTF-8."
        ) from None
    return _read_text(text, str(path))


def _read_text(text: str, name: str) -> object:
    try:
        # Made here since PyYAML checks each character on making the loader.
        return _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "it"
        raise WorkshopFileError(
            f"{name}: {where} is not what YAML expects: {_problem(error)}"
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        raise WorkshopFileError(
            f"{name}: line {line}, column {column} has a character that YAML does not "
            "allow. Remove it."
        ) from None
    except RecursionError:
        raise WorkshopFileError(
            f"{name}: is nested too deeply. Two levels are enough for every key."
        ) from None


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = str(error.problem)
    if "\\t" in problem:
        return "there is a tab. Indent with spaces only."
    if problem.endswith("a second time"):
        return f"{problem}. Keep one of the two."
    if problem == "a key must be a word":
        return f"{problem}. Put text that begins with [ {{ or ? in quotes."
    return (
        f"{problem}. Look at this line and the one above: a key ends with a colon and "
        "a space, the keys of one section are indented alike, and text with special "
        "characters stands in quotes."
    )


def _read_size(value: object) -> int:
    if isinstance(value, str):
        return parse_size(value)
    if value == 0 and not isinstance(value, bool):
        return 0
    if value is None:
        raise ValueError("there is nothing after the colon. Write for example 8GiB.")
    raise ValueError(
        f"{shown(value)} is a number without a unit, or no size. Write for example "
        "8GiB or 512MiB."
    )


def _read_duration(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    if value == 0 and not isinstance(value, bool):
        return 0.0
    if value is None:
        raise ValueError("there is nothing after the colon. Write for example 20 min.")
    raise ValueError(
        f"{shown(value)} is a number without a unit, or no duration. Write for "
        "example 90s, 20 min or 2 h."
    )


def _read_share(value: object) -> Share:
    if isinstance(value, Share):
        return value
    if value is None:
        raise ValueError("there is nothing after the colon. Write for example 1/5.")
    if isinstance(value, (bool, Mapping, list)):
        raise ValueError(
            f"{shown(value)} is not a share. Write for example 1/5, 8GiB, 1 gpu or cpu."
        )
    return Share.parse(str(value))


def lasting(least: float, most: float = _LONGEST_SECONDS) -> Callable[[float], float]:
    """Return a check that a duration lies within its limits, in seconds."""
    longest = "366 d" if most == _LONGEST_SECONDS else f"{most:g}s"

    def check(seconds: float) -> float:
        if not least <= seconds <= most:
            raise ValueError(
                f"{seconds:.12g}s is too {'short' if seconds < least else 'long'}. "
                f"Write between {least:g}s and {longest}."
            )
        return seconds

    return check


def at_least_1mib(size_bytes: int) -> int:
    if size_bytes < MIB:
        raise ValueError(f"{size_bytes}B is too small. Write at least 1MiB.")
    return size_bytes


def _device_name(value: object) -> object:
    """Read an index, which YAML takes for a number, as text."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value == "":
        raise ValueError("'' names no GPU. Write a UUID, its beginning, or an index.")
    return value


def _beside_the_file(path: Path, info: ValidationInfo) -> Path:
    """Make a path absolute: hub, service and tools run in folders of their own."""
    folder = (info.context or {}).get("folder")
    return path if folder is None else folder / path


# The serializers write what the readers read: a workshop given to `configure` as a
# dict reaches the service as a file.
Size = Annotated[
    int,
    BeforeValidator(_read_size),
    PlainSerializer(lambda size: f"{size}B", when_used="json"),
    WithJsonSchema({"type": "string", "description": SIZE_WORDS}),
]
Duration = Annotated[
    float,
    BeforeValidator(_read_duration),
    PlainSerializer(lambda seconds: f"{seconds!r}s", when_used="json"),
    WithJsonSchema({"type": "string", "description": DURATION_WORDS}),
]
ShareText = Annotated[
    Share,
    PlainValidator(_read_share),
    PlainSerializer(str, when_used="json"),
    WithJsonSchema({"type": "string"}),
]
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
YesNo = Annotated[bool, Field(strict=True)]
DeviceName = Annotated[str, BeforeValidator(_device_name)]
FilePath = Annotated[Path, AfterValidator(_beside_the_file)]


def _spelled(pattern: str, otherwise: str) -> AfterValidator:
    """Return a check of how a text is spelled, with the sentence for the others."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{shown(text)} {otherwise}")
        return text

    return AfterValidator(check)


ServiceName = Annotated[
    str,
    _spelled(
        r"[a-z0-9][a-z0-9_-]*",
        "is no name for a service. Write small letters, digits, - and _.",
    ),
]
HttpUrl = Annotated[
    str,
    _spelled(
        r"https?://[^/\s]\S*",
        "is not the address of a service. Write for example http://127.0.0.1:10110.",
    ),
]
DatabaseUrl = Annotated[
    str,
    _spelled(
        r"[a-z][a-z0-9+_]*://.*",
        "is not the URL of a database. Write for example "
        "sqlite:////srv/jupyterhub/leases.sqlite.",
    ),
]
PackageName = Annotated[
    str,
    _spelled(
        r"[A-Za-z0-9][^\n]*",
        "names no package. Write it as for pip, without options: torch, say, or "
        "scikit-learn==1.7.2.",
    ),
]
