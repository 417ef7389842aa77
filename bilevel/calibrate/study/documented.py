"""Keys that are described by the texts below them, which are read when someone asks what the keys are."""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import Any

from pydantic import BaseModel, GetJsonSchemaHandler


class Documented(BaseModel):
    """Base of models whose JSON schema has the text below each field as its description.

    pydantic's own `use_attribute_docstrings` reads them as a class is made: longer than it takes to read a study.
    """

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in _texts_below_fields(cls).items():
            properties[cls.model_fields[name].alias or name].setdefault("description", text)
        return schema


def _texts_below_fields(model: type[BaseModel]) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        for statement, below in pairwise(_statements(base)):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    if name in model.model_fields:
                        found[name] = inspect.cleandoc(text)
    return found


def _statements(model: type) -> list[ast.stmt]:
    """What a class is made of, nothing where its source is not at hand."""
    if not issubclass(model, Documented):
        return []
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(model)))
    except (OSError, TypeError):  # typed at a prompt, or made by a function
        return []
    return tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
