"""An experiment, a model with the observations that it predicts, and whether parameters go together with experiments."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from bilevel.calibrate.model import Model
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.parameters import ParameterSet
from bilevel.report import InputError


@dataclass(frozen=True)
class Experiment:
    """A model, and the observations that it predicts.

    parameters_of: for a scenario, which is no experiment of its own, the one whose parameters it takes.
    """

    name: str
    model: Model
    observations: ObservationTable
    parameters_of: str = ""

    @property
    def owner(self) -> str:
        """The experiment to which its parameters belong."""
        return self.parameters_of or self.name


def require_consistent(parameters: ParameterSet, experiments: Sequence[Experiment]) -> None:
    """InputError where parameters and experiments do not go together, with the name that was probably meant."""
    if not experiments:
        raise InputError("there is no experiment; give observations")
    for experiment in experiments:
        _check_names(parameters, experiment)
    known = {e.name for e in experiments}
    for p in parameters.parameters:
        for name in p.experiments:
            if name not in known:
                raise InputError(
                    f"parameter '{p.label}': there is no experiment '{name}' (there are: {', '.join(known)})"
                )
    if not any(e.model.parameter_defaults() == {} for e in experiments):
        _check_all_used(parameters, experiments)


def _check_names(parameters: ParameterSet, experiment: Experiment) -> None:
    given = [p.name for p in parameters.belonging_to(experiment.owner)]
    for name in given:
        if given.count(name) > 1:
            raise InputError(f"parameter '{name}' is given more than once for experiment '{experiment.name}'")
    for name, default in experiment.model.parameter_defaults().items():
        if name not in given and default.value is None:
            raise InputError(
                f"the model of experiment '{experiment.name}' needs a parameter '{name}'; add it to parameters"
            )
    for p in parameters.belonging_to(experiment.owner):
        size = experiment.model.parameter_defaults().get(p.name)
        if size is not None and p.start.ndim and size.size != p.size:
            wanted = "a single number" if size.size is None else f"{size.size} values"
            raise InputError(f"parameter '{p.label}' has {p.size} values, the model takes {wanted}")
    for name in dict.fromkeys(experiment.observations.offset):
        if name and name not in given:
            raise InputError(f"observations of experiment '{experiment.name}': offset '{name}' is not a parameter")


def _check_all_used(parameters: ParameterSet, experiments: Sequence[Experiment]) -> None:
    named = parameters.derivation.used
    for p in parameters.parameters:
        places = [e for e in experiments if not p.experiments or e.owner in p.experiments]
        names = {n for e in places for n in (*e.model.parameter_defaults(), *e.observations.offset) if n}
        if p.name not in names and p.label not in named:
            near = difflib.get_close_matches(p.name, names, n=1)
            if p.expr is not None and not near:
                continue  # asked for its value and std alone
            hint = f"; did you mean '{near[0]}'?" if near else f" (it knows: {', '.join(sorted(names))})"
            raise InputError(f"parameter '{p.label}' is not known to the model{hint}")
