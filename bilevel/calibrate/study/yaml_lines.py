"""YAML 1.2 (its core schema) read together with the line of every key, so that an error can say where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bilevel.calibrate.study.files import read_text
from bilevel.report import InputError

KeyPath = tuple[str | int, ...]

MAX_BYTES, MAX_NODES, MAX_DEPTH = 2_000_000, 200_000, 50
"""A study is written by people: aliases that unfold to more than this are an attack or a mistake."""


@dataclass(frozen=True)
class Document:
    """The content of a YAML file; lines: path of keys and list positions -> line number; text: as it was read."""

    file: str
    content: Any
    lines: Mapping[KeyPath, int]
    text: str = ""

    def error(self, path: KeyPath, message: str) -> InputError:
        """An InputError that names the file, the line of the innermost key found, and the keys."""
        found = path
        while found and found not in self.lines:
            found = found[:-1]
        keys = _dotted(path)
        text = " ".join(message.split())
        return InputError(f"{self.file}, line {self.lines.get(found, 1)}: {keys + ': ' if keys else ''}{text}")


def read_yaml(path: Path) -> Document:
    """Read a YAML file whose top level is a mapping; InputError on a missing file, bad syntax or a key given twice."""
    text = read_text(path, MAX_BYTES)
    try:
        builder = _Builder(str(path))
        node = _Loader(text).get_single_node()
        content = None if node is None else builder.build(node, ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise InputError(f"{path}: its lists and mappings are nested too deeply") from None
    except ValueError as error:  # PyYAML lets chr() and int() complain of absurd escapes and numbers
        raise InputError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}, line 1: expected keys such as 'model:' and 'parameters:', found {kind_of(content)}")
    return Document(str(path), content, builder.lines, text)


class WrittenInt(int):
    """A whole number that remembers how it was written: as a text, 010 stays 010."""

    written: str

    def __str__(self) -> str:
        return self.written


class WrittenFloat(float):
    """A number that remembers how it was written: as a text, 1.50 stays 1.50."""

    written: str

    def __str__(self) -> str:
        return self.written


def kind_of(value: Any) -> str:
    """What stands where something else was expected, for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping of keys"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"'{text if len(text) <= 60 else text[:57] + '...'}'"


# YAML 1.2.2, section 10.3.2. PyYAML follows YAML 1.1, where yes is true, 1:30 is 90 and 010 is 8.
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"  # not of the core schema, but what keeps studies of many experiments short


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner and parser with the scalars of the core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own name


for _name, _pattern in {"null": _NULL, "bool": _BOOL, "int": _INT, "float": _FLOAT}.items():
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, [None])
_Loader.add_implicit_resolver(_MERGE, re.compile(r"^<<$"), ["<"])


class _Builder:
    """Plain values of a tree of nodes, and the lines of their keys."""

    def __init__(self, file: str) -> None:
        self.file, self.lines, self.count = file, dict[KeyPath, int](), 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        self._count(node, path)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, i)) for i, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        self._fill(result, node, path)
        return result

    def _fill(self, result: dict[str, Any], node: yaml.MappingNode, path: KeyPath) -> None:
        """Add the keys of a mapping that are not there yet: its own first, then those that it merges (<<: *alias)."""
        own: set[str] = set()
        for key, value in node.value:
            if key.tag == _MERGE:
                continue
            line, name = key.start_mark.line + 1, key.value
            if not isinstance(name, str):
                raise InputError(f"{self.file}, line {line}: a key must be a text")
            if name in own:
                raise InputError(f"{self.file}, line {line}: key '{name}' is given twice")
            own.add(name)
            if name not in result:
                self.lines[(*path, name)] = line
                result[name] = self.build(value, (*path, name))
        for key, value in node.value:
            if key.tag == _MERGE:
                for part in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    self._merge(result, part, path)

    def _merge(self, result: dict[str, Any], node: yaml.Node, path: KeyPath) -> None:
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{self.file}, line {node.start_mark.line + 1}: << merges mappings only")
        self._count(node, path)
        self._fill(result, node, path)

    def _count(self, node: yaml.Node, path: KeyPath) -> None:
        self.count += 1
        if self.count > MAX_NODES or len(path) > MAX_DEPTH:
            raise InputError(
                f"{self.file}, line {node.start_mark.line + 1}: "
                f"aliases unfold to more than {MAX_NODES} values or {MAX_DEPTH} levels"
            )

    def _scalar(self, node: yaml.Node) -> Any:
        tag, text = node.tag, node.value
        if tag == _TAG + "str":
            return text
        if tag == _TAG + "null":
            return None
        if tag == _TAG + "bool" and _BOOL.match(text):
            return text.lower() == "true"
        if tag == _TAG + "int" and _INT.match(text):
            number: WrittenInt | WrittenFloat = WrittenInt(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        elif tag == _TAG + "float" and _FLOAT.match(text):
            number = WrittenFloat(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        else:
            raise InputError(f"{self.file}, line {node.start_mark.line + 1}: '{tag}' cannot be read; leave the tag out")
        number.written = text
        return number


def _dotted(path: KeyPath) -> str:
    text = ""
    for part in path:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
