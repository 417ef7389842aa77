"""Following a page literally: its files are written, its code is run, its commands are typed, its outputs are compared."""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blocks import Block, blocks, run
from packages import install
from typer.testing import CliRunner

from bilevel.cli import app

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def follow(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do in an empty folder what the page says.

    A block with a title is a file; `python` is run, all of a page in one namespace; `pycon` is a doctest; `bash` are
    commands; `text` is what the block before must have printed, with `...` for what may differ. `console` is not run.
    """
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    namespace: dict[str, object] = {"__name__": "__main__"}
    output = ""
    with _modules_forgotten():
        for block in blocks(page):
            where = f"{page.name}, line {block.line}"
            if block.title is not None:
                (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
                (folder / block.title).write_text(block.code, encoding="utf-8")
            elif block.language == "python":
                output = _captured(block, page, namespace)
            elif block.language == "pycon":
                _doctest(block, where, namespace)
            elif block.language == "bash":
                output = "".join(_typed(line, folder, where) for line in block.code.splitlines())
            elif block.language == "text":
                assert matches(block.code, output), f"{where}: expected\n{block.code}\ngot\n{output}"


def matches(expected: str, output: str) -> bool:
    """Whether the lines that a page shows stand in an output, in this order; `...` stands for anything in a line."""
    printed = iter([" ".join(line.split()) for line in output.splitlines()])
    wanted = [re.escape(" ".join(line.split())).replace(r"\.\.\.", ".*") for line in expected.splitlines()]
    return all(any(re.fullmatch(line, found) for found in printed) for line in wanted if line != ".*")


def _captured(block: Block, page: Path, namespace: dict[str, object]) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run(block, page, namespace)
    return printed.getvalue()


def _doctest(block: Block, where: str, namespace: dict[str, object]) -> None:
    test = doctest.DocTestParser().get_doctest(block.code, namespace, where, where, block.line)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        failed = doctest.DocTestRunner(optionflags=OPTIONS).run(test, clear_globs=False).failed
    namespace.update(test.globs)
    assert not failed, printed.getvalue()


def _typed(line: str, folder: Path, where: str) -> str:
    """What a command prints; its exit code must be 0."""
    words = shlex.split(line, comments=True)
    if not words:
        return ""
    if words[:2] == ["pip", "install"]:
        install(folder)
        return ""
    if words[0] == "python":
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            runpy.run_path(str(folder / words[1]), run_name="__main__")
        return printed.getvalue()
    assert words[0] == "bilevel", f"{where}: the test does not know how to type '{line}'"
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, f"{where}: '{line}' ended with {result.exit_code}: {result.output}"
    return result.output


@contextlib.contextmanager
def _modules_forgotten() -> Iterator[None]:
    """Modules that a page writes must not meet those of another page."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and Path(file).is_relative_to(Path.cwd()):
            del sys.modules[name]
