"""The gradient of a whole outer function with an estimate of its error, made by evaluating it again at better states.

A gradient of an outer function can be assessed only by evaluating it again where the inner residuals are smaller: the
cotangents that reach a layer depend on its state too. So the layers that the function passes through are recorded, and
the function runs again with each of them improved.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevel.implicit.certificate import Polish, relative_errors
from bilevel.implicit.linearised_solve import LinearisedSolve
from bilevel.implicit.strategies import Exact
from bilevel.problem import Params
from bilevel.report import BilevelError, ConvergenceError, GradientReport, SingularError
from bilevel.torch_internals import pytree


@dataclass
class CertifiedGradient:
    """The value of an outer function, its gradient (structured like the parameters) and the certificate of both."""

    value: Tensor
    gradient: Any
    report: GradientReport


def gradient(function: Callable[[Params], Tensor], params: Params) -> CertifiedGradient:
    """Value and gradient of function(params) -> scalar with an estimate of the gradient's error.

    params: nested dicts of tensors, numbers or arrays; numbers become tensors. Unlike the report of a single layer, whose cotangent is taken as given, this one sees how the whole function depends
    on the inner states: it evaluates the gradient again at Newton-corrected states, at the price of a second backward
    pass and no further solve. Raises ValueError if the function is not scalar, BilevelError if it has no derivative.
    """
    flat, spec = pytree.tree_flatten_with_path(params)
    leaves = [_leaf(value) for _, value in flat]
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.requires_grad]
    names = [pytree.keystr(flat[i][0]) for i in places]
    tensors = [leaves[i] for i in places]
    rebuilt = pytree.tree_unflatten(leaves, spec)
    started = time.perf_counter()
    with recording() as recorded:
        value, first = _value_and_gradient(function, rebuilt, tensors)
    try:
        with reevaluating(recorded):
            _, second = _value_and_gradient(function, rebuilt, tensors)
        errors = relative_errors(first, second, names)
    except (ConvergenceError, SingularError):  # nothing better to compare with
        errors = {"": math.inf}
    result = [torch.zeros(()) if not isinstance(leaf, Tensor) else torch.zeros_like(leaf) for leaf in leaves]
    for place, grad in zip(places, first, strict=True):
        result[place] = grad
    report = GradientReport(
        adjoint=", ".join(sorted({linearised.adjoint.name for linearised in recorded.solves})) or "no inner solve",
        exact=all(linearised.adjoint.exact for linearised in recorded.solves),
        inner_residual=max((_residual(linearised) for linearised in recorded.solves), default=0.0),
        adjoint_residual=max(
            (g.adjoint_residual for linearised in recorded.solves for g in linearised.gradients), default=0.0
        ),
        relative_error=errors.pop(""),
        by_parameter=errors,
        seconds=time.perf_counter() - started,
        state_correction=max((_correction(linearised) for linearised in recorded.solves), default=math.nan),
    )
    return CertifiedGradient(value.detach(), pytree.tree_unflatten(result, spec), report)


def _leaf(value: Any) -> Any:
    """Numbers, arrays and tensors of floating point as tensors to differentiate in; everything else as it is."""
    number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if number or (isinstance(value, np.ndarray) and value.dtype.kind == "f"):
        value = torch.as_tensor(value, dtype=torch.get_default_dtype())
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.detach().clone().requires_grad_()
    return value


def _correction(linearised: LinearisedSolve) -> float:
    return max((g.state_correction for g in linearised.gradients), default=math.nan)


def _residual(linearised: LinearisedSolve) -> float:
    return float(linearised.outcome.report.residual.max()) if linearised.outcome is not None else 0.0


def _value_and_gradient(
    function: Callable[[Params], Tensor], params: Params, tensors: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    with torch.enable_grad():
        value = function(params)
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(f"the outer function must return a scalar tensor, it returned {got}")
    if not value.requires_grad:
        raise BilevelError(
            "the outer function's value has no derivative in any of its parameters: it leaves PyTorch's graph (float(p), "
            ".item(), .detach(), NumPy) or uses none of them"
        )
    with torch.enable_grad():
        scalar = value.reshape(())
    return value, list(torch.autograd.grad(scalar, tensors, allow_unused=True, materialize_grads=True))


@dataclass
class Recording:
    """The layers passed, in order."""

    solves: list[LinearisedSolve] = field(default_factory=list)
    reevaluating: bool = False
    position: int = 0


_active: ContextVar[Recording | None] = ContextVar("recording", default=None)


def enter(linearised: LinearisedSolve) -> LinearisedSolve:
    """Called by each layer: the layer to use in its place."""
    recording = _active.get()
    if recording is None:
        return linearised
    if not recording.reevaluating:
        recording.solves.append(linearised)
        return linearised
    return _improved(recording, linearised)


def _improved(recording: Recording, linearised: LinearisedSolve) -> LinearisedSolve:
    if recording.position >= len(recording.solves):
        raise BilevelError("the function passed through more layers when it was run again; it must be deterministic")
    earlier = recording.solves[recording.position]
    recording.position += 1
    return replace(
        linearised, solver=Polish(earlier), adjoint=Exact(certify=False), on_fail="ignore", factor=earlier.factor
    )


@contextmanager
def recording() -> Iterator[Recording]:
    """Record the layers that are passed inside the block."""
    made = Recording()
    token = _active.set(made)
    try:
        yield made
    finally:
        _active.reset(token)


@contextmanager
def reevaluating(recorded: Recording) -> Iterator[None]:
    """Inside the block each layer starts from its recorded state and improves it."""
    token = _active.set(Recording(recorded.solves, reevaluating=True))
    try:
        yield
    finally:
        _active.reset(token)
