"""What a study calibrates: the contract between a physical model and the outer loop.

A model is a class. It is found by the `kind:` of a study's `model:` section: an entry point of the group
`bilevel.models` (name -> "module:Class"), a class given to `register_model`, or, for `kind: python`, a class or
a function(parameters, columns) in the user's own file. One object is made for each experiment of a study.
A complete model:

    class Spring(Model):                                   # force = stiffness * elongation
        "A linear spring."

        class Config(ModelConfig):                         # the keys of `model:` in study.yml, besides `kind`
            rest_length: float = Field(gt=0)

        columns = {"length": "m"}                          # what observations must have besides `value`, in which units
        value_units = "N"

        def parameter_defaults(self):                      # what the model knows of its parameters (its own units)
            return {"stiffness": ParameterDefault(units="N/m", lower=0.0, transform="log")}

        def simulate(self, parameters):                    # the predictions for all rows, in their order
            elongation = self.observations.columns["length"] - self.config.rest_length
            return parameters["stiffness"] * elongation

and its study.yml:

    title: A spring
    model: {kind: spring, rest_length: 0.1}
    parameters:
      - {name: stiffness, value: 20, lower: 1, upper: 1000, units: N/cm}
    observations:
      - file: spring.csv
        value: {column: force_N, units: N}
        columns: {length: {column: length_mm, units: mm}}
        group: spring
        std: 0.1

Numbers reach a model in its own units only: `columns` and `value_units` say which (SI where they say nothing), the
table and the parameters are converted before the model sees them, and dimensions that do not match are an InputError.
A model raises InputError (one sentence, naming the key or row) for physical nonsense in its config or observations, and
lets BilevelError (an inner solve that failed) pass: the outer loop then tries a shorter step and says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ConfigDict, model_validator
from torch import Tensor

from bilevel.calibrate.field_prior import FieldPrior
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.report.picture import Drawing
from bilevel.calibrate.settings import TransformName
from bilevel.calibrate.study.documented import Documented
from bilevel.report import GradientReport, InputError, SolveReport

if TYPE_CHECKING:  # it takes half a second to load
    from matplotlib.figure import Figure


class ModelConfig(Documented):
    """Base of a model's section in study.yml: unknown keys are errors, and paths are relative to the study's folder."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _learns_no_guess(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("solver") == "learned" and "solver" not in cls.model_fields:
            raise ValueError(
                "guesses are learned for bodies alone (kind: solid); nonlinear flow and networks are solved by LogMiddle or by "
                "Newton's method, without training: leave `solver: learned` out"
            )
        return given


class ConfigError(InputError):
    """Bad input under one key of a model's section; key: the path to it, which leads to its line."""

    def __init__(self, key: tuple[str | int, ...], message: str) -> None:
        super().__init__(f"{'.'.join(map(str, key))}: {message}")
        self.key, self.sentence = key, message


@dataclass(frozen=True)
class ParameterDefault:
    """What a model knows of one of its parameters; the study may override everything but `units`.

    units: the model's own unit, into which the study's values are converted ("" = dimensionless, None = any, in SI).
    value: used, fixed, when the study does not mention the parameter; None = the study must give it.
    lower, upper: bounds in the model's units. transform: "log" for positive, stiffness-like quantities.
    size: number of entries of a field parameter, None for a scalar (a scalar given for a field fills it).
    """

    units: str | None = ""
    value: float | None = None
    lower: float | None = None
    upper: float | None = None
    transform: TransformName = "none"
    size: int | None = None
    description: str = ""


@dataclass
class ModelReports:
    """How the inner solves of the last `simulate` ended, and the certificates of the gradients taken through them."""

    solves: list[SolveReport] = field(default_factory=list)
    gradients: list[GradientReport] = field(default_factory=list)


@dataclass(frozen=True)
class ModelFigure:
    """A picture of the model's own for the report.

    figure: or what draws it, from numbers that it brings along (a `functools.partial` of a function in a module that does not
    import PyTorch): a report then need not wait for it, for it is drawn in a process beside.
    """

    title: str
    figure: Figure | Drawing
    caption: str = ""

    @property
    def drawing(self) -> Drawing:
        """What draws the figure."""
        return self.figure if callable(self.figure) else partial(_drawn, self.figure)


def _drawn(figure: Figure) -> Figure:
    """A figure that is drawn already."""
    return figure


