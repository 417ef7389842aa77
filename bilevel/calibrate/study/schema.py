"""The keys of study.yml."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bilevel.calibrate.settings import Method, Noise, Sweep, TransformName, WeightRule
from bilevel.calibrate.study.yaml_lines import kind_of


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)


def _is_text(given: Any) -> bool:
    """Whether a bare scalar may stand for a name: numbers are texts as they are written, true and false are not."""
    return isinstance(given, str) or _is_number(given)


def _is_number(given: Any) -> bool:
    return isinstance(given, (int, float)) and not isinstance(given, bool)


class ColumnSection(_Section):
    """A column of a file, in its units; a bare text is a column's name."""

    column: str
    units: str | None = None
    sign: Literal[1, -1] = 1

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        return {"column": given} if _is_text(given) else given


class GroupSection(_Section):
    """One group for all rows (a bare text), or a column that names it."""

    name: str | None = None
    column: str | None = None

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
    """A number, a column, or a rule by group."""

    number: float | None = Field(default=None, ge=0)
    column: str | None = None
    rule: WeightRule | None = None

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
        if not (isinstance(given, dict) and set(given) == {"column"}):
            raise ValueError("expected a number, {column: ...} or a rule such as inverse_mean_absolute")
        return given


class Weighting(_Section):
    """weight, or std = 1/weight, in the units of the values."""

    weight: WeightSection | None = None
    std: WeightSection | None = None

    @model_validator(mode="after")
    def _one(self) -> Weighting:
        if self.weight is not None and self.std is not None:
            raise ValueError("give weight or std, not both (std = 1/weight)")
        if self.std is not None and (self.std.rule is not None or self.std.number == 0):
            raise ValueError("std must be a positive number or {column: ...}; rules are for weight")
        return self


class ObservationSection(Weighting):
    """A file of observations; `where` keeps the rows whose columns have the given texts."""

    file: str
    value: ColumnSection
    columns: dict[str, ColumnSection] = {}
    group: GroupSection = GroupSection(name="data")
    groups: dict[str, Weighting] = {}
    where: dict[str, list[str]] = {}
    offset: str | None = Field(default=None, min_length=1)
    delimiter: str = Field(default=",", pattern=r"^[^\w\s\"'.+#-]$|^\t$|^ $")

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
    numbers: list[float] | None = None
    file: str | None = None
    column: str | None = None

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
    value: ValueSection
    lower: float | None = None
    upper: float | None = None
    transform: TransformName | None = None
    fixed: bool = False
    tied_to: str | None = None
    prior_mean: float | None = None
    prior_std: float | None = None
    units: str | None = None
    experiment: list[str] | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _one_experiment(cls, given: Any) -> Any:
        if isinstance(given, dict) and _is_text(given.get("experiment")):
            return {**given, "experiment": [given["experiment"]]}
        return given

    @model_validator(mode="after")
    def _each_once(self) -> ParameterSection:
        if self.experiment is not None and len(set(self.experiment)) < len(self.experiment):
            raise ValueError("an experiment is named twice")
        return self


class ExperimentSection(_Section):
    """One experiment: what differs from the study's `model:` section, and its observations."""

    name: str = Field(min_length=1)
    model: dict[str, Any] = {}
    observations: list[ObservationSection] = Field(min_length=1)


class CalibrationSection(_Section):
    """How to calibrate; see bilevel.calibrate.Settings."""

    method: Method = Method.LEAST_SQUARES
    noptmax: int = Field(default=100, ge=-1)
    tolerance: float = Field(default=1e-6, gt=0, lt=1)
    noise: Noise = Noise.ESTIMATED
    jacobian: Sweep = Sweep.AUTO
    statistics: bool = True
    verify: bool = True


class StageSection(_Section):
    """One stage: the parameters it frees and the groups it fits; left out: all of them."""

    name: str = Field(min_length=1)
    parameters: list[str] = []
    groups: list[str] = []


class PlotSection(_Section):
    """What stands on the pictures' horizontal axis."""

    x: str | None = None
    log: bool | None = None


class StudySection(_Section):
    """All of study.yml."""

    title: str = Field(min_length=1)
    description: str = ""
    case: str = Field(default="case", pattern=r"^[A-Za-z0-9_-]{1,100}$")
    model: dict[str, Any]
    parameters: list[ParameterSection]
    observations: list[ObservationSection] | None = Field(default=None, min_length=1)
    experiments: list[ExperimentSection] | None = Field(default=None, min_length=1)
    calibration: CalibrationSection = CalibrationSection()
    stages: list[StageSection] = []
    plot: PlotSection = PlotSection()

    @model_validator(mode="after")
    def _one_kind(self) -> StudySection:
        if (self.observations is None) == (self.experiments is None):
            raise ValueError("give either 'observations' (one experiment) or 'experiments' (several)")
        return self
