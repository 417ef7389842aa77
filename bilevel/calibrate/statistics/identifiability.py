"""Which parameters the data do not determine, in sentences.

From the weighted Jacobian J in the optimiser's coordinates: a column that is zero, a direction that is (nearly) null
(singular values of J with unit columns; Brun, Reichert & Kuensch 2001, Water Resour. Res. 37:1015), an interval as wide
as the parameter's own scale, or an end at a bound. Nothing of it depends on where the calibration started.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.linearisation import Linearisation
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Noise, Transform
from bilevel.calibrate.statistics.information import information
from bilevel.calibrate.statistics.uncertainty import Statistics

NULL = 1e-8
"""A direction is null when its singular value is below this fraction of the largest."""
CORRELATED = 10.0
"""An entry is correlated with others when its standard deviation is so many times what it would be alone."""
WIDE_FACTOR = 10.0
"""An interval is too wide when it spans this factor either way (log), or this multiple of the value (no bounds)."""


@dataclass(frozen=True)
class Identifiability:
    """Singular values and right singular vectors (rows) of J with unit columns, and the sentences by entry label."""

    singular_values: np.ndarray
    directions: np.ndarray
    sentences: dict[str, str]

    @property
    def condition(self) -> float:
        smallest = self.singular_values.min(initial=math.inf)
        return math.inf if smallest == 0 else float(self.singular_values.max(initial=0.0) / smallest)


def identifiability(
    problem: CalibrationProblem, evaluation: Evaluation, statistics: Statistics, noise: Noise = Noise.ESTIMATED
) -> Identifiability:
    """Every free entry at a point that has a Jacobian."""
    informed = information(problem, evaluation, noise)
    level, linear = informed.level, informed.linear
    everything = np.ones(len(linear.t), dtype=bool)
    singular, directions = linear.spectrum(everything)
    std_t = np.sqrt(np.diag(informed.covariance(everything)))
    typical = math.sqrt(float(np.mean(informed.spread)))
    own = np.divide(typical, linear.norms, out=np.zeros_like(linear.norms), where=~linear.unseen)
    found, null = linear.spectrum(linear.free)
    null = null[found <= NULL * found.max(initial=0.0)]
    verdicts = _Verdicts(problem, linear, statistics, level.quantile * std_t, own < std_t / CORRELATED, null)
    return Identifiability(singular, directions, verdicts.sentences())


@dataclass(frozen=True)
class _Verdicts:
    """half_widths (p,): of the 95 % intervals of t. correlated (p,): wide because other entries can make up for it."""

    problem: CalibrationProblem
    linear: Linearisation
    statistics: Statistics
    half_widths: np.ndarray
    correlated: np.ndarray
    null_directions: np.ndarray

    def sentences(self) -> dict[str, str]:
        parameters = self.problem.parameters
        found: dict[str, str] = {}
        for parameter in parameters.free:
            span = parameters.slices[parameter.label]
            for i, label in zip(range(span.start, span.stop), parameter.entry_labels):
                if reason := self._reason(i, parameter):
                    found[label] = f"{label} is not identifiable: {reason}"
        return found

    def _reason(self, i: int, parameter: Parameter) -> str:
        if self.linear.unseen[i]:
            return "no fitted observation depends on it"
        if self.statistics.held[i]:
            return self._at_bound(i, parameter)
        partners = self._partners(i)
        if partners:
            return f"the data determine only a combination of it and {', '.join(partners)}"
        return self._too_wide(i, parameter)

    def _at_bound(self, i: int, parameter: Parameter) -> str:
        side, bound = (
            ("upper", parameter.upper) if self.linear.t[i] >= self.linear.high[i] else ("lower", parameter.lower)
        )
        if bound is None:
            return "it ran away from its start, and no bound stopped it"
        sentence = f"it ran to its {side} bound {bound:g} {parameter.units}".rstrip()
        if wide := self._too_wide(i, parameter):
            return f"{sentence}, and around there {wide}"
        return f"{sentence}; the data would have it beyond, so question the bound or the model"

    def _partners(self, i: int) -> list[str]:
        labels = self.problem.parameters.entry_labels
        names: list[str] = []
        for direction in self.null_directions:
            if abs(direction[i]) > 0.1:
                names += [labels[k] for k in np.nonzero(np.abs(direction) > 0.1)[0] if k != i]
        return list(dict.fromkeys(names))

    def _too_wide(self, i: int, parameter: Parameter) -> str:
        half = self.half_widths[i]
        if math.isnan(half):
            return ""
        if parameter.transform is Transform.LOG:
            if half <= math.log(WIDE_FACTOR):
                return ""
            factor = "more than a million" if half > math.log(1e6) else f"{math.exp(half):.3g}"
            return f"its 95 % interval spans a factor of {factor} either way"
        if parameter.transform is Transform.LOGIT:
            return "its 95 % interval covers its whole range" if half > 4.0 else ""
        if parameter.lower is not None and parameter.upper is not None:
            wide = 2 * half > parameter.upper - parameter.lower
            return "its 95 % interval is wider than its bounds" if wide else ""
        # Without bounds only the value gives a scale, and near zero it gives none: an offset of 0 +- 1 is well determined.
        size = abs(float(self.linear.t[i]))
        if self.correlated[i] and half > WIDE_FACTOR * size:
            return (
                "its interval is without end"
                if size == 0
                else f"its 95 % interval is {half / size:.3g} times its value either way"
            )
        return ""
