"""The keys of `observations:`: files, columns, weights, noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from bilevel.calibrate.settings import Loss, WeightRule
from bilevel.calibrate.study.csv_file import CsvFile, TableLayout, read_csv
from bilevel.calibrate.study.section import Section, is_number, is_text


class ColumnSection(Section):
    """A column of a file, in its units, or of dates; a bare text is a column's name."""

    column: str
    """name of the column in the file's first row"""
    units: str | None = None
    """of its numbers; left out: those that the model works in"""
    sign: Literal[1, -1] = 1
    """-1 turns the sign of all values, as where a file counts compression positive"""
    origin: str | None = Field(default=None, min_length=1)
    """the column holds dates, and this is the one from which time is counted: 2024-12-31T12:00 or 31.12.2024 12:00"""
    format: str | None = Field(default=None, min_length=2)
    """of dates that are neither ISO nor day.month.year: '%d/%m/%Y %H:%M', as of Python's strptime"""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        return {"column": given} if is_text(given) else given

    @model_validator(mode="after")
    def _dates(self) -> ColumnSection:
        if self.format is not None and self.origin is None:
            raise ValueError("format is that of dates, which need an origin to count from")
        if self.origin is not None and (self.units is not None or self.sign != 1):
            raise ValueError("dates have neither units nor a sign")
        return self


class GroupSection(Section):
    """One group for all rows (a bare text), or a column that names it."""

    name: str | None = None
    """the group of all rows"""
    column: str | None = None
    """a column of texts; each text is a group"""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, given: Any) -> Any:
        return {"name": str(given)} if is_text(given) else given

    @model_validator(mode="after")
    def _one(self) -> GroupSection:
        if self.name == "":
            raise ValueError("the group's name is empty")
        if (self.name is None) == (self.column is None):
            raise ValueError("expected the group's name, or {column: ...}")
        return self


class WeightSection(Section):
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
        if is_number(given):
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


class Weighting(Section):
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
    covariance: str | None = Field(default=None, min_length=1)
    """in place of std: a file with the covariance of the errors of a group's rows, in their order, in the values' units"""

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
        if self.covariance is not None and self.std is not None:
            raise ValueError("the covariance says what std the errors have; leave std out")
        if (
            self.covariance is not None
            and self.weight is not None
            and self.weight.number != 0
            and self.weight.column is None
        ):
            raise ValueError(
                "the covariance says what weights are; only a column of weights may say which rows are left out"
            )
        if self.loss is not Loss.NORMAL and self.std is None:
            raise ValueError(f"loss {self.loss.value} needs a std, from which it counts what is large")
        given = self.std or self.weight
        if self.logarithmic and given is not None and (given.rule, given.relative, given.floor) != (None, None, None):
            raise ValueError("the std of a logarithm is a number or a column; a relative error is one already")
        return self


class WideSection(Section):
    """A table with a column for each well, gauge or specimen, read as if it had a row for each of their readings."""

    columns: list[str] = Field(min_length=1)
    """columns of readings, in which * stands for any text"""
    name: str = Field(default="name", min_length=1)
    """what the new column with their names is called; the readings stand in the column that `value` names"""


class LayoutSection(Section):
    """How tables are written; of commas and points unless the keys say otherwise."""

    delimiter: str = Field(default=",", pattern=r"^[^\w\s\"'.+#-]$|^\t$|^ $")
    """between columns"""
    decimal: Literal[".", ","] = "."
    """the decimal sign"""
    comment: str = Field(default="#", pattern=r"^[^\w\s,;.+\-\"']{1,10}$")
    """characters each of which begins a comment line"""
    second_header: bool = False
    """whether a line follows the header, as of units, that is passed over"""
    sheet: str | None = Field(default=None, min_length=1)
    """of an .xlsx file; left out: its first"""

    @model_validator(mode="after")
    def _commas(self) -> LayoutSection:
        if self.decimal == self.delimiter:
            raise ValueError(
                "a comma cannot be both decimal sign and delimiter; give delimiter: ';' or what the file has"
            )
        return self

    @property
    def written(self) -> TableLayout:
        return TableLayout(self.delimiter, self.decimal, self.comment, self.second_header, self.sheet)

    def read(self, path: Path) -> CsvFile:
        """The table in a file; InputError with file and line for what is none."""
        return read_csv(path, layout=self.written)


class TableFileSection(LayoutSection):
    """A file, and its rows; `where` keeps those whose columns have the given texts."""

    file: str
    """a CSV beside the study; lines that begin with # are comments"""
    columns: dict[str, ColumnSection] = Field(default={})
    """what the model needs for each row, by the model's name for it"""
    where: dict[str, list[str]] = Field(default={})
    """keeps the rows whose column has one of these texts"""

    @model_validator(mode="before")
    @classmethod
    def _where_lists(cls, given: Any) -> Any:
        """A single text in `where` is a list of one."""
        if isinstance(given, dict) and isinstance(where := given.get("where"), dict):
            return {**given, "where": {k: [v] if is_text(v) else v for k, v in where.items()}}
        return given


class ForecastSection(TableFileSection):
    """Rows to predict after the calibration, perhaps in another scenario: a file of places and times without readings."""

    name: str = Field(min_length=1)
    """in reports; its rows are `name[1]`, `name[2]`, ..."""
    units: str | None = None
    """of the predictions; left out: those that the model works in"""
    model: dict[str, Any] = Field(default={})
    """keys that differ from the study's `model`"""
    experiment: str | None = Field(default=None, min_length=1)
    """whose model and parameters it takes, where the study has several experiments"""


class CandidateSection(ForecastSection):
    """Readings that could be taken, for which it is told how much they would help the forecasts."""

    std: float = Field(gt=0)
    """standard deviation that such a reading would have, in its units"""


class ObservationSection(Weighting, TableFileSection):
    """A file of observations; `where` keeps the rows whose columns have the given texts."""

    value: ColumnSection
    """the column of measurements"""
    group: GroupSection = GroupSection(name="data")
    """what is reported together"""
    groups: dict[str, Weighting] = Field(default={})
    """weights of single groups, in place of the file's"""
    offset: str | None = Field(default=None, min_length=1)
    """a parameter that is added to all predictions of this file"""
    wide: WideSection | None = None
    """columns that are readings of one thing each"""
    omit: list[str] = Field(default=[])
    """rows without a reading are left out: `empty` cells, `nan`, or any other text such as -9999"""
    censored: Literal["fit", "omit"] | None = None
    """readings such as <0.5 or >200: `fit` takes them for limits, `omit` leaves them out"""

    @model_validator(mode="after")
    def _signs(self) -> ObservationSection:
        if self.value.origin is not None:
            raise ValueError("a value is a number, no date; origin belongs to columns")
        if self.censored == "fit" and any(w.std is None for w in (self, *self.groups.values())):
            raise ValueError("censored: fit needs a std, with which a prediction may pass a limit")
        return self
