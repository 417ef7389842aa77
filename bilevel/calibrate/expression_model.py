"""`kind: expression`: a model in one line of study.yml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field
from torch import Tensor

from bilevel.calibrate.expression import Dimensional, Expression
from bilevel.calibrate.model import Model, ModelConfig, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.study.units import describe, parse_unit
from bilevel.report import InputError


class ExpressionModel(Model):
    """A formula of parameters and columns, in any units: amplitude * exp(-rate * time).

    Names are columns where the observations have them, else parameters; all are reckoned with in SI units.
    """

    class Config(ModelConfig):
        expr: str = Field(min_length=1)
        """the formula: numbers, names, + - * / **, brackets, exp, log, log10, sqrt, abs, sin, cos, tan, tanh, atan, pi"""

    def __init__(self, config: Config, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        self.formula = Expression(config.expr)
        if entries := [name for name in self.formula.names if "[" in name]:
            raise InputError(f"expr: '{entries[0]}' is an entry of a field, which a formula of rows does not take")
        self.parameters = [name for name in self.formula.names if name not in observations.columns]

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        return {name: ParameterDefault(units=None) for name in self.parameters}

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        known = {name: parameters[name] for name in self.parameters} | dict(self.observations.columns)
        return self.formula({name: Dimensional(value) for name, value in known.items()}).value.expand(
            len(self.observations)
        )

    def require_units(self, parameters: Mapping[str, str]) -> None:
        """InputError where the units of parameters and columns do not make those of the values."""
        if not set(self.parameters) <= set(parameters):
            return  # a parameter that is missing is told as one
        one = self.observations.value.new_ones(())
        columns = {name: u.name for name, u in self.observations.column_units.items()}
        units = {name: parse_unit({**parameters, **columns}.get(name, "")) for name in self.formula.names}
        found = self.formula({name: Dimensional(one, unit.dimension) for name, unit in units.items()})
        for group in self.observations.groups:
            given = parse_unit(self.observations.units_of(group).name)
            if found.dimension != given.dimension:
                made = describe(type(given)("", 1.0, found.dimension))
                raise InputError(
                    f"expr: makes {made}, and the values of '{group}' are in '{given.name}' ({describe(given)})"
                )
