"""What sparse direct factors share: the grounded matrix, and a probe whether the factorisation can be trusted."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.linalg.direct.condition import Probe, probe
from bilevel.linalg.direct.grounding import Grounding
from bilevel.linalg.operator import Sparse
from bilevel.linalg.solver import Factor, refuse_singular
from bilevel.report import BilevelError, OnFail


class SparseFactor(Factor):
    """A factorisation of the regular matrix that `Grounding` makes of A."""

    def __init__(self, A: Sparse, ground: Grounding) -> None:
        self._put_off = False
        super().__init__(A)
        self.ground = ground

    @classmethod
    def refused(cls, A: Sparse, ground: Grounding, on_fail: OnFail) -> SparseFactor:
        """What is left where the factorisation stopped at a zero pivot."""
        refuse_singular(0.0, on_fail)
        factor = SparseFactor(A, ground)
        factor.singular = True
        return factor

    def probe(self) -> Probe:
        """Solve with one random right-hand side and see how well that goes."""
        return probe(self.ground.matrix, lambda rows: self._solve_regular(rows, transposed=False))

    @property
    def singular(self) -> bool:  # type: ignore[override]
        """Whether the probe fails, which is made when someone asks: on small matrices it costs as much as their factors."""
        if self._put_off:
            self._put_off, self._singular = False, not bool(self.probe().sound)
        return self._singular

    @singular.setter
    def singular(self, known: bool) -> None:
        self._put_off, self._singular = False, known

    def check_condition(self, on_fail: OnFail) -> None:
        """Probe, and say so if the matrix is singular; where nothing is to be said, when it is asked for."""
        if on_fail == "ignore":
            self._put_off = True
            return
        found = self.probe()
        if not bool(found.sound):
            self.singular = True
            refuse_singular(float(found.rcond), on_fail)

    def _solve_regular(self, rows: Tensor, transposed: bool) -> Tensor:
        raise NotImplementedError

    def _back_substitute(self, rows: Tensor, transposed: bool) -> Tensor:
        if self._singular:
            return torch.full_like(rows, torch.nan)
        return self._solve_regular(self.ground.rows(rows), transposed)


class NotPositiveDefinite(Factor):
    """What is left of a Cholesky factorisation that met a pivot which is not positive: that knowledge."""

    def _back_substitute(self, rows: Tensor, transposed: bool) -> Tensor:
        raise BilevelError("the matrix is not positive definite, so Cholesky cannot solve with it; use LDL^T or LU")
