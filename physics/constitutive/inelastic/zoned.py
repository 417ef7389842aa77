"""Several laws in one body, each in a zone of its own: an elastic pile in soil that yields, rubber in a metal plate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bilevel.report import InputError
from physics.constitutive.elastic.law import ElasticLaw
from physics.constitutive.inelastic.law import InelasticLaw, ReturnMapping, Values
from physics.constitutive.lame import ELASTIC, LameParameters
from physics.local.parameters import LawParameter, LawParameters


class ElasticIncrements(ReturnMapping):
    """Hooke's law in increments: an elastic zone among inelastic ones, which may begin under stress."""

    parameters = ELASTIC

    def advance(self, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        return previous + LameParameters.of(params).stress(increment)


class AtRest(InelasticLaw):
    """What `ZonedLaw` has where an elastic law holds, whose stress depends on the whole strain and not on increments."""

    def __init__(self, law: ElasticLaw) -> None:
        self.parameters = law.parameters

    def advance(self, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        return previous

    def residual(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        return state - previous

    def consistent_tangent(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        return increment.new_zeros(*increment.shape, 6)


class ZonedLaw(InelasticLaw):
    """The law laws[k] wherever the parameter "zone" is k, a number by cell.

    Parameters of one name are one field, whose values each law takes in its own zone. States are the stress and the
    internal variables of all laws one after the other; those of another zone's law stay as they are. elastic: the elastic
    laws by their number; a body evaluates them by itself, at the whole strain that they see, F or a small one.
    """

    def __init__(self, laws: Sequence[InelasticLaw | ElasticLaw]) -> None:
        """InputError for laws that give one name two meanings."""
        self.elastic = {number: law for number, law in enumerate(laws) if isinstance(law, ElasticLaw)}
        self.laws = tuple(AtRest(law) if isinstance(law, ElasticLaw) else law for law in laws)
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
        def advanced(number: int) -> Tensor:
            return self.laws[number].advance(*self._own(number, increment, previous, params))

        return self._by_zone(previous, params, advanced)

    def consistent_tangent(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        found = increment.new_zeros(*increment.shape, 6)
        for number, law in enumerate(self.laws):
            given = self._own(number, increment, previous, params)
            own = law.consistent_tangent(law.advance(*given), *given)
            found = torch.where((params["zone"] == number)[..., None, None], own, found)
        return found

    def residual(self, state: Tensor, increment: Tensor, previous: Tensor, params: Values) -> Tensor:
        """Each law's own; of internal variables of other zones, that they stay as they are."""

        def own(number: int) -> Tensor:
            given = self._own(number, increment, previous, params)
            return self.laws[number].residual(state[..., self._slots[number]], *given)

        return self._by_zone(state - previous, params, own)

    def values_of(self, number: int, params: Values) -> Values:
        """The parameters of one of the laws."""
        return {name: params[name] for name in self.laws[number].parameters.given_in(params).names}

    def _by_zone(self, otherwise: Tensor, params: Values, found: Callable[[int], Tensor]) -> Tensor:
        """What each law finds (..., 6 + its variables), at its own places in (..., size) and in its own zone."""
        for number, slots in enumerate(self._slots):
            inside, own = params["zone"] == number, found(number)
            columns = list(otherwise.unbind(-1))
            for k, slot in enumerate(slots):
                columns[slot] = torch.where(inside, own[..., k], columns[slot])
            otherwise = torch.stack(columns, -1)
        return otherwise

    def _own(self, number: int, increment: Tensor, previous: Tensor, params: Values) -> tuple[Tensor, Tensor, Values]:
        """What a law sees: at points of other zones it rests, so that it finds an update there, which is not taken."""
        resting = torch.where((params["zone"] == number).unsqueeze(-1), increment, torch.zeros_like(increment))
        return resting, previous[..., self._slots[number]], self.values_of(number, params)
