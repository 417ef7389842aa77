"""A study as the source of its tasks' problems: every process reads it once."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bilevel.calibrate.fit.problem_source import ProblemSource
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.study.loading import load_study
from bilevel.calibrate.study.registry import double_precision
from bilevel.calibrate.study.study import Study
from bilevel.report import InputError


@dataclass(frozen=True)
class StudySource(ProblemSource):
    """Where the study is, which run of it, and what it contained; workers on other machines need the same folder."""

    path: Path
    run: str | None
    fingerprint: str
    with_forecasts: bool = False
    strength: float = 1.0

    @staticmethod
    def of(study: Study, with_forecasts: bool = False, strength: float = 1.0) -> StudySource:
        return StudySource(study.path.resolve(), study.run, study.fingerprint, with_forecasts, strength)

    def problem(self) -> CalibrationProblem:
        study = _read(self)
        problem = study.whole if self.with_forecasts else study.problem
        return copy.deepcopy(problem).changed(strength=self.strength)

    @property
    def key(self) -> str:
        return f"{self.fingerprint} {self.strength!r}"


@lru_cache(maxsize=2)
def _read(source: StudySource) -> Study:
    """InputError where the study is not what it was when the task was made."""
    with double_precision():
        study = load_study(source.path, source.run)
    if study.fingerprint != source.fingerprint:
        raise InputError(
            f"{source.path}: the study or its data changed while it ran; start again with bilevel run --force"
        )
    return study
