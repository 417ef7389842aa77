"""Large fields without a Jacobian, against closed forms and against the loop that has one."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spl
import torch

from bilevel.calibrate import (
    CalibrationProblem,
    FieldPrior,
    Method,
    Noise,
    ObservationTable,
    Parameter,
    Settings,
    Strength,
    StrengthRule,
    calibrate,
    choose_strength,
)
from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.fit.journal import Journal
from bilevel.calibrate.function_problem import FunctionModel
from bilevel.calibrate.matrix_free.laplace import LaplacePosterior
from bilevel.calibrate.matrix_free.prior import SparsePrior, prior_jacobian
from bilevel.calibrate.matrix_free.products import JacobianProducts
from bilevel.report import InputError

SIGMA, MEAN = 0.05, 0.5
KNOWN = Settings(noise=Noise.KNOWN)
KRYLOV = Settings(noise=Noise.KNOWN, method=Method.KRYLOV)


def whitening(n: int, std: float = 1.5, length: float = 0.3) -> sp.csr_matrix:
    """(kappa^2 - Laplace) on n x n cells of the unit square, with the variance that white noise leaves it (Lindgren 2011)."""
    kappa = math.sqrt(8) / length
    line = sp.diags([-np.ones(n - 1), 2 * np.ones(n), -np.ones(n - 1)], [-1, 0, 1])
    laplace = sp.kron(line, sp.identity(n)) + sp.kron(sp.identity(n), line)
    return ((kappa**2 / n**2 * sp.identity(n * n) + laplace) * n / (std * kappa * math.sqrt(4 * math.pi))).tocsr()


class Field(FunctionModel):
    def __init__(self, table, function, known, logarithmic=False):
        super().__init__(table, function)
        self.known = FieldPrior.of("field", known, MEAN, logarithmic)

    def field_priors(self):
        return [self.known]


def kernel(n: int, m: int, generator: np.random.Generator, width: float = 0.05) -> np.ndarray:
    """Means over a neighbourhood of m random places."""
    centre = (np.indices((n, n)).reshape(2, -1).T + 0.5) / n
    place = generator.uniform(0, 1, (m, 2))
    weight = np.exp(-np.sum((place[:, None] - centre) ** 2, -1) / (2 * width**2))
    return weight / weight.sum(1, keepdims=True)


def problem_of(data, function, known, parameters, logarithmic=False):
    m = len(data)
    table = ObservationTable(torch.as_tensor(data), torch.full((m,), 1 / SIGMA, dtype=torch.float64), ("data",) * m)
    return CalibrationProblem(parameters, [Experiment("data", Field(table, function, known, logarithmic), table)])


def linear(n: int, m: int, seed: int = 1, width: float = 0.05):
    """The problem, and kernel, whitening and data."""
    generator = np.random.default_rng(seed)
    known, seen = whitening(n), kernel(n, m, generator, width)
    truth = MEAN + spl.spsolve(known.tocsc(), generator.normal(size=n * n))
    data = seen @ truth + SIGMA * generator.normal(size=m)
    matrix = torch.as_tensor(seen)
    problem = problem_of(data, lambda p: matrix @ p["field"], known, [Parameter("field", np.zeros(n * n))])
    return problem, seen, known, data


@pytest.mark.parametrize(("n", "m"), [(20, 60), pytest.param(100, 200, marks=pytest.mark.slow)])
def test_linear_gaussian_field_has_the_closed_form(n, m):
    problem, seen, known, data = linear(n, m)
    result = calibrate(problem, settings=KRYLOV)
    factor = spl.splu((known.T @ known).tocsc())
    spread = factor.solve(np.ascontiguousarray(seen.T))
    between = seen @ spread + SIGMA**2 * np.eye(m)
    mean = MEAN + spread @ np.linalg.solve(between, data - MEAN * seen.sum(1))
    assert np.abs(result.values["field"] - mean).max() <= 1e-6 * np.abs(mean).max()
    cells = np.random.default_rng(0).choice(n * n, 100, replace=False)
    units = np.zeros((n * n, 100))
    units[cells, np.arange(100)] = 1
    prior = factor.solve(units)
    variance = prior[cells, np.arange(100)] - np.sum((seen @ prior) * np.linalg.solve(between, seen @ prior), 0)
    np.testing.assert_allclose(result.statistics.std[cells] ** 2, variance, rtol=1e-8)
    assert 0 < result.posterior.determined < m


def test_a_cut_spectrum_keeps_variances_to_a_hundredth():
    problem, *_ = linear(20, 200, width=0.2)
    t = problem.parameters.start()
    products, prior = JacobianProducts(problem, t), SparsePrior.of(problem, t)
    whole = LaplacePosterior.at(products, prior, smallest=0.0)
    rough = LaplacePosterior.at(products, prior, smallest=0.01)
    assert len(whole.eigenvalues) > 120
    assert len(rough.eigenvalues) < 190
    dense = np.linalg.inv(prior.precision.toarray() + (jac := products.vjp(np.eye(200))).T @ jac)
    np.testing.assert_allclose(whole.variances(), np.diag(dense), rtol=1e-9)
    np.testing.assert_allclose(rough.variances(), np.diag(dense), rtol=0.01)
    vector = np.random.default_rng(0).normal(size=(2, 400))
    np.testing.assert_allclose(whole.solve(vector), vector @ dense, rtol=1e-7, atol=1e-10)
    shifted = np.linalg.inv(3 * prior.precision.toarray() + jac.T @ jac)
    np.testing.assert_allclose(whole.solve(vector, 3.0), vector @ shifted, rtol=1e-7, atol=1e-10)
    drawn = whole.samples(4000, seed=2) - t
    np.testing.assert_allclose(np.mean(drawn**2, axis=0) / np.diag(dense), 1.0, atol=0.13)


def bent(n: int = 8, m: int = 30):
    """A nonlinear model of a field in logarithms and of a number beside it, which has bounds and a prior."""
    generator = np.random.default_rng(3)
    known, seen = whitening(n, std=0.4), torch.as_tensor(kernel(n, m, generator))

    def predict(p):
        return p["scale"] * torch.log1p(seen @ p["field"] ** 2)

    truth = torch.as_tensor(np.exp(MEAN + spl.spsolve(known.tocsc(), generator.normal(size=n * n))))
    data = predict({"scale": 1.3, "field": truth}).numpy() + SIGMA * generator.normal(size=m)
    field = Parameter("field", np.full(n * n, 1.5), lower=1.0, upper=2.6, transform="log")
    scale = Parameter("scale", 1.0, prior_mean=1.2, prior_std=0.2)
    return problem_of(data, predict, known, [field, scale], logarithmic=True)


def test_it_ends_where_least_squares_with_a_jacobian_ends():
    problem = bent()
    dense, free = (calibrate(problem, settings=replace(s, tolerance=1e-5)) for s in (KNOWN, KRYLOV))
    assert (dense.method, free.method) == ("least_squares", "krylov")
    assert free.phi == pytest.approx(dense.phi, rel=1e-8)
    held = dense.statistics.held
    assert held.any()  # at bounds of the field, where neither has a standard deviation
    np.testing.assert_array_equal(free.statistics.held, held)
    for label in ("field", "scale"):
        np.testing.assert_allclose(free.values[label], dense.values[label], rtol=1e-4)


def test_standard_deviations_are_those_of_the_dense_covariance():
    problem = bent()
    wide = [Parameter("field", np.full(64, 1.5), transform="log"), problem.parameters.by_label["scale"]]
    dense, free = (calibrate(problem.changed(wide), settings=s) for s in (KNOWN, KRYLOV))
    np.testing.assert_allclose(free.statistics.std, dense.statistics.std, rtol=1e-4)
    np.testing.assert_allclose(free.statistics.lower95, dense.statistics.lower95, rtol=1e-4)


def test_more_than_a_thousand_cells_need_no_word():
    problem, *_ = linear(32, 20)
    assert calibrate(problem, settings=Settings(noise=Noise.KNOWN, tolerance=1e-3)).method == "krylov"


def test_products_are_adjoint_and_the_derivative():
    problem = bent()
    t, generator = problem.parameters.start(), np.random.default_rng(0)
    products = JacobianProducts(problem, t)
    v, w = generator.normal(size=(3, 65)), generator.normal(size=(3, 30))
    jv, jw = products.jvp(v), products.vjp(w)
    np.testing.assert_allclose(np.sum(jv * w, 1), np.sum(jw * v, 1), rtol=1e-12)
    h = 1e-6
    step = (problem.residual(t + h * v[0]) - problem.residual(t - h * v[0])) / (2 * h)
    np.testing.assert_allclose(jv[0], step, rtol=1e-7, atol=1e-7)


def test_derivatives_of_priors_are_those_of_their_residuals():
    problem = bent().changed(strength=2.5)
    t = torch.as_tensor(problem.parameters.start() + 0.1)
    np.testing.assert_allclose(
        prior_jacobian(problem, t.numpy()).toarray(), torch.func.jacrev(problem.prior_residual)(t).numpy(), rtol=1e-12
    )


def test_variances_of_priors_in_several_parts():
    parts = sp.block_diag([whitening(7), 2.0 * sp.identity(3), whitening(4)]).tocsr()
    shuffled = parts[:, np.random.default_rng(0).permutation(parts.shape[1])]
    prior = SparsePrior(shuffled.tocsr())
    np.testing.assert_allclose(prior.variances(), np.diag(np.linalg.inv(prior.precision.toarray())), rtol=1e-9)


@pytest.mark.parametrize("rule", [StrengthRule.DISCREPANCY, StrengthRule.GCV])
def test_strength_is_that_of_the_dense_line(rule):
    problem, *_ = linear(12, 40, seed=5)
    dense, free = (choose_strength(problem, Strength(rule), settings) for settings in (KNOWN, KRYLOV))
    assert math.log(free.strength) == pytest.approx(math.log(dense.strength), abs=0.05)
    assert free.fits[-1].determined == pytest.approx(dense.fits[-1].determined, rel=0.03)
    assert free.fits[-1].phi_fields == pytest.approx(dense.fits[-1].phi_fields, rel=0.05)


def test_a_resumed_loop_takes_the_same_way(tmp_path):
    whole = calibrate(bent(), settings=KRYLOV, journal=Journal.create(tmp_path / "whole", {}))
    short = Settings(noise=Noise.KNOWN, method=Method.KRYLOV, noptmax=2, statistics=False)
    cut = calibrate(bent(), settings=short, journal=Journal.create(tmp_path / "cut", {}), on_fail="ignore")
    assert not cut.converged
    assert "the limit of 2 iterations" in cut.status
    resumed = calibrate(bent(), settings=KRYLOV, journal=Journal(tmp_path / "cut"))
    np.testing.assert_array_equal(resumed.evaluation.t, whole.evaluation.t)
    assert len(resumed.iterations) == len(whole.iterations)


def test_what_a_large_field_needs_is_said():
    rough = sp.diags([np.ones(64), -np.ones(63)], [0, 1]).tocsr()[:63]
    free = problem_of(np.ones(5), lambda p: p["field"][:5], rough, [Parameter("field", np.ones(64))])
    with pytest.raises(InputError, match="reference and std"):
        calibrate(free, settings=KRYLOV)
    derived = [Parameter("a", np.ones(64)), Parameter("field", expr="2 * a")]
    with pytest.raises(InputError, match="not a formula"):
        calibrate(problem_of(np.ones(5), lambda p: p["field"][:5], whitening(8), derived), settings=KRYLOV)
