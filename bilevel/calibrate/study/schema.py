"""The keys of study.yml."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bilevel.calibrate.settings import Loss, Method, Noise, Sweep, TransformName, WeightRule
from bilevel.calibrate.study.yaml_lines import kind_of


class _Section(BaseModel):
    """Texts below a key say what it means; the site prints them."""

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True, use_attribute_docstrings=True
    )


def _is_text(given: Any) -> bool:
    """Whether a bare scalar may stand for a name: numbers are texts as they are written, true and false are not."""
    return isinstance(given, str) or _is_number(given)


def _is_number(given: Any) -> bool:
    return isinstance(given, (int, float)) and not isinstance(given, bool)


class ColumnSection(_Section):
    """A column of a file, in its units; a bare text is a column's name."""

    column: str
    """name of the column in the file's first row"""
    units: str | None = None
    """of its numbers; left out: those that the model works in"""
    sign: Literal[1, -1] = 1
    """-1 turns the sign of all values, as where a file counts compression positive"""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        return {"column": given} if _is_text(given) else given


class GroupSection(_Section):
    """One group for all rows (a bare text), or a column that names it."""

    name: str | None = None
    """the group of all rows"""
    column: str | None = None
    """a column of texts; each text is a group"""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        return {"name": str(given)} if _is_text(given) else given

    @model_validator(mode="after")
    def _one(self) -> GroupSection:
        if self.name == "":
            raise ValueError("the group's name is empty")
        if (self.name is None) == (self.column is None):
            raise ValueError("expected the group's name, or {column: ...}")
        return self


class WeightSection(_Section):
    """A number, a column, a rule by group (of a weight), or a relative error with a floor (of a std)."""

    number: float | None = Field(default=None, ge=0)
    """the same for all rows; 0 predicts without fitting"""
    column: str | None = None
    """one for each row"""
    rule: WeightRule | None = None
    """made from the values of each group"""
    relative: float | None = Field(default=None, ge=0)
    """std^2 = (relative * reading)^2 + floor^2, without units"""
    floor: float | None = Field(default=None, ge=0)
    """what the std of a small reading does not fall below, in the units of the values"""

    @model_validator(mode="before")
    @classmethod
    def _from_scalar(cls, given: Any) -> Any:
        if _is_number(given):
            return {"number": given}
        if isinstance(given, str):
            rules = [rule.value for rule in WeightRule]
            if given not in rules:
                raise ValueError(f"expected a number, {{column: ...}} or one of {', '.join(rules)}, got '{given}'")
            return {"rule": given}
        keys = set(given) if isinstance(given, dict) else set()
        if not keys or not (keys == {"column"} or keys <= {"relative", "floor"}):
            raise ValueError(
                "expected a number, {column: ...}, {relative: ..., floor: ...} or a rule such as inverse_mean_absolute"
            )
        return given


class Weighting(_Section):
    """weight, or std = 1/weight, in the units of the values."""

    weight: WeightSection | None = None
    """residuals are multiplied by it; 0 predicts without fitting"""
    std: WeightSection | None = None
    """standard deviation of a reading, in the units of the values: weight = 1/std"""
    loss: Loss = Loss.NORMAL
    """what a residual adds to phi: its square, or less of it where it is large, so that outliers count less"""
    logarithmic: bool = False
    """whether logarithms are compared; std is then that of the natural logarithm, 0.1 for ten percent"""
    correlated: str | None = Field(default=None, min_length=1)
    """a column (of `columns`) along which neighbouring errors resemble each other, or `rows` for their order"""

    @model_validator(mode="after")
    def _one(self) -> Weighting:
        if self.weight is not None and self.std is not None:
            raise ValueError("give weight or std, not both (std = 1/weight)")
        if self.std is not None and (self.std.rule is not None or self.std.number == 0):
            raise ValueError(
                "std must be a positive number, {column: ...} or {relative: ..., floor: ...}; rules are for weight"
            )
        if self.weight is not None and (self.weight.relative is not None or self.weight.floor is not None):
            raise ValueError("a relative error and a floor make a std, no weight")
        if self.loss is not Loss.NORMAL and self.std is None:
            raise ValueError(f"loss {self.loss.value} needs a std, from which it counts what is large")
        given = self.std or self.weight
        if self.logarithmic and given is not None and (given.rule, given.relative, given.floor) != (None, None, None):
            raise ValueError("the std of a logarithm is a number or a column; a relative error is one already")
        return self


