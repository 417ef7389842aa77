"""Elastic and inelastic laws side by side in one body: against bodies of one law, and derivatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bilevel.torch_internals import pytree
from physics.constitutive import Kinematics
from physics.constitutive.inelastic.zoned import ZonedLaw
from physics.discretisation import rectangle
from physics.discretisation.constraints import Dirichlet
from physics.solids import J2Plasticity, LinearElastic, NeoHookean, Solid, load_history
from physics.solids.solid import InelasticSolid

STEEL = {"youngs_modulus": 200e6, "poissons_ratio": 0.3, "yield_stress": 1e6, "hardening_modulus": 5e6}
RUBBER = {"mu": 1e6, "lame_lambda": 4e6}


def numbers(values: dict[str, float]) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def body(law: Any, kinematics: Kinematics = Kinematics.PLANE_STRAIN) -> Solid:
    mesh = rectangle(2, 2, order=2)
    mesh = mesh.moved(mesh.coordinates + torch.tensor([1.0, 0.0]))
    return Solid(mesh, law, kinematics, [mesh.fixed("left"), Dirichlet("pull", mesh.nodes_on("right"), [0, 1])])


def pulled(size: float) -> dict[str, Any]:
    return {"boundary": {"pull": size * torch.tensor([[[1.0, 0.3]], [[2.0, -0.5]]])}}


@pytest.mark.parametrize("kinematics", [Kinematics.PLANE_STRAIN, Kinematics.AXISYMMETRIC])
@pytest.mark.parametrize(("zone", "law", "size"), [(0, NeoHookean(), 0.2), (1, J2Plasticity(), 0.01)])
def test_a_zone_that_is_the_whole_body_is_a_body_of_one_law(
    zone: int, law: Any, size: float, kinematics: Kinematics
) -> None:
    values = RUBBER if zone == 0 else STEEL
    alone = body(law, kinematics)
    both = body(ZonedLaw([NeoHookean(), J2Plasticity()]), kinematics)
    material = {**numbers({**STEEL, **RUBBER}), "zone": torch.full((4,), float(zone))}
    one = load_history(alone, {"material": numbers(values)}, pulled(size))
    found = load_history(both, {"material": material}, pulled(size))
    assert (found.displacement - one.displacement).abs().max() < 1e-8 * size
    assert (found.reactions - one.reactions).abs().max() < 1e-8 * one.reactions.abs().max()


def test_small_strain_laws_of_the_whole_strain_and_of_increments_are_the_same() -> None:
    elastic = numbers({"youngs_modulus": 200e6, "poissons_ratio": 0.3})
    one = load_history(body(LinearElastic()), {"material": elastic}, pulled(0.1))
    both = body(ZonedLaw([LinearElastic(), LinearElastic()]))
    material = {**elastic, "zone": torch.tensor([0.0, 1.0, 1.0, 0.0])}
    found = load_history(both, {"material": material}, pulled(0.1))
    assert (found.displacement - one.displacement).abs().max() < 1e-10
    assert (found.reactions - one.reactions).abs().max() < 1e-8 * one.reactions.abs().max()


def mixed(kinematics: Kinematics = Kinematics.PLANE_STRAIN) -> tuple[InelasticSolid, dict[str, Tensor]]:
    solid = body(ZonedLaw([NeoHookean(), J2Plasticity()]), kinematics)
    assert isinstance(solid, InelasticSolid)
    zone = torch.tensor([0.0, 1.0, 1.0, 0.0])
    return solid, {**numbers({**STEEL, **RUBBER}), "zone": zone}


def test_the_stress_at_the_end_of_an_increment_is_cauchys() -> None:
    """Of uniform stretch, where both zones' stresses are known: neo-Hooke's mu (F F' - I) / J + lambda ln J / J I."""
    solid, material = mixed()
    u = 0.2 * solid.mesh.coordinates[:, :1] * torch.tensor([1.0, 0.0])
    params = {"material": material, "begin": solid.begin(), "boundary": {"pull": torch.zeros(2)}}
    measured = solid.material.operator.apply(u)
    state = solid._flux.state(solid.material.measure.state(measured), solid.fields(solid.material, params))
    rubber = state[material["zone"] == 0][..., :6].reshape(-1, 6)
    log = torch.log(torch.tensor(1.2))
    along, across = 1e6 * 0.44 / 1.2 + 4e6 * log / 1.2, 4e6 * log / 1.2
    expected = torch.stack([along, across, across, *torch.zeros(3)])
    assert (rubber - expected).abs().max() < 1e-6 * float(along)


def test_derivatives_of_a_history_of_both() -> None:
    """Against a difference, in all parameters and in the stroke at once, along an axis of revolution."""
    solid, material = mixed(Kinematics.AXISYMMETRIC)
    zone = material.pop("zone")

    def work(p: dict[str, Any]) -> Tensor:
        found = load_history(solid, {"material": {**p["material"], "zone": zone}}, {"boundary": {"pull": p["stroke"]}})
        weights = torch.linspace(0.5, 1.5, found.reactions[0].numel()).reshape(found.reactions.shape[1:])
        return (weights * found.reactions[-1]).square().sum() / 1e8 + (weights * found.displacement[-1]).sum()

    torch.manual_seed(0)
    params = {"material": material, "stroke": 0.05 * torch.tensor([[[1.0, 0.3]], [[2.0, 0.5]]])}
    along = {
        "material": {name: 0.01 * torch.randn(()) * value for name, value in material.items()},
        "stroke": 0.01 * params["stroke"],  # type: ignore[operator]
    }

    def at(step: Tensor) -> Tensor:
        return work(pytree.tree_map(lambda x, move: x + step * move, params, along))

    step = torch.zeros((), requires_grad=True)
    (slope,) = torch.autograd.grad(at(step), step)
    with torch.no_grad():
        difference = (at(torch.tensor(1e-3)) - at(torch.tensor(-1e-3))) / 2e-3
    assert abs(float(slope / difference) - 1) < 1e-5
