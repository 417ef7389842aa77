"""Which model class a `kind:` means: registered here, an entry point of `bilevel.models`, or a user's own file."""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from bilevel.calibrate.model import Model, ModelConfig, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.study.files import read_text
from bilevel.calibrate.study.units import parse_unit
from bilevel.calibrate.study.validated import hint
from bilevel.extensions import installed, load
from bilevel.report import InputError

GROUP = "bilevel.models"
MAX_BYTES = 10_000_000
Function = Callable[..., Tensor]

_registered: dict[str, type[Model]] = {}


def register_model(kind: str, model: type[Model]) -> None:
    """Make a model class known under `kind:` in this process."""
    _registered[kind] = model


def find_model(kind: str) -> type[Model]:
    """The class for a kind; InputError, with the nearest known kind, if there is none."""
    if kind in _registered:
        return _registered[kind]
    found = installed(GROUP)
    if kind in found:
        return load(found[kind])
    known = sorted({*_registered, *found, "python"})
    raise InputError(f"there is no model of kind '{kind}'{hint(kind, known)}")


@dataclass(frozen=True)
class FunctionWithUnits:
    """A function of a study, and the units in which it works."""

    function: Function
    value: str
    columns: Mapping[str, str]
    parameters: Mapping[str, ParameterDefault]

    def __call__(self, *given: Any) -> Tensor:
        return self.function(*given)


def works_in(
    value: str, *, columns: Mapping[str, str] | None = None, parameters: Mapping[str, str] | None = None
) -> Callable[[Function], FunctionWithUnits]:
    """Declare the units in which a study's function works: those of what it returns, and of what it is given, by name.

    With them a study may use any units of the same dimensions; without them numbers reach the function as written.
    """
    for text in (value, *(columns or {}).values(), *(parameters or {}).values()):
        parse_unit(text)
    known = {name: ParameterDefault(units) for name, units in (parameters or {}).items()}
    return lambda function: FunctionWithUnits(function, value, dict(columns or {}), known)


def model_from_file(file: Path, name: str, prepare: str | None = None) -> type[Model]:
    """A class derived from Model, or a function(parameters, columns) -> predictions, in a Python file.

    prepare: name of a function(columns) in that file, called once before anything else; what it returns (a mesh, a
    table) is the function's third argument. A class prepares what it needs in its own __init__.
    """
    module = import_file(file)
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, Model):
        if prepare is not None:
            raise InputError(f"{file}: '{name}' is a class, which prepares things in its __init__; leave out 'prepare'")
        return found
    if not callable(found) or isinstance(found, type):
        raise InputError(f"{file}: has no function or Model class called '{name}'")
    first = None if prepare is None else getattr(module, prepare, None)
    if prepare is not None and not callable(first):
        raise InputError(f"{file}: has no function called '{prepare}' to prepare with")
    return _model_of_function(found, first)


def _model_of_function(function: Function, prepare: Callable[..., Any] | None) -> type[Model]:
    with_units = function if isinstance(function, FunctionWithUnits) else None

    class PythonFunction(Model):
        """The user's own function of the parameters and the observation columns."""

        Config = ModelConfig
        as_written = with_units is None
        value_units = None if with_units is None else with_units.value
        columns = {} if with_units is None else with_units.columns

        def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
            return {} if with_units is None else with_units.parameters

        def __init__(self, config: Any, observations: ObservationTable, folder: Path) -> None:
            super().__init__(config, observations, folder)
            given = _Named("columns", observations.columns)
            with double_precision():
                self.constants = (given,) if prepare is None else (given, prepare(given))

        def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
            with double_precision():
                return function(_Named("parameters", parameters), *self.constants)

    return PythonFunction


@contextmanager
def double_precision() -> Iterator[None]:
    """What users' code makes without naming a type is float64, as everything else in a calibration."""
    earlier = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(earlier)


class _Named(dict[str, Tensor]):
    """A study's parameters or columns by name; asking for one that the study does not give is the user's mistake."""

    def __init__(self, what: str, given: Mapping[str, Tensor]) -> None:
        super().__init__(given)
        self.what = what

    def __missing__(self, name: str) -> Tensor:
        raise InputError(f"{self.what}: the model asks for '{name}', which the study does not give{hint(name, self)}")


def import_file(file: Path) -> ModuleType:
    """A study's own Python file as a module; raises InputError, with the file's line, where that fails."""
    read_text(file, MAX_BYTES)
    spec = importlib.util.spec_from_file_location(f"study_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        with double_precision():
            spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(f"{error.filename}, line {error.lineno}: {error.msg}") from None
    except (Exception, SystemExit) as error:
        place = next(
            (f", line {f.lineno}" for f in traceback.extract_tb(error.__traceback__)[::-1] if f.filename == str(file)),
            "",
        )
        raise InputError(f"{file}{place}: importing it failed with {type(error).__name__}: {error}") from error
    return module
