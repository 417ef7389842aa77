"""How large the noise of the observations is: as the weights say, or as the residuals say."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import chdtrc, ndtri, stdtrit

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.linearisation import Linearisation, estimated_noise
from bilevel.calibrate.observations import Sigma
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Noise
from bilevel.report import InputError

UNLIKELY = 1e-3
"""A reduced chi-square that chance makes so rarely speaks against the weights or the model."""


@dataclass(frozen=True)
class NoiseLevel:
    """s^2 of the weighted residuals, the degrees of freedom behind it, and the two-sided 95 % quantile.

    chi_square: reduced, of the observations and priors as they are weighted. scale: by which observations are divided so
    that priors, which are absolute, stand beside them; 1 without priors.
    """

    variance: float
    freedom: int
    quantile: float
    chi_square: float
    scale: float = 1.0

    @property
    def spread(self) -> float:
        """What the inverse Gram matrix of the observations divided by `scale` is multiplied by."""
        return self.variance / self.scale**2


def noise_level(problem: CalibrationProblem, evaluation: Evaluation, noise: Noise) -> NoiseLevel:
    """The noise at an evaluated point that has a Jacobian; NaN when nothing is left over to estimate it from."""
    linear = Linearisation(evaluation, problem.parameters)
    freedom = len(linear.residual) - linear.rank
    normal = problem.misfit.normal[problem.fitted].numpy()
    chi_square = evaluation.phi / freedom if freedom > 0 else math.nan
    if noise is Noise.KNOWN:
        return NoiseLevel(1.0, freedom, float(ndtri(0.975)), chi_square)
    if evaluation.priors:
        scale, freedom = estimated_noise(evaluation, problem.parameters)
        quantile = stdtrit(freedom, 0.975) if freedom > 0 else ndtri(0.975)
        return NoiseLevel(scale**2, freedom, float(quantile), scale**2 if freedom > 0 else math.nan, scale)
    if freedom <= 0:
        return NoiseLevel(math.nan, freedom, math.nan, math.nan)
    if not normal.all():  # robust losses and censored rows take std at its word, and say nothing of its size
        share = evaluation.residual[: evaluation.data_rows][normal]
        chi_square = float(share @ share) / (freedom * normal.mean()) if normal.any() else 1.0
    return NoiseLevel(chi_square, freedom, float(stdtrit(freedom, 0.975)), chi_square)


def require_sigma(problem: CalibrationProblem, noise: Noise) -> None:
    """InputError where the noise is said to be known and no observation says how large it is."""
    if noise is Noise.KNOWN and all(e.observations.sigma is Sigma.NONE for e in problem.experiments):
        raise InputError(
            "noise is 'known', but no observation has a std (or a weight = 1/std); give one, or let it be estimated"
        )


def noise_sentence(problem: CalibrationProblem, evaluation: Evaluation, noise: Noise) -> str:
    """What a reader must know of the noise behind the standard deviations, "" if nothing."""
    level = noise_level(problem, evaluation, noise)
    if level.freedom <= 0:
        known = "; beside the priors, weights are taken for 1/sigma" if evaluation.priors else ""
        few = "there are no more fitted observations than free parameters, so the noise cannot be estimated"
        return "" if noise is Noise.KNOWN else few + known
    if noise is Noise.ESTIMATED:
        unscaled = not bool(problem.misfit.normal[problem.fitted].any())
        if unscaled or all(e.observations.sigma is not Sigma.STD for e in problem.experiments):
            return ""
        return (
            f"std was given and the noise is estimated: standard deviations are rescaled by {math.sqrt(level.variance):.3g} "
            f"(reduced chi-square {level.chi_square:.3g}); noise: known takes std at its word"
        )
    tail = chdtrc(level.freedom, level.freedom * level.chi_square)
    doubt = ""
    if not bool(problem.misfit.normal[problem.fitted].all()):
        pass  # losses and limits have no chi-square distribution
    elif tail < UNLIKELY:
        doubt = ": larger than chance allows, so the noise is larger than said, or the model is wrong"
    elif tail > 1 - UNLIKELY:
        doubt = ": smaller than chance allows, so the noise is smaller than said"
    return f"reduced chi-square {level.chi_square:.3g} with {level.freedom} degrees of freedom{doubt}"
