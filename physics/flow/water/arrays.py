"""What NumPy and torch write differently in the equations of a network, so that these are written once for both.

Tensors carry derivatives; arrays are for Newton's steps, which need numbers alone, of some hundred links, for which a call of
torch costs five times its arithmetic.
"""

from __future__ import annotations

import copy
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

Array: TypeAlias = Any
"""A tensor, or a NumPy array; all that meet in a formula are of one kind."""

Thing = TypeVar("Thing")


def functions_of(x: Array) -> Any:
    """The package whose `where`, `log10`, `concatenate` ... take x."""
    return torch if isinstance(x, Tensor) else np


def summed(x: Array, places: Array, number: int) -> Array:
    """The sums (number,) of the entries x that belong to each place."""
    if isinstance(x, Tensor):
        return x.new_zeros(number).index_add(0, places, x)
    return np.bincount(places, x, number)


def in_numpy(thing: Thing) -> Thing:
    """A copy of an object whose attributes that are tensors are arrays, which share their memory."""
    twin = copy.copy(thing)
    # Not by assignment: some classes are frozen.
    vars(twin).update({name: x.numpy() for name, x in vars(thing).items() if isinstance(x, Tensor)})
    return twin
