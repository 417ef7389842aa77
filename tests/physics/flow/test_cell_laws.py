"""Laws of cells, derived from the laws of flow: what they give back, and their derivatives."""

import pytest
import torch

from bilevel.report import BilevelError
from physics.constitutive.flow import FlowLaw, Forchheimer, Linear, PowerLaw
from physics.flow.cellwise import FlowLawOfCells
from physics.local.parameters import LawParameter, LawParameters

COUNT = 60


class Statement(FlowLaw):
    """A law in closed form, of which no more than the potential is told."""

    def __init__(self, law):
        self.law, self.parameters = law, law.parameters

    def potential(self, drop, params):
        return self.law.potential(drop, params)


class Carreau(FlowLaw):
    """flux = c drop (1 + drop^2)^(1/4), as a potential alone."""

    parameters = LawParameters(LawParameter("c", lower=0.0))

    def potential(self, drop, params):
        return 0.4 * params["c"] * (1.0 + drop**2) ** 1.25


def values(seed):
    return torch.rand(COUNT, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 + 0.1


def cells(law, size=1.0, volume=1.0):
    names = law.parameters.names
    params = {name: values(1 + k) * (100.0 if name == "quadratic" else 1.0) for k, name in enumerate(names)}
    one = torch.ones(COUNT, dtype=torch.float64)
    return FlowLawOfCells(law, params, size * one, volume * one, 1.0)


LAWS = [*(PowerLaw(p, 1e-3) for p in (1.2, 1.5, 2.0, 3.0, 6.0)), Forchheimer(), Carreau(), Linear()]


@pytest.mark.parametrize("law", LAWS)
def test_the_law_and_its_inverse_agree_over_twelve_decades(law):
    law = cells(law, size=0.2, volume=3.0)
    gradients = torch.logspace(-8, 4, COUNT, dtype=torch.float64)
    assert torch.allclose(law.log_gradients(law.flux(gradients)).exp(), gradients, rtol=1e-3)


@pytest.mark.parametrize("law", [PowerLaw(1.2, 1e-3), PowerLaw(3.0, 1e-3), Forchheimer(), Carreau()])
def test_slope_and_inverse_are_derivatives(law):
    law = cells(law, size=0.2, volume=3.0)
    gradients = torch.linspace(-0.5, 0.5, COUNT, dtype=torch.float64)
    secant, slope = law.secant_and_slope(gradients)
    assert torch.allclose(torch.func.jvp(law.flux, (gradients,), (torch.ones_like(gradients),))[1], slope)
    assert torch.allclose(secant, law.flux(gradients) / gradients)
    fluxes = torch.linspace(0.01, 1.0, COUNT, dtype=torch.float64)
    gradients = law.log_gradients(fluxes).exp()
    rate = torch.func.jvp(law.log_gradients, (fluxes,), (torch.ones_like(fluxes),))[1]
    assert torch.allclose(rate, 1.0 / law.secant_and_slope(gradients)[1] / gradients, rtol=1e-3)


@pytest.mark.parametrize("law", [PowerLaw(1.5, 1e-2), PowerLaw(4.0, 1e-2), Forchheimer(), Linear()])
@pytest.mark.parametrize("size", [1.0, 0.2])
def test_the_potential_alone_tells_what_closed_forms_tell(law, size):
    known, told = cells(law, size, 3.0), cells(Statement(law), size, 3.0)
    gradients = torch.logspace(-3, 2, COUNT, dtype=torch.float64)
    for one, other in zip(known.secant_and_slope(gradients), told.secant_and_slope(gradients)):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=0.0)
    fluxes = known.flux(gradients)
    torch.testing.assert_close(told.log_gradients(fluxes), known.log_gradients(fluxes), rtol=0.0, atol=1e-3)
    torch.testing.assert_close(told.exponent, known.exponent, rtol=5e-3, atol=0.0)
    torch.testing.assert_close(told.log_conductance, known.log_conductance, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("law", [PowerLaw(1.2, 1e-3), PowerLaw(3.0, 1e-3), PowerLaw(6.0, 1e-3)])
def test_asymptotes_of_a_power_law_are_its_parameters(law):
    found = Statement(law).asymptotes(torch.ones(COUNT, dtype=torch.float64), {"conductance": values(1)})
    torch.testing.assert_close(found.exponent, torch.full_like(found.exponent, law.exponent), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(found.threshold, torch.full_like(found.threshold, law.threshold), rtol=1e-9, atol=0.0)
    torch.testing.assert_close(found.conductance, values(1) * law.threshold ** (law.exponent - 2.0))


def test_the_degree_of_forchheimer_s_law_falls_across_its_threshold():
    law = cells(Forchheimer())
    for factor, degree in ((1e-5, 2.0), (1e8, law.exponent)):
        gradients = law.log_threshold.exp() * factor
        secant, slope = law.secant_and_slope(gradients)
        assert torch.allclose(1.0 + slope / secant, torch.as_tensor(degree).expand(COUNT), rtol=1e-4)


class Saturating(FlowLaw):
    """flux = tanh(drop), which never exceeds 1."""

    parameters = LawParameters()

    def potential(self, drop, params):
        return drop.cosh().log()


def test_fluxes_that_a_law_does_not_reach_are_an_error():
    law = cells(Saturating())
    with pytest.raises(BilevelError, match="Saturating does not reach all fluxes"):
        law.log_gradients(torch.full((COUNT,), 1.5, dtype=torch.float64))
