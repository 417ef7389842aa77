"""Covariances from files: a table with names, numbers alone, NumPy's .npy, and PEST's .cov."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bilevel.calibrate.study.csv_file import CsvFile, as_number, read_csv
from bilevel.calibrate.study.files import read_text
from bilevel.calibrate.study.number_file import read_npy
from bilevel.calibrate.study.validated import hint
from bilevel.report import InputError

MAX_BYTES = 1_000_000_000
_ABOUT = ("transform", "units", "value")
"""Columns of a table that are not of the matrix, as in the case.post.cov.csv of a study."""


@dataclass(frozen=True)
class CovarianceFile:
    """A matrix (n, n), the names of its rows where it has them, and what else a table says of each: transform, units, value.

    pest: whether it is PEST's, of names in lower case and decimal logarithms.
    """

    path: Path
    matrix: np.ndarray
    names: tuple[str, ...] = ()
    transforms: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    values: np.ndarray | None = None
    pest: bool = False


def read_covariance(path: Path) -> CovarianceFile:
    """InputError, with file and line, for what is no square matrix of finite numbers."""
    if path.suffix.lower() == ".npy":
        return CovarianceFile(path, _square(path, read_npy(path)))
    if path.suffix.lower() == ".cov":
        return _pest(path)
    first = next((line for line in read_text(path, MAX_BYTES).splitlines() if line.strip() and line[0] != "#"), "")
    if all(_is_number(cell) for cell in _cells(first)):
        return CovarianceFile(path, _square(path, _numbers(path)))
    return _table(read_csv(path))


def _table(file: CsvFile) -> CovarianceFile:
    """Rows and columns have the same names, in any order of the columns."""
    first, known = file.header[0], [name for name in _ABOUT if name in file.header[1:]]
    names, columns = file.texts(first), [name for name in file.header[1:] if name not in known]
    for name in names:
        if name not in columns:
            raise InputError(
                f"{file.path}, line {file.header_line}: the row '{name}' has no column{hint(name, columns)}"
            )
    if (more := [name for name in columns if name not in names]) or len(set(names)) < len(names):
        what = f"the column '{more[0]}' has no row" if more else "two rows have the same name"
        raise InputError(f"{file.path}, line {file.header_line}: {what}; rows and columns have the same names")
    texts = {name: tuple(file.texts(name)) for name in ("transform", "units") if name in known}
    return CovarianceFile(
        file.path,
        np.stack([_entries(file, name) for name in names], axis=1),
        tuple(names),
        texts.get("transform", ()),
        texts.get("units", ()),
        file.numbers("value") if "value" in known else None,
    )


def _entries(file: CsvFile, name: str) -> np.ndarray:
    """A column in which nothing is known of parameters that were not calibrated: empty cells and inf are NaN."""
    texts = file.texts(name)
    kept = [i for i, text in enumerate(texts) if text.lower() not in ("", "inf", "-inf", "nan")]
    found = np.full(len(texts), np.nan)
    found[kept] = file.chosen(kept).numbers(name)
    return found


def _pest(path: Path) -> CovarianceFile:
    """'rows columns icode', the numbers, and the names: one list of both (1), or the diagonal alone (-1)."""
    lines = [line for line in read_text(path, MAX_BYTES).splitlines() if line.strip()]
    star = next((i for i, line in enumerate(lines) if line.lstrip().startswith("*")), len(lines))
    try:
        rows, columns, code = (int(word) for word in lines[0].split())
        numbers = np.array([as_number(word) for line in lines[1:star] for word in line.split()])
    except (ValueError, IndexError):
        raise InputError(
            f"{path}: is no covariance of PEST: expected 'rows columns icode', numbers and names"
        ) from None
    names = tuple(line.strip() for line in lines[star + 1 :] if not line.lstrip().startswith("*"))
    if code not in (1, -1) or len(names) != rows or len(numbers) != (rows if code == -1 else rows * columns):
        raise InputError(
            f"{path}: {len(numbers)} numbers and {len(names)} names for '{lines[0].strip()}'; expected n n 1 (a covariance) "
            "or n 1 -1 (its diagonal), the numbers, '* row and column names', and n names"
        )
    return CovarianceFile(
        path, np.diag(numbers) if code == -1 else _square(path, numbers.reshape(rows, columns)), names, pest=True
    )


def _numbers(path: Path) -> np.ndarray:
    rows: list[list[float]] = []
    for i, line in enumerate(read_text(path, MAX_BYTES).splitlines(), 1):
        if not line.strip() or line[0] == "#":
            continue
        for cell in (cells := _cells(line)):
            if not _is_number(cell):
                raise InputError(f"{path}, line {i}: expected a number, got '{cell}'")
        if rows and len(cells) != len(rows[0]):
            raise InputError(f"{path}, line {i}: expected {len(rows[0])} numbers as in the first row, got {len(cells)}")
        rows.append([as_number(cell) for cell in cells])
    return np.array(rows)


def _cells(line: str) -> list[str]:
    return line.replace(",", " ").replace(";", " ").split()


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(as_number(text)))
    except ValueError:
        return False


def _square(path: Path, matrix: np.ndarray) -> np.ndarray:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        shape = " x ".join(map(str, matrix.shape))
        raise InputError(f"{path}: expected a square matrix, got {shape} numbers")
    return matrix
