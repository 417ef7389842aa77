"""Proximal operators: what a regulariser g does to a point, prox(v, s) = argmin_x s g(x) + |x - v|^2 / 2."""

from bilevel.composite.regularisers import (
    L1,
    Box,
    GroupL1,
    NonNegative,
    Nuclear,
    Number,
    Regulariser,
    SquaredL2,
    Zero,
    block_soft_threshold,
    require_nonnegative,
    soft_threshold,
    soft_threshold_with_support,
)
from bilevel.composite.total_variation import AnalysisNorm, GraphTotalVariation, TotalVariation

__all__ = [
    "L1",
    "AnalysisNorm",
    "Box",
    "GraphTotalVariation",
    "GroupL1",
    "NonNegative",
    "Nuclear",
    "Number",
    "Regulariser",
    "SquaredL2",
    "TotalVariation",
    "Zero",
    "block_soft_threshold",
    "require_nonnegative",
    "soft_threshold",
    "soft_threshold_with_support",
]
