"""What a calibration found: parameters with statistics, misfit by group, the path there, and what it cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.evaluation import Evaluation, Iteration
from bilevel.calibrate.fit.evaluator import FailedPoint
from bilevel.calibrate.fit.start_outcomes import StartOutcome, starts_verdict
from bilevel.calibrate.fit.strength import StrengthResult
from bilevel.calibrate.matrix_free.laplace import LaplacePosterior
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Noise, Transform
from bilevel.calibrate.statistics.ensemble import EnsembleResult
from bilevel.calibrate.statistics.forecast_worth import Forecast
from bilevel.calibrate.statistics.forecasts import Forecasts
from bilevel.calibrate.statistics.identifiability import Identifiability
from bilevel.calibrate.statistics.profile import Profile
from bilevel.calibrate.statistics.uncertainty import Statistics
from bilevel.report import Counts, GradientReport

SHOWN = 12
"""Parameters that `print(result)` shows."""


@dataclass(frozen=True)
class GroupMisfit:
    """A group's share of phi, and the root-mean-square residual of its fitted rows in the units of its file.

    fitted: rows of weight above 0; where there are none, the rmse is that of the predictions. measured: rows of the rmse, which are not censored.
    """

    label: str
    phi: float
    rmse: float
    units: str
    rows: int
    fitted: int
    measured: int


@dataclass(frozen=True)
class ParameterEstimate:
    """One natural entry, in the user's units; std and interval are NaN where they are unknown.

    Those of correlated errors are NaN where errors look independent.
    """

    label: str
    value: float
    std: float
    lower95: float
    upper95: float
    units: str
    start: float
    lower: float | None
    upper: float | None
    transform: str
    at_bound: str
    state: str
    std_correlated: float = math.nan
    lower95_correlated: float = math.nan
    upper95_correlated: float = math.nan

    @property
    def relative_std(self) -> float:
        return self.std / abs(self.value) if self.value else math.nan


@dataclass(repr=False)
class CalibrationResult:
    """The end of a calibration; `statistics` and `identifiability` are None when no Jacobian was asked for.

    status: a sentence. noise_sentence: how large the noise is, where that needs saying. jacobian_error: the final
    Jacobian against finite differences, relative (NaN if not checked).
    certificate: what the implicit layers say of a gradient at the end, None if not asked for. starts, profiles: what
    further fits led to, where there were any. predicted: the study's forecasts.
    ensemble: samples of the parameters. posterior: of a large field, for samples of it. failed: points at which a model
    failed, once or for good. strength: how that of fields' priors was chosen. state_deviations: those of the models' fields, by
    experiment, as far as they were asked for.
    """

    problem: CalibrationProblem
    evaluation: Evaluation
    iterations: list[Iteration]
    converged: bool
    status: str
    method: str
    noise: Noise
    statistics: Statistics | None
    identifiability: Identifiability | None
    jacobian_error: float
    counts: Counts
    inner_solves: int
    inner_iterations: int
    certificate: GradientReport | None
    evaluations: int
    seconds: float
    forecasts: Forecasts | None = None
    noise_sentence: str = ""
    notes: list[str] = field(default_factory=list)
    starts: list[StartOutcome] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)
    predicted: list[Forecast] = field(default_factory=list)
    ensemble: EnsembleResult | None = None
    strength: StrengthResult | None = None
    posterior: LaplacePosterior | None = None
    failed: list[FailedPoint] = field(default_factory=list)
    state_deviations: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """The verdict, phi, and the first parameters; bilevel.calibrate.report has longer texts."""
        lines = [f"{self.status}; phi {self.phi:.6g}"]
        estimates = self.estimates
        for e in estimates[:SHOWN]:
            spread = f" +- {e.std:.3g}" if math.isfinite(e.std) else ""
            lines.append(f"  {e.label}: {e.value:.6g}{spread} {e.units}".rstrip())
        return "\n".join(lines + [f"  and {len(estimates) - SHOWN} more"] * (len(estimates) > SHOWN))

    @property
    def phi(self) -> float:
        return self.evaluation.phi

    @property
    def values(self) -> dict[str, float | np.ndarray]:
        """Label -> natural value in the user's units."""
        natural = self.problem.parameters.natural(torch.as_tensor(self.evaluation.t))
        return {label: v.item() if v.dim() == 0 else v.numpy() for label, v in natural.items()}

    @property
    def estimates(self) -> list[ParameterEstimate]:
        """All natural entries in the order of the study."""
        values = self.values
        found: list[ParameterEstimate] = []
        for parameter in self.problem.parameters.parameters:
            entries = np.atleast_1d(values[parameter.label])
            for k, label in enumerate(parameter.entry_labels):
                found.append(self._estimate(parameter, label, float(entries[k]), k, len(found)))
        return found

    @property
    def groups(self) -> list[GroupMisfit]:
        return group_misfits(self.problem, self.evaluation)

    @property
    def rmse(self) -> float:
        """Of all fitted rows together, in the groups' common units; NaN where their units differ."""
        groups = [g for g in self.groups if g.fitted and g.measured]
        if len({g.units for g in groups}) > 1:
            return math.nan
        rows = sum(g.measured for g in groups)
        return math.sqrt(sum(g.measured * g.rmse**2 for g in groups) / rows) if rows else math.nan

    @property
    def prior_phi(self) -> float:
        """The priors' share of phi."""
        return float(np.sum(self.evaluation.residual[len(self.problem.fitted) :] ** 2))

    @property
    def verdicts(self) -> list[str]:
        """The sentences that a reader must not miss."""
        found = [self.status]
        if self.identifiability is not None:
            found += list(self.identifiability.sentences.values())
        return found + self.findings + self.notes + [self.noise_sentence] * bool(self.noise_sentence)

    @property
    def findings(self) -> list[str]:
        """What several starts, profiles and forecasts say, where there are any."""
        said = [starts_verdict(self.problem.parameters, self.starts)] if self.starts else []
        said += [] if self.strength is None else [self.strength.sentence]
        said += [profile.sentence for profile in self.profiles]
        said += [forecast.sentence for forecast in self.predicted]
        return said + ([] if self.ensemble is None else [self.ensemble.sentence])

    def _estimate(self, parameter: Parameter, label: str, value: float, entry: int, index: int) -> ParameterEstimate:
        nan = math.nan
        std, low, high = nan, nan, nan
        beside = (nan, nan, nan)
        if self.statistics is not None and not parameter.fixed:
            if (other := self.statistics.correlated) is not None:
                beside = float(other.std[index]), float(other.lower95[index]), float(other.upper95[index])
            std = float(self.statistics.std[index])
            low, high = float(self.statistics.lower95[index]), float(self.statistics.upper95[index])
        state = "fixed" if parameter.fixed else "free" if parameter.expr is None else f"= {parameter.expr}"
        return ParameterEstimate(
            label=label,
            value=value,
            std=std,
            lower95=low,
            upper95=high,
            units=parameter.units,
            start=float(parameter.start.reshape(-1)[entry]),
            lower=parameter.lower,
            upper=parameter.upper,
            transform=parameter.coordinate.transform.value,
            at_bound=_at_bound(parameter, value) if parameter.free else "",
            state=state,
            std_correlated=beside[0],
            lower95_correlated=beside[1],
            upper95_correlated=beside[2],
        )


