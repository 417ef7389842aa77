"""Several laws in one body, each in a zone of its own: an elastic pile in soil that yields, a weld in a plate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bilevel.report import InputError
from physics.constitutive.inelastic.law import InelasticLaw, ReturnMapping, Values
from physics.constitutive.lame import ELASTIC, LameParameters
from physics.local.parameters import LawParameter, LawParameters


class ElasticIncrements(ReturnMapping):
    """Hooke's law in increments: an elastic zone among inelastic ones."""

    parameters = ELASTIC

    def advance(self, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        return previous + LameParameters.of(params).stress(increment)


class ZonedLaw(InelasticLaw):
    """The law laws[k] wherever the parameter "zone" is k, a number by cell.

    Parameters of one name are one field, whose values each law takes in its own zone. States are the stress and the
    internal variables of all laws one after the other; those of another zone's law stay as they are.
    """

    def __init__(self, laws: Sequence[InelasticLaw]) -> None:
        """InputError for laws that give one name two meanings."""
        self.laws = tuple(laws)
        known: dict[str, LawParameter] = {}
        for parameter in (p for law in self.laws for p in law.parameters):
            if known.setdefault(parameter.name, parameter).units != parameter.units:
                raise InputError(f"two laws of one body measure '{parameter.name}' in different units")
        self.material = LawParameters(*known.values())
        zone = LawParameter("zone", lower=0.0, upper=len(self.laws) - 1.0, closed=True, description="which law holds")
        self.parameters = LawParameters(*known.values(), zone)
        self.variables = tuple(variable for law in self.laws for variable in law.variables)
        ends = torch.tensor([len(law.variables) for law in self.laws]).cumsum(0).tolist()
        self._slots = [[*range(6), *range(6 + end - len(law.variables), 6 + end)] for law, end in zip(self.laws, ends)]

    def advance(self, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        new = previous
        for number, law in enumerate(self.laws):
            inside = (params["zone"] == number).unsqueeze(-1)
            own = self._advance(number, law, increment, previous, params)
            columns = [new[..., k] for k in range(self.size)]
            for k, slot in enumerate(self._slots[number]):
                columns[slot] = torch.where(inside[..., 0], own[..., k], columns[slot])
            new = torch.stack(columns, -1)
        return new

    def consistent_tangent(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        found = increment.new_zeros(*increment.shape, 6)
        for number, law in enumerate(self.laws):
            inside = params["zone"] == number
            still, before, values = self._own(number, law, increment, previous, params)
            own = law.consistent_tangent(law.advance(still, before, values), still, before, values)
            found = torch.where(inside[..., None, None], own, found)
        return found

    def residual(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        """The distance from the update, dimensionless."""
        distance = state - self.advance(increment, previous, params)
        sizes = distance.new_tensor([variable.size for variable in self.variables])
        return torch.cat(
            [distance[..., :6] / LameParameters.of(params).mu.unsqueeze(-1), distance[..., 6:] / sizes], -1
        )

    def _advance(self, number: int, law: InelasticLaw, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        return law.advance(*self._own(number, law, increment, previous, params))

    def _own(
        self, number: int, law: InelasticLaw, increment: Tensor, previous: Tensor, params: Values
    ) -> tuple[Tensor, Tensor, Values]:
        """What a law sees: at points of other zones it rests, so that it finds an update there, which is not taken."""
        still = torch.where((params["zone"] == number).unsqueeze(-1), increment, torch.zeros_like(increment))
        names = law.parameters.given_in(params).names
        return still, previous[..., self._slots[number]], {name: params[name] for name in names}
