"""What the answer of a study depends on: its keys, its data, the user's own modules, and the versions beneath."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bilevel.calibrate.study.schema import StudySection

PACKAGES = ("bilevel", "torch", "numpy", "scipy")


def contents(study: Path, section: StudySection, files: Iterable[Path]) -> dict[str, str]:
    """Name -> hash or version. Titles and pictures do not count; settings are compared one by one elsewhere."""
    keys = section.model_dump(
        mode="json",
        exclude={
            "title",
            "description",
            "plot",
            "calibration",
            "runs",
            "profiles",
            "executor",
            "forecasts",
            "candidates",
            "ensemble",
        },
    )
    keys["jacobian"] = section.calibration.jacobian.value
    named = [study.parent / text for text in _texts([section.model, *(e.model for e in section.experiments or ())])]
    read = [*files, *(path for path in named if _is_file(path))]
    found = {study.name: _hash(json.dumps(keys, sort_keys=True, default=str).encode())}
    for path in dict.fromkeys(p.resolve() for p in read):
        for source in own_sources(path) if path.suffix == ".py" else [path]:
            name = os.path.relpath(source, study.parent.resolve())  # a study may move, with all that it reads
            found[name] = _hash(source.read_bytes())
    return found | versions()


def versions() -> dict[str, str]:
    """Of Python and the packages whose arithmetic the answer is made of."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def own_sources(file: Path) -> list[Path]:
    """A Python file and the modules that it imports, and they in turn, as far as these are not installed packages."""
    found: dict[Path, None] = {}
    waiting = [file]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = None
            waiting += _imported_files(path)
    return list(found)


def _imported_files(file: Path) -> Iterator[Path]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    names = [a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
    for name in dict.fromkeys(name.partition(".")[0] for name in names):
        if name in sys.stdlib_module_names or name in ("bilevel", "physics"):
            continue
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is None or not spec.origin or {"site-packages", "dist-packages"} & set(Path(spec.origin).parts):
            continue
        for place in spec.submodule_search_locations or ():
            yield from sorted(Path(place).rglob("*.py"))
        if spec.origin.endswith(".py"):
            yield Path(spec.origin)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"
