"""Runs of one study that differ in some keys: `runs:` in study.yml, `--run NAME` on the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from bilevel.calibrate.report.summary import number, text_table
from bilevel.calibrate.study.files import RESULT, read_text
from bilevel.calibrate.study.validated import hint
from bilevel.calibrate.study.yaml_lines import Document, KeyPath, kind_of
from bilevel.report import InputError

MAX_BYTES = 100_000_000
_TAKEN = ("checkpoint", "jacobian", "multistart", "pest", "pictures", "state")
_KEYS = ("model", "parameters", "calibration", "title", "description")


def with_run(document: Document, name: str | None) -> Document:
    """The study as a named run has it; lines of changed keys are those of the run. None = as it stands."""
    if name is None:
        return document
    runs = document.content.get("runs")
    if not isinstance(runs, dict) or name not in runs:
        known = list(runs) if isinstance(runs, dict) else []
        raise document.error(("runs",), f"there is no run '{name}'{hint(name, known) or '; name it under runs'}")
    if name in _TAKEN:
        raise document.error(("runs", name), f"'{name}' is a folder of results already; choose another name")
    change, here = runs[name], ("runs", name)
    if not isinstance(change, dict):
        raise document.error(here, f"expected keys that differ, got {kind_of(change)}")
    content, lines = dict(document.content), dict(document.lines)
    for key, value in change.items():
        if key not in _KEYS:
            raise document.error((*here, key), f"a run may change {', '.join(_KEYS)}, not '{key}'")
        if key == "parameters":
            content[key] = _with_parameters(document, content.get(key), value, here, lines)
        elif key in ("model", "calibration") and isinstance(content.get(key, {}), dict) and isinstance(value, dict):
            content[key] = {**content.get(key, {}), **value}
            _move(lines, (*here, key), (key,))
        else:
            content[key] = value
            _move(lines, (*here, key), (key,))
    return replace(document, content=content, lines=lines)


def _with_parameters(
    document: Document, given: Any, change: Any, here: KeyPath, lines: dict[KeyPath, int]
) -> list[dict[str, Any]]:
    """The list of parameters, those that a run names with other keys."""
    if not isinstance(given, list) or not isinstance(change, dict):
        raise document.error((*here, "parameters"), f"expected a mapping of names to keys, got {kind_of(change)}")
    found = [dict(p) if isinstance(p, dict) else p for p in given]
    names = [str(p.get("name")) if isinstance(p, dict) else "" for p in found]
    for name, keys in change.items():
        place = (*here, "parameters", name)
        if name not in names:
            raise document.error(place, f"there is no parameter '{name}'{hint(name, names)}")
        if not isinstance(keys, dict):
            raise document.error(place, f"expected keys such as value, got {kind_of(keys)}")
        i = names.index(name)
        for old, new in (("value", "expr"), ("expr", "value")):
            if new in keys:  # the one stands in the place of the other
                found[i].pop(old, None)
        found[i].update(keys)
        _move(lines, place, ("parameters", i))
    return found


def _move(lines: dict[KeyPath, int], old: KeyPath, new: KeyPath) -> None:
    for path, line in list(lines.items()):
        if path[: len(old)] == old and len(path) > len(old):
            lines[(*new, *path[len(old) :])] = line


def compare(results: Path) -> str:
    """Parameters, phi and rmse of all finished runs in a folder of results, side by side."""
    places = [results, *sorted(p for p in results.iterdir() if p.is_dir())] if results.is_dir() else []
    found = {
        "study" if place == results else place.name: json.loads(read_text(place / RESULT, MAX_BYTES))
        for place in places
        if (place / RESULT).is_file()
    }
    if not found:
        raise InputError(f"{results}: holds no result; begin with bilevel run")
    labels = list(dict.fromkeys(label for result in found.values() for label in result["parameters"]))
    rows = [[label, *(_cell(result["parameters"].get(label)) for result in found.values())] for label in labels]
    rows.append(["phi", *(number(result["phi"]) for result in found.values())])
    rows.append(["rmse", *(number(result["rmse"], 4) for result in found.values())])
    rows.append(["converged", *("yes" if result["converged"] else "NO" for result in found.values())])
    return "\n".join(text_table(["", *found], rows))


def _cell(parameter: dict[str, Any] | None) -> str:
    if parameter is None:
        return "-"
    spread = "" if parameter["std"] is None else f" +- {number(parameter['std'], 2)}"
    return f"{number(parameter['value'])}{spread} {parameter['units']}".strip()
