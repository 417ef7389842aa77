"""The outer loop: parameters, observations, misfit, optimisers, statistics, checkpoints and reports."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilevel.calibrate.model import Model as Model
    from bilevel.calibrate.model import ModelConfig as ModelConfig
    from bilevel.calibrate.model import ModelFigure as ModelFigure
    from bilevel.calibrate.model import ModelReports as ModelReports
    from bilevel.calibrate.model import ParameterDefault as ParameterDefault
    from bilevel.calibrate.multistart import StartOutcome as StartOutcome
    from bilevel.calibrate.multistart import multistart as multistart
    from bilevel.calibrate.observations import ObservationTable as ObservationTable
    from bilevel.calibrate.parameters import Parameter as Parameter
    from bilevel.calibrate.problem import CalibrationProblem as CalibrationProblem
    from bilevel.calibrate.problem import Experiment as Experiment
    from bilevel.calibrate.problem import problem_from_function as problem_from_function
    from bilevel.calibrate.registry import register_model as register_model
    from bilevel.calibrate.result import CalibrationResult as CalibrationResult
    from bilevel.calibrate.run import Method as Method
    from bilevel.calibrate.run import Settings as Settings
    from bilevel.calibrate.run import calibrate as calibrate
    from bilevel.calibrate.session import Session as Session
    from bilevel.calibrate.stages import Stage as Stage
    from bilevel.calibrate.stages import staged as staged
    from bilevel.calibrate.study import Study as Study
    from bilevel.calibrate.study import load_study as load_study
    from bilevel.calibrate.transforms import Transform as Transform
    from bilevel.calibrate.uncertainty import Noise as Noise

_PLACES = {
    "model": ("Model", "ModelConfig", "ModelFigure", "ModelReports", "ParameterDefault"),
    "multistart": ("StartOutcome", "multistart"),
    "observations": ("ObservationTable",),
    "parameters": ("Parameter",),
    "problem": ("CalibrationProblem", "Experiment", "problem_from_function"),
    "registry": ("register_model",),
    "result": ("CalibrationResult",),
    "run": ("Method", "Settings", "calibrate"),
    "session": ("Session",),
    "stages": ("Stage", "staged"),
    "study": ("Study", "load_study"),
    "transforms": ("Transform",),
    "uncertainty": ("Noise",),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    """Import public names when they are first used, so that `import bilevel.calibrate` stays light."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
