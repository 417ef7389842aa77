"""A study run in a folder: the folder checked and held, the calibration resumed or begun, the outputs written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bilevel.calibrate.evaluation import Iteration
from bilevel.calibrate.fit.journal import Journal
from bilevel.calibrate.fit.progress import Progress
from bilevel.calibrate.fit.stages import staged
from bilevel.calibrate.fit.start_outcomes import StartOutcome
from bilevel.calibrate.fit.stop import STOP, Stopped, stop_asked, stoppable
from bilevel.calibrate.fit.strength import StrengthResult
from bilevel.calibrate.pest.export import write_pest_case
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.report.drawing_process import Draw, draw_here
from bilevel.calibrate.report.outputs import file_names, write_numbers, write_states
from bilevel.calibrate.report.page import write_pictures, write_report
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.settings import Noise, Settings, Starts
from bilevel.calibrate.study.files import REPORT, RESULT, locked
from bilevel.calibrate.study.further_fits import FurtherFits
from bilevel.calibrate.study.manifest import Manifest
from bilevel.calibrate.study.study import Study
from bilevel.calibrate.study.study_source import StudySource
from bilevel.report import BilevelError, InputError

STATE, CHECKPOINT, PICTURES, PEST = "state", "checkpoint", "pictures", "pest"
_NEXT = ".checkpoint.next"
_STARTS = 16


@dataclass(frozen=True)
class Session:
    """A study and the folder of its results."""

    study: Study
    folder: Path
    draw_pictures: Draw = draw_here

    @staticmethod
    def beside(study: Study) -> Session:
        """In `results` beside study.yml; other studies of the same folder, and named runs, get a folder of their own in there."""
        results = study.folder / "results"
        results = results if study.path.stem == "study" else results / study.path.stem
        return Session(study, results if study.run is None else results / study.run)

    def with_starts(self, count: int | None) -> Session:
        """From several starts, though the study may ask for one."""
        starts = self.study.starts or Starts(_STARTS)
        starts = starts if count is None else replace(starts, count=count)
        return replace(self, study=replace(self.study, starts=starts))

    def run(self, settings: Settings | None = None, force: bool = False) -> CalibrationResult:
        """Begin anew; InputError if results or an interrupted run are there, unless `force` replaces them.

        What is there is kept until the new run's first evaluation has succeeded.
        """
        settings = settings or self.study.settings
        with self._held():
            self._require_unused(force)
            about = {
                "contents": dict(self.study.contents),
                "settings": settings.as_dict(),
                "study_settings": self.study.settings.as_dict(),
                "starts": None if self.study.starts is None else self.study.starts.as_dict(),
            }
            shutil.rmtree(self.folder / _NEXT, ignore_errors=True)  # of a run killed before its first evaluation
            journal = Journal.create(self.folder / _NEXT, about)
            try:
                return self._calibrate(settings, journal)
            except Stopped:
                raise self._stopped() from None
            finally:
                shutil.rmtree(self.folder / _NEXT, ignore_errors=True)  # there only if no evaluation succeeded

    def resume(self, noptmax: int | None = None) -> CalibrationResult:
        """Go on from the checkpoint to the answer that the uninterrupted run would have given.

        What the study's `calibration:` says differently now, and `noptmax`, hold from here on.
        """
        if not self._checkpoint.exists() and (self.folder / _NEXT).exists():  # stopped before or in _replace_earlier
            with self._held():
                os.replace(self.folder / _NEXT, self._checkpoint)
                Manifest(self.folder).add([*file_names(self.study), f"{CHECKPOINT}/"])
        settings = self._settings()
        settings = settings if noptmax is None else replace(settings, noptmax=noptmax)
        with self._held():
            try:
                return self._calibrate(settings, Journal(self._checkpoint))
            except Stopped:
                raise self._stopped() from None

    def earlier_result(self, noise: Noise | None = None) -> CalibrationResult:
        """The result of an earlier run from its journal, with other statistics if asked for; writes nothing.

        InputError if that run was interrupted.
        """
        settings = replace(self._settings(), verify=False)
        return self._earlier(settings if noise is None else replace(settings, noise=noise))

    def _earlier(self, settings: Settings) -> CalibrationResult:
        if not (self.folder / RESULT).exists():
            raise InputError(f"{self.folder}: the run was interrupted; finish it with bilevel resume")
        journal = Journal(self._checkpoint, writes=False)
        outcomes, choice, problem = self._started(settings, journal)
        result = staged(problem, self.study.stages, settings=settings, journal=journal, on_fail="ignore")
        result.starts, result.strength = outcomes, choice
        return result

    def profile(self, names: Sequence[str]) -> CalibrationResult:
        """Follow profiles about the optimum of an earlier run, and write its files again with them.

        names: () = those of the study, else all free parameters. InputError if that run was interrupted, for names that
        are none, and where nothing says how large the noise is.
        """
        settings = replace(self._settings(), statistics=True)
        result = self._earlier(settings)
        free = result.problem.parameters.entry_labels
        asked = list(names or self.study.profiles or free)
        with self._held():
            FurtherFits(self.study, settings, self._checkpoint).require_profiles(result, asked)
            return self._written(result, settings, list(dict.fromkeys([*self.study.profiles, *asked])))

    def write_pest_case(self) -> list[Path]:
        """Write the optimum of an earlier run as a PEST case into its folder; returns the paths, the Jacobian's among them."""
        result = self._earlier(replace(self._settings(), statistics=True, verify=False))
        with self._held():
            file = self.folder / PEST / f"{self.study.case}.pst"
            paths = write_pest_case(
                result, file, self.study.forecasts, f"bilevel run {self.study.path.name} --noptmax 0"
            )
            self._list(paths)
            return paths

    def draw(self) -> tuple[list[Path], list[str]]:
        """Draw the pictures of an earlier run as PNG files; returns their paths, and what could not be drawn."""
        result = self.earlier_result()
        further = FurtherFits(self.study, self._settings(), self._checkpoint)
        further.follow(result, self.study.profiles)
        further.sample(result)
        with self._held():
            paths, failed = write_pictures(self.study, result, self.folder / PICTURES, self.draw_pictures)
            self._list(paths)
            return paths, failed

    @property
    def _checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    def _settings(self) -> Settings:
        """The settings with which the run in this folder began; InputError if the study changed since."""
        about = Journal.about(self._checkpoint)
        before, now = about.get("contents", {}), dict(self.study.contents)
        if changed := [name for name in {**before, **now} if before.get(name) != now.get(name)]:
            raise InputError(
                f"{self.folder}: {self.study.path} or its data changed since this run began ({', '.join(changed)}); "
                "start again with bilevel run --force"
            )
        settings, as_begun = dict(about["settings"]), about["study_settings"]
        edited = {
            key: value for key, value in self.study.settings.as_dict().items() if value != as_begun.get(key, value)
        }
        return Settings.from_dict(settings | edited)

    def _calibrate(self, settings: Settings, journal: Journal) -> CalibrationResult:
        study = self.study
        outcomes, choice, problem = self._started(settings, journal)
        with Progress(problem, settings.noptmax) as progress:

            def watch(iteration: Iteration) -> None:
                if journal.folder == self.folder / _NEXT:
                    self._replace_earlier(journal)
                progress(iteration)

            result = staged(
                problem,
                study.stages,
                settings=settings,
                journal=journal,
                watch=watch,
                on_fail="ignore",
                workers=study.workers,
                source=StudySource.of(study),
            )
        result.starts, result.strength = outcomes, choice
        return self._written(result, settings, study.profiles)

    def _started(
        self, settings: Settings, journal: Journal
    ) -> tuple[list[StartOutcome], StrengthResult | None, CalibrationProblem]:
        """What several starts found, as many as the run in the journal's folder began with, the strength, and the problem then."""
        assert journal.folder is not None
        starts = Journal.about(journal.folder).get("starts")
        further = FurtherFits(self.study, settings, journal.folder)
        outcomes, problem = further.started(None if starts is None else Starts.from_dict(starts))
        choice, problem = further.strengthened(problem)
        return outcomes, choice, problem

    def _written(self, result: CalibrationResult, settings: Settings, names: Sequence[str]) -> CalibrationResult:
        """The result with its profiles and its files; its numbers are written before any profile is begun."""
        study = self.study
        result.notes += study.notes
        further = FurtherFits(study, settings, self._checkpoint)
        further.predict(result)
        write_numbers(study, result, self.folder)
        if (names or study.ensemble is not None) and not stop_asked():
            try:
                further.follow(result, names)
                further.sample(result)
            except Stopped:
                result.notes.append(
                    f"stopped by {self._stop.name} among profiles and samples; go on with bilevel resume"
                )
            write_numbers(study, result, self.folder)
        states, trouble = write_states(result, self.folder / STATE)
        self._list(states)
        result.notes += trouble
        try:
            result.notes += write_report(study, result, self.folder, self.draw_pictures)
        except Exception as error:  # the numbers are safe; a page is no reason to fail
            result.notes.append(f"{REPORT} could not be written: {type(error).__name__}: {error}")
        return result

    def _replace_earlier(self, journal: Journal) -> None:
        """Put the new run in the place of what earlier runs left here; called after its first evaluation."""
        manifest = Manifest(self.folder)
        manifest.remove_files()
        shutil.rmtree(self._checkpoint, ignore_errors=True)
        os.replace(self.folder / _NEXT, self._checkpoint)
        journal.folder = self._checkpoint
        manifest.add([*file_names(self.study), f"{CHECKPOINT}/"])

    def _list(self, paths: list[Path]) -> None:
        if paths:
            Manifest(self.folder).add(path.relative_to(self.folder).as_posix() for path in paths)

    def _require_unused(self, force: bool) -> None:
        if self._checkpoint.exists() and not self._is_ours():
            raise InputError(
                f"{self.folder}: holds a folder '{CHECKPOINT}' that no run made; choose another folder with --out"
            )
        if force:
            return
        found = [name for name in file_names(self.study) if (self.folder / name).exists()]
        if found:
            raise InputError(
                f"{self.folder}: already holds results ({found[0]}); "
                "use --force to replace them or --out for another folder"
            )
        if self._checkpoint.exists():
            raise InputError(
                f"{self.folder}: holds an interrupted run; go on with bilevel resume, or start again with --force"
            )

    def _is_ours(self) -> bool:
        """Whether the checkpoint here is listed, or at least begins as our journals do."""
        if f"{CHECKPOINT}/" in Manifest(self.folder).files:
            return True
        try:
            return "study_settings" in Journal.about(self._checkpoint)
        except InputError:
            return False

    def _stopped(self) -> BilevelError:
        """What is said of a stop before there is anything to report."""
        return BilevelError(
            f"{self.folder}: stopped by {self._stop.name}; what is done is kept, go on with bilevel resume"
        )

    @property
    def _stop(self) -> Path:
        return self.folder / f"{self.study.case}{STOP}"

    @contextmanager
    def _held(self) -> Iterator[None]:
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder}: is a file; expected a folder for the results")
        with locked(self.folder), stoppable(self._stop):
            yield
