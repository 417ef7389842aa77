"""Element matrices with absolute eigenvalues, and Newton's method on energies that are not convex."""

import pytest
import torch

from bilevel import Newton, Tolerance, argmin
from physics.constitutive.kinematics import Kinematics
from physics.discretisation import rectangle
from physics.local.assembly import component_pairs
from physics.local.definite import absolute
from physics.local.energy import LocalEnergy
from physics.solids import NeoHookean, Solid


def planes_of(matrices: torch.Tensor, components: int) -> torch.Tensor:
    """Matrices (e, A C, A C), node by node, as planes."""
    nodes = matrices.shape[-1] // components
    blocks = matrices.unflatten(-2, (nodes, components)).unflatten(-1, (nodes, components))
    return torch.stack([blocks[:, :, i, :, k] for i, k in component_pairs(components)])


@pytest.mark.parametrize(("nodes", "components"), [(3, 1), (4, 2), (4, 3)])
def test_eigenvalues_become_their_absolute_values(nodes, components):
    generator = torch.Generator().manual_seed(nodes + components)
    matrices = torch.randn(5, nodes * components, nodes * components, generator=generator, dtype=torch.float64)
    matrices = matrices + matrices.mT
    matrices[0] = matrices[0] @ matrices[0]  # positive semidefinite already
    values, vectors = torch.linalg.eigh(matrices)
    expected = planes_of(vectors @ (values.abs().unsqueeze(-1) * vectors.mT), components)
    planes = planes_of(matrices, components)
    found = absolute(planes)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[:, 0], planes[:, 0], rtol=0.0, atol=0.0)
    definite = planes[:, :1]
    assert absolute(definite) is definite


def test_a_bar_that_is_stretched_far_needs_a_tenth_of_the_factorisations(monkeypatch):
    """Against multiples of the identity, from the same start: 13 to 20 times fewer where these arrive at all."""
    mesh = rectangle(20, 6, (3.0, 1.0))
    solid = Solid(mesh, NeoHookean(), Kinematics.PLANE_STRAIN, [mesh.fixed("left"), mesh.fixed("right")])
    mu, lame_lambda = torch.tensor(1.0, dtype=torch.float64), torch.tensor(50.0, dtype=torch.float64)
    end = torch.tensor([3.0, 1.0], dtype=torch.float64)
    params = {"material": {"mu": mu, "lame_lambda": lame_lambda}, "boundary": {"right": end}}
    solver = Newton(tolerance=Tolerance(1e-8), max_iterations=200)
    filtered = argmin(solid, solid.start(), params, solver=solver)
    assert filtered.report.counts.factorisations <= 45
    monkeypatch.setattr(LocalEnergy, "definite_tangent", lambda *_: None)
    shifted = argmin(solid, solid.start(), params, solver=solver, on_fail="ignore")
    print(filtered.report.counts.factorisations, shifted.report.counts.factorisations)
    assert shifted.report.counts.factorisations > 3 * filtered.report.counts.factorisations
    if shifted.report.converged:
        torch.testing.assert_close(shifted.u, filtered.u, rtol=1e-5, atol=1e-6)
