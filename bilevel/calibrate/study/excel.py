"""Sheets of Excel workbooks (.xlsx) as rows of texts; needs openpyxl, which comes with the extra `excel`."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

from bilevel.calibrate.study.files import read_bytes
from bilevel.calibrate.study.validated import hint
from bilevel.report import InputError

MAX_BYTES, MAX_UNPACKED = 100_000_000, 1_000_000_000


def read_sheet(path: Path, sheet: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """The number of each row that is not empty, and its cells as texts: formulas by their stored values, dates as ISO.

    sheet: its name, None = the first. Raises InputError for what is no workbook, and where openpyxl is not installed.
    """
    try:
        import openpyxl
    except ImportError:
        raise InputError(f"{path}: reading .xlsx files needs openpyxl: pip install 'bilevel[excel]'") from None
    read_bytes(path, MAX_BYTES)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_UNPACKED:
                raise InputError(f"{path}: unfolds to more than {MAX_UNPACKED / 1e9:g} GB")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        if sheet is not None and sheet not in book.sheetnames:
            raise InputError(f"{path}: there is no sheet '{sheet}'{hint(sheet, book.sheetnames)}")
        found = book.worksheets[0] if sheet is None else book[sheet]
        rows = [[_text(cell) for cell in row] for row in found.iter_rows(values_only=True)]
        book.close()
    except InputError:
        raise
    except Exception as error:  # openpyxl lets through whatever a damaged file makes it raise
        raise InputError(f"{path}: cannot be read as a workbook: {type(error).__name__}: {error}") from None
    return _filled(rows)


def _filled(rows: list[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Rows with something in them, all as wide as the first."""
    filled = [(i, row) for i, row in enumerate(rows, 1) if any(row) and not row[0].startswith("#")]
    width = max((k for k, cell in enumerate(filled[0][1], 1) if cell), default=0) if filled else 0
    for i, row in filled:
        yield i, (row + [""] * width)[:width]


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, (datetime, date, time)):
        return cell.isoformat()
    if isinstance(cell, float):
        return repr(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    return str(cell).strip()
