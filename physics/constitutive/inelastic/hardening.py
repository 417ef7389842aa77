"""Isotropic hardening: the flow stress of a metal as a function of its equivalent plastic strain, and the return to it."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from bilevel.report import ConvergenceError
from physics.constitutive.inelastic.law import Values
from physics.constitutive.law import Law
from physics.local.parameters import LawParameter, LawParameters

YIELD = LawParameters(LawParameter("yield_stress", "Pa", lower=0.0, description="initial yield stress"))
PRECISE, ITERATIONS = 1e-12, 100


class Hardening(Law):
    """The flow stress; `parameters` and `flow_stress` are all that a law must give."""

    @abstractmethod
    def flow_stress(self, plastic_strain: Tensor, params: Values) -> Tensor:
        """Pa, positive, for equivalent plastic strains (*batch,) >= 0."""

    def slope(self, plastic_strain: Tensor, params: Values) -> Tensor:
        """d flow stress / d plastic strain (*batch,); a law that knows it in closed form takes a fraction of the time."""
        return torch.func.grad(lambda x: self.flow_stress(x, params).sum())(plastic_strain)

    def growth(self, size: Tensor, plastic_strain: Tensor, stiffness: Tensor, params: Values) -> Tensor:
        """d >= 0 (*batch,) with size - stiffness d = flow stress(plastic_strain + d); 0 where the material does not yield.

        size: the equivalent stress of the elastic trial state. Differentiable up to third order in everything. Raises
        ConvergenceError where the flow stress falls faster than the stress can be released.
        """
        size, plastic_strain, stiffness = torch.broadcast_tensors(size, plastic_strain, torch.as_tensor(stiffness))
        flow_stress = self.flow_stress(plastic_strain, params)
        yields = size > flow_stress
        # Both branches of a where are differentiated: where nothing yields, let there be nothing to find.
        size = torch.where(yields, size, flow_stress)
        numbers = [value.detach() for value in (size, plastic_strain, stiffness, *params.values())]
        found = _Growth.apply(self, tuple(params), *numbers)
        # Newton's method doubles the order to which a power series is right: from the root itself, which knows no
        # derivative, one step makes the first derivative exact, and two steps the third.
        for _ in range(2):
            over, slope = _excess(self, found, size, plastic_strain, stiffness, params)
            found = found + over / slope
        return torch.where(yields, found, torch.zeros_like(found))


def _excess(
    law: Hardening, growth: Tensor, size: Tensor, plastic_strain: Tensor, stiffness: Tensor, params: Values
) -> tuple[Tensor, Tensor]:
    """The stress beyond the flow stress at a growth, and how fast growth lowers it."""
    new = plastic_strain + growth
    return size - stiffness * growth - law.flow_stress(new, params), stiffness + law.slope(new, params)


class _Growth(torch.autograd.Function):
    """The growth as a number: Newton's method between 0 and size / stiffness, bisecting where it would leave them."""

    @staticmethod
    def forward(law: Hardening, names: tuple[str, ...], *given: Tensor) -> Tensor:  # type: ignore[override]
        size, plastic_strain, stiffness, *values = given
        params = dict(zip(names, values))
        growth = torch.zeros_like(size + plastic_strain + stiffness + sum(0.0 * value for value in values))
        low, high = growth, growth + size / stiffness
        for _ in range(ITERATIONS):
            over, slope = _excess(law, growth, size, plastic_strain, stiffness, params)
            low, high = torch.where(over > 0, growth, low), torch.where(over < 0, growth, high)
            # What does not yield has nothing to find; a trial state that is not a number keeps that for the solver to see.
            open_ = (over.abs() > PRECISE * size) & ((growth > 0) | (over > 0)) & over.isfinite()
            if not bool(open_.any()):
                return growth
            following = growth + over / slope
            inside = (following > low) & (following < high)
            growth = torch.where(open_, torch.where(inside, following, 0.5 * (low + high)), growth)
        raise ConvergenceError(
            f"{type(law).__name__}: no plastic strain makes the stress equal to the flow stress; does it fall faster than "
            "unloading releases stress?"
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)
        ctx.inputs = len(inputs)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> tuple[None, ...]:
        return (None,) * ctx.inputs

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], law: Hardening, names: tuple[str, ...], *given: Tensor) -> Any:
        dims = in_dims[2:]
        rank = max(value.dim() - (dim is not None) for value, dim in zip(given, dims))
        aligned = []
        for value, dim in zip(given, dims):
            if dim is not None:
                value = value.movedim(dim, 0)
                value = value.reshape(len(value), *[1] * (rank + 1 - value.dim()), *value.shape[1:])
            aligned.append(value)
        return _Growth.apply(law, names, *aligned), 0


class LinearHardening(Hardening):
    """yield_stress + hardening_modulus * strain."""

    parameters = YIELD + LawParameters(
        LawParameter("hardening_modulus", "Pa", lower=0.0, closed=True, log=True, description="plastic tangent modulus")
    )

    def flow_stress(self, plastic_strain: Tensor, params: Values) -> Tensor:
        return params["yield_stress"] + params["hardening_modulus"] * plastic_strain

    def growth(self, size: Tensor, plastic_strain: Tensor, stiffness: Tensor, params: Values) -> Tensor:
        over = size - self.flow_stress(plastic_strain, params)
        return over.clamp(min=0.0) / (stiffness + params["hardening_modulus"])

    def slope(self, plastic_strain: Tensor, params: Values) -> Tensor:
        return torch.as_tensor(params["hardening_modulus"])


class Voce(Hardening):
    """yield_stress + saturation_stress (1 - exp(-saturation_rate * strain)) (Voce 1948)."""

    parameters = YIELD + LawParameters(
        LawParameter(
            "saturation_stress",
            "Pa",
            lower=0.0,
            closed=True,
            log=True,
            description="rise of the flow stress at saturation",
        ),
        LawParameter("saturation_rate", "", lower=0.0, description="how fast the flow stress saturates with strain"),
    )

    def flow_stress(self, plastic_strain: Tensor, params: Values) -> Tensor:
        rise = -torch.expm1(-params["saturation_rate"] * plastic_strain)
        return params["yield_stress"] + params["saturation_stress"] * rise

    def slope(self, plastic_strain: Tensor, params: Values) -> Tensor:
        rate = torch.as_tensor(params["saturation_rate"])
        return params["saturation_stress"] * rate * torch.exp(-rate * plastic_strain)


class Swift(Hardening):
    """yield_stress (1 + strain/reference_strain)^exponent (Swift 1952)."""

    parameters = YIELD + LawParameters(
        LawParameter("reference_strain", "", lower=0.0, description="strain at which hardening bends"),
        LawParameter(
            "hardening_exponent", "", lower=0.0, upper=1.0, closed=True, log=True, description="hardening exponent n"
        ),
    )

    def flow_stress(self, plastic_strain: Tensor, params: Values) -> Tensor:
        base = 1.0 + plastic_strain / params["reference_strain"]
        return params["yield_stress"] * base ** params["hardening_exponent"]

    def slope(self, plastic_strain: Tensor, params: Values) -> Tensor:
        reference, exponent = params["reference_strain"], params["hardening_exponent"]
        first = params["yield_stress"] * exponent / reference
        return first * (1.0 + plastic_strain / reference) ** (exponent - 1.0)
