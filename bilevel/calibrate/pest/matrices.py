"""Matrices in PEST's files: Jacobians in binary (.jcb), covariances as text (.cov)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bilevel.calibrate.study.files import read_bytes, write_atomically
from bilevel.report import InputError

MAX_BYTES = 4_000_000_000
NAME = 200
"""Bytes of each name in the extended binary format."""
_HEADER = np.dtype([("columns", "<i4"), ("rows", "<i4"), ("count", "<i4")])
_ENTRY = np.dtype([("i", "<i4"), ("j", "<i4"), ("value", "<f8")])
_OLD_ENTRY = np.dtype([("place", "<i4"), ("value", "<f8")])
_OLD_NAMES = 12, 20


def write_jcb(file: Path, matrix: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> None:
    """A matrix (m, p) with the names of observations and parameters, in the extended format of PEST++ and pyEMU."""
    i, j = np.nonzero(matrix)
    entries = np.zeros(len(i), dtype=_ENTRY)
    entries["i"], entries["j"], entries["value"] = i, j, matrix[i, j]
    header = np.array([(len(columns), len(rows), len(i))], dtype=_HEADER)
    names = b"".join(_padded(name) for name in (*columns, *rows))
    write_atomically(file, header.tobytes() + entries.tobytes() + names)


def read_jcb(file: Path | str) -> tuple[np.ndarray, list[str], list[str]]:
    """Matrix (m, p), names of observations and of parameters, from the extended or the older binary format."""
    file = Path(file)
    content = read_bytes(file, MAX_BYTES)
    try:
        columns, rows, count = (int(x) for x in np.frombuffer(content, _HEADER, 1)[0])
        old = columns < 0
        columns, rows = abs(columns), abs(rows)
        matrix = np.zeros((rows, columns))
        entries = np.frombuffer(content, _OLD_ENTRY if old else _ENTRY, count, _HEADER.itemsize)
        i, j = ((entries["place"] - 1) % rows, (entries["place"] - 1) // rows) if old else (entries["i"], entries["j"])
        matrix[i, j] = entries["value"]
        start, names = _HEADER.itemsize + entries.nbytes, []
        for length in [_OLD_NAMES[0] if old else NAME] * columns + [_OLD_NAMES[1] if old else NAME] * rows:
            names.append(content[start : start + length].decode("ascii").strip().lower())
            start += length
    except (ValueError, IndexError, MemoryError) as error:
        raise InputError(f"{file}: is no binary Jacobian of PEST: {error}") from None
    if start != len(content) or not all(names):
        raise InputError(f"{file}: is no binary Jacobian of PEST: its names are cut off")
    return matrix, names[columns:], names[:columns]


def write_covariance(file: Path, covariance: np.ndarray, names: Sequence[str]) -> None:
    """A covariance (p, p) as text, in PEST's matrix format."""
    lines = [f"{len(names)} {len(names)} 1", *(" ".join(f"{x:.17e}" for x in row) for row in covariance)]
    write_atomically(file, "\n".join([*lines, "* row and column names", *names]) + "\n")


def _padded(name: str) -> bytes:
    raw = name.encode("ascii")
    if len(raw) > NAME:
        raise InputError(f"the name '{name[:40]}...' is longer than the {NAME} characters that PEST's files hold")
    return raw.ljust(NAME)
