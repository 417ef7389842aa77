"""Parameters as the user gives them, and the set of them as the optimiser and the models see it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.settings import Transform
from bilevel.calibrate.study.units import IDENTITY, Conversion
from bilevel.calibrate.transforms import Coordinate
from bilevel.report import InputError


@dataclass(frozen=True)
class Parameter:
    """A parameter in natural units: a number, or a vector for a field; all entries share bounds, transform and prior.

    tied_to: label of the parameter with which it keeps the ratio of the start values (as in PEST).
    prior_mean, prior_std: a Gaussian prior on the natural value. experiments: those that it belongs to, () = all.
    conversion: from `units` to the model's. Raises InputError in a sentence that names the parameter.
    """

    name: str
    value: float | Sequence[float] | np.ndarray
    lower: float | None = None
    upper: float | None = None
    transform: Transform | str = Transform.NONE
    fixed: bool = False
    tied_to: str | None = None
    prior_mean: float | None = None
    prior_std: float | None = None
    units: str = ""
    experiments: tuple[str, ...] = ()
    conversion: Conversion = IDENTITY

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "transform", Transform(self.transform))
        except ValueError:
            raise self._error(f"transform must be none, log or logit, not '{self.transform}'") from None
        self._check_bounds()
        self._check_start()
        if (self.prior_mean is None) != (self.prior_std is None):
            raise self._error("prior_mean and prior_std must be given together")
        if self.prior_std is not None and not 0 < self.prior_std < math.inf:
            raise self._error(f"prior_std must be positive, not {self.prior_std:g}")
        if self.fixed and self.tied_to is not None:
            raise self._error("it is both fixed and tied; choose one")
        if not self.free and self.prior_mean is not None:
            raise self._error("it is fixed or tied, so a prior does nothing; leave it out")

    @property
    def label(self) -> str:
        """The name, with its experiments when it does not belong to all: "offset@day1"."""
        return self.name + (f"@{'+'.join(self.experiments)}" if self.experiments else "")

    @property
    def start(self) -> np.ndarray:
        """The start value as an array of shape () or (m,)."""
        return np.asarray(self.value, dtype=float)

    @property
    def size(self) -> int:
        return int(self.start.size)

    @property
    def free(self) -> bool:
        return not self.fixed and self.tied_to is None

    @property
    def coordinate(self) -> Coordinate:
        low = -math.inf if self.lower is None else self.lower
        high = math.inf if self.upper is None else self.upper
        return Coordinate(Transform(self.transform), low, high)

    @property
    def entry_labels(self) -> list[str]:
        """The label, or one label per entry of a field: "k[0]", "k[1]", ..."""
        return [self.label] if self.start.ndim == 0 else [f"{self.label}[{i}]" for i in range(self.size)]

    def _check_bounds(self) -> None:
        if any(bound is not None and math.isnan(bound) for bound in (self.lower, self.upper)):
            raise self._error("a bound is NaN")
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise self._error(f"lower bound {self.lower:g} must be below upper bound {self.upper:g}")
        if self.transform is Transform.LOGIT and (self.lower is None or self.upper is None):
            raise self._error("the logit transform needs both a lower and an upper bound")
        if self.transform is Transform.LOG and self.lower is not None and self.lower < 0:
            raise self._error(f"the log transform cannot reach its negative lower bound {self.lower:g}")
        if self.transform is Transform.LOG and self.upper is not None and self.upper <= 0:
            raise self._error(f"the log transform needs a positive upper bound, not {self.upper:g}")

    def _check_start(self) -> None:
        if np.iscomplexobj(self.value):
            raise self._error("the start value is complex; parameters are real")
        start = self.start
        if start.ndim > 1 or start.size == 0:
            raise self._error(f"the start must be a number or a vector, not an array of shape {start.shape}")
        if not np.isfinite(start).all():
            raise self._error("the start value is NaN or infinite")
        if self.transform is Transform.LOG and (start <= 0).any():
            raise self._error(f"the log transform needs a positive start value, not {start.min():g}")
        if self.tied_to is not None:
            return
        low, high = self.coordinate.lower, self.coordinate.upper
        outside = start[(start < low) | (start > high)]
        if outside.size:
            raise self._error(f"start value {outside.flat[0]:g} is outside its bounds [{low:g}, {high:g}]")
        if self.free and self.transform is Transform.LOGIT and ((start == low) | (start == high)).any():
            raise self._error("the logit transform needs a start strictly between the bounds")

    def _error(self, what: str) -> InputError:
        return InputError(f"parameter '{self.label}': {what}")


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
        self._check_ties()
        self.free = tuple(p for p in self.parameters if p.free)
        ends = np.cumsum([p.size for p in self.free], dtype=int)
        self.slices = {p.label: slice(int(end) - p.size, int(end)) for p, end in zip(self.free, ends)}
        self.size = int(ends[-1]) if len(ends) else 0

    @property
    def entry_labels(self) -> list[str]:
        """One label per entry of t."""
        return [label for p in self.free for label in p.entry_labels]

    def start(self) -> np.ndarray:
        """t at the start values."""
        parts = [p.coordinate.to_coordinate(torch.as_tensor(p.start).reshape(-1)) for p in self.free]
        return torch.cat(parts).numpy() if parts else np.zeros(0)

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds of t."""
        pairs = [p.coordinate.bounds() for p in self.free for _ in range(p.size)]
        low, high = zip(*pairs) if pairs else ((), ())
        return np.array(low, dtype=float), np.array(high, dtype=float)

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
                own[place] = np.maximum(own[place], p.prior_std)
        return np.minimum(np.where(own == 0, np.inf, own), high - low)

    def natural(self, t: Tensor) -> dict[str, Tensor]:
        """Label -> value in the user's units, for all parameters; differentiable in t."""
        values: dict[str, Tensor] = {}
        for p in self.free:
            values[p.label] = p.coordinate.to_natural(t[self.slices[p.label]]).reshape(p.start.shape)
        for p in self.parameters:
            self._resolve(p, values)
        return {p.label: values[p.label] for p in self.parameters}

    def slopes(self, t: Tensor) -> Tensor:
        """d natural / d t for each entry of t (p,)."""
        parts = [p.coordinate.slope(t[self.slices[p.label]]) for p in self.free]
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)

    def prior_residual(self, t: Tensor) -> Tensor:
        """(value - prior_mean) / prior_std of the free entries that have a prior; differentiable in t."""
        parts = [
            (p.coordinate.to_natural(t[self.slices[p.label]]) - p.prior_mean) / p.prior_std
            for p in self.free
            if p.prior_std is not None and p.prior_mean is not None
        ]
        return torch.cat(parts) if parts else t.new_zeros(0)

    def for_experiment(self, natural: Mapping[str, Tensor], experiment: str) -> dict[str, Tensor]:
        """Name -> value in the model's units, of the parameters that belong to an experiment."""
        return {p.name: p.conversion(natural[p.label]) for p in self.belonging_to(experiment)}

    def belonging_to(self, experiment: str) -> list[Parameter]:
        return [p for p in self.parameters if not p.experiments or experiment in p.experiments]

    def entries_of(self, experiment: str) -> np.ndarray:
        """Indices into t of the entries on which an experiment may depend."""
        roots = {self._root(p).label for p in self.belonging_to(experiment)}
        spans = [np.arange(s.start, s.stop) for label, s in self.slices.items() if label in roots]
        return np.concatenate(spans) if spans else np.zeros(0, dtype=int)

    def with_start(self, natural: Mapping[str, np.ndarray]) -> ParameterSet:
        """The same parameters with other start values (user's units)."""
        return ParameterSet(replace(p, value=natural.get(p.label, p.start)) for p in self.parameters)

    def _resolve(self, p: Parameter, values: dict[str, Tensor]) -> Tensor:
        if p.label not in values:
            start = torch.as_tensor(p.start)
            if p.tied_to is None:
                values[p.label] = start
            else:
                parent = self.by_label[p.tied_to]
                values[p.label] = self._resolve(parent, values) * (start / torch.as_tensor(parent.start))
        return values[p.label]

    def _root(self, p: Parameter) -> Parameter:
        while p.tied_to is not None:
            p = self.by_label[p.tied_to]
        return p

    def _check_ties(self) -> None:
        for tied in self.parameters:
            p, seen = tied, [tied.label]
            while p.tied_to is not None:
                if p.tied_to not in self.by_label:
                    raise InputError(f"parameter '{p.label}': tied_to '{p.tied_to}' is not a parameter of this study")
                p = self.by_label[p.tied_to]
                if p.label in seen:
                    raise InputError(f"parameters are tied in a circle: {' -> '.join([*seen, p.label])}")
                if (p.start == 0).any():
                    raise InputError(
                        f"parameter '{seen[-1]}': tied_to '{p.label}', whose start is 0, so no ratio can be kept"
                    )
                seen.append(p.label)
            if len(seen) > 1 and (tied.lower is not None or tied.upper is not None):
                raise InputError(
                    f"parameter '{tied.label}': it follows '{tied.tied_to}', whose bounds count; leave its own out"
                )


def _room(p: Parameter) -> np.ndarray:
    """How far the entries of t of a parameter without bounds may go from its start."""
    if p.transform is not Transform.NONE:
        return np.full(p.size, math.log(FARTHEST))
    start = np.abs(p.start.reshape(-1))
    return np.where(start == 0, math.inf, FARTHEST * start)
