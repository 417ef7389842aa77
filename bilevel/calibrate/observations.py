"""Observations of one experiment: values, weights, groups and the model's columns, in the model's units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property

import torch
from torch import Tensor

from bilevel.calibrate.gaussian import whitening_root
from bilevel.calibrate.misfit import Censored, GroupNoise, Misfits, Whitening
from bilevel.calibrate.settings import Loss
from bilevel.calibrate.study.units import IDENTITY, Conversion
from bilevel.report import InputError


class Sigma(Enum):
    """What the weights rest on: nothing (all alike), weights as given, or standard deviations."""

    NONE = "none"
    WEIGHT = "weight"
    STD = "std"


@dataclass(frozen=True)
class Column:
    """Where a quantity stands in a file: `column` in `units`, times `sign`."""

    column: str
    units: str = ""
    sign: int = 1


@dataclass(frozen=True)
class GroupUnits:
    """The units of a file's values or column, and the conversion from them to the model's."""

    name: str = ""
    conversion: Conversion = IDENTITY


@dataclass(frozen=True)
class ObservationTable:
    """The observation rows of one experiment, in the model's units.

    value, weight (n,): weight = 1/sigma in the model's units, 0 = predicted but not fitted.
    group: the group of each row. columns: name -> numbers (n,). labels: name -> texts (n), for columns of "text".
    source: "file, line k" of each row, for messages. group_units, column_units: how the user reads values and columns.
    offset: name of the parameter that is added to the prediction of each row, or "".
    sigma: what the weights rest on. noise: that of a group, normal where none is given. censored: row by row, () = none.
    covariance: of the errors of a group's rows (k, k) in their order, or of their logarithms'; it gives their weights, but
    those that are 0.
    """

    value: Tensor
    weight: Tensor
    group: tuple[str, ...]
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: tuple[str, ...] = ()
    group_units: Mapping[str, GroupUnits] = field(default_factory=dict)
    column_units: Mapping[str, GroupUnits] = field(default_factory=dict)
    offset: tuple[str, ...] = ()
    sigma: Sigma = Sigma.WEIGHT
    noise: Mapping[str, GroupNoise] = field(default_factory=dict)
    censored: tuple[Censored, ...] = ()
    covariance: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.value)
        lengths = {"weight": len(self.weight), "group": len(self.group)}
        lengths |= {name: len(numbers) for name, numbers in self.columns.items()}
        lengths |= {name: len(texts) for name, texts in self.labels.items()}
        lengths |= {"offset": len(self.offset) or n, "source": len(self.source) or n}
        lengths |= {"censored": len(self.censored) or n}
        for name, length in lengths.items():
            if length != n:
                raise InputError(f"observations: '{name}' has {length} rows, 'value' has {n}")
        if self.covariance:
            weight = self.weight.clone()
            for group, covariance in self.covariance.items():
                self._require_covariance(group, covariance)
                rows = self.rows(group)
                weight[rows] = torch.where(weight[rows] > 0, covariance.diagonal() ** -0.5, 0.0)
            object.__setattr__(self, "weight", weight)
            object.__setattr__(self, "sigma", Sigma.STD)

    def __len__(self) -> int:
        return len(self.value)

    def _require_covariance(self, group: str, covariance: Tensor) -> None:
        rows = self.rows(group)
        what = f"covariance of group '{group}'"
        if tuple(covariance.shape) != (len(rows), len(rows)):
            shape = " x ".join(map(str, covariance.shape))
            raise InputError(f"{what}: it is {shape}, and the group has {len(rows)} rows")
        own = self.noise.get(group, GroupNoise())
        if own.loss is not Loss.NORMAL or own.correlated is not None:
            other = "a correlation to be found" if own.loss is Loss.NORMAL else f"the loss '{own.loss.value}'"
            raise InputError(f"{what}: errors of a given covariance are normal, without {other}")
        if self.censored and any(self.censored[i] is not Censored.NO for i in rows.tolist()):
            raise InputError(
                f"{what}: a reading of which only a limit is known has no covariance; give it another group"
            )
        whitening_root(covariance.numpy(), what)

    @property
    def _whitenings(self) -> tuple[Whitening, ...]:
        found = []
        for group, covariance in self.covariance.items():
            rows = self.rows(group)
            fitted = self.weight[rows] > 0
            if bool(fitted.any()):
                root = whitening_root(covariance[fitted][:, fitted].numpy(), f"covariance of group '{group}'")
                found.append(Whitening(rows[fitted], torch.as_tensor(root)))
        return tuple(found)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups in the order of their first row."""
        return tuple(dict.fromkeys(self.group))

    @cached_property
    def misfit(self) -> Misfits:
        """How predictions and readings make residuals."""
        noise = [self.noise.get(group, GroupNoise()) for group in self.group]
        limits = [c.value for c in self.censored] or [0] * len(self)
        return Misfits(
            self.value,
            self.weight,
            torch.tensor([each.logarithmic for each in noise]),
            torch.tensor([each.loss is Loss.SOFT_L1 and not limit for each, limit in zip(noise, limits)]),
            torch.tensor([each.loss is Loss.HUBER and not limit for each, limit in zip(noise, limits)]),
            torch.tensor([each.loss is Loss.STUDENT_T and not limit for each, limit in zip(noise, limits)]),
            torch.tensor(limits, dtype=torch.float64),
            self._whitenings,
        )

    def rows(self, group: str) -> Tensor:
        """The row numbers of a group."""
        return torch.tensor([i for i, name in enumerate(self.group) if name == group], dtype=torch.long)

    def source_of(self, row: int) -> str:
        """Where a row stands, for messages."""
        return self.source[row] if self.source else f"row {row}"

    def units_of(self, group: str) -> GroupUnits:
        return self.group_units.get(group, GroupUnits())


