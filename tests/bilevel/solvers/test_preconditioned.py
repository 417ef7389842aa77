"""Gradient descent in the metric of a preconditioner."""

import pytest
import torch

import bilevel
from bilevel.linalg import Dense, Jacobi, MatrixFree, Multigrid, Structure
from bilevel.problem import Energy
from bilevel.report import InputError
from bilevel.solvers import Newton, PreconditionedGradient, Tolerance
from physics.discretisation import box
from physics.flow import DarcyFlow


def darcy(cells: int) -> tuple[DarcyFlow, dict[str, dict[str, torch.Tensor]]]:
    mesh = box(cells, cells, cells)
    k = torch.randn(len(mesh.cells), generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp()
    flow = DarcyFlow(mesh, [mesh.fixed("left", value=1.0), mesh.fixed("right")])
    return flow, {"flow": {"hydraulic_conductivity": k}}


@pytest.mark.parametrize(("preconditioner", "most"), [(Jacobi(), 400), (Multigrid(), 40)])
def test_it_finds_what_newton_finds(preconditioner, most) -> None:
    flow, params = darcy(6)
    goal = Tolerance(relative=1e-8)
    expected = bilevel.argmin(flow, flow.start(), params, solver=Newton(tolerance=goal)).u
    solution = bilevel.argmin(
        flow, flow.start(), params, solver=PreconditionedGradient(preconditioner=preconditioner, tolerance=goal)
    )
    torch.testing.assert_close(solution.u, expected, rtol=0.0, atol=1e-6)
    assert solution.report.iterations < most


def test_jacobi_does_not_see_the_units_of_single_unknowns() -> None:
    units = torch.logspace(-3.0, 3.0, 20, dtype=torch.float64)
    start = torch.linspace(0.5, 2.0, 20, dtype=torch.float64)

    def solved(scale: torch.Tensor) -> bilevel.Solution:
        def energy(v: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
            u = scale * v
            return (u.diff().square().sum() + u.pow(4).sum() - p * u.sum()) / 2.0

        solver = PreconditionedGradient(tolerance=Tolerance(relative=0.0, absolute=1e-9 * float(scale.min())))
        return bilevel.argmin(energy, start / scale, torch.tensor(3.0), solver=solver)

    one, other = solved(torch.ones(20, dtype=torch.float64)), solved(units)
    torch.testing.assert_close(units * other.u, one.u, rtol=1e-7, atol=0.0)


def test_the_gradient_of_the_layer_does_not_depend_on_the_preconditioner() -> None:
    flow, params = darcy(4)
    k = params["flow"]["hydraulic_conductivity"].requires_grad_()
    gradients = []
    for solver in (Newton(), PreconditionedGradient(preconditioner=Multigrid(), tolerance=Tolerance(relative=1e-12))):
        u = bilevel.argmin(flow, flow.start(), params, solver=solver).u
        gradients.append(torch.autograd.grad(u.square().sum(), k)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-8, atol=1e-12)


def test_what_has_no_such_preconditioner_is_refused() -> None:
    unknown = MatrixFree(3, lambda x: x, lambda x: x)
    with pytest.raises(InputError, match="diagonal without zeros"):
        Jacobi().of(unknown)
    with pytest.raises(InputError, match="symmetric matrices only"):
        Multigrid().of(Dense(torch.eye(3), Structure(symmetric=False)))
    flow = Energy(lambda u: (u[0] * u[1]).sum()).for_unknown(torch.ones(2, dtype=torch.float64))
    with pytest.raises(InputError, match="diagonal without zeros"):
        PreconditionedGradient().solve(flow, torch.ones(2, dtype=torch.float64), None)
