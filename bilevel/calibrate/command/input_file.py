"""Input files of a program made from templates: `{{name}}`, or PEST's `~name    ~` where the first line is `ptf ~`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bilevel.calibrate.study.files import read_text
from bilevel.calibrate.study.validated import hint
from bilevel.report import InputError

MAX_BYTES = 100_000_000
_BRACES = re.compile(r"\{\{\s*([^{}\s]+)\s*\}\}")


@dataclass(frozen=True)
class Template:
    """A text with marks, and the file that it makes. A mark of PEST is as wide as the number that replaces it."""

    path: Path
    target: str
    text: str
    delimiter: str | None

    @staticmethod
    def read(path: Path, target: str) -> Template:
        """InputError for what is no template: no mark in it, or a mark that does not close in its line."""
        text, delimiter = read_text(path, MAX_BYTES), None
        first, _, rest = text.partition("\n")
        if found := re.fullmatch(r"ptf\s+(\S)\s*", first):
            text, delimiter = rest, found[1]
            for number, line in enumerate(rest.splitlines(), 2):
                if line.count(delimiter) % 2:
                    raise InputError(f"{path}, line {number}: a mark does not close with {delimiter}")
        template = Template(path, target, text, delimiter)
        if not template.names:
            raise InputError(f"{path}: has no mark such as {{{{name}}}}, so it is no template; list it under files")
        return template

    @property
    def names(self) -> list[str]:
        """The parameters that it asks for."""
        marks = _BRACES.findall(self.text) + [m.strip() for m in re.findall(self._fixed, self.text) if self.delimiter]
        return list(dict.fromkeys(marks))

    @property
    def _fixed(self) -> str:
        sign = re.escape(self.delimiter or "~")
        return rf"{sign}([^{sign}\n]*){sign}"

    def fill(self, values: Mapping[str, float]) -> str:
        """The text with numbers in the place of marks; InputError where a mark is too narrow or unknown."""
        for name in self.names:
            if name not in values:
                raise InputError(f"{self.path}: '{name}' is not a parameter{hint(name, values)}")
        text = _BRACES.sub(lambda mark: repr(values[mark[1]]), self.text)
        if self.delimiter is not None:
            text = re.sub(self._fixed, lambda mark: self._wide(values[mark[1].strip()], mark[0]), text)
        return text

    def _wide(self, value: float, mark: str) -> str:
        """As many digits as the mark has room for, six at least."""
        for digits in range(17, 5, -1):
            if len(text := f"{value:.{digits}g}") <= len(mark):
                return text.rjust(len(mark))
        if math.isclose(float(f"{value:.3g}"), value, rel_tol=1e-15) and len(text := f"{value:.3g}") <= len(mark):
            return text.rjust(len(mark))
        raise InputError(f"{self.path}: the mark '{mark}' has no room for {value!r} with six digits; make it wider")
