"""Which model class a `kind:` means: registered here, an entry point of `bilevel.models`, or a user's own file."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from bilevel.calibrate.model import Model, ModelConfig
from bilevel.calibrate.study.yaml_lines import unknown_key
from bilevel.extensions import installed, load
from bilevel.report import InputError

GROUP = "bilevel.models"
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
    near = difflib.get_close_matches(kind, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
    raise InputError(f"there is no model of kind '{kind}'; {hint}")


def model_from_file(file: Path, name: str) -> type[Model]:
    """A class derived from Model, or a function(parameters, columns) -> predictions, in a Python file."""
    found = getattr(_imported(file), name, None)
    if isinstance(found, type) and issubclass(found, Model):
        return found
    if callable(found) and not isinstance(found, type):
        return _model_of_function(found)
    raise InputError(f"{file}: has no function or Model class called '{name}'")


def _model_of_function(function: Any) -> type[Model]:
    class PythonFunction(Model):
        """The user's own function of the parameters and the observation columns."""

        Config = ModelConfig

        def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
            return function(_Named("parameters", parameters), _Named("columns", self.observations.columns))

    return PythonFunction


class _Named(dict[str, Tensor]):
    """A study's parameters or columns by name; asking for one that the study does not give is the user's mistake."""

    def __init__(self, what: str, given: Mapping[str, Tensor]) -> None:
        super().__init__(given)
        self.what = what

    def __missing__(self, name: str) -> Tensor:
        hint = unknown_key(name, self).partition("'; ")[2] if self else ""
        known = f" (known: {', '.join(self)})" if self and not hint else f"; {hint}" if hint else ""
        raise InputError(f"{self.what}: the model asks for '{name}', which the study does not give{known}")


def _imported(file: Path) -> ModuleType:
    if not file.is_file():
        raise InputError(f"{file}: there is no such file")
    spec = importlib.util.spec_from_file_location(f"study_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise InputError(f"{file}: is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(f"{file}, line {error.lineno}: {error.msg}") from None
    except Exception as error:
        raise InputError(f"{file}: importing it failed with {type(error).__name__}: {error}") from error
    return module
