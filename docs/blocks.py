"""The code of a page, block by block: what the site draws and the tests run is what the page shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the file that it is (or None), its code, and the page's line where that begins."""

    language: str
    title: str | None
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["title"], found["code"], text.count("\n", 0, found.start("code")) + 1)
        for found in FENCE.finditer(text)
    ]


def run(block: Block, page: Path, namespace: dict[str, object]) -> None:
    """Run a block of Python as if it stood in its page, so that a traceback names the page's line."""
    exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), namespace)
