"""Proximal gradient, ADMM, half-quadratic and primal-dual splitting against optimality conditions and each other."""

import pytest
import torch

import bilevel
from bilevel.composite import (
    ADMM,
    FISTA,
    ISTA,
    L1,
    Composite,
    GroupL1,
    HalfQuadraticSplitting,
    Inertial,
    LeastSquares,
    NonNegative,
    PrimalDual,
    Restart,
    SmoothFunction,
    SplitBregman,
    SquaredL2,
    TotalVariation,
    regularised_inverse,
)
from bilevel.linalg.linear_map import Convolution, Matrix, gaussian_kernel
from bilevel.report import ConvergenceError, InputError
from bilevel.solvers import Tolerance


def lasso(batch: int = 3, weight: float = 0.2) -> Composite:
    A = Matrix(torch.randn(30, 20))
    x = torch.randn(batch, 20) * (torch.rand(batch, 20) < 0.3)
    return Composite(LeastSquares(A, A(x) + 0.1 * torch.randn(batch, 30)), L1(), weight)


def lasso_violation(problem: Composite, x: torch.Tensor) -> float:
    gradient = problem.smooth.gradient(x)
    on = (gradient + problem.weight * x.sign()).abs()
    off = torch.relu(gradient.abs() - problem.weight)
    return float(torch.where(x != 0, on, off).max())


@pytest.mark.parametrize(
    "solver",
    [
        ISTA(tolerance=Tolerance(1e-10)),
        FISTA(tolerance=Tolerance(1e-10)),
        FISTA(tolerance=Tolerance(1e-10), restart=Restart.GRADIENT),
        FISTA(tolerance=Tolerance(1e-10), restart=Restart.OBJECTIVE),
        Inertial(tolerance=Tolerance(1e-10), beta=0.7),
        ADMM(rho=5.0, tolerance=Tolerance(1e-11)),
    ],
    ids=lambda s: f"{type(s).__name__} {getattr(s, 'restart', '')}",
)
def test_the_lasso_meets_its_optimality_conditions(solver) -> None:
    problem = lasso()
    solution = bilevel.fixed_point(problem, torch.zeros(3, 20), solver=solver)
    assert solution.report.converged
    assert lasso_violation(problem, solution.u) < 1e-6


def test_half_quadratic_splitting_comes_close_and_says_how_close() -> None:
    problem = lasso()
    exact = bilevel.fixed_point(problem, torch.zeros(3, 20), solver=FISTA(tolerance=Tolerance(1e-10))).u
    found = bilevel.fixed_point(
        problem, torch.zeros(3, 20), solver=HalfQuadraticSplitting(first=1.0, last=3e4, stages=40, alternations=400)
    )
    gap = problem.objective(found.u) / problem.objective(exact) - 1
    assert float(gap.min()) >= 0
    assert float(gap.max()) < 1e-2
    with pytest.raises(ConvergenceError):
        bilevel.fixed_point(problem, torch.zeros(3, 20), solver=HalfQuadraticSplitting(last=1e-1))


@pytest.mark.parametrize(
    "solver",
    [
        ISTA(monitor=True, max_iterations=300),
        FISTA(monitor=True, max_iterations=300),
        Inertial(monitor=True, max_iterations=300, beta=0.9),
    ],
)
def test_the_lyapunov_function_decreases_where_the_objective_need_not(solver) -> None:
    A = Matrix(torch.randn(20, 40))
    problem = Composite(LeastSquares(A, torch.randn(1, 20)), L1(), 0.01)
    report = bilevel.fixed_point(problem, torch.zeros(1, 40), on_fail="ignore", solver=solver).report
    assert report.lyapunov_decreases
    assert len(report.lyapunov) == report.iterations
    rises = sum(b > a for a, b in zip(report.objective, report.objective[1:]))
    assert (rises > 0) == (not isinstance(solver, ISTA))


def test_a_step_beyond_the_bound_is_seen_in_the_lyapunov_function() -> None:
    problem = lasso(1)
    bad = ISTA(step=2.5 / problem.smooth.lipschitz, max_iterations=30, monitor=True)
    report = bilevel.fixed_point(problem, torch.zeros(1, 20), on_fail="ignore", solver=bad).report
    assert not report.lyapunov_decreases
    with pytest.raises(ConvergenceError):
        bilevel.fixed_point(problem, torch.zeros(1, 20), solver=bad)


