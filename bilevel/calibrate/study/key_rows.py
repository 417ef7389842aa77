"""The keys of a schema in words: what may stand there, the default, the meaning."""

from __future__ import annotations

from typing import Any


def key_rows(schema: dict[str, Any], sections: dict[str, Any], linked: bool = False) -> list[tuple[str, str, str, str]]:
    """Key, value, default or "required", meaning, for each key of a JSON schema but `kind`; linked: as Markdown."""
    required = schema.get("required", [])
    return [
        (
            key,
            _value(field, sections, linked),
            "required" if key in required else _default(field, linked),
            field.get("description", ""),
        )
        for key, field in schema["properties"].items()
        if key != "kind"
    ]


def _default(field: dict[str, Any], linked: bool) -> str:
    default = field.get("default")
    if default in (None, "", [], {}):
        return ""
    if isinstance(default, dict):
        return "as below"
    return _code(str(default).lower() if default in (True, False) else str(default), linked)


def _value(field: dict[str, Any], sections: dict[str, Any], linked: bool) -> str:
    """What may stand there, in words."""
    if "anyOf" in field:
        choices = [choice for choice in field["anyOf"] if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(_value(choice, sections, linked) for choice in choices))
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[1]
        if "properties" not in sections[name]:
            return _value(sections[name], sections, linked)
        return f"[{name}](#{name.lower()})" if linked else name
    if "enum" in field or "const" in field:
        return ", ".join(_code(str(choice), linked) for choice in field.get("enum", [field.get("const")]))
    if field.get("type") == "array":
        return f"list of {_value(field.get('items', {}), sections, linked)}"
    words = {"string": "text", "number": "number", "integer": "whole number", "boolean": "true or false"}
    return words.get(field.get("type", ""), "mapping" if field.get("type") == "object" else "anything") + _limits(field)


def _code(text: str, linked: bool) -> str:
    return f"`{text}`" if linked else text


def _limits(field: dict[str, Any]) -> str:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {field[key]:,}" for key, sign in signs.items() if key in field]
    return " " + " and ".join(limits) if limits else ""
