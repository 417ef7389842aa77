"""Everything that is used of PyTorch's private parts; each use has a test that fails when PyTorch changes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import JvpInterpreter, retrieve_all_functorch_interpreters
from torch.autograd import forward_ad
from torch.utils import _pytree as pytree

from bilevel.report import BilevelError

__all__ = [
    "forward_mode",
    "has_tangent",
    "is_batched_cotangent",
    "is_transformed",
    "plain",
    "pytree",
    "refuse_nested_forward",
    "vjp_of_batched_cotangents",
    "without_tangent",
]


def forward_mode() -> bool:
    """Whether a level of forward-mode differentiation is open."""
    return forward_ad._current_level >= 0


def has_tangent(tensor: Tensor) -> bool:
    """Whether a tensor carries a forward-mode tangent at the innermost level."""
    return forward_mode() and forward_ad.unpack_dual(tensor).tangent is not None


def without_tangent(tensor: Tensor) -> Tensor:
    """The tensor without its forward-mode tangent at the innermost level."""
    return forward_ad.unpack_dual(tensor).primal if forward_mode() else tensor


def is_batched_cotangent(tensor: Tensor) -> bool:
    """Whether a tensor is the batch of cotangents that `torch.autograd.grad(..., is_grads_batched=True)` makes."""
    return torch._C._functorch.is_legacy_batchedtensor(tensor)


def is_transformed(tensor: Tensor) -> bool:
    """Whether a tensor stands for more than its own numbers: under vmap, grad, jvp or batched cotangents."""
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor) or is_batched_cotangent(tensor)


def plain(tensor: Tensor) -> Tensor:
    """The numbers of a tensor, whatever torch.func transforms it is under; a batched one shows its batch, as first axis."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        batch = torch._C._functorch.maybe_get_bdim(tensor) if torch._C._functorch.is_batchedtensor(tensor) else 0
        tensor = torch._C._functorch.get_unwrapped(tensor)
        tensor = tensor.movedim(batch, 0) if batch else tensor
    if is_batched_cotangent(tensor):
        raise BilevelError("numbers cannot be taken out of batched cotangents; take their rows one by one")
    return without_tangent(tensor).detach()


def vjp_of_batched_cotangents(vjp: Callable[..., tuple[Tensor, ...]], *cotangents: Tensor) -> list[Tensor]:
    """vjp for the cotangents of torch.autograd.grad(..., is_grads_batched=True), as one batch of solves.

    That call wraps them in a batching of its own, which custom functions do not see through: take the rows out of it,
    run them under torch.vmap, and put the results back.
    """
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    batched = [is_batched_cotangent(c) for c in cotangents]
    rows = [torch._remove_batch_dim(c, level, 0, 0) if many else c for c, many in zip(cotangents, batched, strict=True)]
    dims = tuple(0 if many else None for many in batched)
    return [torch._add_batch_dim(grad, 0, level) for grad in torch.vmap(vjp, dims)(*rows)]


def refuse_nested_forward() -> None:
    """Raise BilevelError under two levels of forward mode; for the jvp of a custom function.

    Under torch.func.jvp of torch.func.jvp the outer derivative of a custom function's jvp is dropped (PyTorch 2.13), so
    that jacfwd(jacfwd(f)) would miss terms in silence.
    """
    levels = [i for i in retrieve_all_functorch_interpreters() if isinstance(i, JvpInterpreter)]
    # The outermost level never counts; levels that a jvp of ours opened inside have forward mode switched off below them.
    if any(level.prev_fwd_grad_mode() for level in levels[1:]):
        raise BilevelError(
            "forward mode over forward mode (jvp of jvp, jacfwd of jacfwd) does not work through an implicit layer; "
            "use torch.func.hessian, which is forward over reverse"
        )
