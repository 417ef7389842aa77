"""What a profile is taken of: an entry of a parameter, or a prediction; and the fit to which a reading of it is added."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.misfit import Censored
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Transform
from bilevel.calibrate.statistics.from_optimum import FromOptimum
from bilevel.calibrate.study.units import Conversion
from bilevel.calibrate.study.validated import hint
from bilevel.calibrate.transforms import Coordinate
from bilevel.report import InputError

_FAR = {Transform.LOG: math.log(1e6), Transform.LOGIT: math.log(1e6), Transform.NONE: 1e3}
"""How many times its own size a quantity without bounds is followed: a factor of a million, or a thousand times its value."""


class ReadingAdded(FromOptimum):
    """A problem taken up from t; the residual at `row` is an added reading's."""

    def __init__(
        self,
        problem: CalibrationProblem,
        t: np.ndarray,
        prior_factor: float,
        experiments: Sequence[Experiment] | None = None,
        row: int = -1,
    ) -> None:
        super().__init__(problem, t, prior_factor, experiments)
        self.row = row

    def phi_without(self, evaluation: Evaluation) -> float:
        """phi of all but the added reading."""
        return evaluation.phi - float(evaluation.residual[self.row] ** 2)


class _ParameterRead(ReadingAdded):
    def __init__(
        self,
        problem: CalibrationProblem,
        t: np.ndarray,
        prior_factor: float,
        quantity: ParameterEntry,
        target: float,
        width: float,
    ) -> None:
        super().__init__(problem, t, prior_factor)
        self.quantity, self.target, self.width = quantity, target, width

    def prior_residual(self, t: Tensor) -> Tensor:
        reading = (self.quantity.value(self, t) - self.target) / self.width
        return torch.cat([super().prior_residual(t), reading.reshape(1)])


class ProfiledQuantity(ABC):
    """A scalar of a fit; steps along its profile are counted in `at`, which `shown` turns into the user's units."""

    label: str
    units: str

    @abstractmethod
    def at(self, problem: CalibrationProblem, evaluation: Evaluation) -> float:
        """Its value at an evaluated point."""

    @abstractmethod
    def slope(self, problem: CalibrationProblem, evaluation: Evaluation) -> np.ndarray:
        """Its derivatives (p,) in t."""

    @abstractmethod
    def shown(self, value: float) -> float:
        """A value in the user's units."""

    @abstractmethod
    def own_size(self, problem: CalibrationProblem, evaluation: Evaluation) -> float:
        """How far it may be expected to move; inf where nothing says it."""

    @abstractmethod
    def room(self, problem: CalibrationProblem, here: float, size: float) -> tuple[float, float]:
        """How far it is followed down and up: to its bounds, else as far as anyone would ask for."""

    @abstractmethod
    def read(
        self, problem: CalibrationProblem, t: np.ndarray, prior_factor: float, target: float, width: float
    ) -> ReadingAdded:
        """The problem that starts at t, with a reading of the quantity at `target`, of standard deviation `width`."""


@dataclass(frozen=True)
class ParameterEntry(ProfiledQuantity):
    """An entry of a parameter; index: its place in t, None where a formula gives it. Steps are those of its transform."""

    label: str
    units: str
    parameter: str
    entry: int
    index: int | None
    coordinate: Coordinate

    def value(self, problem: CalibrationProblem, t: Tensor) -> Tensor:
        """Differentiable in t."""
        if self.index is not None:
            return t[self.index]
        return problem.parameters.natural(t)[self.parameter].reshape(-1)[self.entry]

    def at(self, problem: CalibrationProblem, evaluation: Evaluation) -> float:
        return float(self.value(problem, torch.as_tensor(evaluation.t)))

    def slope(self, problem: CalibrationProblem, evaluation: Evaluation) -> np.ndarray:
        return torch.func.grad(lambda t: self.value(problem, t))(torch.as_tensor(evaluation.t)).numpy()

    def shown(self, value: float) -> float:
        return float(self.coordinate.to_natural(torch.tensor(value, dtype=torch.float64)))

    def own_size(self, problem: CalibrationProblem, evaluation: Evaluation) -> float:
        if self.index is not None:
            return float(problem.parameters.reach(evaluation.t)[self.index])
        return abs(self.at(problem, evaluation)) or math.inf

    def room(self, problem: CalibrationProblem, here: float, size: float) -> tuple[float, float]:
        low, high = self.coordinate.bounds()
        far = _FAR[self.coordinate.transform] * (size if self.coordinate.transform is Transform.NONE else 1.0)
        return max(low, here - far), min(high, here + far)

    def read(
        self, problem: CalibrationProblem, t: np.ndarray, prior_factor: float, target: float, width: float
    ) -> ReadingAdded:
        return _ParameterRead(problem, t, prior_factor, self, target, width)


