"""Whether a density has a stress and a stiffness at rest: det, inv, eigvalsh ... of torch.linalg have none."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.local.density import Density, Measure
from physics.local.parameters import LawParameters

STAND_IN = 0.3
"""A value that most parameters may have, where no parameters are known yet."""


class _AnyParameters(dict[str, Tensor]):
    """A stand-in for whatever name a density asks for."""

    def __missing__(self, name: str) -> Tensor:
        return torch.tensor(STAND_IN, dtype=torch.float64)


def _made_up(parameters: LawParameters) -> dict[str, Tensor]:
    """A value within the bounds of each parameter; a stand-in for all where none is declared."""
    values = _AnyParameters()
    for parameter in parameters:
        low, high = max(parameter.lower, STAND_IN - 1.0), min(parameter.upper, parameter.lower + 1.0, 1.0)
        middle = 0.5 * (low + high) if low < high else parameter.lower + STAND_IN
        values[parameter.name] = torch.tensor(parameter.default or middle, dtype=torch.float64)
    return values


def require_derivatives_at_rest(density: Density, measure: Measure, params: Params = None) -> None:
    """Raise InputError where stress or tangent are not finite at rest though they are next to it.

    At equal eigenvalues, and for F = I in particular, PyTorch's second derivatives of torch.linalg.det, inv, eigvalsh and
    others are NaN, or raise (2.13). Every solve starts there. Without params, made-up ones are tried; a density that does
    not understand them proves nothing, and passes.
    """
    rest = measure.state(torch.zeros(1, 1, measure.columns, 1, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    near = rest + 1e-2 * torch.randn(rest.shape, generator=generator, dtype=rest.dtype)
    given = params if params is not None else _made_up(density.parameters)
    if _finite(density, near, given) and not _finite(density, rest, given):
        raise InputError(
            "the density has no finite stress and stiffness at rest, though it has them in a deformed state nearby: the "
            "second derivatives of torch.linalg's det, inv, eigvalsh ... do not exist there in PyTorch; take determinant, "
            "inverse or power_trace from physics.constitutive in their place"
        )


def _finite(density: Density, x: Tensor, params: Params) -> bool:
    """Whether stress and tangent of both an expanded and a lone point can be taken and are finite."""
    try:
        stress = density.stress(x, params)
        tangent = density.tangent(x, params, x.dim() - 2)
    except Exception:  # whatever a user's function raises at made-up parameters
        return False
    return bool(stress.isfinite().all()) and bool(tangent.isfinite().all())
