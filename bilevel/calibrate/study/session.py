"""A study run in a folder: the folder checked and held, the calibration resumed or begun, the outputs written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bilevel.calibrate.fit.journal import Journal
from bilevel.calibrate.fit.progress import Progress
from bilevel.calibrate.fit.stages import staged
from bilevel.calibrate.report.outputs import CHECKPOINT, PICTURES, STATE, names, write_outputs
from bilevel.calibrate.report.report_html import write_pictures, write_report
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.settings import Noise, Settings
from bilevel.calibrate.study.files import locked
from bilevel.calibrate.study.study import Study
from bilevel.report import InputError


@dataclass(frozen=True)
class Session:
    """A study and the folder of its results."""

    study: Study
    folder: Path

    def run(self, settings: Settings | None = None, force: bool = False) -> CalibrationResult:
        """Begin anew; InputError if results or an interrupted run are there, unless `force` removes them."""
        settings = settings or self.study.settings
        with self._held():
            self._require_unused(force)
            self._clear()
            about = {"fingerprint": self.study.fingerprint, "settings": settings.as_dict()}
            return self._calibrate(settings, Journal.create(self._checkpoint, about))

    def resume(self) -> CalibrationResult:
        """Go on from the checkpoint to the answer that the uninterrupted run would have given."""
        settings = self._settings()
        with self._held():
            return self._calibrate(settings, Journal(self._checkpoint))

    def replay(self, noise: Noise | None = None) -> CalibrationResult:
        """The result of an earlier run from its journal, with other statistics if asked for; writes nothing."""
        settings = replace(self._settings(), verify=False)
        settings = settings if noise is None else replace(settings, noise=noise)
        journal = Journal(self._checkpoint)
        journal.folder = None
        return staged(self.study.problem, self.study.stages, settings=settings, journal=journal, on_fail="ignore")

    def draw(self) -> list[Path]:
        """Draw the pictures of an earlier run as PNG files; returns their paths."""
        result = self.replay()
        with self._held():
            return write_pictures(self.study, result, self.folder / PICTURES)

    @property
    def _checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    def _settings(self) -> Settings:
        """The settings with which the run in this folder began; InputError if the study changed since."""
        about = Journal.about(self._checkpoint)
        if about["fingerprint"] != self.study.fingerprint:
            raise InputError(
                f"{self.folder}: {self.study.path} or its data changed since this run began; "
                "start again with bilevel run --force"
            )
        return Settings.from_dict(about["settings"])

    def _calibrate(self, settings: Settings, journal: Journal) -> CalibrationResult:
        study = self.study
        with Progress(study.problem, settings.noptmax) as progress:
            result = staged(
                study.problem, study.stages, settings=settings, journal=journal, watch=progress, on_fail="ignore"
            )
        write_report(study, result, self.folder)
        write_outputs(study, result, self.folder)
        return result

    def _require_unused(self, force: bool) -> None:
        if force:
            return
        found = [name for name in names(self.study) if (self.folder / name).exists()]
        if found:
            raise InputError(
                f"{self.folder}: already holds results ({found[0]}); "
                "use --force to replace them or --out for another folder"
            )
        if any(self._checkpoint.glob("*.npz")):  # a run that failed before its first evaluation left nothing to lose
            raise InputError(
                f"{self.folder}: holds an interrupted run; go on with bilevel resume, or start again with --force"
            )

    def _clear(self) -> None:
        """Remove what an earlier run wrote, and nothing else."""
        for name in names(self.study):
            (self.folder / name).unlink(missing_ok=True)
        for name in (CHECKPOINT, STATE, PICTURES):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    @contextmanager
    def _held(self) -> Iterator[None]:
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder}: is a file; expected a folder for the results")
        with locked(self.folder):
            yield
