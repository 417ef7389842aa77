"""All parameters of a study, as the optimiser and the models see them."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.derivation import Derivation, outside
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.settings import Transform
from bilevel.report import BilevelError, InputError

FARTHEST = 1e12
"""The factor by which a value may leave its start where nothing bounds it, and the share of a logit's range left over."""


class ParameterSet:
    """All parameters of a study; the optimiser sees the vector t (p,) of the free ones' transformed entries."""

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters = tuple(parameters)
        self.by_label = {p.label: p for p in self.parameters}
        if len(self.by_label) < len(self.parameters):
            labels = [p.label for p in self.parameters]
            raise InputError(f"parameter '{next(x for x in labels if labels.count(x) > 1)}' is given more than once")
        self.derivation = Derivation(self.parameters)
        self.parameters = self.derivation.started
        self.by_label = {p.label: p for p in self.parameters}
        self.free = tuple(p for p in self.parameters if p.free)
        ends = np.cumsum([p.size for p in self.free], dtype=int)
        self.slices = {p.label: slice(int(end) - p.size, int(end)) for p, end in zip(self.free, ends)}
        self.size = int(ends[-1]) if len(ends) else 0

    @cached_property
    def entry_labels(self) -> list[str]:
        """One label per entry of t."""
        return [label for p in self.free for label in p.entry_labels]

    @cached_property
    def _places(self) -> dict[str, tuple[str, int]]:
        """Of each entry of all parameters, by its label: the parameter, and where in it the entry stands."""
        return {label: (p.label, k) for p in self.parameters for k, label in enumerate(p.entry_labels)}

    def require_entries(self, labels: Sequence[str], what: str) -> None:
        """InputError, that begins with `what`, for a label that no entry has."""
        for label in labels:
            if label not in self._places:
                near = difflib.get_close_matches(label, self._places, n=1)
                known = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(list(self._places)[:20])}"
                raise InputError(f"{what}: there is no parameter or entry '{label}'; {known}")

    def values_of(self, natural: Mapping[str, Tensor], labels: Sequence[str]) -> Tensor:
        """The natural values (n,) of entries by their labels."""
        places = [self._places[label] for label in labels]
        return torch.stack([natural[name].reshape(-1)[k] for name, k in places])

    def start(self) -> np.ndarray:
        """t at the start values."""
        parts = [p.coordinate.to_coordinate(torch.as_tensor(p.start).reshape(-1)) for p in self.free]
        return torch.cat(parts).numpy() if parts else np.zeros(0)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds of t."""
        pairs = np.array([p.coordinate.bounds() for p in self.free], dtype=float).reshape(-1, 2)
        low, high = np.repeat(pairs, [p.size for p in self.free], axis=0).T
        return low.copy(), high.copy()

    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """The bounds of t, and FARTHEST from the start where there is none: what gets there has run away."""
        low, high = self.bounds()
        room = np.concatenate([_room(p) for p in self.free]) if self.free else np.zeros(0)
        start = self.start()
        return np.where(np.isfinite(low), low, start - room), np.where(np.isfinite(high), high, start + room)

    def reach(self, t: np.ndarray) -> np.ndarray:
        """How far an entry of t may be expected to move: one for logarithms, else its own size or range; inf = unknown."""
        low, high = self.bounds()
        own = np.maximum(np.abs(t), np.abs(self.start()))
        for p in self.free:
            place = self.slices[p.label]
            if p.transform is not Transform.NONE:
                own[place] = 1.0
            elif p.prior_std is not None:
                own[place] = np.maximum(own[place], np.asarray(p.prior_std, dtype=float))
        return np.minimum(np.where(own == 0, np.inf, own), high - low)

    def natural(self, t: Tensor) -> dict[str, Tensor]:
        """Label -> value in the user's units, for all parameters; differentiable in t."""
        values: dict[str, Tensor] = {}
        for p in self.free:
            values[p.label] = p.coordinate.to_natural(t[self.slices[p.label]]).reshape(p.start.shape)
        for p in self.parameters:
            if p.fixed:
                values[p.label] = torch.as_tensor(p.start)
        self.derivation.fill(values)
        return {p.label: values[p.label] for p in self.parameters}

    def require_allowed(self, natural: Mapping[str, Tensor]) -> None:
        """BilevelError where an expression gives what is not finite or beyond the bounds of its parameter."""
        for p in self.parameters:
            if p.expr is not None and (what := outside(p, natural[p.label])):
                raise BilevelError(f"parameter '{p.label}': {what}")

    def slopes(self, t: Tensor) -> Tensor:
        """d natural / d t for each entry of t (p,)."""
        parts = [p.coordinate.slope(t[self.slices[p.label]]) for p in self.free]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def prior_residual(self, t: Tensor) -> Tensor:
        """What has variance one before the calibration, of the entries that have a prior; differentiable in t."""
        natural = self.natural(t)
        parts = [p.prior_residual(natural[p.label]).reshape(-1) for p in self.parameters if p.has_prior]
        return torch.cat(parts) if parts else t.new_zeros(0)

    def for_experiment(self, natural: Mapping[str, Tensor], experiment: str) -> dict[str, Tensor]:
        """Name -> value in the model's units, of the parameters that belong to an experiment."""
        return {p.name: p.conversion(natural[p.label]) for p in self.belonging_to(experiment)}

    def belonging_to(self, experiment: str) -> list[Parameter]:
        return [p for p in self.parameters if not p.experiments or experiment in p.experiments]

    def entries_of(self, experiment: str) -> np.ndarray:
        """Indices into t of the entries on which an experiment may depend."""
        roots = {root for p in self.belonging_to(experiment) for root in self.derivation.roots(p.label)}
        spans = [np.arange(s.start, s.stop) for label, s in self.slices.items() if label in roots]
        return np.concatenate(spans) if spans else np.zeros(0, dtype=int)

    def at(self, t: np.ndarray) -> ParameterSet:
        """The same parameters, started at t."""
        natural = self.natural(torch.as_tensor(t))
        return self.with_start({label: value.numpy() for label, value in natural.items()})

    def with_start(self, natural: Mapping[str, np.ndarray]) -> ParameterSet:
        """The same parameters with other start values (user's units)."""
        return ParameterSet(p.started_at(natural.get(p.label, p.start)) for p in self.parameters)


def _room(p: Parameter) -> np.ndarray:
    """How far the entries of t of a parameter without bounds may go from its start."""
    if p.transform is not Transform.NONE:
        return np.full(p.size, math.log(FARTHEST))
    start = np.abs(p.start.reshape(-1))
    return np.where(start == 0, math.inf, FARTHEST * start)
