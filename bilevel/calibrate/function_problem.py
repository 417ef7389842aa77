"""Calibration problems of one Python function: data, and what the parameters make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.model import Model, ModelConfig
from bilevel.calibrate.observations import ObservationTable, Sigma
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.problem import CalibrationProblem


def problem_from_function(
    parameters: Sequence[Parameter],
    function: Callable[[Mapping[str, Tensor]], Tensor],
    value: Tensor | np.ndarray,
    weight: Tensor | np.ndarray | float | None = None,
) -> CalibrationProblem:
    """A problem with one experiment whose predictions for `value` (n,) are function(parameters), a torch expression.

    weight: 1/sigma, 0 = predicted but not fitted; None = all alike, with a noise that nobody knows.
    """
    data = torch.as_tensor(value, dtype=torch.float64)
    weights = torch.as_tensor(1.0 if weight is None else weight, dtype=torch.float64).expand(data.shape)
    sigma = Sigma.NONE if weight is None else Sigma.WEIGHT
    table = ObservationTable(data, weights, ("data",) * len(data), sigma=sigma)
    return CalibrationProblem(parameters, [Experiment("data", FunctionModel(table, function), table)])


class FunctionModel(Model):
    """A model that is one Python function of the parameters."""

    def __init__(self, observations: ObservationTable, function: Callable[[Mapping[str, Tensor]], Tensor]) -> None:
        super().__init__(ModelConfig(), observations, Path())
        self.function = function

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self.function(parameters)
