"""The p-Laplacian on meshes: derivatives, a closed form, and bad input."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import bilevel
from bilevel.report import InputError
from bilevel.solvers import Newton, Tolerance
from bilevel.solvers.steps import Armijo
from physics.constitutive.flow import PowerLaw
from physics.discretisation import Mesh, Shape, box, rectangle
from physics.discretisation.constraints import Dirichlet
from physics.flow.p_laplacian import PLaplacian
from physics.local.density import Density

MESHES = [rectangle(4, 3, shape=Shape.TRIANGLE), rectangle(3, 3), box(2, 2, 2, shape=Shape.TETRAHEDRON)]


def problem_on(mesh: Mesh, exponent: float) -> tuple[PLaplacian, torch.Tensor, dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    problem = PLaplacian(mesh, exponent, 0.05, [mesh.fixed("left", value=1.0)])
    conductivity = torch.rand(len(mesh.cells), generator=generator, dtype=torch.float64) + 0.1
    params = {"flow": {"conductivity": conductivity}, "source": torch.tensor(0.7, dtype=torch.float64)}
    return problem, torch.rand(problem.n, generator=generator, dtype=torch.float64), params


@pytest.mark.parametrize("exponent", [1.3, 2.0, 4.5])
def test_stress_and_tangent_are_derivatives_of_the_energy(exponent: float) -> None:
    density = PowerLaw(exponent, 0.05, "conductivity")
    x = torch.randn(7, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[0] = 0.0  # at rest
    params = {"conductivity": torch.linspace(0.5, 2.0, 7, dtype=torch.float64)[:, None]}
    torch.testing.assert_close(density.stress(x, params), Density.stress(density, x, params))
    torch.testing.assert_close(density.tangent(x, params, 1), Density.tangent(density, x, params, 1))
    energy, stress = density.energy_and_stress(x, params)
    torch.testing.assert_close(energy, density.energy(x, params))
    torch.testing.assert_close(stress, density.stress(x, params))
    assert float(density.energy(x, params)[0].abs().max()) < 1e-15


@pytest.mark.parametrize("exponent", [1.3, 4.5])
@pytest.mark.parametrize("mesh", MESHES, ids=["triangles", "quadrilaterals", "tetrahedra"])
def test_the_assembled_tangent_is_the_derivative_of_the_residual(mesh: Mesh, exponent: float) -> None:
    problem, u, params = problem_on(mesh, exponent)
    jacobian = torch.func.jacrev(lambda v: problem.residual(v, params))(u)
    tangent = torch.from_numpy(problem.tangent(u, params).csr().toarray())
    torch.testing.assert_close(tangent, jacobian, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("exponent", [1.5, 4.0])
def test_a_layer_driven_by_a_constant_source_converges_to_its_profile(exponent: float) -> None:
    """u(0) = 0 and no flux at x = 1: flux 1 - x, so u = (p-1)/p (1 - (1-x)^(p/(p-1))) for k = source = 1."""
    errors = []
    for across in (8, 16):
        mesh = rectangle(across, 1, shape=Shape.TRIANGLE)
        problem = PLaplacian(mesh, exponent, 1e-3, [mesh.fixed("left")])
        one = torch.ones((), dtype=torch.float64)
        params = {"flow": {"conductivity": one}, "source": one}
        x = mesh.coordinates[:, 0]
        of_two = (x - 0.5 * x**2)[problem.constraints.free]
        newton = Newton(step=Armijo(decrease=0.3), tolerance=Tolerance(1e-9), max_iterations=200)
        u = problem.expand(bilevel.argmin(problem, of_two, params, solver=newton).u, params)[:, 0]
        exact = (exponent - 1.0) / exponent * (1.0 - (1.0 - x) ** (exponent / (exponent - 1.0)))
        errors.append(float((u - exact).abs().max()))
    assert errors[0] < 0.02
    assert errors[1] < 0.6 * errors[0]


def test_inflow_at_nodes_balances_the_flux_through_a_held_side() -> None:
    mesh = rectangle(4, 3, shape=Shape.TRIANGLE)
    problem = PLaplacian(mesh, 3.0, 1e-3, [mesh.fixed("left")])
    inflow = torch.zeros(len(mesh.coordinates), dtype=torch.float64)
    inflow[7], inflow[13] = 2.0, -0.5
    params = {"flow": {"conductivity": torch.tensor(1.7, dtype=torch.float64)}, "wells": inflow}
    start = torch.linspace(0.0, 1.0, problem.n, dtype=torch.float64)
    u = bilevel.argmin(problem, start, params, solver=Newton(max_iterations=200)).u
    forces = problem.nodal_forces(problem.expand(u, params), params)[:, 0]
    assert float(forces[mesh.nodes_on("left")].sum()) == pytest.approx(-1.5, rel=1e-9)


def test_bad_input_is_refused() -> None:
    mesh = rectangle(2, 2, shape=Shape.TRIANGLE)
    with pytest.raises(InputError, match="p > 1"):
        PLaplacian(mesh, 1.0, 1e-3, [mesh.fixed("left")])
    with pytest.raises(InputError, match="positive threshold"):
        PLaplacian(mesh, 3.0, 0.0, [mesh.fixed("left")])
    with pytest.raises(InputError, match="no constraint prevents"):
        PLaplacian(mesh, 3.0, 1e-3, [])
    with pytest.raises(InputError, match="names node"):
        PLaplacian(mesh, 3.0, 1e-3, [Dirichlet("edge", torch.tensor([99]))])
