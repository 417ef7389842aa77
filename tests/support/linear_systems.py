"""Matrices with known properties for the tests of linear algebra."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bilevel.linalg import Dense, Sparse, SparsePattern, Structure


def sparse_from_dense(matrix: Tensor, structure: Structure | None = None, keep: Tensor | None = None) -> Sparse:
    """A sparse operator with the non-zeros of a dense matrix, or its entries at `keep`."""
    kept = matrix != 0 if keep is None else keep
    rows, columns = (part.numpy() for part in torch.nonzero(kept, as_tuple=True))
    pattern, scatter = SparsePattern.from_pairs(rows, columns, len(matrix))
    values = pattern.accumulate(torch.from_numpy(scatter), matrix[kept])
    return Sparse(pattern, values, structure or Structure())


def to_dense(A: Dense | Sparse) -> Tensor:
    """The entries of an operator."""
    return A.matrix if isinstance(A, Dense) else torch.from_numpy(A.csr().toarray())


def random_sparse(n: int, kind: str, seed: int = 0, per_row: int = 5) -> Tensor:
    """A dense tensor with about `per_row` entries in a row: "definite", "indefinite", "unsymmetric"."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(n, n, generator=generator) < per_row / n
    entries = torch.where(mask, torch.randn(n, n, generator=generator), 0.0)
    if kind == "definite":
        return entries @ entries.mT + torch.eye(n)
    if kind == "indefinite":
        signs = torch.where(torch.arange(n) % 3 == 0, -1.0, 1.0)
        return 0.1 * (entries + entries.mT) + torch.diag(signs * (1.0 + torch.rand(n, generator=generator)))
    return entries + torch.diag(2.0 + torch.rand(n, generator=generator))


def laplacian(nodes: int, edges: Tensor, weights: Tensor) -> Tensor:
    """The dense graph Laplacian; singular with constant vectors as its null space where the graph is connected."""
    incidence = torch.zeros(len(edges), nodes)
    incidence[torch.arange(len(edges)), edges[:, 0]] = 1.0
    incidence[torch.arange(len(edges)), edges[:, 1]] = -1.0
    return incidence.mT @ (weights.unsqueeze(-1) * incidence)


def grid_laplacian(m: int) -> Tensor:
    """The Laplacian of an m x m grid graph with weights between 1 and 2, nothing held."""
    index = torch.arange(m * m).reshape(m, m)
    across = torch.stack([index[:, :-1].reshape(-1), index[:, 1:].reshape(-1)], 1)
    down = torch.stack([index[:-1].reshape(-1), index[1:].reshape(-1)], 1)
    edges = torch.cat([across, down])
    return laplacian(m * m, edges, 1.0 + torch.rand(len(edges), generator=torch.Generator().manual_seed(0)))


def uneven_lattice(m: int, spread: float) -> Sparse:
    """An m x m grid with log-normal conductances whose first row of nodes also drains to the ground; sparse."""
    index = torch.arange(m * m).reshape(m, m)
    first = torch.cat([index[1:].reshape(-1), index[:, 1:].reshape(-1)])
    second = torch.cat([index[:-1].reshape(-1), index[:, :-1].reshape(-1)])
    k = torch.exp(spread * torch.randn(len(first), generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    rows = torch.cat([first, second, first, second, index[0]])
    columns = torch.cat([first, second, second, first, index[0]])
    pattern, scatter = SparsePattern.from_pairs(rows.numpy(), columns.numpy(), m * m)
    values = pattern.accumulate(torch.from_numpy(scatter), torch.cat([k, k, -k, -k, torch.ones(m, dtype=k.dtype)]))
    return Sparse(pattern, values, Structure(symmetric=True))


def truss(m: int) -> tuple[Tensor, Tensor]:
    """The stiffness of a free plane truss on an m x m grid with both diagonals, and its rigid motions, orthonormal."""
    x = torch.stack(torch.meshgrid(torch.arange(m), torch.arange(m), indexing="ij"), -1).reshape(-1, 2).double()
    pairs = torch.combinations(torch.arange(m * m))
    pairs = pairs[(x[pairs[:, 0]] - x[pairs[:, 1]]).abs().amax(-1) <= 1.0]
    along = x[pairs[:, 1]] - x[pairs[:, 0]]
    length = along.norm(dim=-1, keepdim=True)
    stretch = torch.zeros(len(pairs), 2 * m * m)
    for axis in range(2):
        stretch[torch.arange(len(pairs)), 2 * pairs[:, 0] + axis] = -(along / length)[:, axis]
        stretch[torch.arange(len(pairs)), 2 * pairs[:, 1] + axis] = (along / length)[:, axis]
    motions = torch.zeros(2 * m * m, 3)
    motions[0::2, 0] = motions[1::2, 1] = 1.0
    motions[0::2, 2], motions[1::2, 2] = -x[:, 1], x[:, 0]
    return stretch.mT @ (stretch / length), torch.linalg.qr(motions)[0]


def poisson(m: int, dimensions: int) -> Sparse:
    """The Dirichlet Laplacian by finite differences on m^dimensions interior points."""
    import scipy.sparse as sp

    line = sp.diags([-np.ones(m - 1), 2.0 * np.ones(m), -np.ones(m - 1)], [-1, 0, 1])
    matrix, eye = sp.csr_matrix((1, 1)), sp.eye(1)
    for _ in range(dimensions):
        matrix = sp.kron(matrix, sp.eye(m)) + sp.kron(eye, line)
        eye = sp.kron(eye, sp.eye(m))
    matrix = matrix.tocsr()
    matrix.sort_indices()
    pattern = SparsePattern(matrix.shape[0], matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32))
    return Sparse(pattern, torch.from_numpy(matrix.data), Structure(symmetric=True))


def with_condition(n: int, condition: float, seed: int = 0) -> Tensor:
    """A symmetric positive definite dense matrix with eigenvalues spread in logarithm from 1 / condition to 1."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(n, n, generator=generator))[0]
    values = torch.logspace(-float(np.log10(condition)), 0.0, n, dtype=torch.float64)
    matrix = (q * values) @ q.mT
    return 0.5 * (matrix + matrix.mT)
