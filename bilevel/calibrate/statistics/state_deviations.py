"""Standard deviations of a model's fields at the calibrated parameters, by linearised propagation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.result import CalibrationResult
from bilevel.report import BilevelError

LARGEST = 50_000_000
"""Entries of fields times free parameters; beyond it derivatives would take too much memory."""

ROUND_OFF = 1e-9
"""Slopes below this share of a field's largest one are none: inner solves leave them."""


def state_deviations(result: CalibrationResult, experiment: Experiment) -> dict[str, Tensor]:
    """Those of an experiment's model, computed once; see `_propagated`."""
    known = result.state_deviations
    if experiment.name not in known:
        known[experiment.name] = _propagated(result, experiment)
    return known[experiment.name]


def _propagated(result: CalibrationResult, experiment: Experiment) -> dict[str, Tensor]:
    """sqrt(diag(J C J^T)) of each of the model's `state_fields`, J its derivative in the free parameters t, C their covariance.

    Infinite where a field depends on what the data do not determine; entries held at a bound count as known. {} where there
    are no statistics or no fields. Raises BilevelError for more of both than memory would hold.
    """
    statistics, problem = result.statistics, result.problem
    if statistics is None or statistics.covariance_t is None or not len(statistics.std_t):
        return {}
    t = torch.as_tensor(result.evaluation.t)

    def fields(t: Tensor) -> dict[str, Tensor]:
        return dict(experiment.model.state_fields(problem.arguments(experiment, t)))

    with torch.no_grad():
        entries = sum(field.numel() for field in fields(t).values())
    if not entries:
        return {}
    if entries * len(t) > LARGEST:
        raise BilevelError(f"{entries} values by {len(t)} parameters would take too much memory")
    unknown = torch.as_tensor(np.isinf(np.diag(statistics.covariance_t)))
    covariance = torch.as_tensor(np.nan_to_num(statistics.covariance_t, posinf=0.0))
    return {name: _deviation(slope, covariance, unknown) for name, slope in torch.func.jacfwd(fields)(t).items()}


def _deviation(slope: Tensor, covariance: Tensor, unknown: Tensor) -> Tensor:
    """Of one field, from its slopes (..., p)."""
    found = ((slope @ covariance) * slope).sum(-1).clamp(min=0).sqrt().detach()
    depends = slope[..., unknown].abs() > ROUND_OFF * slope.abs().amax()
    return torch.where(depends.any(-1), torch.inf, found)
