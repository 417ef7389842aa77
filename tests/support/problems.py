"""Small inner problems that the tests of layers and solvers share."""

from __future__ import annotations

import torch
from torch import Tensor


def chain_energy(u: Tensor, p: dict[str, Tensor]) -> Tensor:
    """A nonlinear spring chain: fields of stiffness, a quartic term, a load and the positions of the nodes."""
    x = p["coordinates"]
    length = x[1:] - x[:-1]
    full = torch.cat([p["boundary"].reshape(1), u])
    strain = (full[1:] - full[:-1]) / length
    stored = p["stiffness"] * (0.5 * strain**2 + 0.25 * p["hardening"] * strain**4)
    return (length * stored).sum() - (p["load"] * u).sum()


def chain_params(n: int = 6, seed: int = 0) -> dict[str, Tensor]:
    """Parameters of every kind: a field, a scalar, a load, coordinates and a boundary value."""
    g = torch.Generator().manual_seed(seed)
    return {
        "stiffness": 1.0 + torch.rand(n, generator=g),
        "hardening": torch.tensor(0.7),
        "load": 0.5 * torch.randn(n, generator=g),
        "coordinates": torch.linspace(0.0, 1.0, n + 1) + 0.02 * torch.rand(n + 1, generator=g),
        "boundary": torch.tensor(0.1),
    }


def chain_misfit(u: Tensor) -> Tensor:
    """A nonlinear outer function of the state."""
    target = torch.linspace(0.0, 1.0, u.numel())
    return ((u - target) ** 2).sum() + torch.sin(u).prod()


def skew_residual(u: Tensor, p: dict[str, Tensor]) -> Tensor:
    """A root problem with a nonsymmetric Jacobian: rotation, cubic damping and a source."""
    n = u.numel()
    rotation = torch.triu(torch.ones(n, n), 1) - torch.tril(torch.ones(n, n), -1)
    return p["damping"] * (u + u**3) + p["twist"] * (rotation @ u) - p["source"]


def skew_params(n: int = 4) -> dict[str, Tensor]:
    return {"damping": torch.tensor(1.3), "twist": torch.tensor(0.4), "source": torch.linspace(0.2, 1.0, n)}


def contraction(u: Tensor, p: dict[str, Tensor]) -> Tensor:
    """A contractive map with a nonsymmetric Jacobian."""
    return torch.tanh(p["weight"] @ u + p["bias"])


def contraction_params(n: int = 5, seed: int = 1) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(n, n, generator=g)
    return {"weight": 0.7 * weight / torch.linalg.matrix_norm(weight, 2), "bias": torch.randn(n, generator=g)}


def rosenbrock_chain(u: Tensor, p: dict[str, Tensor]) -> Tensor:
    """Rosenbrock's valley in many dimensions, with its steepness and centre as parameters."""
    return (p["steepness"] * (u[1:] - u[:-1] ** 2) ** 2).sum() + ((p["centre"] - u) ** 2).sum()
