"""Regular matrices from singular ones with a declared null space: hold k well-chosen unknowns at zero.

With A Z = 0 and Z^T b = 0, the equations of k unknowns G whose block Z_G is invertible follow from all the others, so
A x = b with x_G = 0 has one solution; projecting it gives the solution orthogonal to Z (Bochev and Lehoucq 2005,
SIAM Review 47, 50). A is positive definite beside its null space exactly if the reduced matrix is positive definite.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bilevel.linalg.direct.condition import check_null_space
from bilevel.linalg.operator import Sparse

_NONE = torch.empty(0, dtype=torch.long)


class Grounding:
    """A sparse matrix made regular on its own pattern: held unknowns keep a diagonal entry alone."""

    def __init__(self, A: Sparse) -> None:
        self.held, self.matrix = _NONE, A
        if A.structure.null_space is None:
            return
        check_null_space(A)
        self.held = _well_chosen(A.structure.null_space)
        self.matrix = replace(A, structure=replace(A.structure, null_space=None))
        self.matrix.values = self._hold(A)

    def rows(self, b: Tensor) -> Tensor:
        """Right-hand sides (m, n) for the regular matrix."""
        return b.index_fill(-1, self.held, 0.0) if self.held.numel() else b

    def _hold(self, A: Sparse) -> Tensor:
        held = torch.zeros(A.n, dtype=torch.bool)
        held[self.held] = True
        row_of = torch.from_numpy(A.pattern.rows).long()
        column_of = torch.from_numpy(A.pattern.indices).long()
        # The held rows become size * x = 0 in place: the pattern, and with it the symbolic analysis, stays as it is.
        size = A.values.abs().max()
        values = torch.where(held[row_of] | held[column_of], 0.0, A.values)
        values[A.pattern.diagonal_positions()[self.held]] = size
        return values


def _well_chosen(z: Tensor) -> Tensor:
    """The unknowns whose rows of Z are most independent (QR with column pivoting of Z^T)."""
    from scipy.linalg import qr

    order = qr(z.detach().cpu().numpy().T, mode="r", pivoting=True)[1]
    return torch.from_numpy(order[: z.shape[1]].astype("int64"))
