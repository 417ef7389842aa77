"""Adjoint strategies: exact ones agree, approximate ones say so and estimate their bias."""

from __future__ import annotations

import pytest
import torch
from problems import chain_energy, chain_params, contraction, contraction_params

import bilevel
from bilevel import (
    LBFGS,
    Anderson,
    Constant,
    Exact,
    GradientDescent,
    Neumann,
    Newton,
    OneStep,
    Picard,
    Tolerance,
    Unrolled,
)

TIGHT = Tolerance(relative=1e-13)
WEIGHTS = torch.linspace(1.0, 2.0, 5)


def fixed_point_gradient(adjoint, solver=None):
    params = {k: v.requires_grad_() for k, v in contraction_params().items()}
    solver = solver or Picard(tolerance=TIGHT)
    solution = bilevel.fixed_point(contraction, torch.zeros(5), params, solver=solver, adjoint=adjoint)
    grads = torch.autograd.grad((WEIGHTS * solution.u).sum(), list(params.values()))
    return torch.cat([g.reshape(-1) for g in grads]), solution.gradient


def chain_gradient(adjoint, solver):
    params = {k: v.requires_grad_() for k, v in chain_params(3).items()}
    solution = bilevel.argmin(chain_energy, torch.zeros(3), params, solver=solver, adjoint=adjoint)
    grads = torch.autograd.grad((WEIGHTS[:3] * solution.u).sum(), list(params.values()))
    return torch.cat([g.reshape(-1) for g in grads]), solution.gradient


def error(found, right):
    return float((found - right).norm() / right.norm())


def test_exact_reports_exactness_and_small_residuals():
    _, report = fixed_point_gradient(Exact())
    assert report.exact
    assert report.relative_error <= 1e-10
    assert report.adjoint_residual <= 1e-10
    assert str(report).startswith("exact gradient (Exact)")


def test_neumann_series_converges_at_the_rate_of_the_map_and_reports_its_bias():
    right, _ = fixed_point_gradient(Exact())
    errors = []
    for terms in (1, 3, 6, 12):
        found, report = fixed_point_gradient(OneStep() if terms == 1 else Neumann(terms))
        true = error(found, right)
        assert not report.exact
        assert "APPROXIMATE" in str(report)
        assert 0.5 <= report.relative_error / true <= 2.0
        errors.append(true)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.7**11  # the map contracts by at most 0.7


def test_neumann_series_of_an_energy_is_scaled_by_its_stiffness():
    right, _ = chain_gradient(Exact(), Newton(tolerance=TIGHT))
    found, report = chain_gradient(Neumann(400), Newton(tolerance=TIGHT))
    assert error(found, right) <= 1e-2
    assert not report.exact


@pytest.mark.parametrize("adjoint", [Unrolled(), Unrolled(checkpoints=5)])
@pytest.mark.parametrize(
    "solver",
    [
        LBFGS(tolerance=TIGHT),
        GradientDescent(step=Constant(0.08), tolerance=TIGHT, max_iterations=2000),
        Newton(tolerance=TIGHT),
    ],
    ids=["lbfgs", "gradient", "newton"],
)
def test_unrolling_to_convergence_gives_the_exact_gradient(solver, adjoint):
    right, _ = chain_gradient(Exact(), Newton(tolerance=TIGHT))
    found, report = chain_gradient(adjoint, solver)
    assert error(found, right) <= 1e-6
    assert not report.exact
    assert report.adjoint == "Unrolled"
    assert report.relative_error <= 1e-5


def test_unrolling_the_last_iterations_only_has_the_bias_that_it_reports():
    right, _ = fixed_point_gradient(Exact())
    for last in (2, 5, 10):
        found, report = fixed_point_gradient(Unrolled(last=last))
        true = error(found, right)
        assert 0.5 <= report.relative_error / true <= 2.0
        assert true <= 2 * 0.7 ** (last - 1)


def test_unrolled_loose_solves_report_their_bias():
    right, _ = chain_gradient(Exact(), Newton(tolerance=TIGHT))
    for relative in (1e-2, 1e-3):
        found, report = chain_gradient(Unrolled(), LBFGS(tolerance=Tolerance(relative)))
        true = error(found, right)
        assert 0.2 <= report.relative_error / true <= 5.0


def test_unrolled_forward_mode_equals_reverse_mode():
    params = contraction_params()

    def state(bias):
        return bilevel.fixed_point(
            contraction, torch.zeros(5), params | {"bias": bias}, solver=Picard(tolerance=TIGHT), adjoint=Unrolled()
        ).u

    forward = torch.func.jacfwd(state)(params["bias"])
    leaf = params["bias"].clone().requires_grad_()
    reverse = torch.stack([torch.autograd.grad(state(leaf)[i], leaf)[0] for i in range(5)])
    torch.testing.assert_close(forward, reverse, rtol=1e-9, atol=1e-12)


def test_iterations_that_cannot_be_unrolled_say_so():
    with pytest.raises(bilevel.BilevelError, match="use Picard or the exact adjoint"):
        fixed_point_gradient(Unrolled(), Anderson())


def test_the_certified_gradient_of_an_outer_function_sees_an_approximate_adjoint():
    def loss(params, adjoint):
        return (bilevel.fixed_point(contraction, torch.zeros(5), params, adjoint=adjoint).u ** 2).sum()

    params = contraction_params()
    right = bilevel.gradient(lambda p: loss(p, Exact()), params)
    rough = bilevel.gradient(lambda p: loss(p, Neumann(3)), params)
    true = error(rough.gradient["bias"], right.gradient["bias"])
    assert right.report.exact
    assert not rough.report.exact
    assert 0.3 <= rough.report.by_parameter["['bias']"] / true <= 3.0


def test_a_neumann_series_without_terms_is_refused():
    with pytest.raises(ValueError, match="at least one term"):
        Neumann(0)
