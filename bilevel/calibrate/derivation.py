"""Parameters that are formulas of others: in which order they follow, on what they depend, and their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter

import torch
from torch import Tensor

from bilevel.calibrate.expression import Dimensional, Expression
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.study.units import Unit, parse_unit
from bilevel.calibrate.study.validated import hint
from bilevel.report import InputError


@dataclass(frozen=True)
class _Source:
    """Where a name of a formula finds its value: a parameter, and which entry of it (None = all)."""

    label: str
    unit: Unit
    entry: int | None


class Derivation:
    """The formulas of a set of parameters, in the order in which they can be evaluated.

    started: the parameters, with the start values that formulas give. Raises InputError for unknown names, circles, and
    start values that are not finite or beyond bounds.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._all = tuple(parameters)
        self._derived = {p.label: p for p in parameters if p.expr is not None}
        self._formulas = {label: Expression(str(p.expr)) for label, p in self._derived.items()}
        self._units = {label: _unit(p) for label, p in self._derived.items()}
        self._sources = {
            label: {name: self._source(p, name) for name in self._formulas[label].names}
            for label, p in self._derived.items()
        }
        self._order = self._sorted()
        self.started = self._with_starts()

    @property
    def used(self) -> set[str]:
        """The labels of the parameters that stand in formulas."""
        return {source.label for sources in self._sources.values() for source in sources.values()}

    def fill(self, values: dict[str, Tensor]) -> None:
        """Add the values of all formulas to those of the other parameters; differentiable."""
        for label in self._order:
            values[label] = self._value(label, values)

    def roots(self, label: str) -> frozenset[str]:
        """The parameters that are no formulas and on which a parameter depends; of one that is none, itself."""
        if label not in self._derived:
            return frozenset({label})
        return frozenset(root for s in self._sources[label].values() for root in self.roots(s.label))

    def _value(self, label: str, values: Mapping[str, Tensor]) -> Tensor:
        p, unit = self._derived[label], self._units[label]
        known = {}
        for name, source in self._sources[label].items():
            value = values[source.label] if source.entry is None else values[source.label][source.entry]
            known[name] = Dimensional(value * source.unit.scale, source.unit.dimension)
        try:
            found = self._formulas[label](known)
        except InputError as error:
            raise p.error(str(error)) from None
        if found.dimension != unit.dimension:
            raise p.error(str(_mismatch(str(p.expr), found, unit)))
        return found.value / unit.scale

    def _source(self, p: Parameter, text: str) -> _Source:
        whole = any(q.name == text for q in self._all)  # k[sand] is a parameter of its own, or an entry of a field k
        name, _, entry = (text, "", "") if whole else text.rstrip("]").partition("[")
        named = [q for q in self._all if q.name == name]
        seen = [q for q in named if not q.experiments or set(p.experiments or ("",)) <= set(q.experiments)]
        if not seen:
            known = hint(name, [q.name for q in self._all if q is not p])
            where = f" of {p.label.partition('@')[2] or 'all experiments'}" if named else f" of this study{known}"
            raise p.error(f"in its expression, '{name}' is not a parameter{where}")
        (q,) = seen[:1]
        index = None
        if entry:
            if entry not in q.entry_names or not q.start.ndim:
                raise p.error(f"in its expression, '{text}' is no entry of a field")
            index = q.entry_names.index(entry)
        return _Source(q.label, _unit(q), index)

    def _sorted(self) -> list[str]:
        graph = {label: {source.label for source in used.values()} for label, used in self._sources.items()}
        try:
            return [label for label in TopologicalSorter(graph).static_order() if label in self._derived]
        except CycleError as error:
            raise InputError(f"expressions go round in a circle: {' -> '.join(error.args[1])}") from None

    def _with_starts(self) -> tuple[Parameter, ...]:
        values = {p.label: torch.as_tensor(p.start) for p in self._all if p.expr is None}
        try:
            self.fill(values)
        except RuntimeError as error:  # fields of different sizes
            raise InputError(f"the expressions of {', '.join(self._derived)} cannot be evaluated: {error}") from None
        for p in self._derived.values():
            if what := outside(p, values[p.label]):
                raise p.error(f"at the start values, {what}")
        return tuple(p if p.expr is None else replace(p, value=values[p.label].numpy()) for p in self._all)


def needed_by(p: Parameter, parameters: Sequence[Parameter]) -> list[Parameter]:
    """A parameter and all that it depends on, so that an error in its own formula is told first."""
    found, waiting = {p.label: p}, [p]
    while waiting:
        formula = Expression(str(waiting.pop().expr))
        names = {*formula.names, *(name.partition("[")[0] for name in formula.names)}
        more = [q for q in parameters if q.name in names and q.label not in found]
        found |= {q.label: q for q in more}
        waiting += [q for q in more if q.expr is not None]
    return list(found.values())


def outside(p: Parameter, value: Tensor) -> str:
    """What is wrong with the value that an expression gives, "" if nothing."""
    low, high = p.coordinate.lower, p.coordinate.upper
    slack = 1e-12 * value.abs()
    bad = value[~((value >= low - slack) & (value <= high + slack) & torch.isfinite(value))]
    if not len(bad.reshape(-1)):
        return ""
    return f"its expression '{p.expr}' gives {float(bad.reshape(-1)[0]):g}, not a number between {low:g} and {high:g}"


def _unit(p: Parameter) -> Unit:
    unit = parse_unit(p.units)
    if unit.offset:
        raise p.error(f"an expression cannot reckon with '{p.units}', whose zero is arbitrary; write it in K")
    return unit


def _mismatch(text: str, found: Dimensional, unit: Unit) -> str:
    given = Unit(text, 1.0, found.dimension)
    try:
        given.to(unit)
    except InputError as error:
        return str(error).replace("units '", "the expression '", 1)
    return ""
