"""CSV files with the line of every row; what is no well-formed quotation is read as it stands."""

from __future__ import annotations

import fnmatch
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bilevel.calibrate.study.excel import read_sheet
from bilevel.calibrate.study.files import read_text
from bilevel.calibrate.study.validated import hint
from bilevel.report import InputError

MAX_BYTES = 1_000_000_000


@dataclass(frozen=True)
class TableLayout:
    """How a table is written: delimiter, decimal sign, characters that begin comments, whether a line of units follows.

    sheet: of an .xlsx file, None = its first.
    """

    delimiter: str = ","
    decimal: str = "."
    comment: str = "#"
    second_header: bool = False
    sheet: str | None = None


@dataclass(frozen=True)
class CsvFile:
    """The cells of a table as texts; lines: the line of each row in the file; header_line: that of the header.

    parts: the column from which a row of a wide table comes, "" otherwise.
    """

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    header_line: int
    layout: TableLayout = TableLayout()
    parts: tuple[str, ...] = ()

    def texts(self, column: str) -> list[str]:
        """A column as texts; InputError with the nearest column if it is missing."""
        if column not in self.header:
            missing = f"there is no column '{column}'{hint(column, self.header)}"
            raise InputError(f"{self.path}, line {self.header_line}: {missing}{_delimiter_hint(self.header)}")
        index = self.header.index(column)
        return [row[index] for row in self.rows]

    def numbers(self, column: str) -> np.ndarray:
        """A column as finite numbers; InputError with the line of the first cell that is none."""
        values = np.empty(len(self.rows))
        for i, text in enumerate(self.texts(column)):
            try:
                values[i] = as_number(text, self.layout.decimal)
            except ValueError:
                got = f"'{text}'" if text else "an empty cell"
                raise InputError(
                    f"{self.where(i)}, column '{column}': expected a number, got {got}{self._number_hint(text)}"
                ) from None
            if not math.isfinite(values[i]):
                raise InputError(
                    f"{self.where(i)}, column '{column}': expected a finite number, got {text}; "
                    "remove the row or mend it, or leave such rows out with omit"
                )
        return values

    def _number_hint(self, text: str) -> str:
        if re.fullmatch(r"[-+]?\d+,\d+", text):
            return "; write a decimal point, or say decimal: ','"
        if re.fullmatch(r"[<>]\s*[-+]?[\d.,]+", text):
            return "; say censored: fit (a limit) or censored: omit (left out)"
        return "; leave such rows out with omit: [empty]" if not text else ""

    def where(self, row: int) -> str:
        part = self.parts[row] if self.parts else ""
        return f"{self.path}, line {self.lines[row]}" + (f", column '{part}'" if part else "")

    def chosen(self, rows: Sequence[int]) -> CsvFile:
        """Some of the rows."""
        parts = tuple(self.parts[i] for i in rows) if self.parts else ()
        return replace(self, rows=[self.rows[i] for i in rows], lines=[self.lines[i] for i in rows], parts=parts)

    def long(self, columns: Sequence[str], name: str, value: str) -> CsvFile:
        """A row for each cell of some columns: the column's name in `name`, the cell in `value`; the rest is repeated."""
        found: list[str] = []
        for pattern in columns:
            matches = [c for c in self.header if fnmatch.fnmatchcase(c, pattern)]
            if not matches:
                raise InputError(
                    f"{self.path}, line {self.header_line}: there is no column '{pattern}'{hint(pattern, self.header)}"
                )
            found += [c for c in matches if c not in found]
        kept = [i for i, c in enumerate(self.header) if c not in found]
        header = [self.header[i] for i in kept] + [name, value]
        if len(set(header)) < len(header):
            raise InputError(f"{self.path}: a column is called '{name}' or '{value}' already; choose another name")
        rows, lines = [], []
        for row, line in zip(self.rows, self.lines):
            for column in found:
                rows.append([row[i] for i in kept] + [column, row[self.header.index(column)]])
                lines.append(line)
        return replace(self, header=header, rows=rows, lines=lines, parts=tuple(found) * len(self.rows))

    def keep(self, column: str, wanted: Sequence[str]) -> CsvFile:
        """The rows whose text in a column is one of those wanted; InputError for a text that no row has."""
        texts = self.texts(column)
        for text in wanted:
            if text not in texts:
                known = list(dict.fromkeys(texts))[:20]
                raise InputError(
                    f"{self.path}: no row has '{text}' in column '{column}'{hint(text, known)}; "
                    "an observation group may not be empty"
                )
        return self.chosen([i for i, text in enumerate(texts) if text in wanted])

    @property
    def repeated_rows(self) -> list[tuple[int, int]]:
        """The lines of rows that are the same as an earlier one, each with the line of that one."""
        first: dict[tuple[str, ...], int] = {}
        found = [(first.setdefault(tuple(row), line), line) for row, line in zip(self.rows, self.lines)]
        return [(earlier, line) for earlier, line in found if earlier != line]