def test_backtracking_finds_the_step_where_lipschitz_is_unknown() -> None:
    problem = lasso(1)
    f = problem.smooth
    unknown = Composite(SmoothFunction(lambda x: f.value(x)), L1(), problem.weight)
    x = bilevel.fixed_point(unknown, torch.zeros(1, 20), solver=ISTA(tolerance=Tolerance(1e-9), max_iterations=5000)).u
    assert lasso_violation(problem, x) < 1e-5


def test_group_lasso_and_nonnegative_least_squares() -> None:
    A = Matrix(torch.randn(30, 20))
    y = A(torch.randn(20))
    x = bilevel.fixed_point(
        Composite(LeastSquares(A, y), GroupL1(5), 8.0),
        torch.zeros(20),
        solver=FISTA(tolerance=Tolerance(1e-11), restart=Restart.GRADIENT),
    ).u
    g = A.adjoint(A(x) - y).reshape(4, 5)
    groups = x.reshape(4, 5)
    for gradient, group in zip(g, groups):
        if float(group.norm()) > 0:
            assert torch.allclose(gradient, -8.0 * group / group.norm(), atol=1e-5)
        else:
            assert float(gradient.norm()) <= 8.0
    x = bilevel.fixed_point(Composite(LeastSquares(A, y), NonNegative()), torch.zeros(20), solver=ADMM(rho=10.0)).u
    g = A.adjoint(A(x) - y)
    assert float(x.min()) >= 0
    assert float((x * g).abs().max()) < 1e-4
    assert float(g.min()) > -1e-4


def test_total_variation_by_primal_dual_agrees_with_nested_fista() -> None:
    A = Convolution(gaussian_kernel(0.6, 1), (5, 6))
    problem = Composite(LeastSquares(A, torch.randn(5, 6)), TotalVariation(tolerance=1e-10), 0.1)
    a = bilevel.fixed_point(
        problem, torch.zeros(5, 6), solver=PrimalDual(tolerance=Tolerance(1e-8), max_iterations=20_000)
    ).u
    b = bilevel.fixed_point(
        problem, torch.zeros(5, 6), solver=FISTA(tolerance=Tolerance(1e-5), restart=Restart.GRADIENT)
    ).u
    assert float(problem.objective(a)) == pytest.approx(float(problem.objective(b)), rel=1e-6)
    assert torch.allclose(a, b, atol=1e-3)


@pytest.mark.parametrize(
    "A", [Matrix(torch.ones(4, 7)), Matrix(torch.ones(9, 4)), Convolution(gaussian_kernel(1.0, 1), (4, 6))]
)
def test_the_regularised_inverse_inverts(A) -> None:
    x = torch.randn(3, *A.domain)
    assert torch.allclose(regularised_inverse(A, 0.3)(A.normal(x) + 0.3 * x), x, atol=1e-10)


def test_ridge_regression_has_a_closed_form() -> None:
    A = Matrix(torch.randn(8, 5))
    y = torch.randn(8)
    x = bilevel.fixed_point(
        Composite(LeastSquares(A, y), SquaredL2(), 0.5), torch.zeros(5), solver=FISTA(tolerance=Tolerance(1e-12))
    ).u
    exact = torch.linalg.solve(A.entries.mT @ A.entries + 0.5 * torch.eye(5), A.entries.mT @ y)
    assert torch.allclose(x, exact, atol=1e-9)


def test_bad_input_is_refused() -> None:
    A = Matrix(torch.randn(6, 4))
    for bad in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="lambda must be finite and not negative"):
            Composite(LeastSquares(A, torch.zeros(6)), L1(), bad)
    with pytest.raises(InputError, match="shape"):
        LeastSquares(A, torch.zeros(5))
    with pytest.raises(InputError, match="NaN"):
        LeastSquares(A, torch.full((6,), float("nan")))
    with pytest.raises(ConvergenceError, match="iteration limit"):
        bilevel.fixed_point(
            Composite(LeastSquares(A, torch.randn(6)), L1(), 0.1), torch.zeros(4), solver=ISTA(max_iterations=2)
        )
    with pytest.raises(InputError, match="rho"):
        regularised_inverse(A, 0.0)
    with pytest.raises(InputError, match="but the operator is"):
        LeastSquares(A, torch.zeros(6, dtype=torch.float32))
    with pytest.raises(InputError, match="step of a proximal method must be positive"):
        ISTA(step=-1.0)
    with pytest.raises(InputError, match="beta"):
        Inertial(beta=1.5)
    with pytest.raises(InputError, match="max_iterations"):
        FISTA(max_iterations=0)


