"""Taylor remainders and finite-difference curves: is this gradient (or Hessian) right?

For a direction v the remainders |f(p+hv) - f(p)|, |... - h g.v| and |... - h g.v - h^2/2 v.Hv| fall with orders 1, 2
and 3 in h (the convention of dolfin-adjoint, Farrell et al. 2013); the error of the central difference against g.v
traces a V over h, whose lowest point says how well the two agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.torch_internals import pytree

NOISE = 200
"""Remainders below this many rounding errors of f are not used for orders."""


@dataclass
class TaylorCheck:
    """What a check found.

    steps, remainders: the Taylor curve. order: its slope (inf where f is exact to rounding, so that no remainder is left).
    fd_steps, fd_errors: the relative error of the central difference against g.v. best: its smallest value.
    """

    name: str
    expected: int
    steps: list[float]
    remainders: list[float]
    order: float
    fd_steps: list[float]
    fd_errors: list[float]

    @property
    def best(self) -> float:
        return min(self.fd_errors)

    @property
    def ok(self) -> bool:
        return self.order >= self.expected - 0.05 and self.best <= 1e-5

    def __str__(self) -> str:
        lines = [
            f"{self.name}: Taylor order {self.order:.3f} (expected {self.expected}), best finite difference {self.best:.1e}"
        ]
        lines += ["        h   remainder"]
        lines += [f"{h:9.1e}   {r:.3e}" for h, r in zip(self.steps, self.remainders, strict=True)]
        lines += ["        h   relative error of the central difference"]
        lines += [f"{h:9.1e}   {e:.3e}" for h, e in zip(self.fd_steps, self.fd_errors, strict=True)]
        return "\n".join([*lines, "verdict: right" if self.ok else "verdict: WRONG"])


def check_gradient(
    f: Callable[[Params], Tensor],
    params: Params,
    *,
    direction: Params | None = None,
    step: float = 1e-2,
    seed: int = 0,
    verbose: bool = True,
) -> TaylorCheck:
    """Taylor order 2 and the finite-difference curve of the gradient of f(params) -> scalar along one direction.

    direction: structured like params; random and scaled to each tensor's size where None. step: the largest relative
    step. Prints its table unless verbose=False. Raises ValueError if f is not scalar or does not depend on params.
    """
    line = _Line(f, params, direction, seed)
    slope = line.slope()
    check = _assess("gradient", 2, line, step, lambda h: h * slope, line.central(), slope)
    if verbose:
        print(check)
    return check


def check_hessian(
    f: Callable[[Params], Tensor],
    params: Params,
    *,
    direction: Params | None = None,
    step: float = 1e-2,
    seed: int = 0,
    verbose: bool = True,
) -> TaylorCheck:
    """Taylor order 3 with gradient and Hessian of f(params), and the finite-difference curve of v.Hv; see `check_gradient`."""
    line = _Line(f, params, direction, seed)
    slope, curvature = line.slope_and_curvature()
    check = _assess(
        "Hessian", 3, line, step, lambda h: h * slope + 0.5 * h * h * curvature, line.central_of_slope(), curvature
    )
    if verbose:
        print(check)
    return check


class _Line:
    """f along p + h v."""

    def __init__(self, f: Callable[[Params], Tensor], params: Params, direction: Params | None, seed: int) -> None:
        flat, self.spec = pytree.tree_flatten(params)
        self.f, self.constants = f, list(flat)
        self.places = [i for i, x in enumerate(flat) if isinstance(x, Tensor) and x.is_floating_point()]
        self.base = [flat[i].detach().clone() for i in self.places]
        self.v = self._direction(direction, seed)

    def _direction(self, direction: Params | None, seed: int) -> list[Tensor]:
        if direction is not None:
            flat, _ = pytree.tree_flatten(direction)
            return [flat[i].detach() for i in self.places]
        generator = torch.Generator().manual_seed(seed)
        made = []
        for p in self.base:
            size = float(p.abs().mean()) or 1.0
            made.append(size * torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device))
        return made

    def _call(self, tensors: list[Tensor]) -> Tensor:
        filled: list[Any] = list(self.constants)
        for place, tensor in zip(self.places, tensors, strict=True):
            filled[place] = tensor
        value = self.f(pytree.tree_unflatten(filled, self.spec))
        if value.numel() != 1:
            raise ValueError(f"f must return a scalar, it returned shape {tuple(value.shape)}")
        return value.reshape(())

    def at(self, h: float) -> float:
        return float(self._call([p + h * v for p, v in zip(self.base, self.v, strict=True)]).detach())

    def slope(self, h: float = 0.0) -> float:
        leaves = [(p + h * v).requires_grad_() for p, v in zip(self.base, self.v, strict=True)]
        value = self._call(leaves)
        if not value.requires_grad:
            raise ValueError("f does not depend on the parameters it was given (its value carries no gradient)")
        grads = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
        return float(sum((g * v).sum() for g, v in zip(grads, self.v, strict=True)))

    def slope_and_curvature(self) -> tuple[float, float]:
        leaves = [p.clone().requires_grad_() for p in self.base]
        grads = torch.autograd.grad(
            self._call(leaves), leaves, create_graph=True, allow_unused=True, materialize_grads=True
        )
        slope = sum(((g * v).sum() for g, v in zip(grads, self.v, strict=True)), torch.zeros(()))
        if not slope.requires_grad:
            return float(slope), 0.0
        second = torch.autograd.grad(slope, leaves, allow_unused=True, materialize_grads=True)
        return float(slope.detach()), float(sum((s * v).sum() for s, v in zip(second, self.v, strict=True)))

    def central(self) -> Callable[[float], float]:
        return lambda h: (self.at(h) - self.at(-h)) / (2 * h)

    def central_of_slope(self) -> Callable[[float], float]:
        return lambda h: (self.slope(h) - self.slope(-h)) / (2 * h)


def _assess(
    name: str,
    expected: int,
    line: _Line,
    step: float,
    series: Callable[[float], float],
    difference: Callable[[float], float],
    derivative: float,
) -> TaylorCheck:
    base = line.at(0.0)
    steps = [step / 2**k for k in range(8)]
    values = [line.at(h) for h in steps]
    remainders = [abs(value - base - series(h)) for value, h in zip(values, steps, strict=True)]
    floor = NOISE * torch.finfo(torch.float64).eps * max(abs(base), *(abs(v) for v in values))
    fd_steps = [10.0**-k for k in range(1, 9)]
    size = abs(derivative) or 1.0
    fd_errors = [abs(difference(h) - derivative) / size for h in fd_steps]
    return TaylorCheck(name, expected, steps, remainders, taylor_order(steps, remainders, floor), fd_steps, fd_errors)


def taylor_order(steps: list[float], remainders: list[float], floor: float) -> float:
    """The slope of log remainder over log h on the finest three intervals above rounding."""
    usable = [(h, r) for h, r in zip(steps, remainders, strict=True) if r > floor]
    if len(usable) < 2:
        return float("inf")
    tail = usable[-4:]
    logs = torch.log(torch.tensor(tail, dtype=torch.float64))
    return float((logs[0, 1] - logs[-1, 1]) / (logs[0, 0] - logs[-1, 0]))
