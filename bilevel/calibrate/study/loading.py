"""study.yml read, checked, and turned into a calibration problem."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from bilevel.calibrate.derivation import Derivation, needed_by
from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.fit.executors import Workers
from bilevel.calibrate.fit.multistart import start_points
from bilevel.calibrate.fit.stages import restricted
from bilevel.calibrate.fit.strength import require_fields
from bilevel.calibrate.model import ConfigError, Model
from bilevel.calibrate.observations import ObservationTable, join
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Ensemble, Settings, Stage, Starts, Strength
from bilevel.calibrate.statistics.forecast_worth import with_scenarios
from bilevel.calibrate.statistics.quantity import find_quantity
from bilevel.calibrate.study.contents import contents
from bilevel.calibrate.study.error_covariance import covariance_files
from bilevel.calibrate.study.named_runs import with_run
from bilevel.calibrate.study.observation_files import read_observations, read_places
from bilevel.calibrate.study.observation_schema import ForecastSection, ObservationSection
from bilevel.calibrate.study.parameter_keys import read_parameter
from bilevel.calibrate.study.prior_covariance import means_alone, read_joint_prior, require_used
from bilevel.calibrate.study.registry import find_model, model_from_file
from bilevel.calibrate.study.schema import StudySection
from bilevel.calibrate.study.study import Study
from bilevel.calibrate.study.units import clash
from bilevel.calibrate.study.validated import hint, validated
from bilevel.calibrate.study.yaml_lines import Document, KeyPath, read_yaml
from bilevel.report import BilevelError, InputError


def load_study(path: Path | str, run: str | None = None, document: Document | None = None) -> Study:
    """Read a study, or one of its named runs; InputError, with file and line, for anything that is wrong with it.

    document: the file's content where it was read before.
    """
    path = Path(path)
    document = with_run(document or read_yaml(path), run)
    return replace(_Loader(document, validated(document, StudySection, document.content), path).study(), run=run)


class _Loader:
    """Builds a study from its validated keys, and says where an error came from."""

    def __init__(self, document: Document, section: StudySection, path: Path) -> None:
        self.document, self.section, self.path = document, section, path
        self.folder = path.parent
        self.files: list[Path] = []
        self.notes: list[str] = []
        self.rows: dict[tuple[str, ...], str] = {}

    def study(self) -> Study:
        experiments = [self._experiment(*entry) for entry in self._experiment_sections()]
        parameters = self._parameters(experiments)
        calibration = self.section.calibration
        with self._at(("parameters",)):
            problem = CalibrationProblem(parameters, experiments, calibration.jacobian)
        means = means_alone(self.section.parameters, parameters)
        for i, prior in enumerate(self.section.prior_covariance):
            with self._at(("prior_covariance", i)):
                joint = read_joint_prior(prior, self.folder, problem.parameters.parameters, means, self.notes)
                problem = problem.changed(joint_priors=[*problem.joint_priors, joint])
                self.files.append(self.folder / prior.file)
        with self._at(("parameters",)):
            require_used(means, problem)
        forecasts = self._scenarios("forecasts", self.section.forecasts, problem, [])
        candidates = self._scenarios("candidates", self.section.candidates, problem, forecasts)
        self._check_plot(experiments)
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
                memory=calibration.memory,
                memory_megabytes=calibration.memory_megabytes,
                failures=calibration.failures,
            ),
            stages=tuple(self._stages(problem)),
            plot=self.section.plot,
            text=self.document.text,
            contents=contents(self.path, self.section, self.files),
            notes=tuple(dict.fromkeys(self.notes)),
            starts=self._starts(problem),
            profiles=tuple(self._profiles(problem, forecasts)),
            forecasts=tuple(forecasts),
            candidates=tuple(candidates),
            ensemble=self._ensemble(),
            strength=self._strength(problem),
            workers=self._workers(),
        )

    def _experiment_sections(self) -> Iterator[tuple[str, dict[str, Any], Sequence[ObservationSection], KeyPath]]:
        if self.section.observations is not None:
            yield "experiment", self.section.model, self.section.observations, ()
        names: list[str] = []
        for i, e in enumerate(self.section.experiments or ()):
            if e.name in names:
                raise self.document.error(("experiments", i, "name"), f"there are two experiments called '{e.name}'")
            names.append(e.name)
            yield e.name, {**self.section.model, **e.model}, e.observations, ("experiments", i)

    def _experiment(
        self, name: str, keys: dict[str, Any], sections: Sequence[ObservationSection], where: KeyPath
    ) -> Experiment:
        document = self._model_document(keys, where)
        model_class, options = self._model_class(document, keys)
        config = validated(document, model_class.Config, options, ("model",))
        tables = []
        for k, section in enumerate(sections):
            self.files += [self.folder / section.file, *covariance_files(section, self.folder)]
            with self._at((*where, "observations", k)):
                tables.append(read_observations(section, self.folder, model_class, self.notes))
                self._require_new(section, tables[-1], keys)
        with self._at((*where, "observations")):
            table = join(tables, model_class.optional_columns)
        with self._at(("model",), document):
            return Experiment(name, _made(model_class, config, table, self.folder), table)

    def _model_document(self, keys: dict[str, Any], where: KeyPath) -> Document:
        """The keys of one experiment's model, with the lines of the experiment's own `model:` section where it has them."""
        lines = self.document.lines
        own = (*where, "model") if where else ("model",)
        found = {path: line for path, line in lines.items() if path[:1] == ("model",)}
        found |= {("model", *path[len(own) :]): line for path, line in lines.items() if path[: len(own)] == own}
        return Document(self.document.file, keys, found)

    def _model_class(self, document: Document, keys: dict[str, Any]) -> tuple[type[Model], dict[str, Any]]:
        options = dict(keys)
        kind = options.pop("kind", None)
        if not isinstance(kind, str):
            raise document.error(("model",), "key 'kind' is missing; it names the model, such as kind: pumping_test")
        if kind != "python":
            with self._at(("model", "kind"), document):
                return find_model(kind), options
        file, name, prepare = (options.pop(key, None) for key in ("file", "name", "prepare"))
        if not (isinstance(file, str) and isinstance(name, str) and isinstance(prepare, str | None)):
            message = (
                "a model of kind python needs 'file' (a Python file) and 'name' (what is in it), and may have 'prepare' "
                "(a function of the columns that is called once) and 'options'"
            )
            raise document.error(("model",), message)
        with self._at(("model", "file"), document):
            model_class = model_from_file(self.folder / file, name, prepare)
        self.files.append(self.folder / file)
        return model_class, options

    def _require_new(self, section: ObservationSection, table: ObservationTable, keys: dict[str, Any]) -> None:
        """The same value of the same row counts once, unless another model predicts it too."""
        model, column = repr(sorted(keys.items())), section.value.column
        for source in table.source:
            path, _, line = source.rpartition(", line ")
            if self.rows.setdefault((model, column, str(Path(path).resolve()), line), source) is not source:
                raise InputError(f"{source}: '{column}' of this row is an observation already and would count twice")

    def _parameters(self, experiments: list[Experiment]) -> list[Parameter]:
        parameters: list[Parameter] = []
        for i, section in enumerate(self.section.parameters):
            with self._at(("parameters", i)):
                if any(
                    (s.name, s.experiment) == (section.name, section.experiment) for s in self.section.parameters[:i]
                ):
                    raise InputError(f"parameter '{section.name}' is given more than once")
                parameter, file = read_parameter(section, self.folder, experiments)
            parameters.append(parameter)
            self.files += [] if file is None else [file]
        for experiment in experiments:
            with self._at(("model",)):
                belonging = [p for p in parameters if not p.experiments or experiment.name in p.experiments]
                experiment.model.require_units({p.name: p.units for p in belonging})
        for i, p in enumerate(parameters):
            if p.expr is not None:
                with self._at(("parameters", i, "expr")):
                    Derivation(needed_by(p, parameters))
        for experiment in experiments:
            if experiment.model.as_written:
                with self._at(("parameters",)):
                    _require_one_system(experiment, parameters)
        return parameters

    def _stages(self, problem: CalibrationProblem) -> Iterator[Stage]:
        names = [section.name for section in self.section.stages]
        for i, section in enumerate(self.section.stages):
            if section.name in names[:i]:
                raise self.document.error(("stages", i, "name"), f"there are two stages called '{section.name}'")
            stage = Stage(section.name, tuple(section.parameters), tuple(section.groups))
            with self._at(("stages", i)):
                restricted(problem, stage, {p.label: p.start for p in problem.parameters.parameters})
            yield stage

    def _starts(self, problem: CalibrationProblem) -> Starts | None:
        section = self.section.starts
        if section is None:
            return None
        starts = Starts(section.count, section.sampling, section.seed)
        with self._at(("starts",)):
            start_points(problem.parameters, starts)
        return starts

    def _strength(self, problem: CalibrationProblem) -> Strength | None:
        section = self.section.strength
        if section is None:
            return None
        with self._at(("strength",)):
            require_fields(problem)
        return Strength(section.rule, section.target)

    def _ensemble(self) -> Ensemble | None:
        section = self.section.ensemble
        return None if section is None else Ensemble(section.count, section.method, section.seed)

    def _profiles(self, problem: CalibrationProblem, forecasts: list[Experiment]) -> Iterator[str]:
        whole = with_scenarios(problem, forecasts)
        for i, name in enumerate(self.section.profiles):
            with self._at(("profiles", i)):
                find_quantity(whole, name)
            yield name

    def _scenarios(
        self, key: str, sections: Sequence[ForecastSection], problem: CalibrationProblem, others: Sequence[Experiment]
    ) -> list[Experiment]:
        """Rows without readings as experiments of their own, with the parameters of those that they belong to."""
        found: list[Experiment] = []
        for i, section in enumerate(sections):
            with self._at((key, i)):
                taken = [e.name for e in (*problem.experiments, *others, *found)] + [g for _, g, _ in problem.groups]
                if section.name in taken:
                    raise InputError(f"name: there is something called '{section.name}' already; choose another name")
                owner, keys = self._owner(section, problem)
            document = self._model_document({**keys, **section.model}, (key, i))
            model_class, options = self._model_class(document, {**keys, **section.model})
            config = validated(document, model_class.Config, options, ("model",))
            with self._at((key, i)):
                table = read_places(section, self.folder, model_class)
                scenario = Experiment(section.name, _made(model_class, config, table, self.folder), table, owner)
                scenario.model.require_units({p.name: p.units for p in problem.parameters.belonging_to(owner)})
                with_scenarios(problem, [scenario])
            found.append(scenario)
        return found

    def _owner(self, section: ForecastSection, problem: CalibrationProblem) -> tuple[str, dict[str, Any]]:
        """The experiment to which a scenario belongs, and the keys of its model."""
        names = [e.name for e in problem.experiments]
        if section.experiment is None and len(names) > 1:
            raise InputError(f"experiment: say to which it belongs (there are: {', '.join(names)})")
        owner = section.experiment or names[0]
        if owner not in names:
            raise InputError(f"experiment: there is no experiment '{owner}'{hint(owner, names)}")
        own = [e.model for e in self.section.experiments or () if e.name == owner]
        return owner, {**self.section.model, **(own[0] if own else {})}

    def _workers(self) -> Workers:
        with self._at(("executor",)):
            return Workers(self.section.executor.kind, self.section.executor.workers, self.section.executor.timeout)

    def _check_plot(self, experiments: list[Experiment]) -> None:
        x = self.section.plot.x
        known = list(dict.fromkeys(name for e in experiments for name in e.observations.columns))
        if x is not None and x not in known:
            raise self.document.error(("plot", "x"), f"there is no column '{x}' of numbers{hint(x, known)}")

    @contextmanager
    def _at(self, path: KeyPath, document: Document | None = None) -> Iterator[None]:
        """Put file and line in front of an InputError that has none yet."""
        document = document or self.document
        try:
            yield
        except InputError as error:
            if str(error).startswith(f"{document.file}, line"):
                raise
            if isinstance(error, ConfigError):
                raise document.error((*path, *error.key), error.sentence) from error
            raise document.error(path, str(error)) from error


def _made(model_class: type[Model], config: Any, table: ObservationTable, folder: Path) -> Model:
    try:
        return model_class(config, table, folder)
    except (BilevelError, InputError):
        raise
    except Exception as error:  # a model of anyone's own may raise anything
        raise InputError(f"setting up the model failed with {type(error).__name__}: {error}") from error


def _require_one_system(experiment: Experiment, parameters: Sequence[Parameter]) -> None:
    """A function that declares no units gets numbers as written, so they must be in one system."""
    table = experiment.observations
    belonging = [p.units for p in parameters if not p.experiments or experiment.name in p.experiments]
    units = [*belonging, *(u.name for u in (*table.group_units.values(), *table.column_units.values()))]
    if (found := clash(units)) is not None:
        raise InputError(
            f"the study has both '{found[0]}' and '{found[1]}', and the model's function declares no units, so it would "
            "get both as they are written; decorate it with @works_in(...) from bilevel.calibrate, or write one of them"
        )
