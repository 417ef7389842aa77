"""Material parameters with their physical bounds: the bounds are part of the model, and free variables never leave them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.report import InputError


@dataclass(frozen=True)
class Parameter:
    """One material parameter.

    lower, upper: physical bounds in `units`; open unless `closed`. above, below: names of parameters declared before this
    one that it must exceed or stay below (a compression index above the swelling index, a dilatancy angle below friction).
    default: what is taken where nothing is given. log: whether a calibration moves the logarithm; by default where the
    value is positive.
    """

    name: str
    units: str = ""
    lower: float = -math.inf
    upper: float = math.inf
    above: str | None = None
    below: str | None = None
    closed: bool = False
    description: str = ""
    default: float | None = None
    log: bool | None = None

    @property
    def logarithmic(self) -> bool:
        """Whether a calibration moves its logarithm unless told otherwise."""
        return (self.lower == 0.0 and not self.closed) if self.log is None else self.log

    def limits(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The tightest lower and upper bound, given the parameters declared before."""
        like = next(iter(values.values()), torch.zeros(()))
        lower, upper = torch.as_tensor(self.lower).to(like), torch.as_tensor(self.upper).to(like)
        if self.above is not None:
            lower = torch.maximum(lower, values[self.above])
        if self.below is not None:
            upper = torch.minimum(upper, values[self.below])
        return lower, upper

    def constrain(self, free: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """The value inside the bounds that belongs to a free variable: identity, exp or sigmoid."""
        lower, upper = self.limits(values)
        if math.isinf(self.lower) and self.above is None:
            return free if math.isinf(self.upper) and self.below is None else upper - torch.exp(-free)
        if math.isinf(self.upper) and self.below is None:
            return lower + torch.exp(free)
        return lower + (upper - lower) * torch.sigmoid(free)

    def release(self, value: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """The free variable that belongs to a value inside the bounds (the inverse of `constrain`)."""
        lower, upper = self.limits(values)
        if math.isinf(self.lower) and self.above is None:
            return value if math.isinf(self.upper) and self.below is None else -torch.log(upper - value)
        if math.isinf(self.upper) and self.below is None:
            return torch.log(value - lower)
        return torch.logit((value - lower) / (upper - lower))


class ParameterSet:
    """The parameters of a model in the order of their declaration."""

    def __init__(self, *parameters: Parameter) -> None:
        self._parameters = parameters

    def __iter__(self) -> Iterator[Parameter]:
        return iter(self._parameters)

    def __add__(self, other: ParameterSet) -> ParameterSet:
        return ParameterSet(*self._parameters, *other._parameters)

    @property
    def names(self) -> list[str]:
        return [parameter.name for parameter in self._parameters]

    def check(self, values: Mapping[str, Tensor], model: str) -> None:
        """Raise InputError, naming the parameter, if one is missing, not finite or outside its physical bounds."""
        for parameter in self._parameters:
            if parameter.name not in values:
                raise InputError(
                    f"{model} needs the parameter {parameter.name} [{parameter.units or '-'}]: {parameter.description}"
                )
        known = {p.name: torch.as_tensor(values[p.name]).detach() for p in self._parameters}
        for parameter in self._parameters:
            value = known[parameter.name]
            if not bool(torch.isfinite(value).all()):
                raise InputError(f"{model}: {parameter.name} is not finite")
            self._check_bound(parameter, value, known, model, below=False)
            self._check_bound(parameter, value, known, model, below=True)

    def _check_bound(
        self, parameter: Parameter, value: Tensor, known: Mapping[str, Tensor], model: str, below: bool
    ) -> None:
        bound = parameter.limits(known)[1 if below else 0]
        outside = value - bound if below else bound - value
        broken = outside > 0 if parameter.closed else outside >= 0
        if not bool(broken.any()):
            return
        partner = parameter.below if below else parameter.above
        fixed = parameter.upper if below else parameter.lower
        named = partner is not None and not bool((bound == fixed).all())
        limit = f"{partner} = {_number(known[partner])}" if named and partner else f"{fixed:g}"
        side = ("below" if below else "above") if not parameter.closed else ("at most" if below else "at least")
        raise InputError(
            f"{model}: {parameter.name} = {_number(value)} {parameter.units} must lie {side} {limit}; "
            f"{parameter.description or 'correct the value or its unit'}"
        )

    def constrain(self, free: Tensor) -> dict[str, Tensor]:
        """Values by name from free variables (..., n), every one strictly inside its physical bounds."""
        values: dict[str, Tensor] = {}
        for parameter, variable in zip(self._parameters, free.unbind(-1)):
            values[parameter.name] = parameter.constrain(variable, values)
        return values

    def release(self, values: Mapping[str, Tensor]) -> Tensor:
        """Free variables (..., n) of values by name; the inverse of `constrain`."""
        return torch.stack([p.release(values[p.name], values) for p in self._parameters], -1)


def _number(value: Tensor) -> str:
    flat = value.reshape(-1)
    return f"{float(flat[0]):.6g}" if flat.numel() == 1 else f"[{float(flat.min()):.6g} ... {float(flat.max()):.6g}]"
