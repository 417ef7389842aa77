"""Keys checked against a pydantic schema, with sentences that say file, line and what was expected."""

from __future__ import annotations

import difflib
import math
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from bilevel.calibrate.study.yaml_lines import Document, KeyPath, kind_of

Schema = TypeVar("Schema", bound=BaseModel)


def validated(document: Document, schema: type[Schema], content: Any, prefix: KeyPath = ()) -> Schema:
    """`content`, found at `prefix` in the document, as an object of the schema; InputError for the first thing wrong.

    Stricter than pydantic's default: true is no number, a text is no number, and numbers are finite.
    """
    try:
        result = schema.model_validate(content)
    except ValidationError as error:
        _reject(document, error, schema, content, prefix)
    except (RecursionError, OverflowError, ArithmeticError) as error:
        raise document.error(prefix, f"cannot be read: {error}") from None
    for path, message in _taken_for_numbers(content, result):
        raise document.error((*prefix, *path), message)
    return result


def unknown_key(key: str, known: Iterable[str]) -> str:
    """A sentence on an unknown key, with the nearest known one or all of them."""
    return f"unknown key '{key}'{hint(key, known)}"


def hint(name: str, known: Iterable[str]) -> str:
    """ "; did you mean '...'?", or all known names in parentheses, or "" where there are none."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{near[0]}'?" if near else f" (known: {', '.join(names)})" if names else ""


def _reject(
    document: Document, error: ValidationError, schema: type[BaseModel], content: Any, prefix: KeyPath
) -> NoReturn:
    located = [(_written(e, content), e) for e in error.errors()]
    # Of the alternatives of a key the one that fits best went farthest in; what the others miss is no news.
    deepest = [(path, e) for path, e in located if not any(other[: len(path)] == path != other for other, _ in located)]
    location, first = min(deepest, key=lambda found: document.lines.get((*prefix, *found[0]), 10**9))
    path = (*prefix, *location)
    if first["type"] == "extra_forbidden":
        raise document.error(path[:-1], unknown_key(str(location[-1]), _keys_at(schema, location[:-1]))) from None
    if first["type"] == "missing":
        raise document.error(path[:-1], f"key '{location[-1]}' is missing") from None
    raise document.error(path, _sentence(first)) from None


def _written(error: Any, content: Any) -> KeyPath:
    """Where an error is in what was written: without the names that pydantic gives to alternatives and to keys of its own."""
    path: list[Any] = []
    for part in error["loc"]:
        inside = (
            part in content
            if isinstance(content, Mapping)
            else isinstance(content, list) and part in range(len(content))
        )
        if inside:
            path.append(part)
            content = content[part]
    return (*path, error["loc"][-1]) if error["type"] == "missing" else tuple(path)


def _taken_for_numbers(given: Any, taken: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Where pydantic made a number of what is none (true, "5", .inf), in all schemas alike, those of models included."""
    if isinstance(given, float) and not math.isfinite(given):
        yield path, f"expected a finite number, got {kind_of(given)}"
    elif isinstance(taken, bool):
        if isinstance(given, (str, int, float)) and not isinstance(given, bool):
            yield path, f"expected true or false, got {kind_of(given)}"
    elif isinstance(taken, (int, float)) and (isinstance(given, bool) or (isinstance(given, str) and _plain(given))):
        yield path, f"expected a number, got {'the text ' if isinstance(given, str) else ''}{kind_of(given)}"
    elif isinstance(given, Mapping):
        members = taken if isinstance(taken, Mapping) else getattr(taken, "__dict__", {})
        for key, value in given.items():
            yield from _taken_for_numbers(value, members.get(key), (*path, key))
    elif isinstance(given, list):
        parts = taken if isinstance(taken, (list, tuple)) else [None] * len(given)
        for i, (value, part) in enumerate(zip(given, parts)):
            yield from _taken_for_numbers(value, part, (*path, i))


def _plain(text: str) -> bool:
    """Whether a text alone is taken for a number: "5", "1_000" (but not "5 m", which a model may read)."""
    try:
        float(text)
    except ValueError:
        return False
    return True


_EXPECTED = {
    "float": "a number",
    "int": "a whole number",
    "string": "a text (in quotes, if that is what is meant)",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping of keys",
    "model": "a mapping of keys",
    "finite": "a finite number",
}


def _sentence(error: Any) -> str:
    kind, given = error["type"], error["input"]
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind in ("literal_error", "enum"):
        return f"expected {error['ctx']['expected']}, got {kind_of(given)}"
    expected = _EXPECTED.get(kind.split("_")[0])
    if expected and kind.split("_")[-1] in ("type", "parsing", "float", "number", "attributes", "size"):
        return f"expected {expected}, got {kind_of(given)}"
    message = error["msg"]
    return f"{message[0].lower()}{message[1:]}, got {kind_of(given)}"


def _keys_at(schema: type[BaseModel], location: KeyPath) -> list[str]:
    """The keys that a schema knows at a location, [] where it cannot be told."""
    current: Any = schema
    for part in location:
        if isinstance(part, str) and isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(part)
            current = _nested_model(field.annotation) if field else current
    is_model = isinstance(current, type) and issubclass(current, BaseModel)
    return [f.alias or name for name, f in current.model_fields.items()] if is_model else []


def _nested_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for a in typing.get_args(annotation) if (found := _nested_model(a)) is not None), None)