_FORTRAN = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+))[dD]([-+]?\d+)")


def as_number(text: str, decimal: str = ".") -> float:
    """A cell as a number, with Fortran's 1.0D-05 as well; ValueError for anything else, thousands' separators included."""
    if decimal == ",":
        if "." in text:
            raise ValueError(f"could not convert '{text}': a point beside decimal commas")
        text = text.replace(",", ".")
    # Python would read 1_0 as 10
    return float(_FORTRAN.sub(r"\1e\2", text.replace("_", " ")))


def read_csv(path: Path, delimiter: str = ",", layout: TableLayout | None = None) -> CsvFile:
    """Read a table with one header line, or a sheet of an .xlsx file; empty lines and comments are passed over.

    layout: what differs from a file of commas and points; it goes before the delimiter.
    """
    layout = layout or TableLayout(delimiter)
    if path.suffix.lower() == ".xlsx":
        return _table(path, read_sheet(path, layout.sheet), layout)
    if layout.sheet is not None:
        raise InputError(f"{path}: is no .xlsx file, so it has no sheet '{layout.sheet}'")
    # str.splitlines would also split at form feeds and Unicode's separators, which may stand in a cell
    source = re.split(r"\r\n|\r|\n", read_text(path, MAX_BYTES))
    return _table(path, _rows(path, source, layout), layout)


def _table(path: Path, rows: Iterator[tuple[int, list[str]]], layout: TableLayout) -> CsvFile:
    header_line, header = next(rows, (0, []))
    if not header:
        raise InputError(f"{path}: is empty; expected a header line and rows")
    if len(set(header)) < len(header):
        raise InputError(f"{path}, line {header_line}: two columns have the same name")
    found = list(rows)[1 if layout.second_header else 0 :]
    return CsvFile(path, header, [cells for _, cells in found], [line for line, _ in found], header_line, layout)


def _delimiter_hint(header: list[str]) -> str:
    """What to say of a header of one column that holds another delimiter."""
    found = [d for d in (";", "\t") if len(header) == 1 and d in header[0]]
    return (
        f"; its cells seem to be separated by {found[0]!r}, say so with delimiter: {json.dumps(found[0])}"
        if found
        else ""
    )


def _rows(path: Path, source: list[str], layout: TableLayout) -> Iterator[tuple[int, list[str]]]:
    """The number of the first line of each row, and its cells; all rows are as wide as the first."""
    header, width, i = [""], 0, 0
    while i < len(source):
        line = source[i]
        if line.strip() and not line.lstrip().startswith(tuple(layout.comment)):
            cells, used = _row(source, i, layout.delimiter, width)
            header = header if width else cells
            width = len(header)
            if len(cells) != width:
                expected = f"expected {width} columns as in the header, got {len(cells)}"
                raise InputError(f"{path}, line {i + 1}: {expected}{_delimiter_hint(header)}")
            yield i + 1, [cell.strip() for cell in cells]
            i += used
        else:
            i += 1


def _row(source: list[str], i: int, delimiter: str, width: int) -> tuple[list[str], int]:
    """The cells of the row that begins in line i, and the number of lines that it takes.

    A quotation is believed where it closes and leaves as many cells as the header has. It is not believed if the line
    and another that it would swallow are rows of their own: then the quote is a ditto mark or an inch.
    """
    plain = source[i].split(delimiter)
    if '"' not in source[i]:
        return plain, 1
    quoted = _unquoted(source[i], delimiter)
    if quoted is not None:
        return (plain if len(quoted) != width and len(plain) == width else quoted), 1
    for used in range(2, min(len(source) - i, _LONGEST) + 1):
        if len(plain) == width == len(source[i + used - 1].split(delimiter)):
            break
        quoted = _unquoted("\n".join(source[i : i + used]), delimiter)
        if quoted is not None:
            if len(quoted) == width:
                return quoted, used
            break
    return plain, 1


_LONGEST = 100
"""Lines of one quoted cell at most."""


def _unquoted(text: str, delimiter: str) -> list[str] | None:
    """The cells of a text by the rules of RFC 4180 (a doubled quote in quotes is one); None if a quote stays open."""
    end, space = re.escape(delimiter), rf"[^\S{re.escape(delimiter)}]*"  # a tab may be the delimiter
    cell = re.compile(rf'{space}"((?:[^"]|"")*)"{space}(?={end}|$)|([^{end}]*)')
    cells, at = [], 0
    while True:
        match = cell.match(text, at)
        assert match is not None  # the second alternative matches anything
        if match.group(1) is None and match.group(2).lstrip().startswith('"'):
            return None
        cells.append(match.group(2) if match.group(1) is None else match.group(1).replace('""', '"'))
        at = match.end()
        if at == len(text):
            return cells
        at += len(delimiter)
