"""Biot consolidation against Terzaghi's and Mandel's series, and its gradients."""

from __future__ import annotations

import pytest
import torch

from physics.discretisation.constraints import Dirichlet, Tie
from physics.soil.consolidation import Consolidation, mandel_pressure, taylor_hood, terzaghi_degree

YOUNG, POISSON, MOBILITY, LOAD = 10e6, 0.2, 1e-10, 1e5
SOIL = {
    "youngs_modulus": torch.tensor(YOUNG),
    "poissons_ratio": torch.tensor(POISSON),
    "mobility": torch.tensor(MOBILITY),
    "storage": torch.tensor(0.0),
    "biot": torch.tensor(1.0),
}
OEDOMETRIC = YOUNG * (1 - POISSON) / ((1 + POISSON) * (1 - 2 * POISSON))
CV = MOBILITY * OEDOMETRIC


def graded(end: float, count: int) -> torch.Tensor:
    """Time steps that grow geometrically and sum to `end`."""
    steps = 1.15 ** torch.arange(count)
    return end * steps / steps.sum()


def column(cells: int = 24) -> tuple[Consolidation, torch.Tensor, torch.Tensor]:
    mesh, water = taylor_hood(1, cells, (0.1, 1.0))
    top = mesh.nodes_on("top")
    supports = [
        mesh.fixed("bottom", [1]),
        mesh.fixed("left", [0]),
        mesh.fixed("right", [0]),
        Tie("plate", top[1:], top[:1].expand(len(top) - 1), [1]),
    ]
    problem = Consolidation(mesh, water, supports, [water.fixed("top")], pressure_unit=LOAD, theta=0.55)
    force = torch.zeros_like(mesh.coordinates)
    force[top[0], 1] = -LOAD * 0.1
    return problem, force, top


def test_terzaghi_degree_of_consolidation() -> None:
    problem, force, top = column()
    steps = graded(0.197 / CV, 40)
    displacement, _ = problem.march({"material": SOIL, "force": force}, steps)
    final = LOAD / OEDOMETRIC
    degree = -displacement[:, top[0], 1] / final
    assert degree[-1].item() == pytest.approx(0.5, abs=0.005)
    series = terzaghi_degree(CV * steps.cumsum(0))
    assert terzaghi_degree(torch.tensor(0.197)).item() == pytest.approx(0.5, abs=1e-3)
    late = series > 0.15
    assert (degree[late] / series[late] - 1).abs().max().item() <= 0.01


def test_mandel_cryer_overshoot() -> None:
    """The pressure at the centre first rises above its undrained value, then follows Mandel's series within one percent."""
    mesh, water = taylor_hood(12, 2, (1.0, 0.5))
    top = mesh.nodes_on("top")
    supports = [
        mesh.fixed("bottom", [1]),
        mesh.fixed("left", [0]),
        Tie("plate", top[1:], top[:1].expand(len(top) - 1), [1]),
    ]
    problem = Consolidation(
        mesh, water, supports, [Dirichlet("drain", water.nodes_on("right"))], pressure_unit=LOAD, theta=0.55
    )
    force = torch.zeros_like(mesh.coordinates)
    force[top[0], 1] = -LOAD
    steps = graded(1.0 / CV, 50)
    _, pressure = problem.march({"material": SOIL, "force": force}, steps)
    time_factor = CV * steps.cumsum(0)
    centre = water.nodes_where(lambda x: (x[:, 0] < 1e-9) & (x[:, 1] < 1e-9))[0]
    found = pressure[:, centre] / (0.5 * LOAD)
    series = mandel_pressure(time_factor, undrained=0.5, poisson=POISSON)
    after = (time_factor > 0.01) & (series > 0.05)
    assert found.max().item() > 1.05
    assert (found[after] - series[after]).abs().max().item() <= 0.01
    assert found.max().item() == pytest.approx(series.max().item(), rel=0.01)


def test_gradient_of_the_settlement() -> None:
    problem, force, top = column(3)
    steps = graded(0.2 / CV, 4)
    names = ["youngs_modulus", "poissons_ratio", "mobility", "biot"]
    base = torch.stack([SOIL[name] for name in names])

    def settlement(scale: torch.Tensor) -> torch.Tensor:
        material = {**SOIL, "storage": torch.tensor(1e-8), **dict(zip(names, (base * scale).unbind()))}
        return 1e3 * problem.march({"material": material, "force": force}, steps)[0][-1, top[0], 1]

    scale = torch.tensor([1.0, 1.0, 1.0, 0.9], requires_grad=True)
    settlement(scale).backward()
    assert scale.grad is not None
    for k, e in enumerate(torch.eye(4)):
        with torch.no_grad():
            difference = (settlement(scale + 1e-5 * e) - settlement(scale - 1e-5 * e)) / 2e-5
        assert scale.grad[k].item() == pytest.approx(difference.item(), rel=1e-6, abs=1e-8)
