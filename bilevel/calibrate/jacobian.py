"""Exact Jacobians of predictions, by the cheaper of forward sweeps (one a parameter) and adjoint sweeps (one a row)."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor

from bilevel.calibrate.model import Model
from bilevel.calibrate.settings import Sweep
from bilevel.report import BilevelError
from bilevel.torch_internals import forward_sweeps, full_tangents

_FORWARD_MODE = threading.Lock()
"""torch has one forward-mode level for the whole process, so threads take turns."""

Function = Callable[[Tensor], Tensor]


def jacobian_of(function: Function, x: Tensor, rows: Tensor, model: Model, sweep: Sweep) -> tuple[Tensor, Tensor]:
    """Predictions (n,) and d predictions[rows] / d x (len(rows), p).

    A model that torch.func cannot see through in forward mode, because it turns constants into NumPy arrays or sets up
    meshes as it goes, is taken in adjoint sweeps from then on: there constants are plain tensors.
    """
    if len(x) == 0:
        with torch.no_grad():
            return function(x), torch.zeros(len(rows), 0, dtype=x.dtype)
    asked = sweep
    if sweep is Sweep.AUTO:
        sweep = Sweep.FORWARD if model.forward_mode and len(x) <= len(rows) else Sweep.ADJOINT
    if sweep is Sweep.ADJOINT:
        return _adjoint(function, x, rows, model.batched)
    try:
        prediction, columns = forward_sweeps(lambda: _forward(function, x, model.batched))
    except RuntimeError as failure:
        if asked is Sweep.FORWARD or isinstance(failure, BilevelError):
            raise
        found = _adjoint(function, x, rows, model.batched)
        model.forward_mode = False  # type: ignore[misc]  # of this object, not of its class
        return found
    return prediction, columns[:, rows].T.contiguous()


def gradient_of(function: Function, x: Tensor, misfit: Function) -> tuple[Tensor, Tensor]:
    """Predictions (n,) and d misfit(predictions) / d x (p,), by one adjoint sweep."""
    x = x.detach().requires_grad_()
    prediction = function(x)
    if len(x) == 0 or not prediction.requires_grad:
        return prediction.detach(), torch.zeros_like(x)
    (gradient,) = torch.autograd.grad(misfit(prediction), x, allow_unused=True, materialize_grads=True)
    return prediction.detach(), gradient


def _forward(function: Function, x: Tensor, batched: bool) -> tuple[Tensor, Tensor]:
    def jvp(tangent: Tensor) -> tuple[Tensor, Tensor]:
        prediction, column = torch.func.jvp(function, (x,), (tangent,))  # type: ignore[misc]
        return prediction, column

    basis = torch.eye(len(x), dtype=x.dtype)
    with _FORWARD_MODE, full_tangents():
        if batched:
            predictions, columns = torch.vmap(jvp)(basis)
            return predictions[0].detach(), columns.detach()
        pairs = [jvp(tangent) for tangent in basis]
    return pairs[0][0].detach(), torch.stack([column for _, column in pairs]).detach()


def _adjoint(function: Function, x: Tensor, rows: Tensor, batched: bool) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    prediction = function(x)
    if not prediction.requires_grad or len(rows) == 0:
        return prediction.detach(), torch.zeros(len(rows), len(x), dtype=x.dtype)
    fitted = prediction[rows]
    basis = torch.eye(len(rows), dtype=x.dtype)
    if batched:
        (jacobian,) = torch.autograd.grad(fitted, x, basis, is_grads_batched=True)
        return prediction.detach(), jacobian
    swept = [torch.autograd.grad(fitted, x, cotangent, retain_graph=True)[0] for cotangent in basis]
    return prediction.detach(), torch.stack(swept)
