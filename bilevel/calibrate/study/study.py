"""A study: study.yml read, checked, and turned into a calibration problem."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from bilevel.calibrate.fit.stages import restricted
from bilevel.calibrate.model import Model, ModelConfig, ParameterDefault
from bilevel.calibrate.observations import join
from bilevel.calibrate.parameters import Parameter, ParameterSet
from bilevel.calibrate.problem import CalibrationProblem, Experiment
from bilevel.calibrate.settings import Settings, Stage
from bilevel.calibrate.study.csv_table import read_csv, read_observations
from bilevel.calibrate.study.registry import find_model, model_from_file
from bilevel.calibrate.study.schema import (
    ExperimentSection,
    ObservationSection,
    ParameterSection,
    PlotSection,
    StudySection,
    ValueSection,
)
from bilevel.calibrate.study.units import Conversion, parse_unit
from bilevel.calibrate.study.yaml_lines import Document, KeyPath, read_yaml
from bilevel.report import InputError


@dataclass(frozen=True)
class Study:
    """A study ready to run. files: everything read besides study.yml; fingerprint: a hash of all of it."""

    path: Path
    title: str
    description: str
    case: str
    problem: CalibrationProblem
    settings: Settings
    stages: tuple[Stage, ...]
    plot: PlotSection
    files: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        return self.path.parent

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for file in (self.path, *self.files):
            digest.update(file.read_bytes())
        return digest.hexdigest()


def load_study(path: Path) -> Study:
    """Read a study; InputError, with file and line, for anything that is wrong with it."""
    document = read_yaml(path)
    try:
        section = StudySection.model_validate(document.content)
    except ValidationError as error:
        document.reject(error, StudySection)
    return _Loader(document, section, path).study()


class _Loader:
    """Builds a study from its validated keys, and says where an error came from."""

    def __init__(self, document: Document, section: StudySection, path: Path) -> None:
        self.document, self.section, self.path = document, section, path
        self.folder = path.parent
        self.files: list[Path] = []

    def study(self) -> Study:
        experiments = [self._experiment(*entry) for entry in self._experiment_sections()]
        names = [e.name for e in experiments]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise self.document.error(("experiments", i, "name"), f"there are two experiments called '{name}'")
        parameters = [self._parameter(i, p, experiments) for i, p in enumerate(self.section.parameters)]
        calibration = self.section.calibration
        self._check_parameters(parameters)
        with self._at(("parameters",)):
            problem = CalibrationProblem(parameters, experiments, calibration.jacobian)
        return Study(
            path=self.path,
            title=self.section.title,
            description=self.section.description,
            case=self.section.case,
            problem=problem,
            settings=Settings(
                method=calibration.method,
                noptmax=calibration.noptmax,
                tolerance=calibration.tolerance,
                noise=calibration.noise,
                statistics=calibration.statistics,
                verify=calibration.verify,
            ),
            stages=tuple(self._stages(problem)),
            plot=self.section.plot,
            files=tuple(dict.fromkeys(self.files)),
        )

    def _experiment_sections(self) -> Iterator[tuple[str, dict[str, Any], Sequence[ObservationSection], KeyPath]]:
        if self.section.observations is not None:
            yield "experiment", self.section.model, self.section.observations, ()
        for i, e in enumerate(self.section.experiments or ()):
            assert isinstance(e, ExperimentSection)
            yield e.name, {**self.section.model, **e.model}, e.observations, ("experiments", i)

    def _experiment(
        self, name: str, keys: dict[str, Any], sections: Sequence[ObservationSection], where: KeyPath
    ) -> Experiment:
        model_class, options = self._model_class(keys, where)
        config = self._config(model_class, options, where)
        tables = []
        for k, section in enumerate(sections):
            self.files.append(self.folder / section.file)
            with self._at((*where, "observations", k)):
                tables.append(read_observations(section, self.folder, model_class.columns, model_class.value_units))
        with self._at((*where, "observations")):
            table = join(tables)
        with self._at(self._model_path(where)):
            return Experiment(name, model_class(config, table, self.folder), table)

    def _model_class(self, keys: dict[str, Any], where: KeyPath) -> tuple[type[Model], dict[str, Any]]:
        options = dict(keys)
        kind = options.pop("kind", None)
        if not isinstance(kind, str):
            raise self.document.error(
                ("model",), "key 'kind' is missing; it names the model, such as kind: pumping_test"
            )
        if kind != "python":
            with self._at(("model", "kind")):
                return find_model(kind), options
        file, name = options.pop("file", None), options.pop("name", None)
        if not (isinstance(file, str) and isinstance(name, str)):
            raise self.document.error(
                ("model",), "a model of kind python needs 'file' (a Python file) and 'name' (what is in it)"
            )
        with self._at(("model", "file")):
            model_class = model_from_file(self.folder / file, name)
        self.files.append(self.folder / file)
        return model_class, options

    def _config(self, model_class: type[Model], options: dict[str, Any], where: KeyPath) -> ModelConfig:
        try:
            return model_class.Config.model_validate(options)
        except ValidationError as error:
            self.document.reject(error, model_class.Config, self._model_path(where, error))

    def _model_path(self, where: KeyPath, error: ValidationError | None = None) -> KeyPath:
        """The experiment's own `model:` section where it has the key in question, else the study's."""
        own = (*where, "model")
        if not where or own not in self.document.lines:
            return ("model",)
        if error is not None and not any((*own, *e["loc"]) in self.document.lines for e in error.errors()):
            return ("model",)
        return own

    def _parameter(self, i: int, section: ParameterSection, experiments: list[Experiment]) -> Parameter:
        with self._at(("parameters", i, "value")):
            value = self._value(section.value)
        default = _default(section, experiments)
        with self._at(("parameters", i)):
            conversion = _conversion(section, default)
            if default is None:
                default = ParameterDefault()
            return Parameter(
                name=section.name,
                value=value,
                lower=section.lower
                if section.lower is not None
                else _converted_bound(default.lower, conversion, section),
                upper=section.upper
                if section.upper is not None
                else _converted_bound(default.upper, conversion, section),
                transform=section.transform or default.transform,
                fixed=section.fixed,
                tied_to=section.tied_to,
                prior_mean=section.prior_mean,
                prior_std=section.prior_std,
                units=section.units or "",
                experiments=tuple(section.experiment),
                conversion=conversion,
            )

    def _check_parameters(self, parameters: list[Parameter]) -> None:
        """Find the line of the parameter that a set of them does not allow."""
        for i in range(len(parameters)):
            labels = [p.label for p in parameters[:i]]
            if parameters[i].label in labels:
                raise self.document.error(
                    ("parameters", i), f"parameter '{parameters[i].label}' is given more than once"
                )
        for i, p in enumerate(parameters):
            if p.tied_to is not None:
                with self._at(("parameters", i, "tied_to")):
                    ParameterSet([p, *(q for q in parameters if q is not p)])

    def _stages(self, problem: CalibrationProblem) -> Iterator[Stage]:
        names = [section.name for section in self.section.stages]
        for i, section in enumerate(self.section.stages):
            if section.name in names[:i]:
                raise self.document.error(("stages", i, "name"), f"there are two stages called '{section.name}'")
            stage = Stage(section.name, tuple(section.parameters), tuple(section.groups))
            with self._at(("stages", i)):
                restricted(problem, stage, {p.label: p.start for p in problem.parameters.parameters})
            yield stage

    def _value(self, section: ValueSection) -> float | np.ndarray:
        if section.number is not None:
            return section.number
        if section.numbers is not None:
            return np.array(section.numbers)
        file = self.folder / str(section.file)
        self.files.append(file)
        if file.suffix == ".npy":
            return _read_npy(file)
        if section.column is None:
            raise InputError(f"say which column of {file} holds the values: {{file: ..., column: ...}}")
        return read_csv(file).numbers(section.column)

    @contextmanager
    def _at(self, path: KeyPath) -> Iterator[None]:
        """Put file and line in front of an InputError that has none yet."""
        try:
            yield
        except InputError as error:
            text = str(error)
            if text.startswith(f"{self.document.file}, line"):
                raise
            raise self.document.error(path, text) from None


def _read_npy(file: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(file, allow_pickle=False), dtype=float)
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: cannot be read as numbers: {error}") from None


def _default(section: ParameterSection, experiments: list[Experiment]) -> ParameterDefault | None:
    """What the models to which a parameter belongs know of it; None where nothing is known."""
    for experiment in experiments:
        if not section.experiment or experiment.name in section.experiment:
            found = experiment.model.parameter_defaults().get(section.name)
            if found is not None:
                return found
            if section.name in experiment.observations.offset:
                return ParameterDefault(units=experiment.model.value_units or "")
    return None


def _conversion(section: ParameterSection, default: ParameterDefault | None) -> Conversion:
    if default is None:
        if section.units is None:
            return Conversion()
        given = parse_unit(section.units)
        return Conversion(given.scale, given.offset)
    target = parse_unit(default.units)
    if section.units is None:
        if any(target.dimension):
            raise InputError(
                f"parameter '{section.name}': units are missing; the model works in {default.units}, say what yours are"
            )
        return Conversion()
    try:
        return parse_unit(section.units).to(target)
    except InputError as error:
        raise InputError(f"parameter '{section.name}': {error}") from None


def _converted_bound(bound: float | None, conversion: Conversion, section: ParameterSection) -> float | None:
    """A model's own bound in the user's units, unless the parameter is tied or fixed and so has none."""
    if bound is None or not math.isfinite(bound) or section.fixed or section.tied_to is not None:
        return None
    return float(conversion.inverse(bound))
