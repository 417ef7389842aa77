"""Quantities in study.yml: a number and its units, the name of a parameter, or a table over time."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from bilevel.calibrate.model import ConfigError, ParameterDefault
from bilevel.calibrate.study.dates import seconds_since
from bilevel.calibrate.study.observation_schema import ColumnSection, LayoutSection
from bilevel.calibrate.study.readings import without
from bilevel.calibrate.study.units import parse_unit
from bilevel.report import InputError

Key = tuple[str | int, ...]
NAME = re.compile(r"[A-Za-z_]\w*(\[[^\]]+\])?")


class Given(LayoutSection):
    """A quantity such as "10 m", the name of a parameter, or a table over time: {file: ..., time: ..., value: ...}."""

    quantity: str | None = None
    """a number and its units, or the name of a parameter; what a bare text means"""
    file: str | None = None
    """a CSV beside the study"""
    time: ColumnSection | None = None
    """the column of times in it, which must increase"""
    value: ColumnSection | None = None
    """the column of values in it"""
    omit: list[str] = Field(default=[])
    """rows without a value are passed over, and what is between the others holds: `empty` cells, `nan`, or any other text"""
    between: Literal["linear", "hold"] | None = None
    """between two rows: a straight line, or the earlier value; left out: heads, temperatures and loads follow lines, rates hold"""

    @model_validator(mode="before")
    @classmethod
    def _from_scalar(cls, given: Any) -> Any:
        if isinstance(given, (str, int, float)) and not isinstance(given, bool):
            return {"quantity": str(given)}
        return given

    @model_validator(mode="after")
    def _one(self) -> Given:
        table = [self.file, self.time, self.value]
        if (self.quantity is None) == (self.file is None) or (None in table) != (table == [None] * 3):
            raise ValueError(
                "expected a quantity such as '10 m', a parameter's name, or {file: ..., time: ..., value: ...}"
            )
        if self.file is None and (of_tables := self.model_fields_set - {"quantity"}):
            raise ValueError(
                f"{', '.join(sorted(of_tables))}: of a table, and there is none but the quantity '{self.quantity}'"
            )
        return self


def quantity(text: str | float, units: str, key: Key) -> float:
    """The number in `units` that a text such as "10 m" means; ConfigError, with the key, for anything else."""
    number, _, unit = str(text).strip().partition(" ")
    try:
        value = float(number.replace("_", " "))
    except ValueError:
        raise ConfigError(key, f"expected a number and its units, such as '1 {units}', got '{text}'") from None
    target = parse_unit(units)
    if not unit and (any(target.dimension) or target.scale != 1.0):
        raise ConfigError(key, f"'{text}' has no units; write '{text} {units}' if that is what is meant")
    try:
        return float(parse_unit(unit).to(target)(value))
    except InputError as error:
        raise ConfigError(key, str(error)) from None


@dataclass(frozen=True)
class Signal:
    """A quantity in a kind's own units: constant, a parameter, or known at times (rows,) and interpolated in between."""

    key: Key
    units: str
    constant: float = 0.0
    parameter: str = ""
    times: np.ndarray | None = None
    values: np.ndarray | None = None
    hold: bool = False

    @staticmethod
    def read(given: Given, units: str, folder: Path, key: Key, time_units: str = "", hold: bool = False) -> Signal:
        """From the keys; hold: what tables do unless they say. ConfigError, or InputError with file and line."""
        if given.file is not None:
            return _table(given, units, folder, key, time_units, hold)
        text = str(given.quantity).strip()
        if NAME.fullmatch(text):
            return Signal(key, units, parameter=text)
        return Signal(key, units, constant=quantity(text, units, key))

    @property
    def varies(self) -> bool:
        """Whether it is a table over time."""
        return self.times is not None

    @property
    def jumps(self) -> list[float]:
        """When its value jumps."""
        return self.times[1:].tolist() if self.times is not None and self.hold else []

    def default(self) -> dict[str, ParameterDefault]:
        """What is known of the parameter that it names, if it names one."""
        return (
            {self.parameter: ParameterDefault(self.units, description=f"{'.'.join(map(str, self.key))}")}
            if self.parameter
            else {}
        )

    def at(self, times: np.ndarray | None, parameters: Mapping[str, Tensor]) -> Tensor:
        """Its values (...) at times (...), or () without times; a jump counts from just after its time on."""
        if self.parameter:
            value = parameters[self.parameter]
            return value if times is None else value.expand(np.shape(times))
        shape = () if times is None else np.shape(times)
        if self.times is None or self.values is None:
            return torch.full(shape, self.constant, dtype=torch.float64)
        if times is None:
            raise ConfigError(self.key, "a table over time needs `time:` steps in the model, or loads by steps")
        asked = np.asarray(times)
        self._require_covered(asked)
        if self.hold:
            row = np.searchsorted(self.times, asked, side="left") - 1
            return torch.as_tensor(self.values[np.clip(row, 0, None)])
        return torch.as_tensor(np.interp(asked, self.times, self.values))

    def _require_covered(self, asked: np.ndarray) -> None:
        assert self.times is not None
        slack = 1e-9 * max(abs(asked.max()), abs(asked.min()))
        if asked.min() < self.times[0] - slack or (asked.max() > self.times[-1] + slack and not self.hold):
            raise ConfigError(
                self.key,
                f"its table covers times from {self.times[0]:g} to {self.times[-1]:g}, but values are needed from "
                f"{asked.min():g} to {asked.max():g}; extend the table or shorten the time",
            )


def _table(given: Given, units: str, folder: Path, key: Key, time_units: str, hold: bool) -> Signal:
    assert given.file is not None
    assert given.time is not None
    assert given.value is not None
    file = given.read(folder / given.file)
    if given.omit:
        file = without(file, given.value.column, given.omit)
    times = numbers(file, given.time, time_units, (*key, "time"))
    values = numbers(file, given.value, units, (*key, "value"))
    if not len(times):
        raise ConfigError((*key, "file"), f"{file.path} has no rows")
    late = np.flatnonzero(np.diff(times) <= 0)
    if len(late):
        raise InputError(
            f"{file.where(int(late[0]) + 1)}: the time {times[late[0] + 1]:g} does not come after the one above"
        )
    hold = hold if given.between is None else given.between == "hold"
    return Signal(key, units, times=times, values=values, hold=hold)


def numbers(file: Any, column: ColumnSection, units: str, key: Key) -> np.ndarray:
    """A column of a CSV file in `units`, or of dates; ConfigError where it has no units, or others."""
    target = parse_unit(units)
    if column.origin is not None:
        try:
            second = parse_unit("s").to(target)
        except InputError:
            raise ConfigError(key, "dates are times, and this is no column of times") from None
        return np.asarray(second(seconds_since(file, column.column, column.origin, column.format)))
    if column.units is None and (any(target.dimension) or target.scale != 1.0):
        dates = "; dates need an origin" if target.dimension == parse_unit("s").dimension else ""
        raise ConfigError(key, f"units are missing; the model works in {units}, say what the file has{dates}")
    try:
        return np.asarray(parse_unit(column.units or "").to(target)(file.numbers(column.column) * column.sign))
    except InputError as error:
        raise (error if str(error).startswith(str(file.path)) else ConfigError(key, str(error))) from None
