"""Inelastic bodies through histories of loads: known numbers, element tests, gradients, and what is refused."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

import bilevel
from bilevel.report import ConvergenceError, InputError, NoSolutionError
from bilevel.solvers import Newton, Tolerance
from physics.constitutive import ElasticLaw, Hardening, Kinematics, LawParameter, LawParameters, Strain
from physics.constitutive.inelastic.drucker_prager import DruckerPrager
from physics.constitutive.inelastic.mohr_coulomb import MohrCoulomb
from physics.discretisation import Mesh, box, rectangle
from physics.discretisation.constraints import Dirichlet
from physics.soil.control import Control, Quantity
from physics.soil.element_test import ElementTest, IncrementSchedule, LoadStage, march
from physics.solids import (
    BodyForce,
    ElasticSolid,
    HomogeneousDeformation,
    InelasticSolid,
    J2Plasticity,
    LinearElastic,
    LinearHardening,
    Loading,
    Mode,
    NeoHookean,
    NodalForce,
    Solid,
    Traction,
    Voce,
    history,
    load_history,
)
from physics.solids.history import _continued
from physics.solids.load_path import LoadPath
from physics.solids.plate_with_hole import PlateWithHole

STEEL = {"youngs_modulus": 200e9, "poissons_ratio": 0.3, "yield_stress": 250e6, "hardening_modulus": 5e9}
VOCE = {
    "youngs_modulus": 200e9,
    "poissons_ratio": 0.3,
    "yield_stress": 250e6,
    "saturation_stress": 200e6,
    "saturation_rate": 20.0,
}
TIGHT = Newton(tolerance=Tolerance(relative=1e-12), max_iterations=50)


def numbers(values: dict[str, float]) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def plate() -> tuple[Mesh, list[Any]]:
    mesh = PlateWithHole(0.004, 0.02005, -0.06, -0.045, 0.04, 0.025).mesh(2)
    return mesh, [mesh.fixed("clamp"), Dirichlet("pull", mesh.nodes_on("traction"), [0])]


def pulled(levels: list[float]) -> dict[str, Any]:
    return {"boundary": {"pull": torch.tensor(levels)}}


def test_a_plate_with_a_hole_yields_as_an_independent_assembly_found() -> None:
    """Forces on the pulled end through loading and unloading, from a code that assembled stresses of the same law."""
    mesh, held = plate()
    solid = Solid(mesh, J2Plasticity(), Kinematics.PLANE_STRAIN, held)
    found = load_history(solid, {"material": numbers(STEEL)}, pulled([5e-5, 1.5e-4, 3e-4, 2e-4]), solver=TIGHT)
    force = found.reactions[:, mesh.nodes_on("traction"), 0].sum(1)
    expected = [2069114.5332631054, 4048209.958481948, 4808741.310427046, 666413.1516831871]
    assert force.tolist() == pytest.approx(expected, rel=1e-10)
    assert float(found.state[..., 6].max()) == pytest.approx(0.049644175549662564, rel=1e-10)


def test_steps_that_go_on_alike_begin_where_the_last_one_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = rectangle(6, 3, (2.0, 1.0))
    held = [mesh.fixed("left"), Dirichlet("pull", mesh.nodes_on("right"), [0])]
    solid = Solid(mesh, J2Plasticity(), Kinematics.PLANE_STRAIN, held)
    found, iterations = [], []
    for farthest in (history.FARTHEST, 0.0):
        monkeypatch.setattr(history, "FARTHEST", farthest)
        reports: list[int] = []
        watch = lambda solution, reports=reports: reports.append(solution.report.iterations)  # noqa: E731
        levels = pulled([2e-3, 4e-3, 6e-3, 8e-3, 1e-2])
        found.append(load_history(solid, {"material": numbers(STEEL)}, levels, solver=TIGHT, watch=watch))
        iterations.append(sum(reports[2:]))
    torch.testing.assert_close(found[0].reactions, found[1].reactions, rtol=1e-9, atol=1e-3)
    assert iterations[0] <= 0.7 * iterations[1]


def test_forward_mode_goes_through_increments_that_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = box(2, 1, 1, (2.0, 1.0, 1.0))
    end = mesh.nodes_on("right")
    solid = Solid(mesh, J2Plasticity(), None, [mesh.fixed("left"), Dirichlet("pull", end, [0])])
    monkeypatch.setattr(history, "FIRST_TRY", Newton(tolerance=history.EQUILIBRIUM.tolerance, max_iterations=1))
    steps, elastic = pulled([6e-3]), {name: value for name, value in numbers(STEEL).items() if name != "yield_stress"}

    def force(stress: Tensor) -> Tensor:
        found = load_history(solid, {"material": {**elastic, "yield_stress": 250e6 * stress}}, steps)
        return found.reactions[-1, end, 0].sum() / 250e6

    one = torch.tensor(1.0)
    moved = torch.vmap(lambda v: torch.func.jvp(force, (one,), (v,))[1])(torch.tensor([1.0, -2.0]))
    slope = (force(one + 1e-4) - force(one - 1e-4)) / 2e-4
    assert moved.tolist() == pytest.approx([float(slope), -2.0 * float(slope)], rel=1e-5)


def test_how_far_loads_go_on() -> None:
    def load(earlier: float, before: float, after: float) -> dict[str, dict[str, Tensor]]:
        names = {"earlier": earlier, "before": before, "after": after}
        return {
            when: {"force": torch.tensor([1e9 * x, 0.0]), "move": torch.tensor(1e-3 * x)} for when, x in names.items()
        }

    assert _continued(load(0.0, 1.0, 2.0)) == pytest.approx(1.0)
    assert _continued(load(1.0, 1.5, 2.5)) == pytest.approx(2.0)
    assert _continued(load(0.0, 1.0, 9.0)) == 3.0
    assert _continued(load(1.0, 2.0, 1.5)) == 0.0
    assert _continued(load(1.0, 2.0, 2.0)) == 0.0
    assert _continued(load(0.0, 0.0, 2.0)) == 0.0


def test_a_block_in_space_yields_as_an_independent_assembly_found() -> None:
    mesh = box(3, 2, 2, (2.0, 1.0, 1.0))
    held = [mesh.fixed("left"), Dirichlet("pull", mesh.nodes_on("right"), [0])]
    solid = Solid(mesh, J2Plasticity(LinearHardening()), None, held)
    found = load_history(solid, {"material": numbers(STEEL)}, pulled([2e-3, 6e-3, 3e-3]), solver=TIGHT)
    force = found.reactions[:, mesh.nodes_on("right"), 0].sum(1)
    assert force.tolist() == pytest.approx([206985647.26262575, 273399450.79765654, -37079020.096281976], rel=1e-10)


def test_saturating_steel_in_pascal_is_solved_in_one_step_and_in_many() -> None:
    mesh, held = plate()
    solid = Solid(mesh, J2Plasticity(Voce()), Kinematics.PLANE_STRAIN, held)
    forces = []
    for levels in ([5e-5], [1e-5, 3e-5, 5e-5]):
        found = load_history(solid, {"material": numbers(VOCE)}, pulled(levels))
        forces.append(float(found.reactions[-1, mesh.nodes_on("traction"), 0].sum()))
    assert forces[0] == pytest.approx(forces[1], rel=1e-3)  # the paths of strain differ a little
    assert forces[0] == pytest.approx(2069093.79, rel=1e-6)


def test_a_cube_in_tension_follows_the_element_test_through_unloading() -> None:
    mesh = box(1, 1, 1)
    slides = [mesh.fixed("left", [0]), mesh.fixed("bottom", [1]), mesh.fixed("front", [2])]
    solid = Solid(mesh, J2Plasticity(), None, [*slides, Dirichlet("pull", mesh.nodes_on("right"), [0])])
    levels = [0.001, 0.004, 0.002, -0.001, 0.003]
    found = load_history(solid, {"material": numbers(STEEL)}, pulled(levels))
    path = LoadStage(Control((Quantity.STRAIN_AXIAL, Quantity.STRESS_RADIAL)), torch.tensor([[e, 0.0] for e in levels]))
    start = solid.law.initial_state(torch.zeros(1, 6)) if isinstance(solid, InelasticSolid) else torch.zeros(1, 7)
    point = march(J2Plasticity(), numbers(STEEL), start, IncrementSchedule.of([ElementTest("bar", (path,))])).states
    assert (found.state[:, 0, :, 0] - point[1:, :, 0]).abs().max() < 1e-6 * 250e6
    assert (found.state[:, 0, :, 6] - point[1:, :, 6]).abs().max() < 1e-10
    force = found.reactions[:, mesh.nodes_on("right"), 0].sum(1)
    assert force.tolist() == pytest.approx(point[1:, 0, 0].tolist(), rel=1e-6)


@pytest.mark.parametrize("law", ["steel", "soil", "elastic"])
def test_gradient_of_a_history_in_material_loads_and_initial_state(law: str) -> None:
    mesh = rectangle(2, 1, (2.0, 1.0))
    held = [mesh.fixed("left"), Dirichlet("pull", mesh.nodes_on("right"), [0])]
    made: dict[str, tuple[Any, dict[str, float]]] = {
        "steel": (J2Plasticity(), {**STEEL, "youngs_modulus": 200.0, "yield_stress": 0.25, "hardening_modulus": 5.0}),
        "soil": (
            DruckerPrager(),
            {
                "youngs_modulus": 20.0,
                "poissons_ratio": 0.3,
                "cohesion": 0.02,
                "friction_angle": math.radians(30),
                "dilatancy_angle": math.radians(10),
            },
        ),
        "elastic": (NeoHookean(), {"mu": 0.4, "lame_lambda": 1.0}),
    }
    kind, values = made[law]
    solid = Solid(mesh, kind, Kinematics.PLANE_STRAIN, held, [Traction("top", "top")])
    size, solver = {"steel": 1.0, "soil": -1.0, "elastic": 50.0}[law], None if law == "elastic" else TIGHT
    params: dict[str, Any] = {
        "material": numbers(values),
        "levels": size * torch.tensor([1e-3, 4e-3, 2e-3]),
        "top": torch.tensor([[0.0, 0.0], [0.0, -1e-3], [0.0, -2e-3]]),
    }
    if isinstance(solid, InelasticSolid):
        params["begin"] = solid.begin()
        params["begin"]["state"][..., :3] -= 1e-3

    def work(p: dict[str, Any]) -> Tensor:
        given = {"material": p["material"], **({"begin": p["begin"]} if "begin" in p else {})}
        found = load_history(solid, given, {"boundary": {"pull": p["levels"]}, "top": p["top"]}, solver=solver)
        return (found.reactions[:, mesh.nodes_on("right"), 0].sum(1) * 1e2).square().sum() + found.displacement.sum()

    def along(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: along(part) for name, part in value.items()}
        return 0.01 * torch.randn_like(value) * value.abs()

    check = bilevel.check_gradient(work, params, direction=along(params))
    assert check.best <= 1e-6


def test_elastic_and_inelastic_bodies_agree_before_yielding() -> None:
    mesh = rectangle(3, 2)
    held, loads = [mesh.fixed("left")], [Traction("pull", "right"), NodalForce("tip", mesh.nodes_on("right")[:1])]
    elastic = {name: STEEL[name] for name in ("youngs_modulus", "poissons_ratio")}
    steps = {"pull": torch.tensor([[1e6, 0.0], [1e6, 2e6]]), "tip": torch.tensor([[0.0, 0.0], [1e5, 0.0]])}
    fields = []
    for law, values in ((LinearElastic(), elastic), (J2Plasticity(), STEEL)):
        solid = Solid(mesh, law, Kinematics.PLANE_STRAIN, held, loads)
        found = load_history(solid, {"material": numbers(values)}, steps)
        fields.append(found.displacement)
        given = {"material": numbers(values), "pull": steps["pull"][1], "tip": steps["tip"][1]}
        given |= {"begin": solid.begin()} if isinstance(solid, InelasticSolid) else {}
        u = solid.solve(given).u
        fields.append(torch.stack([solid.strain(u, given).sum((0, 1)), solid.stress(u, given).sum((0, 1))]))
    assert (fields[0] - fields[2]).abs().max() < 1e-9 * fields[0].abs().max()
    assert (fields[1] - fields[3]).abs().amax((1, 2)).tolist() == pytest.approx([0.0, 0.0], abs=1e-1)


def test_a_function_and_a_law_each_become_their_kind_of_body() -> None:
    mesh = box(1, 1, 1)
    held = [mesh.fixed("left")]
    assert isinstance(Solid(mesh, NeoHookean(), None, held), ElasticSolid)
    assert isinstance(Solid(mesh, lambda f, p: p["k"] * (f * f).sum((-2, -1)), None, held), ElasticSolid)
    assert isinstance(Solid(mesh, law=J2Plasticity(), constraints=held), InelasticSolid)


class OnlyEnergy(ElasticLaw):
    """A law that does not split its energy."""

    parameters = LawParameters(LawParameter("k", "Pa", lower=0.0))

    def energy(self, x: Tensor, params: Any) -> Tensor:
        return params["k"] * (x.mT @ x - torch.eye(x.shape[-1])).square().sum((-2, -1))


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "plane stress": (
        J2Plasticity(),
        {"kinematics": Kinematics.PLANE_STRESS},
        "J2Plasticity is an inelastic law, which has no plane-stress form",
    ),
    "plane stress of rubber": (
        NeoHookean(),
        {"kinematics": Kinematics.PLANE_STRESS},
        "NeoHookean has no plane-stress form; use plane strain",
    ),
    "mean dilatation": (
        J2Plasticity(),
        {"mean_dilatation": True},
        "without an energy whose dilatation could be averaged",
    ),
    "mean dilatation of one energy": (OnlyEnergy(), {"mean_dilatation": True}, "OnlyEnergy does not"),
    "strain": (J2Plasticity(), {"strain": Strain.SMALL}, "of the small strain; leave `strain` out"),
    "no law of a solid": (LinearHardening(), {}, "LinearHardening is no law of a solid"),
    "kinematics": (J2Plasticity(), {"kinematics": None}, "a plane solid needs its kinematics"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_combinations_are_refused_at_construction(case: str) -> None:
    law, options, message = WRONG[case]
    mesh = rectangle(1, 1)
    with pytest.raises(InputError, match=message):
        Solid(mesh, law, **{"kinematics": Kinematics.PLANE_STRAIN, "constraints": [mesh.fixed("left")], **options})


def test_an_inelastic_law_has_no_homogeneous_energy() -> None:
    with pytest.raises(InputError, match="J2Plasticity is no Hyperelastic law"):
        HomogeneousDeformation(J2Plasticity(), Loading.of([Mode.UNIAXIAL], torch.tensor([1.1])))  # type: ignore[arg-type]


PARAMS: dict[str, tuple[dict[str, Any], str]] = {
    "no beginning": ({"material": numbers(STEEL)}, r"params\['begin'\] is missing"),
    "no material": ({"begin": {}}, r"params\['material'\] is missing"),
    "missing parameter": (
        {"material": {**numbers(STEEL), "begin": 0}, "begin": {}},
        r"params\['material'\] has 'begin', but knows only youngs_modulus",
    ),
    "misspelt": (
        {"material": {"youngs_modulus": 1.0, "nu": 0.3}},
        r"params\['material'\] needs the parameter poissons_ratio",
    ),
}


@pytest.mark.parametrize("case", PARAMS)
def test_incomplete_parameters_are_one_sentence(case: str) -> None:
    params, message = PARAMS[case]
    mesh = rectangle(1, 1)
    solid = Solid(mesh, J2Plasticity(), Kinematics.PLANE_STRAIN, [mesh.fixed("left")])
    with pytest.raises(InputError, match=message):
        solid.residual(torch.zeros(solid.n), params)


def test_parameters_out_of_bounds_are_one_sentence() -> None:
    mesh = rectangle(1, 1)
    solid = Solid(mesh, J2Plasticity(), Kinematics.PLANE_STRAIN, [mesh.fixed("left")], [Traction("pull", "right")])
    values = numbers({**STEEL, "poissons_ratio": 0.7})
    with pytest.raises(InputError, match=r"J2Plasticity: poissons_ratio = 0\.7\s+must lie below 0\.5"):
        load_history(solid, {"material": values}, {"pull": torch.ones(1, 2)})


def test_histories_say_which_step_failed_and_which_entries_may_change() -> None:
    mesh = rectangle(2, 1)
    solid = Solid(mesh, J2Plasticity(), Kinematics.PLANE_STRAIN, [mesh.fixed("left")], [Traction("pull", "right")])
    params = {"material": numbers({**STEEL, "hardening_modulus": 0.0})}
    beyond = torch.tensor([[1e6, 0.0], [0.0, 5e9]])
    with pytest.raises(ConvergenceError, match="load step 2: "):
        load_history(solid, params, {"pull": beyond})
    with pytest.raises(InputError, match="of loads and of boundary values"):
        load_history(solid, params, {"material": params["material"]})


class Falling(Hardening):
    """A flow stress that falls faster than unloading releases stress."""

    parameters = LawParameters(LawParameter("yield_stress", "Pa", lower=0.0))

    def flow_stress(self, plastic_strain: Tensor, params: Any) -> Tensor:
        return params["yield_stress"] * (1.0 - 1e6 * plastic_strain)


def test_softening_beyond_release_is_said() -> None:
    law = Falling()
    with pytest.raises(ConvergenceError, match="does it fall faster than unloading"):
        law.growth(torch.tensor([2.0]), torch.zeros(1), torch.tensor(1.0), {"yield_stress": torch.tensor(1.0)})


def block_in_compression(dilatancy: float) -> tuple[InelasticSolid, dict[str, Any], float]:
    """A block without lateral pressure, and what it bears: 2 c cos(phi) / (1 - sin(phi)), here 34.6 kPa."""
    mesh = rectangle(1, 1)
    held = [mesh.fixed("bottom", [1]), mesh.fixed("left", [0])]
    block = InelasticSolid(mesh, MohrCoulomb(), Kinematics.PLANE_STRAIN, held, [Traction("press", "top")])
    values = {"youngs_modulus": 2e7, "poissons_ratio": 0.3, "cohesion": 1e4, "friction_angle": 0.5236}
    strength = 2e4 * math.cos(0.5236) / (1 - math.sin(0.5236))
    return block, {"material": numbers({**values, "dilatancy_angle": dilatancy})}, strength


@pytest.mark.parametrize("dilatancy", [0.0, 0.1, 0.5236])
def test_a_load_beyond_the_strength_is_named_as_a_limit_load(dilatancy: float) -> None:
    block, params, strength = block_in_compression(dilatancy)
    steps = {"press": torch.tensor([[0.0, -2e4], [0.0, -5e4]])}
    with pytest.raises(NoSolutionError, match=r"load step 2: the limit load is reached at ([\d.]+) %") as caught:
        load_history(block, params, steps)
    share = float(re.findall(r"([\d.]+) %", str(caught.value))[0]) / 100
    assert 2e4 + share * 3e4 == pytest.approx(strength, rel=1e-4)


def test_the_path_of_equilibria_ends_at_the_load_that_is_asked_for() -> None:
    """Of a block whose fibres yield one after the other, up to 99.99 % of the load under which the last one does."""
    mesh = rectangle(3, 3)
    x = mesh.coordinates.clone()
    x[:, 0] += 0.3 * x[:, 0] * (1 - x[:, 1])
    mesh = mesh.moved(x)
    held = [mesh.fixed("bottom"), Dirichlet("axis", mesh.nodes_on("left"), [0])]
    body = InelasticSolid(mesh, MohrCoulomb(), Kinematics.PLANE_STRAIN, held, [Traction("press", "top")])
    _, params, _ = block_in_compression(0.0)
    params = {**params, "begin": body.begin()}

    def part(share: float) -> dict[str, Any]:
        return {**params, "press": torch.tensor([0.0, -share * top])}

    top = 1e6
    with pytest.raises(ConvergenceError, match="the limit load is reached") as caught:
        LoadPath(body, part, body.start()).end()
    top *= 0.9999 * float(re.findall(r"([\d.]+) %", str(caught.value))[0]) / 100
    u = LoadPath(body, part, body.start()).end()
    forces = body.residual(u, part(1.0))
    assert float(forces.norm()) < 1e-9 * float(body.magnitude(u, part(1.0)).norm())
    yields = body.law.yield_function(body.end(u, part(1.0))["state"].flatten(0, 1), params["material"])  # type: ignore[attr-defined]
    assert float(yields.max()) < 1e-6 * 1e4
    assert int((yields > -1e-6 * 1e4).sum()) > len(yields) / 4


def test_a_weight_that_the_body_cannot_carry_at_rest_is_named() -> None:
    """A block under its weight, which is on from the start: 300 kPa at its foot, with a strength of 34.6 kPa."""
    mesh = rectangle(1, 2)
    held = [mesh.fixed("bottom", [1]), mesh.fixed("left", [0])]
    loads = [Traction("press", "top"), BodyForce("weight")]
    block = InelasticSolid(mesh, MohrCoulomb(), Kinematics.PLANE_STRAIN, held, loads)
    _, params, _ = block_in_compression(0.1)
    given = {**params, "weight": torch.tensor([0.0, -3e5])}
    with pytest.raises(ConvergenceError, match="load step 1: no equilibrium was found although no load changes"):
        load_history(block, given, {"press": torch.zeros(1, 2)})
