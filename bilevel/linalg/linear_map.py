"""Rectangular linear maps of inverse problems: a matrix, a blur, sensors on a mesh, a linearised response.

A map takes x (*batch, *domain) to y (*batch, *range); it is a module, so that `.to(device)` moves what it holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from bilevel.report import InputError, require_finite

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a linear map: its shapes and its response to eight fixed random probes."""

    domain: Shape
    range: Shape
    probes: tuple[float, ...]

    def matches(self, other: Fingerprint, tolerance: float = 1e-4) -> bool:
        """Whether both describe the same map, up to the rounding of single precision."""
        if (self.domain, self.range) != (other.domain, other.range):
            return False
        scale = max(max(map(abs, self.probes)), max(map(abs, other.probes)), 1e-300)
        return all(abs(a - b) <= tolerance * scale for a, b in zip(self.probes, other.probes))


class LinearMap(torch.nn.Module, ABC):
    """A linear map A from tensors shaped `domain` to tensors shaped `range`, with its adjoint; leading dimensions are a batch."""

    domain: Shape
    range: Shape

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x, (*batch, *range), for x (*batch, *domain)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y, (*batch, *domain), for y (*batch, *range)."""

    def normal(self, x: Tensor) -> Tensor:
        """A^T A x."""
        return self.adjoint(self(x))

    def check_data(self, y: Tensor) -> None:
        """Raise InputError unless y is finite, shaped (*batch, *range), and of the map's precision and device."""
        if tuple(y.shape[y.dim() - len(self.range) :]) != self.range or y.dim() < len(self.range):
            raise InputError(
                f"the data have shape {tuple(y.shape)}, but the operator's response has shape (*batch, {_text(self.range)})"
            )
        own = self._tensor()
        if own is not None and (own.dtype, own.device) != (y.dtype, y.device):
            raise InputError(
                f"the data are {y.dtype} on {y.device}, but the operator is {own.dtype} on {own.device}; convert one with .to(...)"
            )
        require_finite("the data", y)

    def matrix(self) -> Tensor:
        """The dense matrix (prod(range), prod(domain)), column by column: for diagnosis at small sizes."""
        reference = self._reference()
        basis = torch.eye(prod(self.domain), dtype=reference.dtype, device=reference.device)
        return self(basis.reshape(-1, *self.domain)).reshape(basis.shape[0], -1).mT

    def dense(self) -> Matrix:
        """The same map with its matrix formed: worth it where products are dear."""
        return Matrix(self.matrix(), self.domain, self.range)

    def norm(self, iterations: int = 100, seed: int = 0) -> float:
        """The spectral norm by power iteration on A^T A, from below; 1 % safe after about 100 iterations."""
        x = self._random(self.domain, seed)
        value = 0.0
        with torch.no_grad():
            for _ in range(iterations):
                x = x / x.norm().clamp_min(torch.finfo(x.dtype).tiny)
                x = self.normal(x)
                value = float(x.norm())
        return value**0.5

    def fingerprint(self) -> Fingerprint:
        """Eight inner products <p, A q> with fixed random p, q: equal for equal maps in any precision, on any device."""
        with torch.no_grad():
            q = torch.stack([self._random(self.domain, 1000 + i) for i in range(8)])
            p = torch.stack([self._random(self.range, 2000 + i) for i in range(8)])
            values = (self(q) * p).flatten(1).sum(1)
        return Fingerprint(self.domain, self.range, tuple(float(v) for v in values))

    def _tensor(self) -> Tensor | None:
        """Any tensor of the map that has its dtype and device."""
        return next((t for t in [*self.parameters(), *self.buffers()] if t.is_floating_point()), None)

    def _reference(self) -> Tensor:
        """`_tensor`, or one of the default dtype for a map that holds none."""
        own = self._tensor()
        return torch.empty((), dtype=torch.get_default_dtype()) if own is None else own

    def _random(self, shape: Shape, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(self._reference())


def _text(shape: Shape) -> str:
    return ", ".join(map(str, shape))


def dot_product_mismatch(A: LinearMap, seed: int = 0) -> float:
    """|<A x, y> - <x, A^T y>| / (|A x| |y|) for random x, y: zero up to rounding if `adjoint` is the adjoint."""
    x, y = A._random(A.domain, seed), A._random(A.range, seed + 1)
    image = A(x)
    left, right = (image * y).sum(), (x * A.adjoint(y)).sum()
    return float((left - right).abs() / (image.norm() * y.norm()))


class Matrix(LinearMap):
    """A dense matrix (m, n), acting on vectors or, with `domain` and `range` given, on tensors of those shapes."""

    entries: Tensor

    def __init__(self, matrix: Any, domain: Shape | None = None, range: Shape | None = None) -> None:
        super().__init__()
        entries = torch.as_tensor(matrix)
        if entries.dim() != 2:
            raise InputError(f"a matrix has two dimensions, got shape {tuple(entries.shape)}")
        if entries.is_complex():
            raise InputError("the operator is complex; stack its real and imaginary parts as rows of a real one")
        if not entries.is_floating_point():
            entries = entries.to(torch.get_default_dtype())
        require_finite("the operator", entries)
        self.register_buffer("entries", entries)
        self.domain = (entries.shape[1],) if domain is None else domain
        self.range = (entries.shape[0],) if range is None else range
        if (prod(self.range), prod(self.domain)) != tuple(entries.shape):
            raise InputError(f"a matrix {tuple(entries.shape)} does not take {self.domain} to {self.range}")

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[: x.dim() - len(self.domain)]
        return (x.reshape(*batch, prod(self.domain)) @ self.entries.mT).reshape(*batch, *self.range)

    def adjoint(self, y: Tensor) -> Tensor:
        batch = y.shape[: y.dim() - len(self.range)]
        return (y.reshape(*batch, prod(self.range)) @ self.entries).reshape(*batch, *self.domain)

    def matrix(self) -> Tensor:
        return self.entries

    def norm(self, iterations: int = 100, seed: int = 0) -> float:
        """The spectral norm, exactly."""
        return float(torch.linalg.matrix_norm(self.entries, ord=2))


class Convolution(LinearMap):
    """Periodic convolution of pictures (height, width) with a small kernel, centred: a blur."""

    kernel: Tensor

    def __init__(self, kernel: Tensor, shape: tuple[int, int]) -> None:
        super().__init__()
        if kernel.dim() != 2 or any(k > s for k, s in zip(kernel.shape, shape)):
            raise InputError(
                f"the kernel {tuple(kernel.shape)} must have two dimensions and fit in the picture {shape}"
            )
        require_finite("the kernel", kernel)
        padded = torch.zeros(shape, dtype=kernel.dtype, device=kernel.device)
        padded[: kernel.shape[0], : kernel.shape[1]] = kernel
        self.register_buffer("kernel", padded.roll((-(kernel.shape[0] // 2), -(kernel.shape[1] // 2)), (0, 1)))
        self.domain = self.range = tuple(shape)

    def transfer(self) -> Tensor:
        """The eigenvalues, (height, width // 2 + 1), complex: what `rfft2` of a picture is multiplied by."""
        return torch.fft.rfft2(self.kernel)

    def norm(self, iterations: int = 100, seed: int = 0) -> float:
        """The spectral norm, exactly: the largest eigenvalue in modulus."""
        return float(self.transfer().abs().max())

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * self.transfer(), s=self.domain)

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(y) * self.transfer().conj(), s=self.domain)


class Sampling(LinearMap):
    """Sensors: row i of the response sums weight[k] x[column[k]] over the entries k with row[k] = i (interpolation on a mesh)."""

    rows: Tensor
    columns: Tensor
    weights: Tensor

    def __init__(self, rows: Tensor, columns: Tensor, weights: Tensor, shape: tuple[int, int]) -> None:
        super().__init__()
        require_finite("the sensors' weights", weights)
        if len(rows) and (int(rows.max()) >= shape[0] or int(columns.max()) >= shape[1]):
            raise InputError(
                f"a sensor refers to row {int(rows.max())}, column {int(columns.max())} of a map of size {shape}"
            )
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)
        self.register_buffer("weights", weights)
        self.range, self.domain = (shape[0],), (shape[1],)

    @staticmethod
    def from_scipy(matrix: Any) -> Sampling:
        """From a scipy.sparse matrix, such as scikit-fem's `basis.probes(points)`."""
        coo = matrix.tocoo()
        rows, columns = torch.as_tensor(coo.row).long(), torch.as_tensor(coo.col).long()
        return Sampling(rows, columns, torch.as_tensor(coo.data), coo.shape)

    @staticmethod
    def at(indices: Tensor, size: int, dtype: torch.dtype = torch.float64) -> Sampling:
        """Sensors that read the unknowns at `indices` of a vector of length `size`."""
        return Sampling(
            torch.arange(len(indices)), indices, torch.ones(len(indices), dtype=dtype), (len(indices), size)
        )

    def forward(self, x: Tensor) -> Tensor:
        out = x.new_zeros(*x.shape[:-1], self.range[0])
        return out.index_add(-1, self.rows, x[..., self.columns] * self.weights)

    def adjoint(self, y: Tensor) -> Tensor:
        out = y.new_zeros(*y.shape[:-1], self.domain[0])
        return out.index_add(-1, self.columns, y[..., self.rows] * self.weights)


class LinearisedResponse(LinearMap):
    """The derivative of a differentiable response at a state: its products by automatic differentiation.

    `response` must work with torch.func; `at` (*domain) is where the derivative is taken.
    """

    at: Tensor

    def __init__(self, response: Callable[[Tensor], Tensor], at: Tensor) -> None:
        super().__init__()
        self.response = response
        self.register_buffer("at", at.detach().clone())
        self.domain, self.range = tuple(at.shape), tuple(response(self.at).shape)

    def forward(self, x: Tensor) -> Tensor:
        return self._each(lambda v: torch.func.jvp(self.response, (self.at,), (v,))[1], x, len(self.domain))

    def adjoint(self, y: Tensor) -> Tensor:
        vjp = torch.func.vjp(self.response, self.at)[1]
        return self._each(lambda v: vjp(v)[0], y, len(self.range))

    @staticmethod
    def _each(product: Callable[[Tensor], Tensor], v: Tensor, event: int) -> Tensor:
        if v.dim() == event:
            return product(v)
        batch = v.shape[: v.dim() - event]
        rows = torch.vmap(product)(v.reshape(-1, *v.shape[v.dim() - event :]))
        return rows.reshape(*batch, *rows.shape[1:])


class Composed(LinearMap):
    """A after B: x -> A(B(x))."""

    def __init__(self, outer: LinearMap, inner: LinearMap) -> None:
        super().__init__()
        if outer.domain != inner.range:
            raise InputError(f"the outer map takes shape {outer.domain}, but the inner one gives {inner.range}")
        self.outer, self.inner = outer, inner
        self.domain, self.range = inner.domain, outer.range

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner.adjoint(self.outer.adjoint(y))


def as_linear_map(A: Any) -> LinearMap:
    """A LinearMap as it is; a tensor or array as a `Matrix`."""
    return A if isinstance(A, LinearMap) else Matrix(A)


def gaussian_kernel(sigma: float, radius: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """The Gaussian blur kernel (2 radius + 1, 2 radius + 1) with standard deviation `sigma` pixels and unit sum."""
    if sigma <= 0 or radius < 0:
        raise InputError(f"a Gaussian kernel needs sigma > 0 and radius >= 0, got {sigma} and {radius}")
    t = torch.arange(-radius, radius + 1, dtype=dtype)
    g = torch.exp(-0.5 * (t / sigma) ** 2)
    kernel = g[:, None] * g[None, :]
    return kernel / kernel.sum()
