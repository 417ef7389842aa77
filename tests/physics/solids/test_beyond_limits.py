"""Bodies whose law has a limit of extension: found below it however large the load, and told where that cannot be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bilevel import ConvergenceError
from bilevel.problem import Params
from physics.constitutive import determinant
from physics.discretisation import Mesh, box
from physics.solids import ExtendedTube, NeoHookean, Solid, Traction

GENT = {"mu": torch.tensor(1.0), "limit": torch.tensor(3.0), "bulk": torch.tensor(100.0)}
TUBE = {"gc": 1.0, "delta": 0.5, "ge": 0.5, "beta": 0.3, "bulk_modulus": 10.0}


def gent(f: Tensor, params: Params) -> Tensor:
    """Gent 1996: the energy grows without bounds as I1 - 3 comes to its limit, and is NaN beyond."""
    ratio = determinant(f)
    excess = (f * f).sum((-2, -1)) * ratio ** (-2 / 3) - 3
    chains = -0.5 * params["mu"] * params["limit"] * torch.log(1 - excess / params["limit"])
    return chains + 0.5 * params["bulk"] * (ratio - 1) ** 2


def stretched(law: object, length: float, cells: int = 2) -> Solid:
    mesh: Mesh = box(cells, cells, cells)
    return Solid(mesh, law, None, [mesh.fixed("left"), mesh.fixed("right", value=torch.tensor([length, 0.0, 0.0]))])


@pytest.mark.parametrize("pull", [0.5, 20.0])
def test_a_load_does_not_reach_the_limit(pull: float) -> None:
    mesh = box(2, 2, 2)
    body = Solid(mesh, gent, None, [mesh.fixed("left")], [Traction("pull", "right")])
    params = {"material": GENT, "pull": torch.tensor([pull, 0.0, 0.0])}
    f = body.strain(body.solve(params).u, params)
    excess = (f * f).sum((-2, -1)) * torch.linalg.det(f) ** (-2 / 3) - 3
    assert float(excess.max()) < 3.0
    assert float(body.reactions(body.solve(params).u, params)[:, 0].sum()) == pytest.approx(-pull, rel=1e-8)


@pytest.mark.parametrize(("law", "name", "material"), [(gent, "the law", GENT), (ExtendedTube(), "ExtendedTube", TUBE)])
def test_a_support_that_moves_beyond_it_is_told_where(law: object, name: str, material: Params) -> None:
    with pytest.raises(
        ConvergenceError, match=rf"{name} has no finite energy at .* largest stretch .* limit of extension"
    ):
        stretched(law, 3.0).solve({"material": material})


def test_a_cell_that_is_turned_inside_out_is_told() -> None:
    with pytest.raises(ConvergenceError, match=r"no finite energy at .*: the cell is turned inside out"):
        stretched(NeoHookean(), -1.5).solve({"material": {"mu": 1.0, "lame_lambda": 2.0}})


def test_a_saddle_of_a_locked_body_is_left_in_few_iterations() -> None:
    """Near incompressibility the stretched cube of linear bricks is unstable by a thousandth of its shear modulus.

    Matrices with the absolute eigenvalues of its elements are far stiffer than that along the way down.
    """
    solution = stretched(NeoHookean(), 0.3, cells=3).solve({"material": {"mu": 1.0, "lame_lambda": 100.0}})
    assert "left it along negative curvature" in solution.report.notes[0]
    assert solution.report.iterations <= 25
