"""Laws at the edges of their parameters and about rest, where a formula as it is printed would lose its digits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from physics.constitutive import Hyperelastic
from physics.constitutive.exponentials import phi_1, phi_2
from physics.constitutive.lame import LameParameters
from physics.discretisation.matrices import second_invariant, volume_change
from physics.solids import ExtendedTube, LinearElastic, MooneyRivlin, NeoHookean, Ogden, Yeoh

# Each with its Lame constants at rest.
LAWS: list[tuple[Hyperelastic, dict[str, float], LameParameters]] = [
    (NeoHookean(), {"mu": 0.4, "lame_lambda": 2.0}, LameParameters(0.4, 2.0)),
    (MooneyRivlin(), {"c10": 0.15, "c01": 0.05, "bulk_modulus": 3.0}, LameParameters.from_bulk(3.0, 0.4)),
    (Yeoh(), {"c1": 0.2, "c2": -0.01, "c3": 0.002, "bulk_modulus": 3.0}, LameParameters.from_bulk(3.0, 0.4)),
    (Ogden(1), {"mu_1": 0.6, "alpha_1": 1.5, "bulk_modulus": 3.0}, LameParameters.from_bulk(3.0, 0.45)),
]


def params(values: dict[str, float]) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


@pytest.mark.parametrize(("law", "values", "constants"), LAWS, ids=[type(law).__name__ for law, *_ in LAWS])
@pytest.mark.parametrize("size", [1e-4, 1e-6, 1e-7])
def test_energies_keep_their_digits_about_rest(
    law: Hyperelastic, values: dict[str, float], constants: LameParameters, size: float
) -> None:
    """The energy of small strains is quadratic: 1e-14 of the moduli at 1e-7, where sums of invariants round to 1e-16."""
    # A power of two, so that I + H has the digits of H.
    h = torch.round(torch.randn(50, 3, 3) * 2.0**20) * 2.0**-20
    h = h * 2.0 ** torch.tensor(size).log2().round()
    linear = params({"mu": float(constants.mu), "lame_lambda": float(constants.lame_lambda)})
    expected = LinearElastic().energy(0.5 * (h + h.mT), linear)
    found = law.energy(torch.eye(3) + h, params(values))
    assert ((found - expected).abs() <= 20.0 * size * expected).all()


@pytest.mark.parametrize("beta", [1e-12, 1e-8, 1e-3])
def test_extended_tube_keeps_its_digits_as_beta_vanishes(beta: float) -> None:
    """2 ge/b^2 sum (l^-b - 1) tends to ge sum (ln l)^2, for stretches and for gradients alike."""
    stretches = torch.tensor([[1.5, 0.9, 1.0 / 1.35], [1.01, 1.0, 1.0 / 1.01], [4.0, 0.5, 0.5]])
    values = params({"gc": 0.2, "delta": 0.0, "ge": 0.3, "beta": beta, "bulk_modulus": 0.0})
    chains = 0.5 * 0.2 * ((stretches**2).sum(-1) - 3.0)
    limit = 0.3 * torch.log(stretches).square().sum(-1) + chains
    third = -0.1 * beta * torch.log(stretches).pow(3).sum(-1)  # the next term of the series
    by_stretches = ExtendedTube().distortion_of_stretches(stretches, values)
    by_gradients = ExtendedTube().distortional(torch.diag_embed(stretches), values)
    for found in (by_stretches, by_gradients):
        assert ((found - limit - third).abs() < 1e-12 + 0.2 * beta**2 * limit).all()


@pytest.mark.parametrize("law", [ExtendedTube(), Ogden(1)], ids=lambda law: type(law).__name__)
def test_through_zero_volume_and_beyond_the_limit_of_chains_there_is_no_energy(law: Hyperelastic) -> None:
    """NaN where a trial step went too far, for the solver to step back from, and nothing else of the batch harmed."""
    values = params({"gc": 0.2, "delta": 0.3, "ge": 0.2, "beta": 0.2, "mu_1": 0.6, "alpha_1": 1.5, "bulk_modulus": 3.0})
    f = torch.diag_embed(torch.tensor([[1.1, 1.0, 0.9], [-1.0, 1.0, 1.0], [4.5, 0.5, 0.5]]))
    energy, stress = law.energy_and_stress(f, values)
    expected = [True, False, isinstance(law, Ogden)]
    assert energy.isfinite().tolist() == expected
    assert stress.isfinite().all(-1).all(-1).tolist() == expected


def test_derivative_of_the_extended_tube_in_a_small_beta() -> None:
    stretches = torch.tensor([1.5, 0.9, 1.0 / 1.35])
    values = params({"gc": 0.2, "delta": 0.1, "ge": 0.3, "bulk_modulus": 0.0})

    def energy(beta: Tensor) -> Tensor:
        return ExtendedTube().distortion_of_stretches(stretches, {**values, "beta": beta})

    slope = torch.func.grad(energy)(torch.tensor(1e-12))
    assert slope.item() == pytest.approx(-0.1 * torch.log(stretches).pow(3).sum().item(), rel=1e-9)


@pytest.mark.parametrize("alpha", [1e-12, 1e-6])
def test_ogden_keeps_its_digits_as_an_exponent_vanishes(alpha: float) -> None:
    """mu/alpha sum (l^alpha - 1) tends to mu alpha / 2 sum (ln l)^2."""
    stretches = torch.tensor([1.5, 0.9, 1.0 / 1.35])
    values = params({"mu_1": 1.0 / alpha, "alpha_1": alpha, "bulk_modulus": 1.0})
    expected = 0.5 * torch.log(stretches).square().sum().item()
    assert Ogden(1).distortion_of_stretches(stretches, values).item() == pytest.approx(expected, rel=1e-5)
    assert Ogden(1).distortional(torch.diag(stretches)[None], values).item() == pytest.approx(expected, rel=1e-5)


def test_exponential_quotients_against_their_series() -> None:
    z = torch.cat([torch.linspace(-3.0, 3.0, 61), torch.tensor([0.0, 1e-300, -1e-12, 0.4999, 0.5001])])
    terms = [torch.ones_like(z)]
    for k in range(1, 60):
        terms.append(terms[-1] * z / k)
    stacked = torch.stack(terms)
    one = sum(z**k / torch.exp(torch.lgamma(torch.tensor(k + 2.0))) for k in range(58))
    two = sum(z**k / torch.exp(torch.lgamma(torch.tensor(k + 3.0))) for k in range(58))
    assert torch.allclose(phi_1(z), torch.as_tensor(one), rtol=2e-14)
    assert torch.allclose(phi_2(z), torch.as_tensor(two), rtol=2e-14)
    assert torch.allclose(stacked.sum(0), 1.0 + z * phi_1(z), rtol=1e-13)
    slopes = torch.func.vmap(torch.func.grad(phi_1))(z)
    assert slopes.isfinite().all()
    assert slopes[z == 0.0].item() == pytest.approx(0.5, rel=1e-15)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_volume_change_of_small_and_large_gradients(dimension: int) -> None:
    h = 0.3 * torch.randn(40, dimension, dimension)
    eye = torch.eye(dimension)
    assert (volume_change(h) - (torch.linalg.det(eye + h) - 1.0)).abs().max() < 1e-14
    tiny = 1e-12 * h
    assert (volume_change(tiny) - tiny.diagonal(dim1=-2, dim2=-1).sum(-1)).abs().max() < 1e-23
    if dimension == 3:
        trace = h.diagonal(dim1=-2, dim2=-1).sum(-1)
        square = (h @ h).diagonal(dim1=-2, dim2=-1).sum(-1)
        assert (second_invariant(h) - 0.5 * (trace**2 - square)).abs().max() < 1e-14
