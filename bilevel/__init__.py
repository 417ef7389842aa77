"""Calibrate physical models by bilevel optimisation: exact gradients through inner solves, with a certificate.

Names are imported on first use, so that `import bilevel` costs little.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "adjoint": ["Exact", "Neumann", "OneStep", "Unrolled"],
    "certified_gradient": ["CertifiedGradient", "gradient"],
    "checks": ["TaylorCheck", "check_gradient", "check_hessian"],
    "implicit": ["argmin", "fixed_point", "root"],
    "layers": ["ArgMin", "FixedPointLayer", "Root"],
    "linalg.operator": ["Structure"],
    "problem": ["Energy", "EnergyProblem", "FixedPoint", "Problem", "Residual"],
    "report": [
        "BilevelError",
        "ConvergenceError",
        "Counts",
        "GradientReport",
        "InputError",
        "SingularError",
        "Solution",
        "SolveReport",
        "Status",
        "UndeclaredTensorError",
    ],
    "solvers": ["LBFGS", "Anderson", "GradientDescent", "LoadStepping", "Newton", "Picard", "Tolerance"],
    "steps": ["Armijo", "BarzilaiBorwein", "Constant", "TrustRegion", "Wolfe"],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*_HOME, "__version__"]

if TYPE_CHECKING:
    from bilevel.adjoint import Exact, Neumann, OneStep, Unrolled
    from bilevel.certified_gradient import CertifiedGradient, gradient
    from bilevel.checks import TaylorCheck, check_gradient, check_hessian
    from bilevel.implicit import argmin, fixed_point, root
    from bilevel.layers import ArgMin, FixedPointLayer, Root
    from bilevel.linalg.operator import Structure
    from bilevel.problem import Energy, EnergyProblem, FixedPoint, Problem, Residual
    from bilevel.report import (
        BilevelError,
        ConvergenceError,
        Counts,
        GradientReport,
        InputError,
        SingularError,
        Solution,
        SolveReport,
        Status,
        UndeclaredTensorError,
    )
    from bilevel.solvers import LBFGS, Anderson, GradientDescent, LoadStepping, Newton, Picard, Tolerance
    from bilevel.steps import Armijo, BarzilaiBorwein, Constant, TrustRegion, Wolfe


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'bilevel' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bilevel.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
