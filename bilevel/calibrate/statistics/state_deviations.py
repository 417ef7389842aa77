"""Standard deviations of a model's fields at the calibrated parameters, by linearised propagation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.result import CalibrationResult

LARGEST = 50_000_000
"""Entries of fields times free parameters; beyond it derivatives would take too much memory."""


def state_deviations(result: CalibrationResult, experiment: Experiment) -> dict[str, Tensor]:
    """sqrt(diag(J C J^T)) of each of the model's `state_fields`, J its derivative in the free parameters t, C their covariance.

    {} where there are no statistics, no fields, or more of both than memory would hold. Entries held at a bound count as known.
    """
    statistics, problem = result.statistics, result.problem
    if statistics is None or statistics.covariance_t is None or not len(statistics.std_t):
        return {}
    t = torch.as_tensor(result.evaluation.t)

    def fields(t: Tensor) -> dict[str, Tensor]:
        return dict(experiment.model.state_fields(problem.arguments(experiment, t)))

    with torch.no_grad():
        entries = sum(field.numel() for field in fields(t).values())
    if not entries or entries * len(t) > LARGEST:
        return {}
    covariance = torch.as_tensor(np.nan_to_num(statistics.covariance_t))
    slopes = torch.func.jacfwd(fields)(t)
    return {n: ((slope @ covariance) * slope).sum(-1).clamp(min=0).sqrt().detach() for n, slope in slopes.items()}
