"""Which of our modules import which, read from the sources: no module is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("bilevel", "physics")


class Where(Enum):
    """Where an import stands."""

    TOP = "at the top of the module"
    FUNCTION = "inside a function"
    TYPE_CHECKING = "under TYPE_CHECKING"


@dataclass(frozen=True)
class Import:
    """`module` imports `target`, one of our modules, in this line."""

    module: str
    target: str
    where: Where
    line: int

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}: {self.target} {self.where.value}"


@cache
def sources() -> dict[str, Path]:
    """Our modules by dotted name; packages stand for their `__init__.py`. Templates of studies are no modules."""
    found = {}
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            if "templates" not in parts:
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def syntax(module: str) -> ast.Module:
    return ast.parse(sources()[module].read_text(encoding="utf-8"))


def is_face(module: str) -> bool:
    """Whether the module is a package's `__init__.py`, which hands names on."""
    return sources()[module].name == "__init__.py"


@cache
def imports() -> tuple[Import, ...]:
    """Every import of one of our modules by another; a name taken from a face counts as taken from its home."""
    return tuple(found for module in sources() for found in _imports(module, syntax(module), Where.TOP))


def public_classes(module: str) -> list[str]:
    """The public classes that a module defines."""
    return [node.name for node in syntax(module).body if isinstance(node, ast.ClassDef) and node.name[0] != "_"]


def _imports(module: str, node: ast.AST, where: Where) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            targets = [alias.name for alias in child.names] if isinstance(child, ast.Import) else _homes(child)
            for target in dict.fromkeys(targets):
                if target.split(".")[0] in PACKAGES:
                    yield Import(module, target, where, child.lineno)
        inner = where
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inner = Where.FUNCTION
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            inner = Where.TYPE_CHECKING
        yield from _imports(module, child, inner)


def _homes(node: ast.ImportFrom) -> list[str]:
    assert node.level == 0, f"relative import of {node.module}: write it in full"
    return [home(str(node.module), alias.name) for alias in node.names]


def home(module: str, name: str) -> str:
    """The module that `from module import name` really takes the name from."""
    if f"{module}.{name}" in sources():
        return f"{module}.{name}"
    if module in sources() and is_face(module):
        for node in ast.walk(syntax(module)):
            if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == name for a in node.names):
                return home(str(node.module), next(a.name for a in node.names if (a.asname or a.name) == name))
    return module
