"""The logarithmic middle as a solver, and the table of default solvers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial import Delaunay
from torch import Tensor

import bilevel
from bilevel import LogMiddle, Newton, Tolerance
from bilevel.problem import Energy, FixedPoint, Residual
from bilevel.solvers import Anderson
from bilevel.solvers.default import default_solver
from physics.discretisation import Mesh, Shape, box, rectangle
from physics.discretisation.constraints import Dirichlet
from physics.discretisation.graph import Graph
from physics.flow import DarcyFlow, FlowNetwork, Forchheimer, Linear, PLaplacian, PowerLaw
from physics.local.energy import LocalEnergy
from physics.local.total_variation.denoising import Denoising
from physics.solids import Kinematics, NeoHookean, Solid

TIGHT = Tolerance(1e-12)


def points_and_edges(count: int = 80) -> tuple[np.ndarray, Tensor]:
    points = np.random.default_rng(0).random((count, 2))
    triangles = np.sort(Delaunay(points).simplices, axis=1)
    pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [0, 2]], triangles[:, [1, 2]]])
    return points, torch.from_numpy(np.unique(pairs, axis=0))


def network(
    law: Any, *, head: float = 1.0, inflow: float = 0.0, conductance: float = 1.0, **options: Any
) -> tuple[FlowNetwork, dict[str, Any]]:
    """Log-normal conductances between two held sides, or around one where the head is 0."""
    points, edges = points_and_edges()
    held = np.flatnonzero(points[:, 0] < 0.1) if head == 0.0 else np.flatnonzero(np.abs(points[:, 0] - 0.5) > 0.4)
    values = torch.from_numpy((points[held, 0] > 0.5) * head)[:, None]
    own = conductance * torch.from_numpy(np.exp(np.random.default_rng(1).normal(size=len(edges))))
    flow = FlowNetwork(
        Graph(len(points), edges), law, [Dirichlet("sides", torch.from_numpy(held), value=values)], **options
    )
    wells = torch.zeros(len(points), dtype=torch.float64)
    wells[40] = inflow
    known = {"conductance": own} if isinstance(law, (PowerLaw, Linear)) else {"linear": 1 / own, "quadratic": 30 / own}
    return flow, {"flow": known, "inflow": wells}


def sheet(mesh: Mesh, p: float) -> tuple[LocalEnergy, dict[str, Any]]:
    k = torch.rand(len(mesh.cells), generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    flow = PLaplacian(mesh, p, 1e-3, [mesh.fixed("left", value=1.0), mesh.fixed("right")])
    return flow, {"flow": {"conductivity": k}, "source": torch.tensor(0.3, dtype=torch.float64)}


def picture() -> tuple[LocalEnergy, dict[str, Any]]:
    mesh = rectangle(12, 12, (12.0, 12.0), Shape.TRIANGLE)
    noise = torch.randn(len(mesh.coordinates), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value = (mesh.coordinates[:, 0] > 6.0).double() + 0.1 * noise
    own = {"weight": torch.tensor(0.15, dtype=torch.float64), "smoothing": torch.tensor(1e-4, dtype=torch.float64)}
    return Denoising(mesh), {"variation": own, "data": {"mass": torch.ones_like(value), "value": value}}


CASES = {
    "network p = 1.3": network(PowerLaw(1.3, 1e-4)),
    "network p = 5, wells": network(PowerLaw(5.0, 1e-4), inflow=3.0),
    "network, wells alone": network(PowerLaw(1.4, 1e-4), head=0.0, inflow=50.0),
    "Forchheimer": network(Forchheimer(), inflow=0.1),
    "triangles p = 4": sheet(rectangle(8, 8, shape=Shape.TRIANGLE), 4.0),
    "tetrahedra p = 1.5": sheet(box(4, 4, 4, shape=Shape.TETRAHEDRON), 1.5),
    "total variation": picture(),
}
every_case = pytest.mark.parametrize("name", CASES)


def leaves(params: dict[str, Any]) -> list[Tensor]:
    return [x for part in params.values() for x in (part.values() if isinstance(part, dict) else [part])]


def state_and_gradient(name: str, solver: bilevel.solvers.Solver) -> tuple[Tensor, list[Tensor], bilevel.Solution]:
    problem, given = CASES[name]
    params = {
        key: {k: x.clone().requires_grad_() for k, x in part.items()} if isinstance(part, dict) else part
        for key, part in given.items()
    }
    solution = bilevel.argmin(problem, problem.start(), params, solver=solver)
    weights = torch.cos(torch.arange(problem.n, dtype=torch.float64))
    wanted = [x for x in leaves(params) if x.requires_grad]
    return solution.u.detach(), list(torch.autograd.grad((weights * solution.u).sum(), wanted)), solution


@every_case
def test_state_and_gradient_are_those_of_newtons_method_for_fewer_factorisations(name: str) -> None:
    u, gradient, found = state_and_gradient(name, LogMiddle(Newton(tolerance=TIGHT)))
    expected, slope, newton = state_and_gradient(name, Newton(tolerance=TIGHT))
    scale = float(expected.abs().max())
    torch.testing.assert_close(u, expected, rtol=0.0, atol=1e-8 * scale)
    for one, other in zip(gradient, slope, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=1e-7 * float(other.abs().max()))
    assert found.report.counts.fallbacks == 0
    assert found.report.counts.factorisations <= min(16, newton.report.counts.factorisations)


def test_units_change_nothing() -> None:
    counts = []
    for head, conductance in ((1.0, 1.0), (1e-3, 1.0), (1.0, 1e6)):
        problem, params = network(PowerLaw(1.5, 1e-4 * head), head=head, conductance=conductance)
        counts.append(bilevel.argmin(problem, problem.start(), params).report.counts)
    assert counts[0].factorisations == counts[1].factorisations == counts[2].factorisations <= 12


def test_from_its_own_solution_only_the_check_remains() -> None:
    problem, params = CASES["Forchheimer"]
    cold = bilevel.argmin(problem, problem.start(), params, solver=LogMiddle())
    again = bilevel.argmin(problem, cold.u, params, solver=LogMiddle())
    assert again.report.counts.factorisations <= 1 < cold.report.counts.factorisations


@pytest.mark.parametrize(
    ("law", "options"),
    [(Linear(), {}), (PowerLaw(3.0, 1e-3), {"leaky": True})],
    ids=["a linear law", "leakage"],
)
def test_where_a_problem_does_not_split_newtons_method_solves_it(law: Any, options: dict[str, Any]) -> None:
    problem, params = network(law, **options)
    if options:
        params["leakage"] = {"resistance": torch.tensor(2.0), "head": torch.tensor(0.5)}
    found = bilevel.argmin(problem, problem.start(), params, solver=LogMiddle())
    newton = bilevel.argmin(problem, problem.start(), params, solver=Newton())
    assert torch.equal(found.u, newton.u)
    assert found.report.counts.factorisations == newton.report.counts.factorisations


def test_an_unrolled_adjoint_goes_through_newtons_iterations() -> None:
    problem, params = network(Forchheimer())
    params["flow"]["linear"].requires_grad_()
    found = [
        bilevel.argmin(problem, problem.start(), params, solver=solver, adjoint=bilevel.Unrolled())
        for solver in (LogMiddle(), Newton())
    ]
    one, other = (torch.autograd.grad(solution.u.sum(), params["flow"]["linear"])[0] for solution in found)
    assert torch.equal(one, other)


def test_each_kind_of_problem_has_one_default() -> None:
    def square(u: Tensor) -> Tensor:
        return u.square().sum()

    mesh = rectangle(2, 2, shape=Shape.TRIANGLE)
    held = [mesh.fixed("left")]
    solvers = {
        Newton: [Energy(square), Residual(lambda u: u), Solid(mesh, NeoHookean(), Kinematics.PLANE_STRAIN, held)],
        Anderson: [FixedPoint(lambda u: 0.5 * u)],
        LogMiddle: [DarcyFlow(mesh, held), PLaplacian(mesh, 1.5, 1e-3, held), Denoising(mesh), CASES["Forchheimer"][0]],
    }
    for solver, problems in solvers.items():
        assert all(type(default_solver(problem)) is solver for problem in problems)
