"""What a density or law needs to know: parameters with units and physical bounds, which free variables never leave."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.report import InputError


@dataclass(frozen=True)
class LawParameter:
    """One material parameter.

    lower, upper: physical bounds in `units`; open unless `closed`. above, below: names of parameters declared before this
    one that it must exceed or stay below (a compression index above the swelling index, a dilatancy angle below friction).
    default: what is taken where nothing is given. log: whether a calibration moves the logarithm; by default where any
    positive value will do. volumetric: it has no effect where the volume does not change.
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
    volumetric: bool = False

    @property
    def logarithmic(self) -> bool:
        """Whether a calibration moves its logarithm unless told otherwise."""
        return (self.lower == 0.0 and math.isinf(self.upper) and not self.closed) if self.log is None else self.log

    def surely_holds(self, value: Tensor | float) -> bool:
        """Whether all values (...) are strictly inside bounds that do not depend on other parameters."""
        value = torch.as_tensor(value)
        free = self.above is None and self.below is None
        return free and bool((value > self.lower).all()) and bool((value < self.upper).all())

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


class LawParameters:
    """The parameters of a law in the order of their declaration.

    alternatives: other sets that say the same, such as another pair of elastic constants.
    """

    def __init__(self, *parameters: LawParameter, alternatives: Sequence[LawParameters] = ()) -> None:
        self._parameters = parameters
        self.alternatives = tuple(alternatives)

    def __iter__(self) -> Iterator[LawParameter]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def __add__(self, other: LawParameters) -> LawParameters:
        mixed = [
            LawParameters(*one._parameters, *two._parameters)
            for one in (self, *self.alternatives)
            for two in (other, *other.alternatives)
        ]
        return LawParameters(*mixed[0], alternatives=mixed[1:])

    @property
    def names(self) -> list[str]:
        return [parameter.name for parameter in self._parameters]

    def given_in(self, names: Collection[str]) -> LawParameters:
        """The first of the alternatives that `names` has in full, else this set."""
        complete = (one for one in (self, *self.alternatives) if all(name in names for name in one.names))
        return next(complete, self)

    def require(self, names: Collection[str], owner: str) -> None:
        """Raise InputError where a parameter is missing among `names`, or where there is one that is not known."""
        if not isinstance(names, Collection) or isinstance(names, Tensor):
            raise InputError(f"{owner} must be a dictionary of {', '.join(self.names)}")
        wanted = self.given_in(names)
        for parameter in wanted:
            if parameter.name not in names:
                said = f": {parameter.description}" if parameter.description else ""
                raise InputError(f"{owner} needs the parameter {parameter.name} [{parameter.units or '-'}]{said}")
        unknown = sorted(set(names) - set(wanted.names))
        if unknown:
            raise InputError(f"{owner} has '{unknown[0]}', but knows only {', '.join(wanted.names)}")

    def check(self, values: Mapping[str, Tensor], model: str) -> None:
        """Raise InputError, naming the parameter, if one is missing, not finite or outside its physical bounds."""
        self.given_in(values)._check(values, model)

    def _check(self, values: Mapping[str, Tensor], model: str) -> None:
        # Two comparisons each where all is well: the rest costs as much as the tangent of a small problem.
        if all(parameter.name in values and parameter.surely_holds(values[parameter.name]) for parameter in self):
            return
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
        self, parameter: LawParameter, value: Tensor, known: Mapping[str, Tensor], model: str, below: bool
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
