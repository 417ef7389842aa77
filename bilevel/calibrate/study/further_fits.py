"""What a study asks for besides its fit: starts before it, forecasts and profiles after it; finished tasks are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.fit.executors import TaskFailure, run_tasks
from bilevel.calibrate.fit.multistart import multistart
from bilevel.calibrate.fit.start_outcomes import StartOutcome
from bilevel.calibrate.fit.strength import StrengthResult, choose_strength
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.settings import Settings, Starts, Strength
from bilevel.calibrate.statistics.ensemble import ensemble
from bilevel.calibrate.statistics.forecast_worth import forecasts_of, with_scenarios
from bilevel.calibrate.statistics.profile import profile_plan, profiles
from bilevel.calibrate.study.study import Study
from bilevel.calibrate.study.study_source import StudySource
from bilevel.report import BilevelError, InputError

_TASKS = "tasks"


@dataclass(frozen=True)
class FurtherFits:
    """Of a study, with the settings of its run; tasks are kept in a folder of the checkpoint."""

    study: Study
    settings: Settings
    checkpoint: Path

    def started(self, starts: Starts | None) -> tuple[list[StartOutcome], CalibrationProblem]:
        """The fits from several starts, and the problem at the best end; BilevelError where the model failed at all."""
        study, problem = self.study, self.study.problem
        if starts is None or self.settings.noptmax <= 0:
            return [], problem
        outcomes = multistart(
            problem,
            starts,
            stages=study.stages,
            settings=self.settings,
            workers=study.workers,
            source=StudySource.of(study),
            keep=self._tasks,
        )
        if not outcomes[0].values:
            raise BilevelError(f"the model failed at all {len(outcomes)} starts; the first said: {outcomes[0].status}")
        started = problem.parameters.with_start(outcomes[0].values).parameters
        return outcomes, problem.changed(started)

    def strengthened(self, problem: CalibrationProblem) -> tuple[StrengthResult | None, CalibrationProblem]:
        """The choice of the strength of fields' priors, and the problem with it, at the end of the fits that led to it."""
        if self.study.strength is None or self.settings.noptmax <= 0:
            return None, problem
        t = problem.parameters.start()
        key = f"strength of {self.study.fingerprint}: {self.study.strength} {self.settings} from {t.tobytes().hex()}"
        (found,) = run_tasks(_chosen, [(problem, self.study.strength, self.settings)], keep=self._tasks, keys=[key])
        if isinstance(found, TaskFailure):
            raise BilevelError(found.sentence)
        if "error" in found:
            raise BilevelError(found["error"])
        choice = StrengthResult.from_dict(found)
        return choice, problem.changed(problem.parameters.at(choice.t).parameters, strength=choice.strength)

    @property
    def _tasks(self) -> Path:
        return self.checkpoint / _TASKS

    def predict(self, result: CalibrationResult) -> None:
        """Add the forecasts, or a note why there are none."""
        study = self.study
        if not study.forecasts or result.statistics is None or _is_large(result, "forecasts"):
            return
        try:
            result.predicted = forecasts_of(
                result.problem, result.evaluation, self.settings.noise, study.forecasts, study.candidates
            )
        except Exception as error:  # a scenario may be beyond a model; the fit is done
            result.notes.append(f"the forecasts could not be made: {error}")

    def follow(self, result: CalibrationResult, names: Sequence[str]) -> None:
        """Add profiles, or a note why there are none."""
        if not names or result.statistics is None or _is_large(result, "profiles"):
            return
        problem, evaluation = self._whole(result)
        try:
            result.profiles = profiles(
                problem,
                evaluation,
                names,
                settings=self.settings,
                workers=self.study.workers,
                source=self._source(result),
                keep=self._tasks,
            )
        except (BilevelError, InputError) as error:
            result.notes.append(f"no profile could be followed: {error}")

    def sample(self, result: CalibrationResult) -> None:
        """Add samples, or a note why there are none."""
        study = self.study
        if study.ensemble is None or result.statistics is None or _is_large(result, "ensemble"):
            return
        problem, evaluation = self._whole(result)
        try:
            result.ensemble = ensemble(
                problem,
                evaluation,
                study.ensemble,
                settings=self.settings,
                workers=study.workers,
                source=self._source(result),
                keep=self._tasks,
            )
        except (BilevelError, InputError) as error:
            result.notes.append(f"no ensemble could be made: {error}")

    def require_profiles(self, result: CalibrationResult, names: Sequence[str]) -> None:
        """InputError for names that are none, and where nothing says how large the noise is."""
        whole = self._whole(result)
        for name in names:
            profile_plan(*whole, name, self.settings)

    def _source(self, result: CalibrationResult) -> StudySource:
        return StudySource.of(self.study, with_forecasts=True, strength=result.problem.strength)

    def _whole(self, result: CalibrationResult) -> tuple[CalibrationProblem, Evaluation]:
        """The problem and the optimum with the rows of the forecasts, of which there may be profiles."""
        if not self.study.forecasts:
            return result.problem, result.evaluation
        problem = with_scenarios(result.problem, self.study.forecasts)
        wanted = np.arange(len(problem.value)) >= len(result.problem.value)
        predicted, _ = problem.predictions_at(result.evaluation.t, wanted)
        return problem, replace(result.evaluation, prediction=np.concatenate([result.evaluation.prediction, predicted]))


def _is_large(result: CalibrationResult, key: str) -> bool:
    """Whether the fit went without a Jacobian, from which all else follows; a note says so."""
    if result.posterior is not None:
        result.notes.append(
            f"{key}: left out, since fields of so many parameters have no Jacobian; from Python, result.posterior.samples() "
            "gives fields to predict with"
        )
    return result.posterior is not None


def _chosen(problem: CalibrationProblem, strength: Strength, settings: Settings) -> dict[str, Any]:
    """The choice in plain values, so that it is kept."""
    try:
        return choose_strength(problem, strength, settings).as_dict()
    except BilevelError as error:
        return {"error": str(error)}
