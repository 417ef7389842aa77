"""Laws of cells: what they give back, and their derivatives."""

import pytest
import torch

from bilevel.report import InputError
from physics.constitutive.flow.edge_laws import Forchheimer, Linear, PowerLaw
from physics.families.edge_split import law_of_cells

COUNT = 60


def values(seed):
    return torch.rand(COUNT, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 + 0.1


def cells(law):
    if isinstance(law, PowerLaw):
        return law_of_cells(law, {"conductance": values(1)}, COUNT)
    return law_of_cells(law, {"linear": values(1), "quadratic": 100.0 * values(2)}, COUNT)


LAWS = [*(PowerLaw(p, 1e-3) for p in (1.2, 1.5, 2.0, 3.0, 6.0)), Forchheimer()]


@pytest.mark.parametrize("law", LAWS)
def test_the_law_and_its_inverse_agree_over_twelve_decades(law):
    law = cells(law)
    gradients = torch.logspace(-8, 4, COUNT, dtype=torch.float64)
    assert torch.allclose(law.log_gradients(law.flux(gradients)).exp(), gradients, rtol=1e-3)


@pytest.mark.parametrize("law", [PowerLaw(1.2, 1e-3), PowerLaw(3.0, 1e-3), Forchheimer()])
def test_slope_and_inverse_are_derivatives(law):
    law = cells(law)
    gradients = torch.linspace(-0.5, 0.5, COUNT, dtype=torch.float64)
    secant, slope = law.secant_and_slope(gradients)
    assert torch.allclose(torch.func.jvp(law.flux, (gradients,), (torch.ones_like(gradients),))[1], slope)
    assert torch.allclose(secant, law.flux(gradients) / gradients)
    fluxes = torch.linspace(0.01, 1.0, COUNT, dtype=torch.float64)
    gradients = law.log_gradients(fluxes).exp()
    rate = torch.func.jvp(law.log_gradients, (fluxes,), (torch.ones_like(fluxes),))[1]
    assert torch.allclose(rate, 1.0 / law.secant_and_slope(gradients)[1] / gradients, rtol=1e-3)


def test_the_degree_of_forchheimer_s_law_falls_across_its_threshold():
    law = cells(Forchheimer())
    for factor, degree in ((1e-5, 2.0), (1e8, law.exponent)):
        gradients = law.threshold * factor
        secant, slope = law.secant_and_slope(gradients)
        assert torch.allclose(1.0 + slope / secant, torch.as_tensor(degree).expand(COUNT), rtol=1e-4)


def test_edges_of_other_laws_have_no_cells():
    with pytest.raises(InputError, match="Linear have no law of cells"):
        law_of_cells(Linear(), {"conductance": values(1)}, COUNT)