@dataclass(frozen=True)
class Prediction(ProfiledQuantity):
    """A prediction that is not fitted: a row of weight 0, or a forecast."""

    label: str
    units: str
    row: int
    conversion: Conversion

    def at(self, problem: CalibrationProblem, evaluation: Evaluation) -> float:
        return float(evaluation.prediction[self.row])

    def slope(self, problem: CalibrationProblem, evaluation: Evaluation) -> np.ndarray:
        return problem.predictions_at(evaluation.t, np.arange(len(problem.value)) == self.row)[1][0]

    def shown(self, value: float) -> float:
        return float(self.conversion.inverse(value))

    def own_size(self, problem: CalibrationProblem, evaluation: Evaluation) -> float:
        return abs(self.at(problem, evaluation)) or math.inf

    def room(self, problem: CalibrationProblem, here: float, size: float) -> tuple[float, float]:
        return here - _FAR[Transform.NONE] * size, here + _FAR[Transform.NONE] * size

    def read(
        self, problem: CalibrationProblem, t: np.ndarray, prior_factor: float, target: float, width: float
    ) -> ReadingAdded:
        experiments, start = [], 0
        for experiment in problem.experiments:
            table = experiment.observations
            if 0 <= (own := self.row - start) < len(table):
                value, weight = table.value.clone(), table.weight.clone()
                logarithmic = bool(table.misfit.logarithmic[own]) and target > 0
                value[own], weight[own] = target, (target if logarithmic else 1.0) / width
                kept = tuple(Censored.NO if i == own else c for i, c in enumerate(table.censored))
                covariance = _decoupled(table, own, float(weight[own]))
                table = replace(table, value=value, weight=weight, censored=kept, covariance=covariance)
            experiments.append(replace(experiment, observations=table))
            start += len(experiment.observations)
        fitted = int((problem.weight[: self.row] > 0).sum())
        return ReadingAdded(problem, t, prior_factor, experiments, row=fitted)


def find_quantity(problem: CalibrationProblem, name: str) -> ProfiledQuantity:
    """A parameter, an entry of a field ("k[3]"), or a row that is not fitted ("heads[2]": the second of its group).

    InputError where there is none, where it is fixed, or where the row is fitted.
    """
    known = {}
    for p in problem.parameters.parameters:
        for entry, label in enumerate(p.entry_labels):
            known[label] = (p, entry)
    if name in known:
        p, entry = known[name]
        if p.fixed:
            raise InputError(f"profile of '{name}': it is fixed")
        index = problem.parameters.slices[p.label].start + entry if p.free else None
        coordinate = p.coordinate if p.free else Coordinate()
        return ParameterEntry(name, p.units, p.label, entry, index, coordinate)
    return _prediction(problem, name, list(known))


def _prediction(problem: CalibrationProblem, name: str, others: list[str]) -> Prediction:
    for experiment, own, rows in problem.groups:
        group = problem.group_label(experiment, own)
        number = (
            "1" if name == group and len(rows) == 1 else name.removeprefix(group).removeprefix("[").removesuffix("]")
        )
        if not (name.startswith(group) and number.isdigit()):
            continue
        if not 1 <= int(number) <= len(rows):
            raise InputError(f"profile of '{name}': group '{group}' has rows 1 to {len(rows)}")
        row = int(rows[int(number) - 1])
        if problem.weight[row] > 0:
            raise InputError(
                f"profile of '{name}': the row is fitted; profiles are of parameters and of rows of weight 0"
            )
        units = experiment.observations.units_of(own)
        return Prediction(name, units.name, row, units.conversion)
    raise InputError(f"profile of '{name}': there is no such parameter or row{hint(name, others)}")


def _decoupled(table: ObservationTable, row: int, weight: float) -> dict[str, Tensor]:
    """The covariances of a table's groups, with an error of `row` that has nothing to do with those of others."""
    found = dict(table.covariance)
    if (group := table.group[row]) in found:
        k = table.rows(group).tolist().index(row)
        covariance = found[group].clone()
        covariance[k, :] = covariance[:, k] = 0.0
        covariance[k, k] = weight**-2
        found[group] = covariance
    return found
