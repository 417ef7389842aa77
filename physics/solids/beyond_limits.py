"""Where in a body a law has no finite energy: beyond a limit of extensibility, or in a cell that is turned inside out."""

from __future__ import annotations

import torch
from torch import Tensor

from physics.local.density import Density, FunctionDensity


def beyond_limits(density: Density, state: Tensor, energy: Tensor) -> list[str]:
    """A sentence for energies (cells, points) of deformation gradients (cells, points, d, d) where not all are finite."""
    broken = ~energy.isfinite()
    if not bool(broken.any()):
        return []
    law = "the law" if isinstance(density, FunctionDensity) else type(density).__name__
    cell, point = (int(i) for i in broken.nonzero()[0])
    said = f"{law} has no finite energy at {int(broken.sum())} of {broken.numel()} points, first in cell {cell}"
    there = state[cell, point]
    if not bool(there.isfinite().all()):
        return [f"{said}, whose displacements are not finite themselves"]
    stretch, volume = float(torch.linalg.matrix_norm(there, 2)), float(torch.linalg.det(there))
    why = "the cell is turned inside out" if volume <= 0 else "that may be beyond the law's limit of extension"
    return [f"{said}, where the largest stretch is {stretch:.3g} and the volume ratio {volume:.3g}: {why}"]