def join(tables: Sequence[ObservationTable], optional: Mapping[str, str] = {}) -> ObservationTable:
    """The rows of all tables, one after the other; a column must be in all of them or in none, unless it is optional."""
    tables = [_filled(table, tables, optional) for table in tables]
    first = tables[0]
    for table in tables[1:]:
        if set(table.columns) != set(first.columns) or set(table.labels) != set(first.labels):
            raise InputError("the observation files of one experiment must map the same columns")
    units: dict[str, GroupUnits] = {}
    noise: dict[str, GroupNoise] = {}
    for k, table in enumerate(tables):
        for group in table.covariance:
            if any(group in other.group for other in (*tables[:k], *tables[k + 1 :])):
                raise InputError(
                    f"group '{group}' has a covariance in one file and rows in another; give them one name each"
                )
        for group in table.groups:
            own = table.noise.get(group, GroupNoise())
            if noise.setdefault(group, own) != own:
                raise InputError(
                    f"group '{group}' has one kind of noise in one file and another in another; use one of them"
                )
        for group, unit in table.group_units.items():
            if units.setdefault(group, unit) != unit:
                raise InputError(
                    f"group '{group}' has values in '{units[group].name}' and in '{unit.name}'; use one of them"
                )
    return ObservationTable(
        value=torch.cat([t.value for t in tables]),
        weight=torch.cat([t.weight for t in tables]),
        group=sum((t.group for t in tables), ()),
        columns={name: torch.cat([t.columns[name] for t in tables]) for name in first.columns},
        labels={name: sum((tuple(t.labels[name]) for t in tables), ()) for name in first.labels},
        source=sum((t.source for t in tables), ()),
        group_units=units,
        column_units=first.column_units,
        offset=sum((t.offset for t in tables), ()),
        noise=noise,
        censored=sum((t.censored or (Censored.NO,) * len(t) for t in tables), ()),
        sigma=max((t.sigma for t in tables), key=list(Sigma).index),
        covariance={group: covariance for t in tables for group, covariance in t.covariance.items()},
    )


def _filled(
    table: ObservationTable, tables: Sequence[ObservationTable], optional: Mapping[str, str]
) -> ObservationTable:
    """A table with the optional columns that only others of the tables have."""
    columns = {
        name: table.value.new_full((len(table),), math.nan) for t in tables for name in t.columns if name in optional
    }
    labels = {name: ("",) * len(table) for t in tables for name in t.labels if name in optional}
    units = {name: unit for t in tables for name, unit in t.column_units.items()}
    return replace(table, columns=columns | dict(table.columns), labels=labels | dict(table.labels), column_units=units)
