"""Mistakes in the workshop file, in the organiser's words.

Owns the sentences: where, what was given, what to write instead. It knows no key by
name: it reads them from the model.
"""

import difflib
import re
from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_LONGEST_VALUE = 60
_PASSWORD = re.compile(r":[^:@/]*@")


def mistakes(
    error: ValidationError, name: str, model: type[BaseModel], section: str = ""
) -> str:
    """Put every mistake that pydantic found in a sentence, one a line.

    Args:
        error: what pydantic found.
        name: the file, as the organiser calls it.
        model: the model of the whole file, for the names of the keys.
        section: what the workshop is called in a file that holds more than it.
    """
    above = (section,) if section else ()
    return "\n".join(
        f"{name}: {_dotted((*above, *details['loc']))}: {_sentence(details, model)}"
        for details in error.errors(include_url=False)
    )


def shown(value: object) -> str:
    """Write a value for a message: on one line, cut short, without a password."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a section of keys" if value else "an empty section"
    if isinstance(value, (list, tuple, set)):
        text = f"[{', '.join(shown(item) for item in value)}]"
    else:
        text = (
            repr(_PASSWORD.sub(":***@", value))
            if isinstance(value, str)
            else str(value)
        )
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _dotted(location: tuple[int | str, ...]) -> str:
    key = ""
    for part in location:
        if part == "[key]":
            continue
        text = f"[{part}]" if isinstance(part, int) and key else str(part)
        if not text.isprintable():
            text = repr(text)
        key += text if text.startswith("[") or not key else f".{text}"
    return key or "the whole file"


_WANTED = {
    "int_type": "is not a whole number. Write one without quotes, for example 5",
    "float_type": "is not a number. Write one without quotes, for example 1.5",
    "finite_number": "is not a finite number. Write for example 1.5",
    "bool_type": "is neither true nor false. Write one of them, without quotes",
    "string_type": "is not text. Put it in quotes",
    "invalid_key": "is not text. Put the name in quotes",
    "path_type": "is not a path. Write one, in quotes if need be",
    "tuple_type": "is not a list. Write [first, second], or one line `- item` for each",
    "dict_type": "is not a section. Write one line `name: value` for each",
    "model_type": "is not a section. Write its keys indented below it, `key: value`",
}
_LIMITS = {
    "greater_than_equal": ("ge", "is too small. Write at least"),
    "less_than_equal": ("le", "is too large. Write at most"),
}


def _sentence(details: ErrorDetails, model: type[BaseModel]) -> str:
    kind, location, value = details["type"], details["loc"], shown(details["input"])
    context = details.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(location, value, model)
    if kind == "value_error":
        return str(context["error"])
    if kind in ("enum", "literal_error"):
        return _no_choice(value, str(context["expected"]))
    if kind == "missing":
        return "this key is missing. Write it, with a value."
    if kind in _LIMITS:
        key, words = _LIMITS[kind]
        return f"{value} {words} {context[key]}."
    if location and location[-1] == "[key]":
        return f"{value} is not text. Put the name in quotes."
    if details["input"] is None:
        return (
            "there is nothing after the colon. Write a value, or take the line out to "
            "have the default."
        )
    if kind in _WANTED:
        return f"{value} {_WANTED[kind]}."
    return f"{value} cannot stand here: {details['msg']}. Take it out for the default."


def _no_choice(value: str, expected: str) -> str:
    choices = re.findall(r"'([^']*)'", expected)
    near = difflib.get_close_matches(value.lower(), choices, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{value} is none of {', '.join(choices)}.{hint} Write one of these."


def _unknown_key(
    location: tuple[int | str, ...], value: str, model: type[BaseModel]
) -> str:
    """Suggest the key that was meant: of this section first, else of another."""
    *path, given = (str(part) for part in location)
    section: type[BaseModel] = model
    for part in path:
        section = _subsection(section, part) or section
    name = ".".join(path)
    keys = list(section.model_fields)
    near = difflib.get_close_matches(given, keys, n=1)
    if near:
        meant = ".".join([*path, near[0]])
    else:
        elsewhere = dict(_every_key(model))
        close = difflib.get_close_matches(given, elsewhere, n=1)
        meant = elsewhere[close[0]] if close else ""
    return (
        f"there is no such key (it was given {value})."
        + (f" Did you mean {meant}?" if meant else " Take it out.")
        + f" The keys {f'of {name}' if name else 'of the file'} are: {', '.join(keys)}."
    )


def _subsection(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    field = model.model_fields.get(key)
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _every_key(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every key of every section: (its last part, all of it)."""
    for key in model.model_fields:
        yield key, prefix + key
        if (below := _subsection(model, key)) is not None:
            yield from _every_key(below, f"{prefix}{key}.")
