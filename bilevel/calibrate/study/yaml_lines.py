"""YAML read together with the line of every key, so that an error can say where."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import BaseModel, ValidationError

from bilevel.report import InputError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """The content of a YAML file; lines: path of keys and list positions -> line number."""

    file: str
    content: Any
    lines: Mapping[KeyPath, int]

    def error(self, path: KeyPath, message: str) -> InputError:
        """An InputError that names the file, the line of the innermost key found, and the keys."""
        found = path
        while found and found not in self.lines:
            found = found[:-1]
        keys = _dotted(path)
        text = " ".join(message.split())
        return InputError(f"{self.file}, line {self.lines.get(found, 1)}: {keys + ': ' if keys else ''}{text}")

    def reject(self, error: ValidationError, schema: type[BaseModel], prefix: KeyPath = ()) -> NoReturn:
        """Raise the first problem that pydantic found as an InputError."""
        first = min(error.errors(), key=lambda e: self.lines.get((*prefix, *e["loc"]), 10**9))
        location: KeyPath = tuple(first["loc"])
        path = (*prefix, *location)
        kind = first["type"]
        if kind == "extra_forbidden":
            raise self.error(path[:-1], unknown_key(str(location[-1]), _keys_at(schema, location[:-1]))).with_traceback(
                None
            ) from None
        if kind == "missing":
            raise self.error(path[:-1], f"key '{location[-1]}' is missing") from None
        raise self.error(path, _sentence(first)) from None


def unknown_key(key: str, known: Iterable[str]) -> str:
    """A sentence on an unknown key, with the nearest known one or all of them."""
    known = list(known)
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else f" (known: {', '.join(known)})" if known else ""
    return f"unknown key '{key}'{hint}"


def read_yaml(path: Path) -> Document:
    """Read a YAML file whose top level is a mapping; InputError on a missing file, bad syntax or a key given twice."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text: {error}") from None
    lines: dict[KeyPath, int] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        content = None if node is None else _build(loader, node, (), lines, str(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}, line 1: expected keys such as 'model:' and 'parameters:', found {_kind(content)}")
    return Document(str(path), content, lines)


class _Loader(yaml.SafeLoader):
    """SafeLoader that also takes 1e-5 (without a point) for a number."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def _build(loader: _Loader, node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], file: str) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _build_mapping(loader, node, path, lines, file)
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, child, (*path, i), lines, file) for i, child in enumerate(node.value)]
    value = loader.construct_object(node, deep=True)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(node.value)


def _build_mapping(
    loader: _Loader, node: yaml.MappingNode, path: KeyPath, lines: dict[KeyPath, int], file: str
) -> dict[str, Any]:
    own = [k.value for k, _ in node.value if k.tag != "tag:yaml.org,2002:merge"]
    for key_node, _ in node.value:
        if own.count(key_node.value) > 1:
            line = max(k.start_mark.line for k, _ in node.value if k.value == key_node.value) + 1
            raise InputError(f"{file}, line {line}: key '{key_node.value}' is given twice")
    loader.flatten_mapping(node)
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        lines[(*path, key)] = key_node.start_mark.line + 1
        result[key] = _build(loader, value_node, (*path, key), lines, file)
    return result


def _dotted(path: KeyPath) -> str:
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


_EXPECTED = {
    "float": "a number",
    "int": "a whole number",
    "string": "a text",
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
        return f"expected {error['ctx']['expected']}, got {_kind(given)}"
    expected = _EXPECTED.get(kind.split("_")[0])
    if expected and kind.split("_")[-1] in ("type", "parsing", "float", "number", "attributes"):
        return f"expected {expected}, got {_kind(given)}"
    message = error["msg"]
    return f"{message[0].lower()}{message[1:]}, got {_kind(given)}"


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping of keys"
    if isinstance(value, list):
        return "a list"
    return f"'{value}'"


def _keys_at(schema: type[BaseModel], location: KeyPath) -> list[str]:
    """The keys that a schema knows at a location, "" where it cannot be told."""
    current: Any = schema
    for part in location:
        if isinstance(part, str) and isinstance(current, type) and issubclass(current, BaseModel):
            field = current.model_fields.get(part)
            current = _inner_model(field.annotation) if field else current
    is_model = isinstance(current, type) and issubclass(current, BaseModel)
    return [f.alias or name for name, f in current.model_fields.items()] if is_model else []


def _inner_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for a in typing.get_args(annotation) if (found := _inner_model(a)) is not None), None)
