"""A parameter as the user gives it."""

from __future__ import annotations

import math
from collections.abc import Sequence
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

    expr: a formula of other parameters that gives its value, with units taken care of; bounds then only say what is
    refused, and a start value is not needed. prior_mean, prior_std: a Gaussian prior on the natural value, for all entries or
    one for each; prior_log_std in place of prior_std: one on the natural logarithm, whose mean is that of prior_mean.
    entries: names of a field's entries, () = by number. experiments: those that it belongs to, () = all.
    conversion: from `units` to the model's. Raises InputError in a sentence that names the parameter.
    """

    name: str
    value: float | Sequence[float] | np.ndarray = math.nan
    lower: float | None = None
    upper: float | None = None
    transform: Transform | str = Transform.NONE
    fixed: bool = False
    expr: str | None = None
    prior_mean: float | Sequence[float] | np.ndarray | None = None
    prior_std: float | Sequence[float] | np.ndarray | None = None
    prior_log_std: float | Sequence[float] | np.ndarray | None = None
    units: str = ""
    experiments: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    conversion: Conversion = IDENTITY

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "transform", Transform(self.transform))
        except ValueError:
            raise self.error(f"transform must be none, log or logit, not '{self.transform}'") from None
        self._check_bounds()
        if self.expr is None:
            self._check_start()
        self._check_prior()
        if self.expr is not None and (self.fixed or self.transform is not Transform.NONE):
            raise self.error("its expression gives its value, so it is neither fixed nor transformed")
        if self.fixed and self.prior_mean is not None:
            raise self.error("it is fixed, so a prior does nothing; leave it out")

    @property
    def has_prior(self) -> bool:
        return self.prior_mean is not None

    def prior_residual(self, value: Tensor) -> Tensor:
        """(value - mean) / std of natural values, or that of their logarithms; has variance one before the calibration."""
        mean = torch.as_tensor(np.asarray(self.prior_mean, dtype=float))
        return (
            (value / mean).log() / self._prior_spread if self.prior_std is None else (value - mean) / self._prior_spread
        )

    def prior_slope(self, value: Tensor) -> Tensor:
        """The derivative of `prior_residual`."""
        return 1 / (self._prior_spread * (value if self.prior_std is None else torch.ones_like(value)))

    @property
    def _prior_spread(self) -> Tensor:
        given = self.prior_log_std if self.prior_std is None else self.prior_std
        return torch.as_tensor(np.asarray(given, dtype=float))

    def _check_prior(self) -> None:
        spreads = {"prior_std": self.prior_std, "prior_log_std": self.prior_log_std}
        given = {name: np.asarray(x, dtype=float) for name, x in spreads.items() if x is not None}
        if self.prior_mean is None and not given:
            return
        if self.prior_mean is None or len(given) != 1:
            raise self.error("a prior has prior_mean, and either prior_std or prior_log_std; give them together")
        ((name, spread),) = given.items()
        if not bool(((spread > 0) & np.isfinite(spread)).all()):
            raise self.error(f"{name} must be positive, not {spread.min():g}")
        mean = np.asarray(self.prior_mean, dtype=float)
        if name == "prior_log_std" and not bool((mean > 0).all()):
            raise self.error(f"a prior on the logarithm needs a positive prior_mean, not {mean.min():g}")
        for key, numbers in (("prior_mean", mean), (name, spread)):
            if numbers.shape not in ((), self.start.shape):
                raise self.error(
                    f"{key} has {numbers.size} entries, the value has {self.size}; give one for all or one for each"
                )

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
        return not self.fixed and self.expr is None

    @property
    def coordinate(self) -> Coordinate:
        low = -math.inf if self.lower is None else self.lower
        high = math.inf if self.upper is None else self.upper
        return Coordinate(Transform(self.transform), low, high)

    @property
    def entry_labels(self) -> list[str]:
        """The label, or one label per entry of a field: "k[0]", "k[1]", ... or "k[sand]", "k[clay]", ..."""
        return [self.label] if self.start.ndim == 0 else [f"{self.label}[{name}]" for name in self.entry_names]

    @property
    def entry_names(self) -> list[str]:
        """What stands in the brackets of the entries of a field."""
        return list(self.entries) or [str(i) for i in range(self.size)]

    def started_at(self, value: np.ndarray) -> Parameter:
        """The same from another start; transforms may carry a value at a bound a rounding error beyond it."""
        if self.free:
            value = np.clip(value, self.coordinate.lower, self.coordinate.upper)
        return replace(self, value=value)

    def _check_bounds(self) -> None:
        if any(bound is not None and math.isnan(bound) for bound in (self.lower, self.upper)):
            raise self.error("a bound is NaN")
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise self.error(f"lower bound {self.lower:g} must be below upper bound {self.upper:g}")
        if self.transform is Transform.LOGIT and (self.lower is None or self.upper is None):
            raise self.error("the logit transform needs both a lower and an upper bound")
        if self.transform is Transform.LOG and self.lower is not None and self.lower < 0:
            raise self.error(f"the log transform cannot reach its negative lower bound {self.lower:g}")
        if self.transform is Transform.LOG and self.upper is not None and self.upper <= 0:
            raise self.error(f"the log transform needs a positive upper bound, not {self.upper:g}")

    def _check_start(self) -> None:
        if np.iscomplexobj(self.value):
            raise self.error("the start value is complex; parameters are real")
        start = self.start
        if start.ndim > 1 or start.size == 0:
            raise self.error(f"the start must be a number or a vector, not an array of shape {start.shape}")
        if self.entries and start.ndim and len(self.entries) != self.size:
            raise self.error(f"it has {self.size} values for the {len(self.entries)} entries {', '.join(self.entries)}")
        if not np.isfinite(start).all():
            raise self.error("the start value is NaN or infinite")
        if self.transform is Transform.LOG and (start <= 0).any():
            raise self.error(f"the log transform needs a positive start value, not {start.min():g}")
        low, high = self.coordinate.lower, self.coordinate.upper
        outside = start[(start < low) | (start > high)]
        if outside.size:
            raise self.error(f"start value {outside.flat[0]:g} is outside its bounds [{low:g}, {high:g}]")
        if self.free and self.transform is Transform.LOGIT and ((start == low) | (start == high)).any():
            raise self.error("the logit transform needs a start strictly between the bounds")

    def error(self, what: str) -> InputError:
        """What is wrong, with the parameter's label in front."""
        return InputError(f"parameter '{self.label}': {what}")
