"""Pumping tests: the drawdown that a pumped well causes at observation wells, in confined, leaky and unconfined aquifers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bilevel.report import BilevelError, InputError
from bilevel.torch_internals import plain
from physics.flow.heights import Heights
from physics.flow.linear_march import LinearMarch
from physics.flow.radial import RadialFlow, RadialGrid
from physics.flow.time_stepping import SDIRK2, Scheme
from physics.flow.time_steps import TimeSteps, at_changes
from physics.flow.wells.layout import Screen
from physics.flow.wells.two_aquifers import TwoAquifers


@dataclass(frozen=True)
class PumpingTest:
    """A well in a horizontal, uniform aquifer.

    thickness [m] of the aquifer. discharge: pairs (start [d], rate [m3/d]) in order; the rate holds until the next. changes: in
    place of it for a `HeldWell`, when [d] what is prescribed of its drawdown begins and changes.
    well_radius [m]. outer_radius [m]: where the model ends; the drawdown must not get there. slug [m]: what the head in a well
    that stores water is raised by at the start; drawdowns are rises then. screen: the heights [m] between which the well takes
    water, by default over the whole aquifer. free_surface: whether the aquifer's top drains.
    """

    thickness: float
    discharge: Sequence[tuple[float, float]] = ()
    well_radius: float = 0.1
    outer_radius: float = 1e5
    slug: float = 0.0
    screen: Screen | None = None
    free_surface: bool = False
    changes: Sequence[float] = ()

    def __post_init__(self) -> None:
        if self.thickness <= 0.0:
            raise InputError(f"pumping test: the aquifer's thickness must be positive, got {self.thickness:g} m")
        starts = self.starts
        if not starts or any(a >= b for a, b in pairwise(starts)):
            raise InputError("pumping test: the discharge needs at least one rate, and its start times must increase")
        if not self.changes and self.slug == 0.0 and all(rate == 0.0 for _, rate in self.discharge):
            raise InputError("pumping test: the discharge is zero throughout")

    @property
    def starts(self) -> list[float]:
        """When [d] something begins or changes at the well."""
        return list(self.changes) or [start for start, _ in self.discharge]


class Drawdown:
    """The drawdown of a pumping test at given readings, as a function of the aquifer's parameters."""

    SMALL = 1e-6
    """Drawdown at the outer radius, relative to the largest, above which the model is said to be too small."""

    def __init__(
        self,
        test: PumpingTest,
        time: ArrayLike,
        distance: ArrayLike,
        screens: Sequence[Screen | None] | None = None,
        *,
        spacing: float = 0.15,
        per_decade: int = 12,
        scheme: Scheme = SDIRK2,
    ) -> None:
        """Lay out the grids for readings at `time` (n,) [d] and `distance` (n,) [m] from the pumped well.

        screens (n): the heights [m] over which a drawdown is averaged, None for the whole aquifer.
        """
        starts = test.starts
        time, distance = at_changes(np.asarray(time, float), starts), np.asarray(distance, float)
        if time.min(initial=np.inf) < starts[0]:
            raise InputError(
                f"reading {int(time.argmin()) + 1} at {time.min():g} d is earlier than pumping, from {starts[0]:g} d"
            )
        seen = list(screens) if screens is not None else [None] * len(distance)
        places = list(dict.fromkeys(zip(distance.tolist(), seen)))
        self.test, self.scheme = test, scheme
        grid = RadialGrid.between(test.well_radius, test.outer_radius, spacing)
        ends = [test.screen, *seen]
        self.flow = RadialFlow(grid, self._heights(test, ends))
        self.at_wells = self.flow.readings(*zip(*places)).T.contiguous()
        self.well = torch.tensor([places.index(place) for place in zip(distance.tolist(), seen)])
        self.steps = steps = TimeSteps.graded(starts, time, per_decade)
        free = self._free()
        self.initial = torch.zeros(free.shape[1], dtype=torch.float64)
        self.initial[0] = test.slug
        self.march = LinearMarch(self.flow.places, self.flow.places, free, steps, scheme)
        self.in_time = steps.interpolation(time)[:, 1:]  # no reading is at the start
        rates = np.array([rate for _, rate in test.discharge] or [0.0] * len(starts))
        middles = 0.5 * (steps.times[:-1] + steps.times[1:])
        forces = self.flow.force(torch.from_numpy(rates[np.searchsorted(starts, middles) - 1]), test.screen)
        self.forces = forces.unsqueeze(1).expand(-1, len(scheme.rows), -1)
        self.held = torch.zeros(len(forces), 1 + len(scheme.rows), self.flow.nodes)

    def __call__(
        self,
        hydraulic_conductivity: Tensor,
        specific_storage: Tensor,
        aquitard_resistance: Tensor | None = None,
        casing_radius: Tensor | None = None,
        specific_yield: Tensor | None = None,
        anisotropy: Tensor | None = None,
    ) -> Tensor:
        """Drawdowns (n,) [m] for K [m/d], Ss [1/m]; in a leaky aquifer the resistance c [d] of the aquitard; the radius [m] of the
        casing of a well that stores water; Sy [-] of a free surface; vertical over horizontal conductivity.

        Raises BilevelError if the drawdown reaches the outer radius.
        """
        stiffness = self.flow.stiffness(hydraulic_conductivity, aquitard_resistance, anisotropy)
        capacity = self.flow.capacity(specific_storage, casing_radius, specific_yield)
        return self._marched(stiffness, capacity)

    @staticmethod
    def _heights(test: PumpingTest, screens: Sequence[Screen | None]) -> Heights:
        uniform = not test.free_surface and all(screen is None for screen in screens)
        return Heights.uniform(test.thickness) if uniform else Heights.refined(test.thickness, screens)

    def _marched(self, stiffness: Tensor, capacity: Tensor) -> Tensor:
        """The readings (n,), by the entries of both matrices."""
        ends = self.march(stiffness, capacity, self.forces, self.held, self.initial).heads[:, -1]
        self._require_far_boundary(ends[-1])
        return self._read(ends @ self.at_wells)

    def _read(self, columns: Tensor) -> Tensor:
        """The readings (n,) from what was found at the ends of all steps (steps, places)."""
        return (self.in_time * columns[:, self.well].T).sum(1)

    def _free(self) -> sp.spmatrix:
        """How the nodes follow from the unknowns."""
        return sp.identity(self.flow.nodes)

    def _require_far_boundary(self, final: Tensor) -> None:
        final = plain(final).abs()  # an evaluation takes value and Jacobian in one sweep, under transforms
        if (final[..., -1] > self.SMALL * final.amax(-1)).any():
            raise BilevelError(
                f"the drawdown reaches the model's outer radius of {self.test.outer_radius:g} m "
                f"({float(final[..., -1].max()):.2g} m there); raise outer_radius, or keep the parameters to smaller diffusivities"
            )


PUMPED, OTHER = (0.0, 0.0), (1.0, 1.0)
"""The two aquifers, as relative heights at the ends of the aquitard between them."""


class LeakyDrawdown(Drawdown):
    """The same of two aquifers with an aquitard between them: tests are of PUMPED, screens are PUMPED or OTHER."""

    def of(self, aquifers: TwoAquifers) -> Tensor:
        """Drawdowns (n,) [m]; raises BilevelError if they reach the outer radius."""
        return self._marched(*self.flow.between_aquifers(aquifers))

    @staticmethod
    def _heights(test: PumpingTest, screens: Sequence[Screen | None]) -> Heights:
        return Heights.of_aquitard()
