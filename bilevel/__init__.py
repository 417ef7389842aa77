"""Calibrate physical models by bilevel optimisation: exact gradients through inner solves, with a certificate.

Names are imported on first use, so that `import bilevel` costs little.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bilevel.implicit.chain import Trajectory, chain
    from bilevel.implicit.checks import TaylorCheck, check_gradient, check_hessian
    from bilevel.implicit.outer_gradient import CertifiedGradient, gradient
    from bilevel.implicit.solve import ArgMin, FixedPointLayer, Root, argmin, fixed_point, root
    from bilevel.implicit.strategies import Exact, Neumann, OneStep, Unrolled
    from bilevel.linalg.operator import Structure
    from bilevel.problem import Energy, EnergyProblem, FixedPoint, Problem, Residual
    from bilevel.report import (
        BilevelError,
        ConvergenceError,
        Counts,
        DerivativeError,
        GradientReport,
        InputError,
        SingularError,
        Solution,
        SolveReport,
        Status,
        UndeclaredTensorError,
    )
    from bilevel.solvers import (
        FIRE,
        LBFGS,
        Anderson,
        GradientDescent,
        LoadStepping,
        LogMiddle,
        Newton,
        Picard,
        Tolerance,
    )
    from bilevel.solvers.steps import Armijo, BarzilaiBorwein, Constant, TrustRegion, Wolfe


def lazy_names(package: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` of a package whose names are imported on first use (PEP 562).

    The names are the imports that the package lists for type checkers under `if TYPE_CHECKING:`, and are typed nowhere
    else.
    """
    source = Path(str(sys.modules[package].__file__)).read_text(encoding="utf-8")
    blocks = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: str(node.module) for node in imports for alias in node.names}

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return sorted(homes), load, lambda: sorted(homes)


__all__, __getattr__, __dir__ = lazy_names(__name__)
__all__ += ["__version__"]
