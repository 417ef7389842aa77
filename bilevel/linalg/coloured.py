"""The sparse matrix behind products: its pattern found by probing, its entries by products with many columns at once.

Columns that share no row may be multiplied in one product, and their entries read off its image (Curtis, Powell & Reid
1974, IMA J. Appl. Math. 13, 117). Where nobody tells the pattern, it is found from the top down: groups of columns that
share no row are halved in one product each, until every group is one column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from bilevel.linalg.operator import Sparse, SparsePattern, Structure
from bilevel.linalg.sparse_batch import SparseBatch

Products = Callable[[Tensor], Tensor]
"""Rows x (k, n) to the rows A^T x (k, *batch, n): the same x for each sample of a batch."""

BRANCH = 4
"""Parts into which a group of columns is cut."""
MOST_PROBES = 1024
"""A pattern that needs more products at a level is not sought further."""
DENSE_FILL = 0.5
"""A matrix whose rows reach this share of 64 groups or more is called dense."""


@dataclass(frozen=True)
class ColouredPattern:
    """A pattern with the colour of each row of the matrix (n,); rows of one colour share no column.

    positions: the entry of the image (colours, n), flattened, that holds each value of the pattern.
    """

    pattern: SparsePattern
    colours: np.ndarray
    positions: Tensor

    @staticmethod
    def of(rows: np.ndarray, columns: np.ndarray, n: int) -> ColouredPattern:
        """From the pairs (row, column) of a matrix's entries; the diagonal is added."""
        everyone = np.arange(n)
        pattern, _ = SparsePattern.from_pairs(np.r_[rows, everyone], np.r_[columns, everyone], n)
        colours = colours_of(pattern.indices, pattern.rows, n, n)
        return ColouredPattern(pattern, colours, torch.from_numpy(colours[pattern.rows] * n + pattern.indices))

    def seeds(self, like: Tensor) -> Tensor:
        """One vector (colours, n) for each colour."""
        return torch.nn.functional.one_hot(torch.from_numpy(self.colours).long()).mT.to(like)

    def values(self, products: Products, like: Tensor) -> Tensor:
        """The entries (*batch, nnz) from one product A^T x for each colour."""
        return products(self.seeds(like)).movedim(0, -2).flatten(-2)[..., self.positions.to(like.device)]


def colours_of(rows: np.ndarray, columns: np.ndarray, height: int, width: int) -> np.ndarray:
    """A colour for each column (width,), such that columns of one colour share no row; greedy."""
    from scipy.optimize._numdiff import group_columns  # compiled; what scipy's own solvers take for jac_sparsity

    matrix = csr_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(height, width))
    # In the order in which users number a grid greed finds a third fewer colours than in a random one.
    return np.asarray(group_columns(matrix, order=np.arange(width)), dtype=np.int64)


def find_pattern(products: Products, like: Tensor) -> ColouredPattern | None:
    """The pattern of a matrix from its products, or None where it is dense or needs too many of them; like: (*batch, n).

    Of a batch, the pattern that holds the entries of all samples.
    """
    n = like.shape[-1]
    dice = np.random.default_rng(n)  # torch refuses random numbers under vmap
    weights = torch.from_numpy(dice.uniform(0.5, 1.5, n) * dice.choice([-1.0, 1.0], n)).to(like)
    levels = 1
    while BRANCH**levels < n:
        levels += 1
    # Pairs of a column of the matrix and a group of its rows that has an entry there.
    columns, groups = np.arange(n), np.zeros(n, dtype=np.int64)
    for level in range(1, levels + 1):
        width = BRANCH ** (levels - level)
        colours = colours_of(columns, groups, n, BRANCH ** (level - 1))
        probes = BRANCH * (int(colours.max()) + 1)
        if probes > min(MOST_PROBES, max(64, n // 2)):
            return None
        part = np.arange(n) // width
        seeds = torch.zeros(probes, n, dtype=like.dtype, device=like.device)
        seeds[torch.from_numpy(BRANCH * colours[part // BRANCH] + part % BRANCH), torch.arange(n)] = weights
        hits = (products(seeds) != 0).reshape(probes, -1, n).any(1).cpu().numpy()
        found = [
            (columns[hit], BRANCH * groups[hit] + k)
            for k in range(BRANCH)
            for hit in [hits[BRANCH * colours[groups] + k, columns]]
        ]
        columns, groups = (np.concatenate(parts) for parts in zip(*found, strict=True))
        if BRANCH**level >= 64 and len(columns) > DENSE_FILL * n * min(n, BRANCH**level):
            return None
    return ColouredPattern.of(groups, columns, n)


def agrees(values: Tensor, coloured: ColouredPattern, products: Products, structure: Structure) -> bool:
    """Whether the matrix has no entry beside its pattern, by one random product."""
    n = coloured.pattern.n
    x = torch.from_numpy(np.random.default_rng(n + 1).choice([-1.0, 1.0], n)).to(values)
    image = products(x.unsqueeze(0))[0]
    missed = image - on_pattern(coloured.pattern, values, structure).matmul_transposed(x.expand(image.shape))
    tolerance = 1e3 * torch.finfo(values.dtype).eps
    small = torch.linalg.vector_norm(missed, dim=-1) <= tolerance * torch.linalg.vector_norm(image, dim=-1)
    return bool((small | torch.isnan(missed).any(-1)).all())


def on_pattern(pattern: SparsePattern, values: Tensor, structure: Structure) -> Sparse | SparseBatch:
    """The sparse matrix, or the batch of them, with values (*batch, nnz)."""
    make = Sparse if values.dim() == 1 else SparseBatch
    return make(pattern, values, structure)
