"""What a solve and a gradient say about themselves: statuses that are sentences, counts, and the errors."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from torch import Tensor  # the command line reads settings, and their errors, before PyTorch is needed

Choice = TypeVar("Choice", bound=Enum)
OnFail = Literal["raise", "warn", "ignore"]


class BilevelError(RuntimeError):
    """Base of all errors that the solvers and layers raise."""


class ConvergenceError(BilevelError):
    """An inner solve ended away from a solution."""


class NoSolutionError(ConvergenceError):
    """There is no solution, whatever solve and start: a load beyond what a body carries."""


class SingularError(BilevelError):
    """A linear system that has no unique solution, and no null space was declared."""


class UndeclaredTensorError(BilevelError):
    """A tensor that needs a gradient reaches the problem without being one of its parameters."""


class DerivativeError(BilevelError):
    """Autograd's derivative of a problem is not the derivative of its residual."""


class InputError(ValueError):
    """Bad input from a user; the command line prints it as one line and exits with code 2."""


class Status(Enum):
    """How a solve ended; the value is the sentence that a user reads."""

    CONVERGED = "converged: the residual met its tolerance"
    MAX_ITERATIONS = "stopped at the iteration limit before the residual met its tolerance; raise max_iterations, start closer, or use load stepping"
    STAGNATED = "no step length reduced the objective although the residual is above its tolerance; loosen the tolerance, rescale the unknown, or use a trust region; where the energy has a kink, as |u|, use bilevel.composite"
    NOT_FINITE = "the energy or residual became NaN or infinite and shorter steps did not help; check the start and the parameters, or use load stepping"
    INDEFINITE = (
        "ended at a stationary point that is not a minimum and could not leave it; the energy may be unbounded below"
    )
    UNBOUNDED = "ran away: the objective falls for ever along the path; it has no minimum, or a load is not held"
    UNBALANCED = (
        "the load has a part along a motion that costs no energy, which nothing can balance; hold what moves, or balance the "
        "load"
    )
    SINGULAR = "the tangent is singular; constrain the problem or declare its null space"

    @property
    def ok(self) -> bool:
        return self is Status.CONVERGED


@dataclass
class Counts:
    """How often each kind of work was done (a batch counts as one).

    inferences: passes of a network. warm_starts: solves begun from remembered states. fallbacks: learned or remembered
    proposals that a safeguard replaced by the classical choice.
    """

    values: int = 0
    residuals: int = 0
    tangents: int = 0
    products: int = 0
    factorisations: int = 0
    back_substitutions: int = 0
    inferences: int = 0
    warm_starts: int = 0
    fallbacks: int = 0

    def add(self, other: Counts) -> None:
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(other, item.name))


@dataclass
class SolveReport:
    """How an inner solve ended; `status` and `residual` have one entry per sample of a batch (one for a single problem).

    reached_from: what led to this equilibrium, where there may be several: the start, a path of loads, a learned guess, an
    earlier state.
    """

    status: list[Status]
    residual: Tensor
    tolerance: Tensor
    iterations: int
    counts: Counts
    seconds: float
    history: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reached_from: str = "the start"

    @property
    def converged(self) -> bool:
        return all(status.ok for status in self.status)

    @property
    def sentence(self) -> str:
        """One sentence that says what happened and, where it failed, what to try."""
        failed = [i for i, status in enumerate(self.status) if not status.ok]
        if not failed:
            worst = float(self.residual.max())
            whence = "" if self.reached_from == "the start" else f" from {self.reached_from}"
            return f"converged{whence} in {self.iterations} iterations, residual {worst:.3g}"
        first = failed[0]
        where = (
            ""
            if len(self.status) == 1
            else f"{len(failed)} of {len(self.status)} samples failed, first is sample {first}: "
        )
        residual, tolerance = float(self.residual.flatten()[first]), float(self.tolerance.flatten()[first])
        return (
            f"inner solve: {where}{self.status[first].value} "
            f"({self.iterations} iterations, residual {residual:.3g}, tolerance {tolerance:.3g})"
        )


@dataclass
class GradientReport:
    """The certificate of one gradient.

    relative_error: estimated ||g - g*|| / ||g*||, all parameters together; by_parameter: the same for each by name. In a
    layer's own report g is the vector-Jacobian product for the cotangent that came in; `bilevel.gradient` reports on the
    gradient of a whole outer function.
    inner_residual: ||r(u)||. adjoint_residual: ||H^T a - cotangent|| / ||cotangent||.
    state_correction: ||Newton correction|| / ||state||, of which an outer function's gradient at this state has a share too.
    exact: False for an approximate adjoint strategy, whose name stands in `adjoint`.
    """

    adjoint: str
    exact: bool
    inner_residual: float
    adjoint_residual: float
    relative_error: float
    by_parameter: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    state_correction: float = math.nan

    def __str__(self) -> str:
        kind = "exact" if self.exact else "APPROXIMATE"
        known = "" if math.isnan(self.state_correction) else f", the state is known to {self.state_correction:.2g}"
        return (
            f"{kind} gradient ({self.adjoint}): estimated relative error {self.relative_error:.2g} of what this gradient "
            f"adds{known}, inner residual {self.inner_residual:.2g}, adjoint residual {self.adjoint_residual:.2g}"
        )


@dataclass
class Solution:
    """The state that a layer found, how the solve ended, and the certificates of the gradients taken through it."""

    u: Tensor
    report: SolveReport
    gradients: list[GradientReport] = field(default_factory=list)

    @property
    def gradient(self) -> GradientReport | None:
        """The certificate of the latest gradient, or None before the first backward pass."""
        return self.gradients[-1] if self.gradients else None


def fail(message: str, on_fail: OnFail, error: type[BilevelError] = ConvergenceError) -> None:
    """Raise, warn or stay silent about `message`, as `on_fail` says."""
    if on_fail == "raise":
        raise error(message)
    if on_fail == "warn":
        warnings.warn(message, RuntimeWarning, stacklevel=3)


def require_finite(name: str, value: Tensor) -> None:
    """Raise InputError if `value` has a NaN or an infinity."""
    if not bool(value.isfinite().all()):
        raise InputError(f"{name} has entries that are NaN or infinite; check the data and units that it was made from")


def require(met: bool, sentence: str) -> None:
    """Raise InputError with the sentence unless `met`."""
    if not met:
        raise InputError(sentence)


def chosen(choices: type[Choice], value: Choice | str) -> Choice:
    """The member of an enumeration, given as itself or by its value; raises InputError that lists them."""
    try:
        return choices(value)
    except ValueError:
        words = ", ".join(f"{choices.__name__}.{choice.name}" for choice in choices)
        raise InputError(f"{value!r} is none of {words}") from None
