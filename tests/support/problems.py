"""Small inner problems that the tests of layers and solvers share."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bilevel.linalg import Sparse, SparsePattern, Structure
from bilevel.problem import EnergyProblem, Params


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


class SparseChain(EnergyProblem):
    """Springs of stiffness k to their neighbours, b u^2 / 2 + u^4 / 4 to the ground and a load; the tangent is sparse.

    For b < 0 the origin is a saddle of the unloaded chain. k, b: scalars. load: (n,).
    """

    def __init__(self, n: int, structure: Structure | None = None) -> None:
        self.n, self.structure = n, structure or Structure(symmetric=True)
        i = np.arange(n)
        rows, columns = np.concatenate([i, i[1:], i[:-1]]), np.concatenate([i, i[:-1], i[1:]])
        self.pattern, scatter = SparsePattern.from_pairs(rows, columns, n)
        self.scatter = torch.from_numpy(scatter)

    def value(self, u: Tensor, params: Params) -> Tensor:
        springs = 0.5 * params["k"] * (u[1:] - u[:-1]).square().sum()
        return springs + (0.5 * params["b"] * u**2 + 0.25 * u**4 - params["load"] * u).sum()

    def tangent(self, u: Tensor, params: Params) -> Sparse:
        k = params["k"].detach()
        diagonal = 2.0 * k + params["b"].detach() + 3.0 * u.detach() ** 2
        diagonal[0] -= k
        diagonal[-1] -= k
        entries = torch.cat([diagonal, (-k).expand(2 * (self.n - 1))])
        return Sparse(self.pattern, self.pattern.accumulate(self.scatter, entries), self.structure)

    def params(self, b: float = 1.0, load: float = 1.0) -> dict[str, Tensor]:
        return {"k": torch.tensor(2.0), "b": torch.tensor(b), "load": load * torch.linspace(-1.0, 2.0, self.n)}