@pytest.mark.parametrize("solver", [ISTA(), FISTA(), ADMM(), HalfQuadraticSplitting()])
def test_starts_that_do_not_fit_are_refused(solver) -> None:
    problem = Composite(LeastSquares(Matrix(torch.randn(6, 4)), torch.zeros(6)), L1(), 0.1)
    with pytest.raises(InputError, match=r"the start has shape \(3,\)"):
        bilevel.fixed_point(problem, torch.zeros(3), solver=solver)
    with pytest.raises(InputError, match="NaN"):
        bilevel.fixed_point(problem, torch.full((4,), torch.nan), solver=solver)
    if isinstance(solver, ADMM):
        with pytest.raises(InputError, match="max_iterations"):
            bilevel.fixed_point(problem, torch.zeros(4), solver=ADMM(max_iterations=0))


def test_every_sample_may_have_its_own_lambda() -> None:
    A = Convolution(gaussian_kernel(0.6, 1), (5, 6))
    y, weights = torch.randn(2, 5, 6), (0.05, 0.5)
    each = torch.tensor(weights).reshape(2, 1, 1)
    for solver, norm in (
        (PrimalDual(tolerance=Tolerance(1e-8)), TotalVariation()),
        (FISTA(tolerance=Tolerance(1e-8)), NonNegative(2)),
    ):
        together = bilevel.fixed_point(Composite(LeastSquares(A, y), norm, each), torch.zeros(2, 5, 6), solver=solver).u
        for one, data, weight in zip(together, y, weights):
            alone = bilevel.fixed_point(
                Composite(LeastSquares(A, data), norm, weight), torch.zeros(5, 6), solver=solver
            ).u
            assert torch.allclose(one, alone, atol=1e-5)


def test_the_minimiser_is_differentiated_in_data_and_lambda_whatever_solver_found_it() -> None:
    A = Matrix(torch.randn(30, 20))
    y, weight = torch.randn(30), torch.tensor(2.0)
    exact = FISTA(tolerance=Tolerance(1e-13), restart=Restart.GRADIENT)
    probe = torch.randn(20)

    def of(y: torch.Tensor, weight: torch.Tensor, solver=exact) -> torch.Tensor:
        found = bilevel.fixed_point(Composite(LeastSquares(A, y), L1(), weight), torch.zeros(20), solver=solver)
        return found.u @ probe

    h, move = 1e-5, torch.randn(30)
    by_weight = (of(y, weight + h) - of(y, weight - h)) / (2 * h)
    by_data = (of(y + h * move, weight) - of(y - h * move, weight)) / (2 * h)
    for solver in (exact, ADMM(rho=10.0, tolerance=Tolerance(1e-12)), bilevel.Anderson(tolerance=Tolerance(1e-11))):
        at = y.clone().requires_grad_(), weight.clone().requires_grad_()
        data, number = torch.autograd.grad(of(*at, solver), at)
        assert float(number) == pytest.approx(float(by_weight), rel=1e-5)
        assert float(data @ move) == pytest.approx(float(by_data), rel=1e-5)


def test_a_function_with_parameters_is_differentiated_in_them() -> None:
    """min |x - p|^2 / 2 + |x|_1 has dx/dp = 1 where |p| > 1, 0 elsewhere."""
    problem = Composite(SmoothFunction(lambda x, p: 0.5 * (x - p).square().sum(-1)), L1())
    p = torch.tensor([2.0, 0.5, -3.0], requires_grad=True)
    x = bilevel.fixed_point(problem, torch.zeros(3), p, solver=ISTA()).u
    assert torch.allclose(x, torch.tensor([1.0, 0.0, -2.0]))
    assert torch.allclose(torch.autograd.grad(x.sum(), p)[0], torch.tensor([1.0, 0.0, 1.0]))


