"""Fits whose residuals stay large: the linear model alone swings about the solution, what it leaves out is learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bilevel.calibrate import Parameter, Settings, calibrate, problem_from_function
from bilevel.calibrate.fit.curvature import Curvature
from bilevel.calibrate.linearisation import Linearisation

X = np.linspace(0.0, 2.0, 9)
Y = np.where(X < 1.0, 8.0, -6.0)
"""No exponential is near these: the residuals are as large as the data."""


def swinging():  # type: ignore[no-untyped-def]
    x = torch.as_tensor(X)
    start = [Parameter("a", 6.0), Parameter("b", -0.5)]
    return problem_from_function(start, lambda p: p["a"] * torch.exp(p["b"] * x), torch.as_tensor(Y))


def test_a_fit_with_large_residuals_converges_to_the_last_digits() -> None:
    result = calibrate(swinging(), settings=Settings(tolerance=1e-10, noptmax=40))
    assert result.converged
    steps = len(result.iterations) - 1
    assert steps <= 14, f"{steps} iterations"


def test_the_model_with_it_tells_phi_to_third_order() -> None:
    """One parameter, so that one short step tells all of the curvature."""
    x = torch.as_tensor(X)
    problem = problem_from_function([Parameter("b", 0.8)], lambda p: torch.exp(p["b"] * x), torch.as_tensor(Y))

    def at(b: float) -> Linearisation:
        return Linearisation(problem.evaluate(np.array([b]), True), problem.parameters)

    curvature, here = Curvature(1), at(0.8)
    curvature.follow(at(0.8 - 1e-5), here)
    far, near = at(0.82), at(0.81)

    def missed(there: Linearisation, model: float) -> float:
        return abs(model - there.phi)

    plain = [missed(there, float(np.sum(here.predicted(there.t) ** 2))) for there in (far, near)]
    with_it = [missed(there, curvature.phi(here, there.t)) for there in (far, near)]
    assert plain[0] / plain[1] == pytest.approx(4.0, rel=0.1)
    assert with_it[0] / with_it[1] == pytest.approx(8.0, rel=0.1)


def test_noise_of_the_predictions_hides_phi_but_not_the_offset() -> None:
    """Inner solves leave some 1e-9 of the predictions: phi then tells nothing of offsets below 1e-4, its slope still does."""
    x, data = torch.as_tensor(X), torch.as_tensor(Y)
    start = [Parameter("a", 6.0), Parameter("b", -0.5)]

    def noisy(p: dict[str, torch.Tensor]) -> torch.Tensor:
        y = p["a"] * torch.exp(p["b"] * x)
        with torch.no_grad():
            noise = 1e-6 * torch.sin(1e9 * (y.detach() + x))
        return y + noise

    result = calibrate(problem_from_function(start, noisy, data), settings=Settings(tolerance=1e-6, verify=False))
    assert result.converged
    assert result.values["b"] == pytest.approx(-2.25604521, abs=1e-6)
