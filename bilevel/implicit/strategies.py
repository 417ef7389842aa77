"""Strategies for the derivative of an implicit layer: exact, or cheaper and biased ones that say so."""

from __future__ import annotations

from dataclasses import dataclass

from bilevel.report import require

ADJOINT_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Adjoint:
    """How the layer is differentiated; `exact` is False where the gradient has a bias, which its report estimates."""

    exact = True

    @property
    def name(self) -> str:
        return type(self).__name__


@dataclass(frozen=True)
class Exact(Adjoint):
    """Implicit function theorem: one linear solve with the transposed tangent.

    tolerance: relative residual of that solve (its own, not the inner solver's). certify: estimate the error of every
    gradient (costs about one more back-substitution and two residual derivatives).
    """

    tolerance: float = ADJOINT_TOLERANCE
    certify: bool = True

    def __post_init__(self) -> None:
        require(0 < self.tolerance < 1, f"the adjoint's tolerance lies between 0 and 1, not {self.tolerance}")


@dataclass(frozen=True)
class Neumann(Adjoint):
    """Truncated Neumann series: the inverse of the tangent H replaced by P sum_{k<terms} (1 - H P)^k.

    P is 1 for fixed points and 1 / ||H|| for energies and residuals; the series converges where the iteration does.
    Source: Lorraine, Vicol & Duvenaud 2020, eq. 6; `OneStep` after Bolte, Pauwels & Vaiter 2023.
    """

    exact = False
    terms: int = 10

    def __post_init__(self) -> None:
        if self.terms < 1:
            raise ValueError(f"a Neumann series needs at least one term, got {self.terms}")


@dataclass(frozen=True)
class OneStep(Neumann):
    """Differentiate one step at the solution only: the Neumann series with one term."""

    terms: int = 1


@dataclass(frozen=True)
class Unrolled(Adjoint):
    """Backpropagation through the solver's iterations, with step lengths and metrics held constant.

    checkpoints: number of segments to recompute in the backward pass (0 keeps every iterate). last: differentiate only
    the last so many iterations (truncated backpropagation); None takes all of them.
    """

    exact = False
    checkpoints: int = 0
    last: int | None = None

    def __post_init__(self) -> None:
        require(self.checkpoints >= 0, f"checkpoints is a number of segments, not {self.checkpoints}")
        require(self.last is None or self.last >= 1, f"last is a number of iterations from 1 on, not {self.last}")
