"""The pages of keys are made from the schemas: they name every key, and say what it means."""

from __future__ import annotations

from typing import Any

import pytest
from study_keys import file_page, kinds_page

from bilevel.calibrate.study.registry import GROUP
from bilevel.calibrate.study.schema import StudySection
from bilevel.extensions import installed, load

SCHEMAS = {"study.yml": StudySection} | {name: load(entry).Config for name, entry in installed(GROUP).items()}


def keys(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The keys of a schema and of its sections, without `kind`."""
    sections = [schema, *schema.get("$defs", {}).values()]
    return {key: field for section in sections for key, field in section.get("properties", {}).items() if key != "kind"}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_key_stands_in_a_page_with_its_meaning(name: str) -> None:
    page = file_page() if name == "study.yml" else kinds_page()
    found = keys(SCHEMAS[name].model_json_schema())
    assert found
    for key, field in found.items():
        assert field.get("description"), f"{name}: {key} does not say what it means; write a text below it"
        assert any(f"| `{key}` |" in row and field["description"] in row for row in page.splitlines())


def test_values_defaults_and_limits_are_in_words() -> None:
    page = file_page()
    assert "| `noptmax` | whole number >= -1 and <= 1,000,000 | `100` |" in page
    assert "| `method` | `least_squares`, `lbfgsb`, `krylov` | `least_squares` |" in page
    assert "| `value` | [ColumnSection](#columnsection) | required |" in page
