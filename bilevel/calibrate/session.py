"""A study run in a folder: the folder checked and held, the calibration resumed or begun, the outputs written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bilevel.calibrate.files import locked
from bilevel.calibrate.outputs import CHECKPOINT, RESULT, STATE, names, read_values, write_outputs
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.progress import Progress
from bilevel.calibrate.report_html import write_report
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.run import Settings, calibrate
from bilevel.calibrate.study import Study
from bilevel.report import InputError


@dataclass(frozen=True)
class Session:
    """A study and the folder of its results."""

    study: Study
    folder: Path

    def run(self, force: bool = False) -> CalibrationResult:
        """Begin anew; InputError if results or an interrupted run are there, unless `force` removes them."""
        with self._held():
            self._require_unused(force)
            self._clear()
            return self._calibrate()

    def resume(self) -> CalibrationResult:
        """Go on from the checkpoint to the answer that the uninterrupted run would have given."""
        if not (self.folder / CHECKPOINT).is_dir():
            raise InputError(f"{self.folder}: there is no checkpoint to resume from; call bilevel run")
        with self._held():
            return self._calibrate()

    def evaluate_result(self) -> CalibrationResult:
        """Linear statistics at the values that result.json holds; writes nothing."""
        values = read_values(self.study, self.folder)
        problem = self.study.problem
        parameters = problem.parameters.with_start(values).parameters
        at_end = CalibrationProblem(parameters, problem.experiments, problem.sweep)
        return calibrate(at_end, settings=replace(self.study.settings, noptmax=-1), on_fail="ignore")

    def _calibrate(self) -> CalibrationResult:
        study = self.study
        with Progress(study.problem, study.settings.noptmax) as progress:
            result = calibrate(
                study.problem,
                settings=study.settings,
                checkpoint=self.folder / CHECKPOINT,
                fingerprint=study.fingerprint,
                watch=progress,
                on_fail="ignore",
            )
        with torch.no_grad():  # the models' states are those of the last point tried, not of the best
            study.problem.predict(torch.as_tensor(result.evaluation.t))
        write_report(study, result, self.folder)
        write_outputs(study, result, self.folder)
        return result

    def _require_unused(self, force: bool) -> None:
        if force:
            return
        found = [name for name in names(self.study) if (self.folder / name).exists()]
        if found:
            raise InputError(
                f"{self.folder}: already holds results ({found[0]}); use --force to replace them or --out for another folder"
            )
        if (self.folder / CHECKPOINT).exists():
            raise InputError(
                f"{self.folder}: holds an interrupted run; go on with bilevel resume, or start again with --force"
            )

    def _clear(self) -> None:
        """Remove what an earlier run wrote, and nothing else."""
        for name in names(self.study):
            (self.folder / name).unlink(missing_ok=True)
        for name in (CHECKPOINT, STATE):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    @contextmanager
    def _held(self) -> Iterator[None]:
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder}: is a file; expected a folder for the results")
        with locked(self.folder):
            yield


def with_settings(study: Study, settings: Settings) -> Study:
    """The same study, calibrated in another way."""
    return replace(study, settings=settings)


def finished(folder: Path) -> bool:
    return (folder / RESULT).exists()
