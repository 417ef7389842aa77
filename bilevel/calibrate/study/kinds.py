"""What `bilevel models` says: the kinds of studies, and all that one of them takes."""

from __future__ import annotations

import inspect
from typing import Any

from bilevel.calibrate.model import Model
from bilevel.calibrate.study.key_rows import key_rows
from bilevel.calibrate.study.registry import GROUP, find_model
from bilevel.extensions import installed, load

_PYTHON = "A function or class in a Python file of your own, beside the study."


def kinds() -> dict[str, str]:
    """Every kind, with the first line of its description."""
    found = {name: _first_line(load(entry)) for name, entry in installed(GROUP).items()}
    return dict(sorted({**found, "python": _PYTHON}.items()))


def describe_kind(kind: str) -> str:
    """Description, keys, columns and units of a kind, as text; InputError if there is no such kind."""
    if kind == "python":
        return f"python: {_PYTHON} Keys: file, name, prepare (a function called once), options (keyword arguments)."
    model = find_model(kind)
    schema = model.Config.model_json_schema()
    sections = schema.get("$defs", {})
    lines = [f"{kind}: {inspect.getdoc(model) or ''}", "", "keys under model:", *_rows(schema, sections)]
    for name, section in sections.items():
        if "properties" in section:
            lines += ["", f"{name}: {section.get('description', '')}".rstrip(": "), *_rows(section, sections)]
    columns = ", ".join(f"{name} ({units or '-'})" for name, units in model.columns.items())
    values = (
        "as written"
        if model.as_written
        else model.value_units or "SI units; the study says in which units its own values are"
    )
    lines += ["", f"columns: {columns or 'as the study gives them'}", f"values in: {values}"]
    return "\n".join([*lines, "parameters, with units and bounds: bilevel check names those that a study lacks"])


def _first_line(model: type[Model]) -> str:
    return (inspect.getdoc(model) or "").partition("\n")[0]


def _rows(schema: dict[str, Any], sections: dict[str, Any]) -> list[str]:
    rows = key_rows(schema, sections)
    widths = [max(len(row[k]) for row in rows) for k in range(3)] if rows else []
    return ["  " + "  ".join([*(c.ljust(w) for c, w in zip(row, widths)), row[3]]).rstrip() for row in rows]
