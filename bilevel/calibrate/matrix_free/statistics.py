"""Standard deviations of many parameters from the low-rank posterior, without a covariance between them."""

from __future__ import annotations

import numpy as np
import torch
from scipy.special import ndtri

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.matrix_free.laplace import LaplacePosterior
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.statistics.uncertainty import Statistics


def laplace_statistics(problem: CalibrationProblem, evaluation: Evaluation, posterior: LaplacePosterior) -> Statistics:
    """Of the free parameters, by the delta method; formulas of them stay without (NaN). Weights are taken for 1/sigma."""
    parameters, t = problem.parameters, evaluation.t
    low, high = parameters.limits()
    gradient = evaluation.gradient
    held = ((t <= low) & (gradient >= 0)) | ((t >= high) & (gradient <= 0))
    std_t = np.where(held, np.nan, np.sqrt(posterior.variances()))
    quantile = float(ndtri(0.975))
    ends = [parameters.natural(torch.as_tensor(t + sign * quantile * std_t)) for sign in (-1.0, 1.0)]
    own = std_t * np.abs(parameters.slopes(torch.as_tensor(t)).numpy())
    std, lower95, upper95 = [], [], []
    for p in parameters.parameters:
        known = p.free
        std.append(own[parameters.slices[p.label]] if known else np.full(p.size, 0.0 if p.fixed else np.nan))
        both = [end[p.label].numpy().reshape(-1) if known or p.fixed else np.full(p.size, np.nan) for end in ends]
        lower95.append(np.fmin(*both))
        upper95.append(np.fmax(*both))
    misfit = float(np.sum(evaluation.residual[: evaluation.data_rows] ** 2))
    freedom = evaluation.data_rows - posterior.determined
    return Statistics(
        labels=[label for p in parameters.parameters for label in p.entry_labels],
        std=np.concatenate(std),
        lower95=np.concatenate(lower95),
        upper95=np.concatenate(upper95),
        covariance=None,
        free_labels=parameters.entry_labels,
        correlation=None,
        covariance_t=None,
        std_t=std_t,
        held=held,
        variance=1.0,
        degrees_of_freedom=round(freedom),
        quantile=quantile,
        chi_square=misfit / freedom if freedom > 0 else np.nan,
    )
