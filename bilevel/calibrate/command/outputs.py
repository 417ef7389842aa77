"""Predictions from the files that a program writes: a column of a table, a regular expression, a JSON pointer."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path, PurePath
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from bilevel.calibrate.model import ModelConfig
from bilevel.calibrate.study.csv_file import as_number, read_csv
from bilevel.calibrate.study.files import read_text
from bilevel.report import BilevelError, InputError

MAX_BYTES = 1_000_000_000


def _in_the_run(name: str) -> str:
    path = PurePath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or not name.isprintable():
        raise ValueError("must name a file inside the folder in which the program runs")
    return name


FileOfRun = Annotated[str, AfterValidator(_in_the_run)]
"""The name of a file in a run's own folder: runs go side by side and must not share what they write."""


class OutputSection(ModelConfig):
    """Where the predictions of a group stand: one for each of its rows, in their order."""

    file: FileOfRun
    """that the program writes"""
    column: str | None = None
    """of a table with a header"""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """between the table's columns"""
    pattern: str | None = None
    """a regular expression whose first group is a number; every match is a prediction"""
    pointer: str | None = None
    """a JSON pointer to a number or a list of numbers, as /wells/0/head"""

    @model_validator(mode="after")
    def _one(self) -> OutputSection:
        if sum(x is not None for x in (self.column, self.pattern, self.pointer)) != 1:
            raise ValueError("give one of column, pattern and pointer")
        if self.pattern is not None:
            try:
                groups = re.compile(self.pattern, re.M).groups
            except re.error as error:
                raise ValueError(f"pattern is no regular expression: {error}") from None
            if groups != 1:
                raise ValueError(f"pattern needs one group in parentheses, the number; it has {groups}")
        if self.pointer is not None and self.pointer and not self.pointer.startswith("/"):
            raise ValueError("a JSON pointer begins with /")
        return self

    def read(self, folder: Path) -> np.ndarray:
        """The numbers; BilevelError, in a sentence, where they are not there: then the run has failed."""
        try:
            return np.array(self._numbers(folder / self.file), dtype=float)
        except (InputError, ValueError, RecursionError) as error:
            raise BilevelError(f"its output cannot be read: {error}") from None

    def _numbers(self, path: Path) -> list[float] | np.ndarray:
        if self.column is not None:
            return read_csv(path, self.delimiter).numbers(self.column)
        text = read_text(path, MAX_BYTES)
        if self.pattern is not None:
            found = [as_number(match) for match in re.findall(self.pattern, text, re.M)]
            if not found:
                raise InputError(f"{path}: '{self.pattern}' matches nothing")
            return found
        value = _pointed(json.loads(text), str(self.pointer), path)
        numbers = value if isinstance(value, list) else [value]
        if not all(type(x) in (int, float) and math.isfinite(x) for x in numbers):
            raise InputError(f"{path}: {self.pointer or 'the whole'} is no finite number or list of such")
        return numbers


def _pointed(value: Any, pointer: str, path: Path) -> Any:
    """RFC 6901."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            raise InputError(f"{path}: {pointer} leads nowhere: there is no '{key}'")
    return value
