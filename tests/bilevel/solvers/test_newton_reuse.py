"""Newton's method on large unsymmetric problems: fewer factorisations, the same solution and gradient."""

import torch

import bilevel
from physics.discretisation import rectangle
from physics.flow import NonlinearDiffusion, QuadraticConductivity


def solve(cells: int) -> tuple[bilevel.Solution, torch.Tensor]:
    mesh = rectangle(cells, cells)
    flow = NonlinearDiffusion(mesh, QuadraticConductivity(), [mesh.fixed("left", value=1.0), mesh.fixed("right")])
    k = torch.randn(len(mesh.cells), generator=torch.Generator().manual_seed(0), dtype=torch.float64).exp()
    k.requires_grad_()
    params = {"flow": {"conductivity": k}, "source": torch.tensor(1.0, dtype=torch.float64)}
    solution = bilevel.root(flow, flow.start(), params)
    (gradient,) = torch.autograd.grad(solution.u.square().sum(), k)
    return solution, gradient


def test_late_iterations_use_an_earlier_factorisation(monkeypatch) -> None:
    direct, gradient = solve(40)
    monkeypatch.setattr("bilevel.linalg.direct.pardiso.REUSED_FROM", 100)
    reused, same = solve(40)
    assert direct.report.counts.factorisations == direct.report.iterations
    assert reused.report.counts.factorisations < reused.report.iterations <= direct.report.iterations + 1
    torch.testing.assert_close(reused.u, direct.u, rtol=0.0, atol=1e-9)
    torch.testing.assert_close(same, gradient, rtol=1e-8, atol=1e-10 * float(gradient.abs().max()))
    assert reused.gradient is not None
    assert reused.gradient.relative_error < 1e-8