def group_misfits(problem: CalibrationProblem, evaluation: Evaluation) -> list[GroupMisfit]:
    """phi and rmse by group at an evaluated point; the rmse is that of the fitted rows, or of all where none is fitted."""
    residual = evaluation.prediction - problem.value.numpy()
    weighted = problem.misfit.residual(torch.as_tensor(evaluation.prediction)).numpy()
    known = (problem.misfit.limit == 0).numpy()
    found = []
    for experiment, group, rows in problem.groups:
        units = experiment.observations.units_of(group)
        fitted = rows[problem.weight.numpy()[rows] > 0]
        counted = fitted if len(fitted) else rows
        counted = counted[known[counted]]
        found.append(
            GroupMisfit(
                label=problem.group_label(experiment, group),
                phi=float(np.sum(weighted[fitted] ** 2)),
                rmse=float(np.sqrt(np.mean(residual[counted] ** 2))) / units.conversion.scale
                if len(counted)
                else math.nan,
                units=units.name,
                rows=len(rows),
                fitted=len(fitted),
                measured=len(counted),
            )
        )
    return found


def _at_bound(parameter: Parameter, value: float) -> str:
    """ "lower" or "upper" where the value is at that bound to a millionth of the range, else ""."""
    low, high = parameter.coordinate.lower, parameter.coordinate.upper
    width = high - low if math.isfinite(high - low) else abs(value)
    logarithmic = parameter.coordinate.transform is Transform.LOG
    if math.isfinite(low) and value - low <= 1e-6 * (low if logarithmic else width):
        return "lower"
    if math.isfinite(high) and high - value <= 1e-6 * (high if logarithmic else width):
        return "upper"
    return ""
