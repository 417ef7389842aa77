"""A user's density from rest: what PyTorch cannot differentiate twice there is refused by a sentence that names the cure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

import bilevel
from bilevel.report import InputError
from physics.constitutive import ElasticLaw, LawParameter, LawParameters, determinant, inverse, power_trace
from physics.constitutive.kinematics import Kinematics, Strain
from physics.discretisation import box, rectangle
from physics.solids import NeoHookean, Solid, Traction

Params = Mapping[str, Tensor]
Psi = Callable[[Tensor, Params], Tensor]


def neo_hookean(volume: Callable[[Tensor], Tensor]) -> Psi:
    def psi(f: Tensor, p: Params) -> Tensor:
        log = torch.log(volume(f))
        return 0.5 * p["mu"] * ((f * f).sum((-2, -1)) - 3.0 - 2.0 * log) + 0.5 * p["lame_lambda"] * log**2

    return psi


def spectral(f: Tensor, p: Params) -> Tensor:
    return p["mu"] * torch.log(torch.linalg.eigvalsh(f.mT @ f)).square().sum(-1)


def singular(f: Tensor, p: Params) -> Tensor:
    return p["mu"] * (torch.linalg.svdvals(f) - 1.0).square().sum(-1)


REFUSED: dict[str, Psi] = {
    "det": neo_hookean(torch.linalg.det),
    "torch.det": lambda f, p: p["K"] * (torch.det(f) - 1.0) ** 2 + (f * f).sum((-2, -1)),
    "eigvalsh": spectral,
    "svdvals": singular,
}
FINE: dict[str, Psi] = {
    "determinant": neo_hookean(determinant),
    "inverse": lambda f, p: p["mu"] * ((f * f).sum((-2, -1)) + inverse(f).square().sum((-2, -1))),
    "slogdet": neo_hookean(lambda f: torch.exp(torch.linalg.slogdet(f)[1])),
    "torch.linalg.inv": lambda f, p: p["mu"] * ((f * f).sum((-2, -1)) + torch.linalg.inv(f).square().sum((-2, -1))),
    "power_trace": lambda f, p: p["mu"] * power_trace(f.mT @ f, torch.tensor([2.0, -1.0])).sum(-1),
    "matrix_exp": lambda f, p: p["mu"] * torch.linalg.matrix_exp(f.mT @ f).diagonal(dim1=-2, dim2=-1).sum(-1),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("plane", [False, True])
def test_what_has_no_stiffness_at_rest_is_refused_at_construction(name: str, plane: bool) -> None:
    mesh, kinematics = (rectangle(1, 1), Kinematics.PLANE_STRAIN) if plane else (box(1, 1, 1), None)
    with pytest.raises(InputError, match=r"take determinant, inverse or power_trace from physics\.constitutive"):
        Solid(mesh, REFUSED[name], kinematics, [mesh.fixed("left")])


@pytest.mark.parametrize("name", FINE)
def test_what_has_one_is_taken(name: str) -> None:
    mesh = box(1, 1, 1)
    solid = Solid(mesh, FINE[name], None, [mesh.fixed("left")])
    values = {"mu": torch.tensor(0.4), "lame_lambda": torch.tensor(1.0)}
    tangent = torch.from_numpy(solid.tangent(solid.start(), {"material": values}).csr().toarray())
    assert tangent.isfinite().all()
    direction = torch.randn(solid.n)
    step = 1e-5
    ahead, behind = (solid.residual(h * direction, {"material": values}) for h in (step, -step))
    assert ((ahead - behind) / (2 * step) - tangent @ direction).norm() < 1e-6 * tangent.norm()


def test_a_density_in_plain_torch_gives_the_field_of_the_law() -> None:
    mesh = box(2, 1, 1)
    params = {
        "material": {"mu": torch.tensor(0.4), "lame_lambda": torch.tensor(1.0)},
        "pull": torch.tensor([0.1, 0.2, 0.0]),
    }
    fields = []
    for law in (NeoHookean(), neo_hookean(determinant)):
        solid = Solid(mesh, law, None, [mesh.fixed("left")], [Traction("pull", "right")])
        fields.append(bilevel.argmin(solid, solid.start(), params).u)
    assert (fields[0] - fields[1]).abs().max() < 1e-9


def test_parameters_that_cannot_be_made_up_are_waited_for() -> None:
    """A list of parameters cannot be made up at construction; the first tangent has the real one."""
    mesh = box(1, 1, 1)

    def psi(f: Tensor, p: list[Tensor]) -> Tensor:
        first, _ = p
        return first * torch.linalg.det(f) ** 2

    solid = Solid(mesh, psi, None, [mesh.fixed("left")])
    with pytest.raises(InputError, match="no finite stress and stiffness at rest"):
        solid.tangent(solid.start(), {"material": [torch.tensor(1.0), torch.tensor(2.0)]})


def test_a_value_at_which_nothing_is_finite_proves_nothing() -> None:
    """Made-up parameters may be nonsense to a density that real ones suit."""
    mesh = box(1, 1, 1)

    def psi(f: Tensor, p: Params) -> Tensor:
        return torch.sqrt(p["k"] - 5.0) * (f - torch.eye(3)).square().sum((-2, -1))

    solid = Solid(mesh, psi, None, [mesh.fixed("left")])
    assert torch.isfinite(solid.value(solid.start(), {"material": {"k": torch.tensor(9.0)}}))


class _Determined(ElasticLaw):
    """A law whose author took torch.linalg.det."""

    parameters = LawParameters(LawParameter("k", "Pa", lower=5.0, upper=6.0))

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return torch.sqrt(params["k"] - 5.0) * (torch.linalg.det(x) - 1.0) ** 2


def test_a_law_is_tried_within_its_bounds() -> None:
    mesh = box(1, 1, 1)
    with pytest.raises(InputError, match="no finite stress and stiffness at rest"):
        Solid(mesh, _Determined(), None, [mesh.fixed("left")])


def test_small_strain_densities_are_tried_at_zero_strain() -> None:
    mesh = rectangle(1, 1)
    with pytest.raises(InputError, match="at rest"):
        Solid(
            mesh,
            lambda e, p: torch.linalg.eigvalsh(e).square().sum(-1),
            Kinematics.PLANE_STRAIN,
            [mesh.fixed("left")],
            strain=Strain.SMALL,
        )
