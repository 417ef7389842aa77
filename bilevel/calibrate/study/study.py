"""A study: what study.yml says, ready to be calibrated."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.fit.executors import HERE, Workers
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Ensemble, Settings, Stage, Starts, Strength
from bilevel.calibrate.statistics.forecast_worth import with_scenarios
from bilevel.calibrate.study.schema import PlotSection


@dataclass(frozen=True)
class Study:
    """A study ready to run.

    text: study.yml as it was read. contents: hashes and versions of all on which the answer depends, by name.
    run: which of its named runs this is, None = the study itself. notes: sentences on what was read and may not be meant.
    starts, profiles, workers: further fits, and where they are computed.
    forecasts, candidates: what is predicted, and what might be read, besides.
    ensemble: samples that are wanted. strength: how that of fields' priors is chosen.
    """

    path: Path
    title: str
    description: str
    case: str
    problem: CalibrationProblem
    settings: Settings
    stages: tuple[Stage, ...]
    plot: PlotSection
    text: str
    contents: Mapping[str, str]
    notes: tuple[str, ...] = ()
    starts: Starts | None = None
    profiles: tuple[str, ...] = ()
    workers: Workers = HERE
    forecasts: tuple[Experiment, ...] = ()
    candidates: tuple[Experiment, ...] = ()
    ensemble: Ensemble | None = None
    strength: Strength | None = None
    run: str | None = None

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def whole(self) -> CalibrationProblem:
        """The problem that predicts the forecasts too."""
        return with_scenarios(self.problem, self.forecasts) if self.forecasts else self.problem

    @property
    def fingerprint(self) -> str:
        """One hash of `contents`."""
        return hashlib.sha256(json.dumps(dict(self.contents), sort_keys=True).encode()).hexdigest()
