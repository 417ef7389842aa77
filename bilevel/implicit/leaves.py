"""The tensors that a problem depends on: those among its parameters, and those that got in without being declared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from bilevel.problem import Params, Problem
from bilevel.report import UndeclaredTensorError
from bilevel.torch_internals import Constants, has_tangent, pytree, without_tangent

REMEDY = "pass it in `params` (or make it a parameter of the module), or detach it if it is meant to be constant"


def split_params(params: Params) -> tuple[list[Tensor], list[str], Callable[[Sequence[Tensor | None]], Params]]:
    """The floating-point tensors of a nested structure, their names, and how to put others in their place."""
    flat, spec = pytree.tree_flatten_with_path(params)
    values: list[Any] = [leaf for _, leaf in flat]
    for path, leaf in flat:
        if isinstance(leaf, torch.nn.Module):
            name = f"parameter {pytree.keystr(path)} is" if path else "params are"
            raise TypeError(f"{name} a {type(leaf).__name__}; pass a dict of its tensors")
        if isinstance(leaf, Tensor) and leaf.is_complex():
            raise TypeError(
                f"parameter {pytree.keystr(path)} is complex; pass real tensors, such as torch.view_as_real of it"
            )
    places = [i for i, leaf in enumerate(values) if isinstance(leaf, Tensor) and leaf.is_floating_point()]

    def rebuild(leaves: Sequence[Tensor | None]) -> Params:
        filled = list(values)
        for place, leaf in zip(places, leaves, strict=True):
            filled[place] = leaf
        return pytree.tree_unflatten(filled, spec)

    leaves = [values[i] for i in places]
    for place in places:
        values[place] = None
    return leaves, [pytree.keystr(flat[i][0]) for i in places], rebuild


def refuse_undeclared(
    problem: Problem,
    u: Tensor,
    rebuild: Callable[[Sequence[Tensor]], Params],
    leaves: Sequence[Tensor],
    constants: Constants,
) -> None:
    """Raise UndeclaredTensorError if the problem depends on a tensor that needs a derivative and is not in `leaves`.

    With the unknown and every declared tensor detached, nothing that comes out may still carry a derivative. What the
    problem closes over otherwise is noted in `constants`.
    """
    u, detached = without_tangent(u).detach(), [without_tangent(leaf).detach() for leaf in leaves]
    watched = constants.watched([u, *detached]) if problem.closes_over else nullcontext()
    with torch.enable_grad(), watched:
        value = problem.probe(u, rebuild(detached))
    if value.requires_grad:
        raise UndeclaredTensorError(
            f"{type(problem).__name__} depends on {_describe(value)} that needs a gradient but is not one of its parameters, so "
            f"its gradient would be silently zero; {REMEDY}"
        )
    if has_tangent(value):
        raise UndeclaredTensorError(
            f"{type(problem).__name__} depends on a tensor with a forward-mode tangent that is not one of its parameters; {REMEDY}"
        )


def _describe(value: Tensor) -> str:
    """The leaf tensors behind a value, by shape."""
    found: list[str] = []
    seen, todo = set(), [value.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.append(f"a tensor of shape {tuple(variable.shape)}")
        todo.extend(child for child, _ in node.next_functions)
    return " and ".join(sorted(set(found))) or "a tensor"
