"""Docstrings are plain text: brackets, stars and underscores in their formulas mean themselves on the site, too."""

from __future__ import annotations

import re
from typing import Any

import griffe

VERBATIM = re.compile(r"(`[^`]*`|^(?: {4}|\t).*$)", re.M)
SPECIAL = re.compile(r"([\[\]*_<>|])")


class PlainDocstrings(griffe.Extension):
    """Escapes what Markdown would read as markup, except in code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            parts = VERBATIM.split(obj.docstring.value)
            obj.docstring.value = "".join(part if i % 2 else SPECIAL.sub(r"\\\1", part) for i, part in enumerate(parts))
