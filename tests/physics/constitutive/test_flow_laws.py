"""Edge laws: flux and conductance against derivatives of the energy, head-loss laws against their own inverse."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import grad, jacfwd, vmap

from bilevel.report import InputError
from physics.constitutive.flow import FlowLaw, Forchheimer, Linear, PowerLaw

DROPS = torch.cat([-torch.logspace(-4, 2, 13).flip(0), torch.zeros(1), torch.logspace(-4, 2, 13)])

LAWS = [
    (Linear(), {"conductance": torch.tensor(3.2)}),
    (PowerLaw(1.5, 1e-3), {"conductance": torch.tensor(0.7)}),
    (PowerLaw(3.0, 1e-2), {"conductance": torch.tensor(0.7)}),
    (PowerLaw.from_loss_exponent(1.852, 1e-3), {"conductance": torch.tensor(2.0)}),
    (Forchheimer(), {"linear": torch.tensor(2.0), "quadratic": torch.tensor(5.0)}),
    (Forchheimer(), {"linear": torch.tensor(2.0), "quadratic": torch.tensor(0.0)}),
]


@pytest.mark.parametrize(("law", "params"), LAWS)
def test_flux_and_conductance_are_derivatives_of_the_energy(law, params):
    flux = vmap(grad(lambda drop: law.potential(drop, params)))(DROPS)
    conductance = vmap(grad(grad(lambda drop: law.potential(drop, params))))(DROPS)
    torch.testing.assert_close(law.flux(DROPS, params), flux, rtol=1e-10, atol=1e-14)
    moved = DROPS != 0.0  # there |drop| has no derivative of its own
    torch.testing.assert_close(law.slope(DROPS, params)[moved], conductance[moved], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("law", "params"), LAWS)
def test_energy_is_zero_at_rest_and_convex(law, params):
    zero = torch.zeros(1)
    assert abs(float(law.potential(zero, params))) < 1e-15
    assert abs(float(law.flux(zero, params))) == 0.0
    assert bool((law.slope(DROPS, params) > 0.0).all())


@given(st.floats(1e-3, 10.0), st.floats(0.0, 10.0), st.floats(-50.0, 50.0))
def test_forchheimer_flux_gives_back_the_drop(linear, quadratic, drop):
    params = {"linear": torch.tensor(linear), "quadratic": torch.tensor(quadratic)}
    flux = float(Forchheimer().flux(torch.tensor(drop), params))
    assert linear * flux + quadratic * flux * abs(flux) == pytest.approx(drop, rel=1e-9, abs=1e-12)


def test_power_law_inverts_the_head_loss_with_the_bias_it_states():
    resistance, n, e = 4.0, 1.852, 1e-3
    law = PowerLaw.from_loss_exponent(n, e)
    drop = torch.tensor(0.05)
    flux = float(law.flux(drop, {"conductance": torch.tensor(resistance ** (-1.0 / n))}))
    exact = (0.05 / resistance) ** (1.0 / n)
    stated = (law.exponent - 2.0) / 2.0 * (e / 0.05) ** 2
    assert flux / exact - 1.0 == pytest.approx(stated, rel=1e-2)


@pytest.mark.parametrize(
    "make", [lambda: PowerLaw(1.0), lambda: PowerLaw(2.0, 0.0), lambda: PowerLaw.from_loss_exponent(-1.0)]
)
def test_laws_without_a_convex_energy_are_refused(make):
    with pytest.raises(InputError):
        make()


class Stated(FlowLaw):
    """A law of which no more than the potential is told."""

    def __init__(self, law):
        self.law, self.parameters = law, law.parameters

    def potential(self, drop, params):
        return self.law.potential(drop, params)


@pytest.mark.parametrize(("law", "params"), LAWS)
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_densities_made_of_a_potential_alone_are_those_of_the_closed_forms(law, params, dim):
    if isinstance(law, Forchheimer):
        params = {**params, "quadratic": params["quadratic"] + 1e-9}  # |drop| has no derivative at 0 of its own
    x = torch.randn(9, 1, dim, generator=torch.Generator().manual_seed(dim))
    torch.testing.assert_close(law.energy(x, params), Stated(law).energy(x, params))
    torch.testing.assert_close(law.stress(x, params), Stated(law).stress(x, params))
    torch.testing.assert_close(law.tangent(x, params, 1), Stated(law).tangent(x, params, 1))
    curvature = vmap(jacfwd(grad(lambda g: law.energy(g, params))))(x[:, 0])
    torch.testing.assert_close(law.tangent(x, params, 1)[:, 0], curvature)