class Model(ABC):
    """A physical model of one experiment; see the module's docstring for a complete example.

    columns: name -> units of the observation columns that the model needs ("text" for labels such as a mode or a well).
    optional_columns: those that only some observations have; where they are missing they are NaN, or "".
    value_units: units of the predictions, None if they differ between groups (then SI).
    as_written: numbers reach `simulate` as they are written, whatever their units (a function that declares none).
    forward_mode: `simulate` works under torch.func.jvp (only reverse mode is asked for otherwise).
    batched: jvp and vjp of `simulate` may be vmapped (sweeps are done one by one otherwise).
    cautious: the last `simulate` failed, and this one is its second try: take safer settings where there are some, as shorter
    steps or more of them, but none that change the predictions. It starts from no earlier states.
    The Jacobian takes the cheaper of forward sweeps (one per parameter) and adjoint sweeps (one per observation).
    """

    Config: ClassVar[type[ModelConfig]] = ModelConfig
    columns: ClassVar[Mapping[str, str]] = {}
    optional_columns: ClassVar[Mapping[str, str]] = {}
    value_units: ClassVar[str | None] = None
    as_written: ClassVar[bool] = False
    forward_mode: ClassVar[bool] = True
    batched: ClassVar[bool] = True
    cautious: bool = False

    def __init__(self, config: Any, observations: ObservationTable, folder: Path) -> None:
        """Keep `config` (an instance of Config), the table, and the study's folder; subclasses prepare meshes here."""
        self.config = config
        self.observations = observations
        self.folder = folder

    @abstractmethod
    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Predictions (n,) for all observation rows in order, in `value_units`, differentiable in the parameters.

        parameters: name -> tensor in the model's units, shape () or (size,) for a field; only the names that this
        model knows (all of the study's when `parameter_defaults` is empty). Must depend on nothing but them, or carry
        what else it depends on through `state` and `restore`, else a resumed run would differ. Inner solves start from
        states of earlier evaluations by themselves.
        """

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        """Every parameter that the model knows; empty means that it takes whatever the study names, in SI units."""
        return {}

    @property
    def derivatives(self) -> str:
        """What they are, for the report."""
        return "exact (algorithmic differentiation and the implicit function theorem)"

    @property
    def precision(self) -> float:
        """The relative error of derivatives that are not exact, 0 for those that are."""
        return 0.0

    def require_units(self, parameters: Mapping[str, str]) -> None:  # noqa: B027 - most models declare their units
        """InputError where the study's units by name do not go together; for models that take any."""

    @property
    def stale(self) -> bool:
        """Whether the derivatives of the last `simulate` were updated from earlier ones, not taken anew."""
        return False

    def renew(self) -> None:  # noqa: B027 - derivatives are taken anew each time, of most models
        """Take derivatives anew in the next `simulate`."""

    def field_priors(self) -> Sequence[FieldPrior]:
        """What is known of parameters that are fields, as that they are smooth; phi gets the squares of their residuals."""
        return ()

    def reports(self) -> ModelReports:
        """The inner solves and gradients since the last call of `simulate` began."""
        return ModelReports()

    def state(self) -> Mapping[str, Tensor]:
        """What the next `simulate` depends on besides its parameters; goes into the checkpoint."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 - most models have no state
        """Take back what `state` returned."""

    def write_state(self, parameters: Mapping[str, Tensor], folder: Path) -> list[Path]:
        """Write the state at the calibrated parameters as VTU files into `folder` and return their paths."""
        return []

    def state_fields(self, parameters: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The fields by name whose standard deviations are wanted beside the state; differentiable in the parameters."""
        return {}

    def write_deviations(self, deviations: Mapping[str, Tensor], folder: Path) -> list[Path]:
        """Write the standard deviations of `state_fields` as VTU files into `folder` and return their paths."""
        return []

    def maps(self) -> list[ModelFigure]:
        """Pictures of what was read, such as a mesh with its sensors, for `bilevel check --map`; no solve is needed."""
        return []

    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        """Pictures of the model's own for the report, at the calibrated parameters."""
        return []

    def deviation_figures(self, deviations: Mapping[str, Tensor]) -> list[ModelFigure]:
        """Pictures of the standard deviations of `state_fields`; each stands beside the one of `figures` with its title."""
        return []
