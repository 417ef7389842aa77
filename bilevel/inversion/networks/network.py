"""What all unrolled networks share: layers that refine an estimate, called as network(y), trained layer by layer.

A network holds its operator, so `.to(device)` and `.to(torch.float32)` move the whole; data are (*batch, *range).
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Parameter, ParameterList

from bilevel.linalg.linear_map import LinearMap, Matrix, as_linear_map
from bilevel.report import ConvergenceError, InputError, require_finite


class UnrolledState(NamedTuple):
    """What one layer hands to the next: the estimate, and what the method remembers beside it."""

    x: Tensor
    memory: Any = None


class UnrolledNetwork(torch.nn.Module, ABC):
    """`depth` layers of an iterative scheme for y = A x, each with its own learned parameters.

    The network keeps its own handle on the operator (sharing its memory), so moving the network leaves the user's operator
    where it is. Parameters kept in a ParameterList of length `depth` belong to one layer each; all others are shared by all layers.
    """

    def __init__(self, operator: LinearMap | Tensor, depth: int) -> None:
        super().__init__()
        if depth < 1:
            raise InputError(f"a network has at least one layer, got depth {depth}")
        self.operator = own_handle(as_linear_map(operator))
        self.depth = depth

    @abstractmethod
    def layer(self, k: int, state: UnrolledState, y: Tensor) -> UnrolledState:
        """Layer k (from 0) applied to the state before it."""

    def start(self, y: Tensor) -> UnrolledState:
        """The state before the first layer: x = 0."""
        batch = y.shape[: y.dim() - len(self.operator.range)]
        return UnrolledState(y.new_zeros(*batch, *self.operator.domain))

    def vector(self, x: Tensor) -> Tensor:
        """Unknowns (*batch, *domain) as (*batch, n)."""
        return x.reshape(*x.shape[: x.dim() - len(self.operator.domain)], prod(self.operator.domain))

    def data_vector(self, y: Tensor) -> Tensor:
        """Data (*batch, *range) as (*batch, m)."""
        return y.reshape(*y.shape[: y.dim() - len(self.operator.range)], prod(self.operator.range))

    def shaped(self, v: Tensor) -> Tensor:
        """(*batch, n) back as (*batch, *domain)."""
        return v.reshape(*v.shape[:-1], *self.operator.domain)

    def forward(self, y: Tensor, depth: int | None = None) -> Tensor:
        """The estimate (*batch, *domain) from data (*batch, *range) after `depth` layers (default: all).

        Raises InputError where the data do not fit the operator or are not finite, and ConvergenceError where the
        layers blow the estimate up.
        """
        if depth is not None and not 0 <= depth <= self.depth:
            raise InputError(f"this {type(self).__name__} has {self.depth} layers, {depth} were asked for")
        x = self.run(y, self.start_checked(y), 0, depth).x
        self._require_stable(x.detach(), y)
        return x

    def iterates(self, y: Tensor) -> list[Tensor]:
        """The estimates after each layer."""
        state, found = self.start_checked(y), []
        for k in range(self.depth):
            state = self.layer(k, state, y)
            found.append(state.x)
        return found

    def start_checked(self, y: Tensor) -> UnrolledState:
        """`start`, after checking that the data fit the operator."""
        self.operator.check_data(y)
        return self.start(y)

    def run(self, y: Tensor, state: UnrolledState, first: int, last: int | None = None) -> UnrolledState:
        """Layers first, ..., last - 1."""
        for k in range(first, self.depth if last is None else last):
            state = self.layer(k, state, y)
        return state

    def _require_stable(self, x: Tensor, y: Tensor) -> None:
        """An estimate that explains the data ten times worse than zero does comes from an unstable network."""
        misfit = self.data_vector(self.operator(x) - y).norm(dim=-1)
        size = self.data_vector(y).norm(dim=-1)
        bad = ~(misfit <= 10 * size + torch.finfo(y.dtype).eps)
        if bool(bad.any()):
            raise ConvergenceError(
                f"the {type(self).__name__} is unstable on {int(bad.sum())} of {bad.numel()} samples: its estimate explains the "
                "data worse than zero does; clamp its steps (guards.clamp_steps) or train it at lower rates"
            )

    def layer_parameters(self, k: int) -> list[Parameter]:
        """The trainable parameters of layer k alone."""
        return [plist[k] for plist in self._per_layer() if plist[k].requires_grad]

    def shared_parameters(self) -> list[Parameter]:
        """The trainable parameters that all layers use."""
        own = {id(p) for plist in self._per_layer() for p in plist}
        return [p for p in self.parameters() if id(p) not in own and p.requires_grad]

    def inherit(self, k: int) -> None:
        """Let layer k start from what layer k - 1 has learned."""
        with torch.no_grad():
            for plist in self._per_layer():
                plist[k].copy_(plist[k - 1])

    def _per_layer(self) -> list[ParameterList]:
        return [c for c in self.children() if isinstance(c, ParameterList) and len(c) == self.depth]


def own_handle(module: LinearMap) -> LinearMap:
    """The same map, sharing its memory, that `.to(...)` can move without moving the original."""
    found = copy.copy(module)
    found._buffers = dict(module._buffers)
    found._modules = {
        name: own_handle(child) if isinstance(child, LinearMap) else child for name, child in module._modules.items()
    }
    return found


def require_pairs(network: UnrolledNetwork, truth: Tensor, data: Tensor) -> None:
    """Raise InputError unless truth (*batch, *domain), not all zero, and data (*batch, *range) are pairs for the network."""
    operator = network.operator
    operator.check_data(data)
    batch = data.shape[: data.dim() - len(operator.range)]
    if tuple(truth.shape) != (*batch, *operator.domain):
        raise InputError(
            f"the training signals have shape {tuple(truth.shape)}, but the network's operator takes "
            f"{(*batch, *operator.domain)} for these data"
        )
    require_finite("the training signals", truth)
    if not bool((truth != 0).any()):
        raise InputError("the training signals are all zero, so there is nothing to recover")


def squared_norm(operator: LinearMap) -> float:
    """|A|^2; raises InputError for an operator that maps everything to zero."""
    value = operator.norm() ** 2
    if not value > 0:
        raise InputError("the operator is zero: no data depend on the unknown")
    return value


def start_matrix(operator: LinearMap, weight: Tensor | None, threshold: float) -> tuple[Tensor, float]:
    """Weight (m, n) and threshold that a layer starts from: the given ones, or A / |A|^2 and threshold / |A|^2 (ISTA)."""
    m, n = prod(operator.range), prod(operator.domain)
    if weight is None:
        lipschitz = squared_norm(operator)
        return operator.matrix() / lipschitz, threshold / lipschitz
    if tuple(weight.shape) != (m, n):
        raise InputError(f"the weight has shape {tuple(weight.shape)}, but the operator's matrix has shape ({m}, {n})")
    return weight, threshold


def weight_map(operator: LinearMap, weight: LinearMap | Tensor) -> LinearMap:
    """A weight as a map of the operator's shapes; raises InputError where it does not fit."""
    if isinstance(weight, Tensor) and tuple(weight.shape) == (prod(operator.range), prod(operator.domain)):
        return Matrix(weight, operator.domain, operator.range)
    found = own_handle(as_linear_map(weight))
    if (found.domain, found.range) != (operator.domain, operator.range):
        raise InputError(
            f"the weight maps {found.domain} to {found.range}, but the operator maps {operator.domain} to {operator.range}"
        )
    return found


