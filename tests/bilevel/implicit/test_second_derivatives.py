"""Every way in which PyTorch composes two derivatives through a layer: right, or refused."""

from __future__ import annotations

import pytest
import torch
from problems import chain_energy, chain_misfit, chain_params

import bilevel

COMPOSITIONS = {
    "torch.func.hessian": torch.func.hessian,
    "reverse over reverse": lambda f: torch.func.jacrev(torch.func.jacrev(f)),
    "reverse over forward": lambda f: torch.func.jacrev(torch.func.jacfwd(f)),
    "double backward": lambda f: lambda x: torch.autograd.functional.hessian(f, x),
    "batched double backward": lambda f: lambda x: torch.autograd.functional.hessian(f, x, vectorize=True),
}


PARAMS = chain_params()


def misfit(stiffness):
    params = {**PARAMS, "stiffness": stiffness}
    return chain_misfit(bilevel.argmin(chain_energy, torch.zeros(6), params).u)


def reference(x, step=1e-5):
    gradient = torch.func.grad(misfit)
    rows = [(gradient(x + step * e) - gradient(x - step * e)) / (2 * step) for e in torch.eye(len(x))]
    return torch.stack(rows)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("name", COMPOSITIONS)
def test_the_hessian_is_right_however_it_is_composed(name):
    x = PARAMS["stiffness"]
    torch.testing.assert_close(COMPOSITIONS[name](misfit)(x), reference(x), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("layer", ["argmin", "unrolled"])
def test_forward_over_forward_which_pytorch_gets_wrong_is_refused(layer):
    adjoint = bilevel.Unrolled() if layer == "unrolled" else None

    def state(k):
        return bilevel.argmin(lambda u, p: p * u**2 / 2 + u**4 / 4 - u, torch.tensor(0.5), k, adjoint=adjoint).u

    def derivative(f):
        return lambda k: torch.func.jvp(f, (k,), (torch.ones(()),))[1]

    stiffness = torch.tensor(2.0)
    derivative(state)(stiffness)
    with pytest.raises(bilevel.BilevelError, match=r"torch\.func\.hessian"):
        derivative(derivative(state))(stiffness)