def test_what_the_protocol_cannot_do_is_said() -> None:
    problem = lasso()
    with pytest.raises(bilevel.BilevelError, match="cannot be unrolled"):
        bilevel.fixed_point(problem, torch.zeros(3, 20), solver=FISTA(), adjoint=bilevel.Unrolled())
    with pytest.raises(bilevel.BilevelError, match="give it a Composite"):
        bilevel.fixed_point(lambda u: 0.5 * u, torch.ones(3), solver=FISTA())
    with pytest.raises(InputError, match="takes no parameters"):
        bilevel.fixed_point(problem, torch.zeros(3, 20), torch.ones(1), solver=FISTA())
    matrix = torch.randn(6, 4, requires_grad=True)
    with pytest.raises(bilevel.UndeclaredTensorError):
        bilevel.fixed_point(
            Composite(LeastSquares(Matrix(matrix), torch.ones(6)), L1()), torch.zeros(4), solver=FISTA()
        )
    with pytest.raises(InputError, match="takes a least-squares misfit"):
        bilevel.fixed_point(Composite(SmoothFunction(torch.sum), L1()), torch.zeros(4), solver=ADMM())


def test_a_start_where_x_alone_is_at_rest_is_no_solution() -> None:
    """At a least-squares solution x does not move until p does; at a huge rho nothing moves at all."""
    A = Matrix(torch.eye(36) + 0.1 * torch.randn(36, 36), (6, 6), (36,))
    y = torch.randn(36)
    problem = Composite(LeastSquares(A, y), TotalVariation(), 0.3)
    start = torch.linalg.solve(A.entries, y).reshape(6, 6)
    exact = bilevel.fixed_point(problem, start, solver=FISTA(tolerance=Tolerance(1e-8))).u
    for solver in (PrimalDual(tolerance=Tolerance(1e-8)), SplitBregman(tolerance=Tolerance(1e-8))):
        assert torch.allclose(bilevel.fixed_point(problem, start, solver=solver).u, exact, atol=1e-5)
    with pytest.raises(ConvergenceError):
        bilevel.fixed_point(lasso(), torch.zeros(3, 20), solver=HalfQuadraticSplitting(first=1e4, stages=1))


@pytest.mark.parametrize("weight", [3.0, 0.1, 1e-3, 1e-5])
def test_split_bregman_agrees_with_nested_fista_at_strong_and_weak_priors(weight: float) -> None:
    A = Matrix(torch.randn(25, 30), (5, 6), (25,))
    problem = Composite(LeastSquares(A, torch.randn(2, 25)), TotalVariation(tolerance=1e-14), weight)
    zero = torch.zeros(2, 5, 6)
    found = bilevel.fixed_point(problem, zero, solver=SplitBregman()).u
    exact = bilevel.fixed_point(
        problem,
        found,
        solver=FISTA(tolerance=Tolerance(1e-5 * weight), restart=Restart.GRADIENT, max_iterations=100_000),
    ).u
    assert torch.allclose(problem.objective(found), problem.objective(exact), rtol=1e-5)


def test_split_bregman_treats_constants_and_null_spaces() -> None:
    A = Matrix(torch.randn(9, 30), (5, 6), (9,))
    flat = torch.full((5, 6), 2.0)
    problem = Composite(LeastSquares(A, A(flat)), TotalVariation(), 0.1)
    assert torch.allclose(bilevel.fixed_point(problem, torch.zeros(5, 6), solver=SplitBregman()).u, flat, atol=1e-4)
    blind = Matrix(A.entries - A.entries.mean(1, keepdim=True), (5, 6), (9,))
    with pytest.raises(InputError, match="share a null space"):
        bilevel.fixed_point(
            Composite(LeastSquares(blind, torch.ones(9)), TotalVariation()), torch.zeros(5, 6), solver=SplitBregman()
        )
    with pytest.raises(InputError, match="takes a total variation"):
        bilevel.fixed_point(lasso(), torch.zeros(3, 20), solver=SplitBregman())


@pytest.mark.parametrize("unit", [1e-9, pytest.param(1e9, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "solver",
    [FISTA(tolerance=Tolerance(1e-6), restart=Restart.GRADIENT), PrimalDual(), SplitBregman()],
    ids=lambda s: type(s).__name__,
)
def test_units_of_the_unknown_do_not_matter(solver, unit: float) -> None:
    """f + weight g with x in other units: the data and the weight scale along, the shape of the answer does not."""
    A = Matrix(torch.randn(20, 30), (5, 6), (20,))
    y = torch.randn(20)
    one, other = (
        bilevel.fixed_point(
            Composite(LeastSquares(A, u * y), TotalVariation(tolerance=1e-12), 0.5 * u),
            torch.zeros(5, 6),
            solver=solver,
        ).u
        / u
        for u in (1.0, unit)
    )
    assert torch.allclose(one, other, rtol=1e-6, atol=1e-6)