def scalars(depth: int, value: float, dtype: torch.dtype) -> ParameterList:
    """One learned number a layer."""
    return ParameterList(Parameter(torch.tensor(value, dtype=dtype)) for _ in range(depth))


class Thresholds(ParameterList):
    """One learned positive number a layer, kept as its logarithm: it cannot turn negative, and rates act relative to its size."""

    def __init__(self, depth: int, value: float, dtype: torch.dtype, fall: float = 1.0) -> None:
        """All start at `value`, or fall geometrically from it to `fall` times it in the last layer."""
        if not value > 0:
            raise InputError(f"a network's threshold starts above zero, got {value:g}")
        if not 0 < fall <= 1:
            raise InputError(f"thresholds fall to a part of the first in (0, 1], got {fall:g}")
        logs = torch.linspace(0.0, math.log(fall), depth, dtype=torch.float64) + math.log(value)
        super().__init__(Parameter(log.to(dtype)) for log in logs)

    def at(self, k: int) -> Tensor:
        """The threshold of layer k."""
        return self[k].exp()

    def values(self) -> list[float]:
        """All thresholds, as numbers."""
        return [float(t.detach().exp()) for t in self]


def copies(depth: int, value: Tensor) -> ParameterList:
    """One learned tensor a layer, all starting from `value`."""
    return ParameterList(Parameter(value.detach().clone()) for _ in range(depth))


@dataclass(frozen=True)
class SupportSelection:
    """How many entries pass each layer's threshold unshrunk: min(rate * (k + 1), maximum) of the n entries.

    Source: Chen, Liu, Wang, Yin 2018, section 3.2. Thresholds that no longer bias the trusted entries.
    """

    rate: float = 0.012
    maximum: float = 0.13

    def __post_init__(self) -> None:
        if not (0 <= self.rate <= 1 and 0 <= self.maximum <= 1):
            raise InputError(
                f"support selection takes fractions in [0, 1], got rate {self.rate}, maximum {self.maximum}"
            )

    def count(self, k: int, n: int) -> int:
        """For layer k (from 0) and n unknowns."""
        return int(min(self.rate * (k + 1), self.maximum) * n)


NO_SELECTION = SupportSelection(0.0, 0.0)
