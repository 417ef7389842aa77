"""The keys of study.yml."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any

from pydantic import Field, model_validator

from bilevel.calibrate.settings import (
    EnsembleMethod,
    Failures,
    Method,
    Noise,
    StartSampling,
    StrengthRule,
    Sweep,
    TransformName,
)
from bilevel.calibrate.study.observation_schema import CandidateSection, ForecastSection, ObservationSection
from bilevel.calibrate.study.section import Section, is_number, is_text
from bilevel.calibrate.study.yaml_lines import kind_of


class ValueSection(Section):
    """A start value: a number, a list of numbers, or a file (.npy, or a column of a CSV)."""

    number: float | None = None
    """one number"""
    numbers: list[float] | None = None
    """one for each entry of a field"""
    file: str | None = None
    """a .npy file, or a table with `column`"""
    column: str | None = None
    """of the table"""

    @model_validator(mode="before")
    @classmethod
    def _from_scalar(cls, given: Any) -> Any:
        if isinstance(given, dict) and "file" in given and set(given) <= {"file", "column"}:
            return given
        if is_number(given):
            return {"number": given}
        if isinstance(given, list) and all(is_number(each) for each in given):
            return {"numbers": given}
        raise ValueError(f"expected a number, a list of numbers, or {{file: ..., column: ...}}, got {kind_of(given)}")

    @model_validator(mode="after")
    def _column_of_a_table(self) -> ValueSection:
        if self.file is not None and (self.column is None) is not self.file.endswith(".npy"):
            raise ValueError("a .npy file has no columns, any other needs one: {file: ..., column: ...}")
        return self


class ParameterSection(Section):
    """A parameter, in its own units; `experiment` (a name or a list) makes it belong to those alone."""

    name: str = Field(min_length=1)
    """as the model knows it"""
    value: ValueSection | None = None
    """where to start; needed unless there is an `expr`"""
    expr: str | None = Field(default=None, min_length=1)
    """a formula of other parameters that gives its value, as "2 * shear * (1 + nu)"; units are taken care of"""
    lower: float | None = None
    """bound; left out: the model's"""
    upper: float | None = None
    """bound; left out: the model's"""
    transform: TransformName | None = None
    """what is calibrated in its place; left out: the model's"""
    fixed: bool = False
    """known, not calibrated"""
    prior_mean: float | list[float] | None = None
    """of a normal prior; one number for all entries, or one for each; needs a std, or the parameter in prior_covariance"""
    prior_std: float | list[float] | None = None
    """of the same, in the parameter's units"""
    prior_log_std: float | list[float] | None = None
    """in place of prior_std: a prior on the natural logarithm (0.7 = a factor of two), about that of prior_mean"""
    units: str | None = None
    """of all its numbers; left out: the model's"""
    experiment: list[str] | None = Field(default=None, min_length=1)
    """the experiments that it belongs to; left out: all"""

    @model_validator(mode="before")
    @classmethod
    def _one_experiment(cls, given: Any) -> Any:
        if isinstance(given, dict) and is_text(given.get("experiment")):
            return {**given, "experiment": [given["experiment"]]}
        return given

    @model_validator(mode="after")
    def _start_or_formula(self) -> ParameterSection:
        if (self.value is None) == (self.expr is None):
            raise ValueError("give either value (where to start) or expr (a formula of other parameters)")
        given = [key for key in ("lower", "upper", "transform") if getattr(self, key) is not None]
        if self.expr is not None and (given or self.fixed):
            what = given[0] if given else "fixed"
            raise ValueError(
                f"its expression gives its value, so it has no '{what}'; bound what stands in the expression"
            )
        return self

    @model_validator(mode="after")
    def _each_once(self) -> ParameterSection:
        if self.experiment is not None and len(set(self.experiment)) < len(self.experiment):
            raise ValueError("an experiment is named twice")
        return self


class Scale(Enum):
    """What a covariance is of: the values, their natural or their decimal logarithms."""

    NATURAL = "natural"
    LOG = "log"
    LOG10 = "log10"


class PriorCovarianceSection(Section):
    """A file with the covariance of several parameters before the calibration; a bare text is the file."""

    file: str
    """a table with names (as the `case.post.cov.csv` of an earlier study), or PEST's .cov"""
    parameters: list[str] = Field(default=[])
    """those taken from it, as `K` or `k[3]`; left out: all, which then must be the study's"""
    scale: Scale | None = None
    """what it is of: natural, log or log10; left out: as its column `transform` says, of a .cov as PEST does it"""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        return {"file": given} if is_text(given) else given


class ExperimentSection(Section):
    """One experiment: what differs from the study's `model:` section, and its observations."""

    name: str = Field(min_length=1)
    """in reports, and of its folder of states"""
    model: dict[str, Any] = Field(default={})
    """keys that differ from the study's `model`"""
    observations: list[ObservationSection] = Field(min_length=1)
    """its files"""


