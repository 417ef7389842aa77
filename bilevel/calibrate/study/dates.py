"""Dates and times of a column as seconds since an origin."""

from __future__ import annotations

import re
from datetime import datetime

import numpy as np

from bilevel.calibrate.study.csv_file import CsvFile
from bilevel.report import InputError

_DOTTED = ("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d.%m.%Y")
_EXAMPLE = "format: '%d/%m/%Y %H:%M'"


def seconds_since(file: CsvFile, column: str, origin: str, written: str | None) -> np.ndarray:
    """Each row's seconds since `origin`; written: a format as of strptime, None = ISO 8601 or day.month.year.

    Raises InputError with the line of what is no date, and where time zones are given in one place only.
    """
    try:
        start = as_date(origin, written if written and not _is_date(origin) else None)
    except ValueError as error:
        raise InputError(f"origin: {error}") from None
    seconds = np.empty(len(file.rows))
    for i, text in enumerate(file.texts(column)):
        try:
            found = as_date(text, written)
        except ValueError as error:
            raise InputError(f"{file.where(i)}, column '{column}': {error}") from None
        if (found.tzinfo is None) != (start.tzinfo is None):
            raise InputError(
                f"{file.where(i)}, column '{column}': either all dates and origin have a time zone, or none has"
            )
        seconds[i] = (found - start).total_seconds()
    return seconds


def as_date(text: str, written: str | None = None) -> datetime:
    """A date and time; ValueError, in a sentence, for anything else, day/month and month/day included."""
    if written is not None:
        try:
            return datetime.strptime(text, written)
        except (ValueError, re.error):
            raise ValueError(f"expected a date as {written}, got '{text}'") from None
    for attempt in (None, *_DOTTED):
        try:
            if attempt is not None:
                return datetime.strptime(text, attempt)
            if re.match(r"\d{4}-\d\d-\d\d", text):
                return datetime.fromisoformat(re.sub("Z$", "+00:00", text))
        except ValueError:
            continue
    slashes = f"; say which number is the month: {_EXAMPLE}" if "/" in text else ""
    raise ValueError(f"expected a date as 2024-12-31 or 31.12.2024, perhaps with 23:59:59, got '{text}'{slashes}")


def _is_date(text: str) -> bool:
    try:
        as_date(text)
    except ValueError:
        return False
    return True
