"""Copies of objects whose tensors are on another device."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


def moved(thing: Any, device: torch.device | str) -> Any:
    """A copy of a problem, operator, list ... in which every tensor is on the device; the rest is shared.

    Objects of a class with `stays_on_host = True` (meshes, sparse patterns: bookkeeping in NumPy) are shared as they are.
    """
    return _moved(thing, torch.device(device), {})


def _moved(thing: Any, device: torch.device, known: dict[int, Any]) -> Any:
    if isinstance(thing, Tensor):
        return thing.to(device)
    if isinstance(thing, nn.Module):
        return copy.deepcopy(thing).to(device)
    if id(thing) in known:
        return known[id(thing)]
    if isinstance(thing, dict):
        return {key: _moved(value, device, known) for key, value in thing.items()}
    if type(thing) in (list, tuple):
        return type(thing)(_moved(value, device, known) for value in thing)
    if _holds_tensors(thing):
        twin = known[id(thing)] = copy.copy(thing)
        # Not by assignment: most of these classes are frozen.
        vars(twin).update({name: _moved(value, device, known) for name, value in vars(thing).items()})
        return twin
    return thing


def _holds_tensors(thing: Any) -> bool:
    """Whether to look into an object: instances of plain Python classes, not functions, classes, arrays or modules."""
    return (
        hasattr(thing, "__dict__")
        and hasattr(type(thing), "__weakref__")
        and not getattr(thing, "stays_on_host", False)
    )
