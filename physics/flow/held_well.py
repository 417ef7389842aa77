"""A well at a prescribed drawdown, whose discharge is what the aquifer gives: a flowing well, a dewatered pit, a drain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from physics.flow.linear_march import Product
from physics.flow.pumping import Drawdown, PumpingTest
from physics.flow.wells.layout import Screen

INSIDE = 1e-9
"""Of a step: that far from its ends a prescribed drawdown is read, for it may jump there."""


class HeldWell(Drawdown):
    """Drawdowns around a well that is held at the nodes along its screen, and its discharge [m3/d].

    Source of the problem: Jacob and Lohman 1952, Trans. Am. Geophys. Union 33, 559. times (steps, 1 + stages) [d]: when the
    prescribed drawdown is asked for.
    """

    def __init__(
        self,
        test: PumpingTest,
        time: ArrayLike,
        distance: ArrayLike,
        screens: Sequence[Screen | None] | None = None,
        *,
        discharges: Sequence[bool] | None = None,
        spacing: float = 0.15,
        per_decade: int = 12,
    ) -> None:
        """As `Drawdown`; discharges (n): which readings are of the discharge, wherever they are."""
        super().__init__(test, time, distance, screens, spacing=spacing, per_decade=per_decade)
        if discharges is not None:
            self.well = torch.where(torch.tensor(discharges), self.at_wells.shape[1], self.well)
        ends = self.steps.times[:, None]
        length = INSIDE * np.diff(ends, axis=0)
        self.times = np.clip(self.steps.stage_times(self.scheme.nodes), ends[:-1] + length, ends[1:] - length)

    def at(
        self,
        drawdown: Tensor,
        hydraulic_conductivity: Tensor,
        specific_storage: Tensor,
        aquitard_resistance: Tensor | None = None,
        specific_yield: Tensor | None = None,
        anisotropy: Tensor | None = None,
    ) -> Tensor:
        """Readings (n,), drawdowns [m] and discharges [m3/d], for a drawdown [m] in the well at `times`; otherwise as `Drawdown`.

        Raises BilevelError if the drawdown reaches the outer radius.
        """
        stiffness = self.flow.stiffness(hydraulic_conductivity, aquitard_resistance, anisotropy)
        capacity = self.flow.capacity(specific_storage, None, specific_yield)
        held = drawdown.unsqueeze(-1) * self._along_screen.to(drawdown.dtype)
        heads, anchors = self.march(stiffness, capacity, self.forces, held, self.initial)
        last, rate = heads[:, -1], (heads[:, -1] - anchors[:, -1]) / self._taus
        self._require_far_boundary(last[-1])
        # What is out of balance at the nodes that are held is what the well takes there.
        taken = Product.apply(self.march.stiffness, stiffness, last)
        taken = taken + Product.apply(self.march.capacity, capacity, rate)
        discharge = (taken * self._along_screen).sum(1, keepdim=True)
        return self._read(torch.cat((last @ self.at_wells, discharge), 1))

    @property
    def _along_screen(self) -> Tensor:
        """The nodes (n,) at the well that its screen touches."""
        return self.flow.force(torch.ones((), dtype=torch.float64), self.test.screen) != 0.0

    @property
    def _taus(self) -> Tensor:
        return torch.from_numpy(self.march.taus[:, -1:])

    def _free(self) -> sp.csr_matrix:
        return sp.identity(self.flow.nodes, format="csr")[:, np.flatnonzero(~self._along_screen.numpy())]
