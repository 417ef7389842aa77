"""The keys of study.yml and of every `kind:`, as tables made from the schemas that check them."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import BaseModel

from bilevel.calibrate.model import Model
from bilevel.calibrate.study.key_rows import key_rows
from bilevel.calibrate.study.registry import GROUP
from bilevel.calibrate.study.schema import StudySection
from bilevel.extensions import installed, load

FILE = """# The file study.yml

A study is one YAML file. Unknown keys are refused with their line, and so are values outside the limits below. The key
`model:` holds `kind:` and the keys of that kind, which are on the [next page](kinds.md). Quantities may carry units.
"""

KINDS = """# Kinds of studies

`kind:` under `model:` names one of these, `python` (a function or class in a file of your own), or a kind that another
installed package brings. `bilevel check` says which parameters a kind knows, and which columns it needs.
"""

PYTHON = """
## kind: python

A function `name` in `file`, called with the study's parameters and columns, both dictionaries of tensors by name. It
returns one prediction for each row. Decorated with `bilevel.calibrate.works_in`, it gets its numbers in the units that it declares;
else as they are written. A subclass of `bilevel.calibrate.model.Model` may stand there too.

| key | value | default |
| --- | --- | --- |
| `file` | path, beside the study | required |
| `name` | text | required |
| `prepare` | text | |
| `options` | mapping | |

`prepare` names a function of the columns that is called once; what it returns is the third argument. `options` are keyword
arguments of either.
"""


def file_page() -> str:
    """The page of study.yml."""
    schema = StudySection.model_json_schema()
    sections = schema.get("$defs", {})
    text = FILE + "\n## The whole file\n\n" + _table(schema, schema.get("$defs", {}))
    for name, section in sections.items():
        if "properties" in section:
            text += f"\n## {name}\n\n{section.get('description', '')}\n\n{_table(section, sections)}"
    return text


def kinds_page() -> str:
    """The page of all installed kinds."""
    return KINDS + "".join(_kind(name, load(entry)) for name, entry in installed(GROUP).items()) + PYTHON


def _kind(name: str, model: type[Model]) -> str:
    config: type[BaseModel] = model.Config
    schema = config.model_json_schema()
    text = f"\n## kind: {name}\n\n{inspect.getdoc(model) or ''}\n\n"
    if config.__doc__ and config.__doc__ != config.__mro__[1].__doc__:
        text += f"{inspect.getdoc(config)}\n\n"
    text += _table(schema, schema.get("$defs", {})) + "\n"
    columns = ", ".join(_column(*column) for column in model.columns.items())
    others = ", ".join(_column(*column) for column in model.optional_columns.items())
    text += f"Columns: {columns or 'as the study gives them'}. "
    text += f"Some observations may need: {others}. " if others else ""
    text += f"Values in {model.value_units or 'any units of their dimension'}.\n"
    sections = schema.get("$defs", {})
    for section, content in sections.items():
        if "properties" in content:
            text += f"\n### {section}\n\n{content.get('description', '')}\n\n{_table(content, schema['$defs'])}"
    return text


def _column(name: str, units: str) -> str:
    return f"`{name}`" + (f" ({units})" if units else "")


def _table(schema: dict[str, Any], sections: dict[str, Any]) -> str:
    rows = [
        f"| `{key}` | {value} | {default} | {meaning} |"
        for key, value, default, meaning in key_rows(schema, sections, True)
    ]
    return "\n".join(["| key | value | default | meaning |", "| --- | --- | --- | --- |", *rows]) + "\n"
