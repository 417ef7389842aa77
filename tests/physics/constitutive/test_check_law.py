"""`check_law` passes what is right, our own laws among it, and names what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from bilevel.report import InputError
from physics.constitutive import ElasticLaw, Hyperelastic, InelasticLaw, LawParameter, LawParameters, laws, make_law
from physics.constitutive.inelastic.hardening import Hardening, Swift, Voce
from physics.constitutive.inelastic.j2 import J2Plasticity
from physics.constitutive.testing import check_law
from physics.solids import NeoHookean

Params = Mapping[str, Tensor]
FRICTIONAL = {
    "youngs_modulus": 20e6, "poissons_ratio": 0.3, "cohesion": 10e3, "friction_angle": 0.5, "dilatancy_angle": 0.1,
}  # fmt: skip
CLAY = {"compression_index": 0.077, "swelling_index": 0.0066, "critical_ratio": 1.2}
SAND = {
    "friction_angle": 0.576, "granular_hardness": 1e9, "hardness_exponent": 0.25, "void_ratio_min": 0.55,
    "void_ratio_critical": 0.95, "void_ratio_max": 1.05, "pyknotropy": 0.25, "barotropy": 1.5,
}  # fmt: skip
INTERGRANULAR = {
    "intergranular_radius": 5e-3, "transverse_stiffness": 2.0, "reversal_stiffness": 5.0,
    "intergranular_growth": 0.5, "intergranular_exponent": 2.0,
}  # fmt: skip
STEEL = {"youngs_modulus": 200e9, "poissons_ratio": 0.3, "yield_stress": 250e6}
ELASTIC = {
    "linear_elastic": {"youngs_modulus": 2.0, "poissons_ratio": 0.3},
    "neo_hookean": {"mu": 0.4, "lame_lambda": 2.0},
    "mooney_rivlin": {"c10": 0.2, "c01": 0.05, "bulk_modulus": 3.0},
    "yeoh": {"c1": 0.2, "c2": -0.01, "c3": 0.002, "bulk_modulus": 3.0},
    "ogden": {
        "mu_1": 0.6, "alpha_1": 1.3, "mu_2": 0.01, "alpha_2": 5.0, "mu_3": -0.01, "alpha_3": -2.0, "bulk_modulus": 3.0,
    },
    "extended_tube": {"gc": 0.2, "delta": 0.1, "ge": 0.2, "beta": 0.2, "bulk_modulus": 3.0},
}  # fmt: skip
INELASTIC: dict[str, tuple[dict[str, float], dict[str, float], float]] = {
    "drucker_prager": (FRICTIONAL, {}, 1e-2),
    "mohr_coulomb": (FRICTIONAL, {}, 1e-2),
    "j2_plasticity": ({**STEEL, "hardening_modulus": 5e9}, {}, 1e-2),
    "cam_clay_constant_shear_modulus": (
        {**CLAY, "shear_modulus": 8e6}, {"void_ratio": 0.8, "preconsolidation": 1.2e5}, 1e-3,
    ),
    "cam_clay_constant_poissons_ratio": (
        {**CLAY, "poissons_ratio": 0.3}, {"void_ratio": 0.8, "preconsolidation": 1.2e5}, 1e-3,
    ),
    "hypoplastic": (SAND, {"void_ratio": 0.7}, 1e-3),
    "hypoplastic_intergranular": (
        {**SAND, **INTERGRANULAR}, {"void_ratio": 0.7, "h_xx": 2e-3, "h_yy": -1e-3, "h_zz": -1e-3}, 1e-3,
    ),
}  # fmt: skip
LONG = (
    "cam_clay_constant_shear_modulus",
    "cam_clay_constant_poissons_ratio",
    "hypoplastic",
    "hypoplastic_intergranular",
)
PRESSED = torch.tensor([-1.1e5, -1e5, -1e5, 0.0, 0.0, 0.0])


def numbers(values: Mapping[str, float]) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_every_law_of_ours_is_here() -> None:
    ours = {name for name, law in laws(ElasticLaw).items() if law.__module__.startswith("physics.")}
    assert ours == set(ELASTIC)
    ours = {name for name, law in laws(InelasticLaw).items() if law.__module__.startswith("physics.")}
    assert ours == set(INELASTIC)


@pytest.mark.parametrize("size", [pytest.param(1e-3, marks=pytest.mark.slow), 0.1])
@pytest.mark.parametrize("name", ELASTIC)
def test_elastic_laws_hold(name: str, size: float) -> None:
    check_law(make_law(name, ElasticLaw), numbers(ELASTIC[name]), size=size)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in INELASTIC]
)
def test_inelastic_laws_hold(name: str) -> None:
    values, variables, size = INELASTIC[name]
    law = make_law(name, InelasticLaw)
    stress = torch.zeros(6) if name == "j2_plasticity" else PRESSED
    check_law(law, numbers(values), law.initial_state(stress, **numbers(variables)), size=size)


@pytest.mark.parametrize(
    ("hardening", "values"),
    [
        (Voce(), {"saturation_stress": 200e6, "saturation_rate": 20.0}),
        (Swift(), {"reference_strain": 0.01, "hardening_exponent": 0.2}),
    ],
)
def test_steel_of_other_hardening_holds(hardening: Hardening, values: dict[str, float]) -> None:
    check_law(J2Plasticity(hardening), numbers({**STEEL, **values}))


K = LawParameters(LawParameter("k", "Pa", lower=0.0))


def square(x: Tensor, params: Params) -> Tensor:
    strain = x.mT @ x - torch.eye(x.shape[-1], dtype=x.dtype)
    return params["k"] * strain.square().sum((-2, -1))


class WrongStress(ElasticLaw):
    parameters = K

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return square(x, params)

    def stress(self, x: Tensor, params: Params) -> Tensor:
        return 1.001 * super().stress(x, params)


class WrongTangent(ElasticLaw):
    parameters = K

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return square(x, params)

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        return super().tangent(x, params, state_dims).transpose(-4, -3)


class Stressed(ElasticLaw):
    parameters = K

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return params["k"] * (x * x).sum((-2, -1))


class Turning(ElasticLaw):
    parameters = K

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return params["k"] * (x - torch.eye(3)).square().sum((-2, -1))


class Anisotropic(Hyperelastic):
    parameters = K

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return square(x, params) + params["k"] * ((x.mT @ x)[..., 0, 0] - 1.0) ** 2


class Undeclared(ElasticLaw):
    parameters = LawParameters()

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return square(x, params)


class Unused(ElasticLaw):
    parameters = K + LawParameters(LawParameter("c"))

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return square(x, params)


class Cut(ElasticLaw):
    """The graph is cut, so that derivatives in k vanish."""

    parameters = K

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return square(x, {"k": params["k"].detach()})


WRONG = {
    WrongStress: "stress is not the derivative of the energy",
    WrongTangent: "tangent is not the derivative of the stress",
    Stressed: "has a stress at rest",
    Turning: "not indifferent to rotation",
    Anisotropic: "not that of its principal stretches",
    Undeclared: "uses k, which it does not declare",
    Unused: "declares c, which it does not use",
    Cut: "derivative in k is wrong",
}


@pytest.mark.parametrize("law", WRONG, ids=lambda law: law.__name__)
def test_what_is_wrong_is_named(law: type[ElasticLaw]) -> None:
    with pytest.raises(AssertionError, match=f"{law.__name__} .*{WRONG[law]}"):
        check_law(law(), {"k": torch.tensor(1.3), "c": torch.tensor(1.0)})


class Frozen(J2Plasticity):
    """Its tangent forgets that the material yields."""

    def consistent_tangent(self, state: Tensor, increment: Tensor, previous: Tensor, params: Any) -> Tensor:
        return super().consistent_tangent(state, 0.0 * increment, 0.0 * previous, params)


class Gaining(J2Plasticity):
    """Its plastic strain runs backwards."""

    def plastic_increment(self, state: Tensor, increment: Tensor, previous: Tensor, params: Any) -> Tensor:
        return -super().plastic_increment(state, increment, previous, params)


@pytest.mark.parametrize(
    ("law", "fault"),
    [(Frozen(), "consistent tangent is not the derivative"), (Gaining(), "dissipates a negative work")],
)
def test_what_is_wrong_with_an_inelastic_law_is_named(law: InelasticLaw, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_law(law, numbers({**STEEL, "hardening_modulus": 5e9}))


def test_parameters_out_of_bounds_are_an_error_of_the_caller() -> None:
    with pytest.raises(InputError, match="NeoHookean: mu = -1 Pa must lie above 0"):
        check_law(NeoHookean(), numbers({"mu": -1.0, "lame_lambda": 1.0}))
