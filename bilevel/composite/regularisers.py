"""Regularisers with closed-form proximal operators, and the soft thresholds that networks share with them."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from bilevel.report import InputError

Number = float | Tensor


def require_nonnegative(name: str, value: Number) -> None:
    """Raise InputError if `value` (or any entry of it) is negative, infinite or NaN."""
    values = torch.as_tensor(value)
    if not bool(((values >= 0) & torch.isfinite(values)).all()):
        raise InputError(
            f"{name} must be finite and not negative, got {float(values.min()):g} to {float(values.max()):g}"
        )


def require_step(step: Number) -> None:
    """The same for the step of a prox where it is a plain number; tensors are not read, so that they may be traced."""
    if not isinstance(step, Tensor):
        require_nonnegative("the step of a proximal operator", step)


def soft_threshold(v: Tensor, threshold: Number) -> Tensor:
    """sign(v) max(|v| - threshold, 0), entry by entry."""
    return torch.sign(v) * torch.relu(v.abs() - threshold)


def soft_threshold_with_support(v: Tensor, threshold: Number, count: int | Tensor) -> Tensor:
    """Soft threshold of v (*batch, n) that lets the `count` largest entries of each row pass unshrunk.

    count: an integer, or one per row (*batch). Entries at or below the threshold become zero all the same
    (Chen, Liu, Wang, Yin 2018, support selection).
    """
    if isinstance(count, int) and count <= 0:
        return soft_threshold(v, threshold)
    magnitude = v.detach().abs()
    trusted = (magnitude >= _kth_largest(magnitude, count)) & (magnitude > threshold)
    return torch.where(trusted, v, soft_threshold(v, threshold))


def _kth_largest(magnitude: Tensor, count: int | Tensor) -> Tensor:
    """The count-th largest entry of each row as (*batch, 1); infinity where count is zero."""
    n = magnitude.shape[-1]
    if isinstance(count, int):
        return torch.topk(magnitude, min(count, n), dim=-1).values[..., -1:]
    largest = int(count.max()) if count.numel() else 0
    if largest == 0:
        return torch.full_like(magnitude[..., :1], torch.inf)
    ordered = torch.topk(magnitude, min(largest, n), dim=-1).values
    position = count.clamp(1, n).long().unsqueeze(-1) - 1
    value = ordered.gather(-1, position.expand(*magnitude.shape[:-1], 1))
    return torch.where(count.unsqueeze(-1) > 0, value, torch.inf)


def block_soft_threshold(v: Tensor, threshold: Number, size: int) -> Tensor:
    """Shrinks each contiguous group of `size` entries of v (*batch, n) towards zero by `threshold` in Euclidean norm."""
    blocks = v.unflatten(-1, (-1, size))
    norm = torch.linalg.vector_norm(blocks, dim=-1, keepdim=True)
    if isinstance(threshold, Tensor) and threshold.dim() > 0:
        threshold = threshold.unsqueeze(-1)
    large = norm > threshold
    safe = torch.where(large, norm, torch.ones_like(norm))
    return (blocks * torch.where(large, 1 - threshold / safe, 0.0)).reshape(v.shape)


class Regulariser(ABC):
    """A convex function g with its proximal operator; inputs have leading batch dimensions, values are one per sample."""

    event_dims: int = 1

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """g(x), (*batch)."""

    @abstractmethod
    def prox(self, v: Tensor, step: Number) -> Tensor:
        """argmin over x of step g(x) + |x - v|^2 / 2; step is a number or broadcasts against v."""

    def _sum(self, x: Tensor) -> Tensor:
        return x.flatten(x.dim() - self.event_dims).sum(-1)


class Zero(Regulariser):
    """g = 0: no regularisation."""

    def value(self, x: Tensor) -> Tensor:
        return self._sum(torch.zeros_like(x))

    def prox(self, v: Tensor, step: Number) -> Tensor:
        return v


class SquaredL2(Regulariser):
    """g(x) = |x|^2 / 2 (Tikhonov)."""

    def value(self, x: Tensor) -> Tensor:
        return 0.5 * self._sum(x.square())

    def prox(self, v: Tensor, step: Number) -> Tensor:
        require_step(step)
        return v / (1 + step)


class L1(Regulariser):
    """g(x) = sum |x_i|."""

    def value(self, x: Tensor) -> Tensor:
        return self._sum(x.abs())

    def prox(self, v: Tensor, step: Number) -> Tensor:
        require_step(step)
        return soft_threshold(v, step)


class GroupL1(Regulariser):
    """g(x) = sum over contiguous groups of `size` entries of the group's Euclidean norm (Yuan & Lin 2006)."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise InputError(f"a group has at least one entry, got {size}")
        self.size = size

    def value(self, x: Tensor) -> Tensor:
        self._check(x)
        return torch.linalg.vector_norm(x.unflatten(-1, (-1, self.size)), dim=-1).sum(-1)

    def prox(self, v: Tensor, step: Number) -> Tensor:
        self._check(v)
        require_step(step)
        return block_soft_threshold(v, step, self.size)

    def _check(self, x: Tensor) -> None:
        if x.shape[-1] % self.size:
            raise InputError(f"{x.shape[-1]} entries do not divide into groups of {self.size}")


class Box(Regulariser):
    """The indicator of lower <= x <= upper: zero inside, infinite outside; its prox is the projection."""

    def __init__(self, lower: Number = -torch.inf, upper: Number = torch.inf, event_dims: int = 1) -> None:
        if bool((torch.as_tensor(lower) > torch.as_tensor(upper)).any()):
            raise InputError("the box is empty: a lower bound lies above its upper bound")
        self.lower, self.upper, self.event_dims = torch.as_tensor(lower), torch.as_tensor(upper), event_dims

    def value(self, x: Tensor) -> Tensor:
        outside = (x < self.lower.to(x)) | (x > self.upper.to(x))
        return torch.where(self._sum(outside) > 0, torch.inf, 0.0).to(x.dtype)

    def prox(self, v: Tensor, step: Number) -> Tensor:
        return torch.minimum(torch.maximum(v, self.lower.to(v)), self.upper.to(v))


class NonNegative(Box):
    """The indicator of x >= 0."""

    def __init__(self, event_dims: int = 1) -> None:
        super().__init__(lower=0.0, event_dims=event_dims)


class Nuclear(Regulariser):
    """g(X) = sum of the singular values of X (*batch, m, n); its prox soft-thresholds them (Cai, Candes, Shen 2010)."""

    event_dims = 2

    def value(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x).sum(-1)

    def prox(self, v: Tensor, step: Number) -> Tensor:
        require_step(step)
        u, s, vh = torch.linalg.svd(v, full_matrices=False)
        if isinstance(step, Tensor) and step.dim() > 0:
            step = step.squeeze(-1)
        return (u * soft_threshold(s, step).unsqueeze(-2)) @ vh
