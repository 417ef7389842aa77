"""Rows without a plain reading, left out or taken for limits by the rules of a study."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from bilevel.calibrate.misfit import Censored
from bilevel.calibrate.study.csv_file import CsvFile
from bilevel.calibrate.study.observation_schema import ObservationSection
from bilevel.report import InputError

_LIMIT = re.compile(r"\s*([<>])\s*=?\s*(\S.*)")
_NAMED = {"empty": ("",), "nan": ("nan", "na", "n/a", "#n/a")}


def without(file: CsvFile, column: str, omit: Sequence[str]) -> CsvFile:
    """The rows whose cell in a column is none of what is to be left out; InputError where nothing is left."""
    gone = _gone(omit)
    kept = [i for i, text in enumerate(file.texts(column)) if text.lower() not in gone]
    if not kept:
        raise InputError(f"{file.path}: no row is left in column '{column}' by omit")
    return file.chosen(kept)


def _gone(omit: Sequence[str]) -> set[str]:
    return {text.lower() for rule in omit for text in _NAMED.get(rule, (rule,))}


def with_readings(file: CsvFile, section: ObservationSection, notes: list[str]) -> tuple[CsvFile, tuple[Censored, ...]]:
    """The rows that have a reading, those of limits without their sign, and what is known of each; () = all are readings.

    What is left out goes to `notes`. InputError where nothing is left.
    """
    column, cells = section.value.column, file.texts(section.value.column)
    gone = _gone(section.omit)
    limits = [_LIMIT.fullmatch(text) if section.censored else None for text in cells]
    kept = [
        i for i, (text, limit) in enumerate(zip(cells, limits))
        if text.lower() not in gone and not (limit and section.censored == "omit")
    ]  # fmt: skip
    if not kept:
        raise InputError(f"{file.path}: no row is left in column '{column}' by omit and censored")
    if left := len(cells) - len(kept):
        notes.append(
            f"{file.path}: {left} of {len(cells)} rows without a reading in column '{column}' are left out, as asked for"
        )
    file, limits = file.chosen(kept), [limits[i] for i in kept]
    if not any(limits):
        return file, ()
    place = file.header.index(column)
    rows = [[*row[:place], limit[2], *row[place + 1 :]] if limit else row for row, limit in zip(file.rows, limits)]
    notes.append(f"{file.path}: {sum(1 for x in limits if x)} readings in column '{column}' are limits")
    return replace(file, rows=rows), tuple(_known(limit, section.value.sign) for limit in limits)


def _known(limit: re.Match[str] | None, sign: int) -> Censored:
    if limit is None:
        return Censored.NO
    return Censored.BELOW if (limit[1] == "<") == (sign == 1) else Censored.ABOVE
