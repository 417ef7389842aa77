"""Hyperelastic laws: closed forms against torch.func, invariance, coalescing stretches, and the homogeneous driver."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from torch import Tensor
from torch.func import jacfwd, jacrev

import bilevel
import physics.discretisation as meshes
from bilevel.report import InputError
from physics.constitutive.elastic.extended_tube import ExtendedTube
from physics.constitutive.elastic.hyperelastic import Hyperelastic
from physics.constitutive.elastic.linear_elastic import LinearElastic
from physics.constitutive.elastic.mooney_rivlin import MooneyRivlin
from physics.constitutive.elastic.neo_hookean import NeoHookean
from physics.constitutive.elastic.ogden import Ogden
from physics.constitutive.elastic.yeoh import Yeoh
from physics.constitutive.powers import power_trace
from physics.local.density import Density, FunctionDensity
from physics.solids.homogeneous import HomogeneousDeformation, Loading, Mode, incompressible_stress
from physics.solids.loads import Traction
from physics.solids.solid import Solid


def numbers(**values: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def ogden(mu: Sequence[Any], alpha: Sequence[Any]) -> dict[str, Any]:
    terms = zip(mu, alpha)
    return {f"{name}_{k}": value for k, term in enumerate(terms, 1) for name, value in zip(("mu", "alpha"), term)}


Law: TypeAlias = tuple[Hyperelastic, dict[str, Tensor]]

LAWS: dict[str, Law] = {
    "neo_hookean": (NeoHookean(), numbers(mu=0.4, lame_lambda=4.0)),
    "mooney_rivlin": (MooneyRivlin(), numbers(c10=0.15, c01=0.05, bulk_modulus=5.0)),
    "yeoh": (Yeoh(), numbers(c1=0.2, c2=-0.01, c3=0.002, bulk_modulus=5.0)),
    "ogden": (Ogden(), numbers(**ogden([0.6, 0.01, -0.01], [1.3, 5.0, -2.0]), bulk_modulus=5.0)),
    "extended_tube": (ExtendedTube(), numbers(gc=0.2, delta=0.1, ge=0.2, beta=0.2, bulk_modulus=5.0)),
}
SHEAR = {"neo_hookean": 0.4, "mooney_rivlin": 0.4, "yeoh": 0.4}


@pytest.fixture(params=list(LAWS))
def law(request: pytest.FixtureRequest) -> Law:
    return LAWS[request.param]


def deformations() -> Tensor:
    return torch.eye(3) + 0.2 * torch.randn(2, 4, 3, 3)


@pytest.mark.parametrize("material", [NeoHookean(), LinearElastic()])
def test_closed_forms_agree_with_torch_func(material: Density) -> None:
    params = {"mu": torch.rand(2, 1) + 1.0, "lame_lambda": torch.rand(2, 4) + 1.0}
    x = deformations()
    plain = FunctionDensity(material.energy)
    assert (material.stress(x, params) - plain.stress(x, params)).abs().max() < 1e-13
    assert (material.tangent(x, params, 2) - plain.tangent(x, params, 2)).abs().max() < 1e-13


def test_energy_of_f_is_the_energy_of_its_stretches_and_indifferent_to_rotation(law: Law) -> None:
    material, params = law
    f = deformations()
    energy = material.energy(f, params)
    assert (energy - material.energy_of_stretches(torch.linalg.svdvals(f), params)).abs().max() < 1e-12
    turn = torch.linalg.qr(torch.randn(3, 3))[0]
    turn = turn * torch.det(turn).sign()
    assert (energy - material.energy(turn @ f @ turn.mT, params)).abs().max() < 1e-12


def test_stress_and_tangent_at_rest_are_those_of_an_isotropic_solid(law: Law) -> None:
    """Where all stretches coalesce: no stress, and a tangent with the same moduli for every shear."""
    material, params = law
    rest = torch.eye(3)[None]
    assert material.energy(rest, params).abs().max() < 1e-14
    assert material.stress(rest, params).abs().max() < 1e-14
    c = material.tangent(rest, params, 2)[0]
    shears = torch.stack([c[i, j, i, j] + c[i, j, j, i] for i, j in ((0, 1), (1, 2), (2, 0))])
    assert (shears - shears[0]).abs().max() < 1e-12
    assert c[0, 0, 0, 0] - c[0, 0, 1, 1] == pytest.approx(float(shears[0]))


@pytest.mark.parametrize("name", SHEAR)
def test_initial_shear_modulus(name: str) -> None:
    material, params = LAWS[name]
    c = material.tangent(torch.eye(3)[None], params, 2)[0]
    assert float(c[0, 1, 0, 1] + c[0, 1, 1, 0]) / 2.0 == pytest.approx(SHEAR[name])


def test_tangent_is_the_derivative_of_the_stress_near_repeated_stretches(law: Law) -> None:
    material, params = law
    for stretches in ([1.0, 1.0, 1.0], [1.5, 1.5, 0.6], [1.2, 1.2 + 1e-9, 1.2 - 1e-6], [3.0, 0.57, 0.58]):
        turn = torch.linalg.qr(torch.randn(3, 3))[0]
        f = turn @ torch.diag(torch.tensor(stretches)) @ turn.mT
        direction = torch.randn(3, 3)
        exact = torch.einsum("ijkl,kl->ij", material.tangent(f[None], params, 2)[0], direction)
        h = 1e-5
        difference = (material.stress(f + h * direction, params) - material.stress(f - h * direction, params)) / (2 * h)
        assert (exact - difference).norm() < 1e-7 * exact.norm()


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.floats(0.2, 20.0), min_size=3, max_size=3),
    st.sampled_from([0, 1e-12, 1e-7, 1e-3]),
    st.integers(0, 1000),
)
def test_power_traces_have_three_exact_derivatives(eigenvalues: list[float], gap: float, seed: int) -> None:
    """Against polynomial and rational closed forms, two eigenvalues being close or equal."""
    eigenvalues[1] = eigenvalues[0] * (1.0 + gap)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)))[0]
    c = turn @ torch.diag(torch.tensor(eigenvalues)) @ turn.mT
    c = 0.5 * (c + c.mT)

    def spectral(x: Tensor) -> Tensor:
        return power_trace(0.5 * (x + x.mT), torch.tensor([3.0, 2.0, -1.0]))

    def closed(x: Tensor) -> Tensor:
        x = 0.5 * (x + x.mT)
        return torch.stack([torch.trace(x @ x @ x), torch.trace(x @ x), torch.trace(torch.linalg.inv(x))])

    for _ in range(4):
        got, wanted = spectral(c), closed(c)
        assert (got - wanted).abs().max() < 1e-9 * wanted.abs().max()
        spectral, closed = jacrev(spectral), jacfwd(closed)  # type: ignore[assignment]


MODES = [Mode.UNIAXIAL, Mode.EQUIBIAXIAL, Mode.PURE_SHEAR, Mode.BIAXIAL]


def loading() -> Loading:
    stretch = torch.tensor([0.7, 1.3, 2.0] * 4)
    return Loading.of([mode for mode in MODES for _ in range(3)], stretch, torch.full((12,), 1.2))


def test_driver_frees_the_lateral_directions_and_tends_to_the_incompressible_limit(law: Law) -> None:
    material, params = law
    stiff = "lame_lambda" if isinstance(material, NeoHookean) else "bulk_modulus"
    gaps = []
    for factor in (1e2, 1e4):
        values = params | {stiff: params[stiff] * factor}
        problem = HomogeneousDeformation(material, loading())
        solution = bilevel.argmin(problem, problem.start(), values)
        stress = problem.nominal_stress(solution.u, values)
        lateral = loading().lateral
        slack = 1e-9 * float(values[stiff])
        assert stress[:, 2].abs().max() < slack
        assert stress[lateral, 1].abs().max() < slack
        limit = incompressible_stress(material, loading(), params)
        assert limit[lateral, 1].abs().max() < 1e-13
        gaps.append(float((stress[:, :2] - limit).abs().max()))
    assert gaps[1] < 0.02 * gaps[0]


def test_neo_hookean_uniaxial_stress_is_mu_times_stretch_minus_inverse_square() -> None:
    stretch = torch.linspace(0.5, 3.0, 9)
    stress = incompressible_stress(
        NeoHookean(), Loading.of([Mode.UNIAXIAL] * 9, stretch), numbers(mu=0.4, lame_lambda=0.0)
    )
    assert (stress[:, 0] - 0.4 * (stretch - stretch**-2)).abs().max() < 1e-14


def test_driver_stress_has_exact_gradients_in_every_parameter(law: Law) -> None:
    material, params = law
    names = list(params)

    def misfit(*values: Tensor) -> Tensor:
        given_params = dict(zip(names, values))
        problem = HomogeneousDeformation(material, loading())
        solution = bilevel.argmin(problem, problem.start(), given_params)
        return (problem.nominal_stress(solution.u, given_params)[:, 0] ** 2).sum()

    leaves = [params[name].clone().requires_grad_() for name in names]
    gradients = torch.autograd.grad(misfit(*leaves), leaves)
    for k, gradient in enumerate(gradients):
        direction = torch.randn_like(gradient) * leaves[k].detach().abs()
        start = [leaf.detach() for leaf in leaves]
        shifted = [[*start[:k], start[k] + s * 1e-5 * direction, *start[k + 1 :]] for s in (1.0, -1.0)]
        difference = (misfit(*shifted[0]) - misfit(*shifted[1])) / 2e-5
        assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=1e-6)


@pytest.mark.parametrize(
    ("modes", "stretch", "message"),
    [
        ([Mode.UNIAXIAL] * 2, [1.0, -1.0], "row 1: the stretch must be positive"),
        ([Mode.BIAXIAL], [1.0], "second stretch"),
    ],
)
def test_bad_loadings_are_refused(modes: list[Mode], stretch: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Loading.of(modes, torch.tensor(stretch))


def treloar() -> tuple[Loading, Tensor]:
    text = (files("physics") / "data" / "treloar_1944.csv").read_text()
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    stretch = torch.tensor([float(row["stretch"]) for row in rows])
    stress = torch.tensor([float(row["nominal_stress_MPa"]) for row in rows])
    return Loading.of([Mode(row["mode"]) for row in rows], stretch), stress


def test_treloars_table_is_the_published_one(shared_data: Path) -> None:
    lines = (shared_data / "treloar1944.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    load, stress = treloar()
    assert load.first.tolist() == [float(row["stretch"]) for row in rows]
    assert stress.tolist() == pytest.approx([float(row["nominal_stress_Pa"]) / 1e6 for row in rows], rel=1e-4)


FITS = {
    "neo_hookean": (["mu"], [[0.4]], 0.6165, 0.001),
    "mooney_rivlin": (["c10", "c01"], [[0.2, 0.01]], 0.612, 0.001),
    "yeoh": (["c1", "c2", "c3"], [[0.2, -1e-3, 1e-5]], 0.133, 0.001),
    "extended_tube": (["gc", "delta", "ge", "beta"], [[0.2, 0.09, 0.2, 0.2], [0.1, 0.08, 0.4, 1.0]], 0.0532, 0.0003),
    "ogden": ([], [[0.63, 0.0012, -0.01, 1.3, 5.0, -2.0]], 0.0600, 0.0005),
}


@pytest.mark.parametrize("name", FITS)
def test_joint_fit_of_treloars_three_tests(name: str) -> None:
    """Root mean square misfit in MPa of the absolute least squares fit; every start must reach it."""
    names, starts, expected, tolerance = FITS[name]
    load, measured = treloar()

    def stress(x: Tensor) -> Tensor:
        values = dict(zip(names, x)) if names else ogden(x[:3], x[3:])
        values = values | ({"lame_lambda": torch.zeros(())} if name == "neo_hookean" else {})
        return incompressible_stress(LAWS[name][0], load, values)[:, 0] - measured

    for start in starts:
        fit = least_squares(
            lambda x: stress(torch.from_numpy(x)).nan_to_num(1e3).numpy(),
            start,
            lambda x: jacrev(stress)(torch.from_numpy(x)).nan_to_num(0.0).numpy(),
            x_scale="jac",
            max_nfev=500,
        )
        rmse = float(np.sqrt(np.mean(fit.fun**2)))
        assert rmse == pytest.approx(expected, abs=tolerance)


def test_neo_hookean_block_in_uniaxial_tension_follows_the_driver() -> None:
    """A bar of solid elements that is pulled and free to contract, against the homogeneous driver."""
    mesh = meshes.box(2, 1, 1)
    supports = [
        mesh.fixed("left", [0]),
        mesh.fixed("bottom", [1]),
        mesh.fixed("front", [2]),
        mesh.fixed("right", [0], 0.5),
    ]
    params = numbers(mu=0.4, lame_lambda=1.0)
    for mean_dilatation in (False, True):
        solid = Solid(mesh, NeoHookean(), None, supports, mean_dilatation=mean_dilatation)
        solution = bilevel.argmin(solid, solid.start(), {"material": params})
        driver = HomogeneousDeformation(NeoHookean(), Loading.of([Mode.UNIAXIAL], torch.tensor([1.5])))
        expected = bilevel.argmin(driver, driver.start(), params)
        stretches = solid.strain(solution.u, {"material": params}).diagonal(dim1=-2, dim2=-1)
        assert (stretches - driver.stretches(expected.u)[0]).abs().max() < 1e-8


def test_ogden_solid_with_two_terms_equals_the_mooney_rivlin_solid() -> None:
    """mu l^2 and mu l^-2 terms are the invariants I1 and I2: c10 = mu_1 / 2, c01 = - mu_2 / 2."""
    mesh = meshes.box(1, 1, 1)
    pull = [Traction("pull", "right")]
    common = {"pull": torch.tensor([0.1, 0.05, 0.0])}
    two_terms = numbers(**ogden([0.3, -0.1], [2.0, -2.0]), bulk_modulus=5.0)
    mooney = numbers(c10=0.15, c01=0.05, bulk_modulus=5.0)
    fields = []
    for material, params in ((Ogden(2), two_terms), (MooneyRivlin(), mooney)):
        solid = Solid(mesh, material, None, [mesh.fixed("left")], pull)
        fields.append(bilevel.argmin(solid, solid.start(), {"material": params, **common}).u)
    assert (fields[0] - fields[1]).abs().max() < 1e-9
    assert fields[0].abs().max() > 0.05


def test_extended_tube_beyond_its_limit_is_nan() -> None:
    material, params = LAWS["extended_tube"]
    limit = math.sqrt(1.0 / 0.1**2 + 3.0)
    assert material.energy_of_stretches(torch.tensor([limit, 1.0, 1.0 / limit]), params).isnan()
