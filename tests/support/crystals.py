"""Crystals, parameters and finite differences that the tests of atoms share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from physics.atoms.potential import Potential

COPPER = {"F0": 2.185, "n": 0.404, "F1": 0.888, "alpha": 0.397, "beta": 6.203, "ra": 2.277, "chi": 8.936}
"""Cai and Ye's form near copper."""


def defaults(potential: type[Potential]) -> dict[str, Tensor]:
    """The published parameters of a potential."""
    return {p.name: torch.tensor(p.default) for p in potential.parameters if p.default is not None}


def tensors(values: Mapping[str, float]) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def jacobian_errors(
    function: Callable[[dict[str, Tensor]], Tensor], params: Mapping[str, Tensor], names: list[str], step: float = 1e-3
) -> Tensor:
    """|exact - central differences| / |exact|, for each output of the function (m,) over all named parameters.

    Entries are derivatives in the parameters' logarithms; differences are extrapolated once (error of fourth order).
    """
    leaves = {name: value.clone().requires_grad_(name in names) for name, value in params.items()}
    outputs, inputs = function(leaves), [leaves[name] for name in names]
    rows = [torch.autograd.grad(y, inputs, retain_graph=True, materialize_grads=True) for y in outputs]
    exact = torch.stack([torch.stack([g * params[n] for g, n in zip(row, names, strict=True)]) for row in rows])

    def moved(name: str, by: float) -> Tensor:
        with torch.no_grad():
            return function({**params, name: params[name] * (1.0 + by)})

    def central(name: str, h: float) -> Tensor:
        return (moved(name, h) - moved(name, -h)) / (2.0 * h)

    differences = torch.stack([(4.0 * central(name, step / 2) - central(name, step)) / 3.0 for name in names], -1)
    return (exact - differences).norm(dim=-1) / exact.norm(dim=-1)