class ObservationSection(Weighting):
    """A file of observations; `where` keeps the rows whose columns have the given texts."""

    file: str
    """a CSV beside the study; lines that begin with # are comments"""
    value: ColumnSection
    """the column of measurements"""
    columns: dict[str, ColumnSection] = {}
    """what the model needs for each row, by the model's name for it"""
    group: GroupSection = GroupSection(name="data")
    """what is reported together"""
    groups: dict[str, Weighting] = {}
    """weights of single groups, in place of the file's"""
    where: dict[str, list[str]] = {}
    """keeps the rows whose column has one of these texts"""
    offset: str | None = Field(default=None, min_length=1)
    """a parameter that is added to all predictions of this file"""
    delimiter: str = Field(default=",", pattern=r"^[^\w\s\"'.+#-]$|^\t$|^ $")
    """between columns"""

    @model_validator(mode="before")
    @classmethod
    def _where_lists(cls, given: Any) -> Any:
        """A single text in `where` is a list of one."""
        if isinstance(given, dict) and isinstance(where := given.get("where"), dict):
            return {**given, "where": {k: [v] if _is_text(v) else v for k, v in where.items()}}
        return given


class ValueSection(_Section):
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
        if _is_number(given):
            return {"number": given}
        if isinstance(given, list) and all(_is_number(each) for each in given):
            return {"numbers": given}
        raise ValueError(f"expected a number, a list of numbers, or {{file: ..., column: ...}}, got {kind_of(given)}")

    @model_validator(mode="after")
    def _column_of_a_table(self) -> ValueSection:
        if self.file is not None and (self.column is None) is not self.file.endswith(".npy"):
            raise ValueError("a .npy file has no columns, any other needs one: {file: ..., column: ...}")
        return self


class ParameterSection(_Section):
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
    prior_mean: float | None = None
    """of a normal prior on the value"""
    prior_std: float | None = None
    """of the same; left out both: no prior"""
    units: str | None = None
    """of all its numbers; left out: the model's"""
    experiment: list[str] | None = Field(default=None, min_length=1)
    """the experiments that it belongs to; left out: all"""

    @model_validator(mode="before")
    @classmethod
    def _one_experiment(cls, given: Any) -> Any:
        if isinstance(given, dict) and _is_text(given.get("experiment")):
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


class ExperimentSection(_Section):
    """One experiment: what differs from the study's `model:` section, and its observations."""

    name: str = Field(min_length=1)
    """in reports, and of its folder of states"""
    model: dict[str, Any] = {}
    """keys that differ from the study's `model`"""
    observations: list[ObservationSection] = Field(min_length=1)
    """its files"""


class CalibrationSection(_Section):
    """How to calibrate; see bilevel.calibrate.Settings."""

    method: Method = Method.LEAST_SQUARES
    """least squares with the Jacobian, or L-BFGS-B for very many parameters"""
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


class StageSection(_Section):
    """One stage: the parameters it frees and the groups it fits; left out: all of them."""

    name: str = Field(min_length=1)
    """in reports"""
    parameters: list[str] = []
    """free in this stage; left out: all"""
    groups: list[str] = []
    """fitted in this stage; left out: all"""


class PlotSection(_Section):
    """What stands on the pictures' horizontal axis."""

    x: str | None = None
    """a column; left out: the row's number"""
    log: bool | None = None
    """whether its axis is logarithmic"""


class StudySection(_Section):
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
    observations: list[ObservationSection] | None = Field(default=None, min_length=1)
    """files of one experiment"""
    experiments: list[ExperimentSection] | None = Field(default=None, min_length=1)
    """several, with parameters in common"""
    calibration: CalibrationSection = CalibrationSection()
    """how to calibrate"""
    stages: list[StageSection] = []
    """fits one after another, each from the last one's values"""
    plot: PlotSection = PlotSection()
    """the pictures' horizontal axis"""

    @model_validator(mode="after")
    def _one_kind(self) -> StudySection:
        if (self.observations is None) == (self.experiments is None):
            raise ValueError("give either 'observations' (one experiment) or 'experiments' (several)")
        return self