class CalibrationSection(Section):
    """How to calibrate; see bilevel.calibrate.Settings."""

    method: Method = Method.LEAST_SQUARES
    """least_squares with the Jacobian, krylov without it for large fields (by itself above 1000 values), or lbfgsb"""
    noptmax: int = Field(default=100, ge=-1, le=1_000_000)
    """limit of iterations; 0: one run and its report, -1: Jacobian and linear statistics"""
    tolerance: float = Field(default=1e-6, gt=0, lt=1)
    """relative offset at which the fit has converged"""
    noise: Noise = Noise.ESTIMATED
    """`known`: weights are 1/sigma; `estimated`: s2 = phi / (m - p)"""
    jacobian: Sweep = Sweep.AUTO
    """sweeps over parameters (forward) or observations (adjoint); auto: the fewer"""
    statistics: bool = True
    """whether standard deviations are computed at the end"""
    verify: bool = True
    """whether the derivatives at the end are held against finite differences"""
    memory: bool = True
    """inner solves start from the states of earlier evaluations; false: each starts as the first one did"""
    memory_megabytes: float = Field(default=256.0, gt=0)
    """what these states may take; the latest are kept"""
    failures: Failures = Failures.REJECT
    """of a model, twice at one point: `reject` the point, `penalise` its experiment's readings, or `drop` the experiment"""


class StageSection(Section):
    """One stage: the parameters it frees and the groups it fits; left out: all of them."""

    name: str = Field(min_length=1)
    """in reports"""
    parameters: list[str] = Field(default=[])
    """free in this stage; left out: all"""
    groups: list[str] = Field(default=[])
    """fitted in this stage; left out: all"""


class StartsSection(Section):
    """Several starts, of which the best is reported; a bare number is the count."""

    count: int = Field(ge=2, le=100_000)
    """how many, the given start among them"""
    sampling: StartSampling = StartSampling.LATIN_HYPERCUBE
    """how the others are drawn within the bounds of the transformed parameters"""
    seed: int = Field(default=0, ge=0)
    """of the random numbers"""

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, given: Any) -> Any:
        return {"count": given} if is_number(given) else given


class StrengthSection(Section):
    """How strongly fields are smoothed: a factor on what the model says of its fields; a bare text is the rule."""

    rule: StrengthRule
    """`discrepancy` (phi of the readings meets a target), `gcv` (generalised cross-validation), `l_curve` (its corner)"""
    target: float = Field(default=1.0, gt=0)
    """phi for each reading, of the discrepancy principle; 1 where std is that of the errors"""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:
        return {"rule": given} if isinstance(given, str) else given


class EnsembleSection(Section):
    """Samples of the parameters that the readings allow; a bare number is the count."""

    count: int = Field(ge=10, le=100_000)
    """how many"""
    method: EnsembleMethod = EnsembleMethod.RML
    """`rml` (randomised maximum likelihood) calibrates to moved readings; `smoother` (ES-MDA) moves draws from the priors; `mcmc` needs mici"""
    seed: int = Field(default=0, ge=0)
    """of the random numbers"""

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, given: Any) -> Any:
        return {"count": given} if is_number(given) else given


class ExecutorSection(Section):
    """Where starts, profiles and ensembles are computed; a bare text is the kind."""

    kind: str = Field(default="serial", pattern=r"^(serial|processes|dask|mpi|tcp://\S+)$")
    """`serial`, `processes`, `dask` (a cluster on this machine), `tcp://host:port` (a dask scheduler), `mpi`"""
    workers: int | None = Field(default=None, ge=1, le=100_000)
    """how many; left out: one a core"""
    timeout: float | None = Field(default=None, gt=0)
    """seconds after which a task is given up and run again elsewhere; left out: none"""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:
        return {"kind": given} if isinstance(given, str) else given


class PlotSection(Section):
    """What stands on the pictures' horizontal axis."""

    x: str | None = None
    """a column; left out: the row's number"""
    log: bool | None = None
    """whether its axis is logarithmic"""


class StudySection(Section):
    """All of study.yml."""

    title: str = Field(min_length=1)
    """of the report"""
    description: str = ""
    """printed in the report"""
    case: str = Field(default="case", pattern=r"^[A-Za-z0-9_-]{1,100}$")
    """begins the names of the result files"""
    model: dict[str, Any]
    """`kind` and the keys of that kind"""
    parameters: list[ParameterSection]
    """what is calibrated, known, or follows from others"""
    prior_covariance: list[PriorCovarianceSection] = Field(default=[])
    """what is known of several parameters together, as from an earlier study"""
    observations: list[ObservationSection] | None = Field(default=None, min_length=1)
    """files of one experiment"""
    experiments: list[ExperimentSection] | None = Field(default=None, min_length=1)
    """several, with parameters in common"""
    calibration: CalibrationSection = CalibrationSection()
    """how to calibrate"""
    runs: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")], dict[str, Any]] = Field(default={})
    """named runs (--run NAME): keys of model, calibration and parameters (by name) that differ in them"""
    stages: list[StageSection] = Field(default=[])
    """fits one after another, each from the last one's values"""
    strength: StrengthSection | None = None
    """how strongly fields are smoothed; left out: as their model says"""
    starts: StartsSection | None = None
    """fits from several starts; the best is reported"""
    profiles: list[str] = Field(default=[])
    """parameters, entries (`k[3]`) or rows of weight 0 (`heads[2]`, the second of its group) whose profile likelihood is followed"""
    ensemble: EnsembleSection | None = None
    """samples of the parameters and of the forecasts"""
    forecasts: list[ForecastSection] = Field(default=[])
    """what is predicted after the calibration, with its uncertainty and the readings that it rests on"""
    candidates: list[CandidateSection] = Field(default=[])
    """possible new readings, and how much they would help the forecasts"""
    executor: ExecutorSection = ExecutorSection()
    """where starts, profiles and ensembles are computed"""
    plot: PlotSection = PlotSection()
    """the pictures' horizontal axis"""

    @model_validator(mode="after")
    def _one_kind(self) -> StudySection:
        if (self.observations is None) == (self.experiments is None):
            raise ValueError("give either 'observations' (one experiment) or 'experiments' (several)")
        return self
