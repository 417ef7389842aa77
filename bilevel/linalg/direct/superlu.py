"""SuperLU (SciPy) behind the one interface: everywhere available, slow in three dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevel.linalg.direct.grounding import Grounding
from bilevel.linalg.direct.layout import is_sparse_on_cpu, ready
from bilevel.linalg.direct.sparse_factor import SparseFactor
from bilevel.linalg.operator import LinearOperator, Sparse
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.report import OnFail


@dataclass(frozen=True)
class SuperLU(LinearSolver):
    """LU of any square matrix; symmetric ones are first tried without row exchanges, whose pivots tell the inertia."""

    precedence = -1

    def suits(self, A: LinearOperator, right_hand_sides: int) -> bool:
        return is_sparse_on_cpu(A)

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        A = ready(A)
        ground = Grounding(A)
        if A.structure.symmetric and (lu := _decompose(ground.matrix, symmetric=True)) is not None:
            factor = SuperLUFactor(A, ground, lu)
            factor.learn_inertia()
            if bool(factor.probe().sound):
                return factor
        lu = _decompose(ground.matrix, symmetric=False)
        if lu is None:
            return SparseFactor.refused(A, ground, on_fail)
        factor = SuperLUFactor(A, ground, lu)
        if (
            A.structure.symmetric
        ):  # elimination without exchanges is stable where A is positive definite, and it was not
            factor.positive_definite = False
        factor.check_condition(on_fail)
        return factor


class SuperLUFactor(SparseFactor):
    """Solves with SciPy's SuperLU object."""

    def __init__(self, A: Sparse, ground: Grounding, lu: Any) -> None:
        super().__init__(A, ground)
        self.lu = lu

    def learn_inertia(self) -> None:
        """Count negative pivots: without row exchanges A = L D L^T, and D has the signs of A (Sylvester)."""
        if np.array_equal(self.lu.perm_r, self.lu.perm_c):
            self.negative_eigenvalues = int((self.lu.U.diagonal() < 0).sum())
            self.positive_definite = self.negative_eigenvalues == 0

    def _solve_regular(self, rows: Tensor, transposed: bool) -> Tensor:
        columns = np.asfortranarray(rows.double().numpy().T)
        return torch.from_numpy(np.ascontiguousarray(self.lu.solve(columns, "T" if transposed else "N").T)).to(rows)


def _decompose(matrix: Sparse, symmetric: bool) -> Any:
    """SciPy's SuperLU object, or None at a zero pivot."""
    from scipy.sparse.linalg import splu

    # The rows of A are handed over as the columns of A^T only where that is the same matrix.
    columns = matrix.csr().T if symmetric else matrix.csr().tocsc()
    settings: dict[str, Any] = {}
    if symmetric:
        settings = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.0, "options": {"SymmetricMode": True}}
    try:
        return splu(columns.astype(np.float64), **settings)
    except RuntimeError as error:
        if "singular" in str(error):
            return None
        raise
