"""Drawdown in uniform aquifers as a Laplace transform in time, a Bessel function in radius and modes over the height.

Over the height z above the bottom the drawdown is a sum of cos(e_n z / b). A confined or leaky aquifer has e_n = n pi; where
a free surface drains at the top (Kz ds/dz = - Sy ds/dt), e_n tan(e_n) = Sy p b / Kz at Laplace's p. Each mode obeys
    (1/r) d/dr (r ds/dr) = q_n^2 s,    q_n^2 = Ss p / K + 1 / (K b c) + (Kz/K) (e_n / b)^2,
so that s = Q / (2 pi K b p) sum over n of [pumped screen]_n [observed screen]_n K0(q_n r) / norm_n. From it come Theis 1935, Hantush and
Jacob 1955, Hantush 1964 (partial penetration), Neuman 1974 (delayed yield); with a well that stores water Papadopulos and
Cooper 1967, Cooper, Bredehoeft and Papadopulos 1967 (slug tests) and Agarwal et al. 1970 (skin).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from bilevel.report import BilevelError, InputError
from bilevel.torch_internals import plain
from physics.flow.wells import laplace
from physics.flow.wells.bessel import k0, k1
from physics.flow.wells.layout import Boundary, ObservationPoint, PumpedWell, Screen, with_images
from physics.flow.wells.two_aquifers import TwoAquifers

MODES = 100
"""Of a drawdown that varies over the height; what is left out is checked."""

BISECTIONS = 50
"""Of the interval pi/2 in which a mode's root lies, before Newton's last steps."""

NEGLIGIBLE = 1e-4
"""The last modes may contribute so much of the whole; more raises an error."""


class ClosedForm:
    """Drawdowns at given readings as a function of the aquifer's parameters, by superposition of wells and their images.

    parameters by name: hydraulic_conductivity [m/d], specific_storage [1/m]; aquitard_resistance [d] in a leaky aquifer;
    other_transmissivity [m2/d], other_storativity [-], aquitard_storativity [-] where there is a second aquifer beyond it;
    specific_yield [-] under a free surface; anisotropy Kz/K; casing_radius [m] of wells that store water; skin [-].
    Raises InputError for combinations that have no closed form here, BilevelError where a reading is so near a partially
    penetrating well that its modes do not end.
    """

    def __init__(
        self,
        thickness: float,
        wells: Sequence[PumpedWell],
        time: ArrayLike,
        points: Sequence[ObservationPoint],
        boundaries: Sequence[Boundary] = (),
        *,
        slug: float | None = None,
    ) -> None:
        """time (n,) [d] and points (n) of the readings. slug: what the head in the well was raised by at its first start [m]."""
        self.thickness, self.slug = thickness, slug
        self.wells = with_images(wells, boundaries)
        time = np.asarray(time, float)
        if slug is not None and (len(self.wells) > 1 or any(w.screen for w in wells)):
            raise InputError("a slug test has one well that penetrates the whole aquifer, far from boundaries")
        if slug is None and all(rate == 0.0 for well in wells for _, rate in well.discharge):
            raise InputError("the discharge is zero throughout")
        pumped = [_parts(well, time) for well in self.wells]
        for screen in [well.screen for well in wells] + [point.screen for point in points]:
            if screen is not None and not 0.0 <= screen[0] <= screen[1] <= thickness:
                raise InputError(
                    f"a screen from {screen[0]:g} to {screen[1]:g} m is not within the {thickness:g} m of the aquifer"
                )
        first = min(well.discharge[0][0] for well in wells)
        if time.min(initial=np.inf) < first:
            raise InputError(
                f"reading {int(time.argmin()) + 1} at {time.min():g} d is earlier than pumping, from {first:g} d"
            )
        self.rows = len(time)
        self._row, self._since, self._rate = (
            torch.as_tensor(np.concatenate([part[k] for part in pumped])) for k in range(3)
        )
        of_well = np.repeat(np.arange(len(pumped)), [len(part[0]) for part in pumped])
        self._radius = torch.tensor(
            [
                max(math.dist(self.wells[w].position, points[row].position), self.wells[w].radius)
                for w, row in zip(of_well, self._row.tolist())
            ]
        )
        self._well_radius = torch.tensor([self.wells[w].radius for w in of_well])
        self._pumped = _Screens.of([self.wells[w].screen for w in of_well], thickness)
        self._observed = _Screens.of([points[row].screen for row in self._row.tolist()], thickness)
        self._full = all(well.screen is None for well in wells)
        self._other = torch.tensor([points[row].other for row in self._row.tolist()], dtype=torch.bool)

    def __call__(self, params: Mapping[str, Tensor]) -> Tensor:
        """The drawdowns (n,) [m]; in a slug test the rise of the head."""
        p = laplace.arguments(self._since)
        found = laplace.original(self._transform(params, p), self._since) * self._rate
        return found.new_zeros(self.rows).index_add(0, self._row, found)

    def _transform(self, params: Mapping[str, Tensor], p: Tensor) -> Tensor:
        """The transform (parts, terms) of the drawdown for a unit discharge, or for the slug."""
        if "other_transmissivity" in params:
            return TwoAquifers.of(params, self.thickness).transform(p, self._radius, self._other)
        conductivity, thickness = params["hydraulic_conductivity"], self.thickness
        transmissivity = conductivity * thickness
        square = params["specific_storage"] * p / conductivity
        if "aquitard_resistance" in params:
            square = square + 1.0 / (transmissivity * params["aquitard_resistance"])
        if self._full and "specific_yield" not in params:
            return self._uniform(params, p, square.sqrt(), transmissivity)
        if self.slug is not None or "casing_radius" in params or "skin" in params:
            raise InputError(
                "wells that store water, or have a skin, have a closed form here only where they penetrate the whole of an aquifer "
                "without a free surface"
            )
        return self._modes(params, p, square) / (2.0 * math.pi * transmissivity * p)

    def _uniform(self, params: Mapping[str, Tensor], p: Tensor, q: Tensor, transmissivity: Tensor) -> Tensor:
        """Flow that is the same over the whole height."""
        radius, well = self._radius[:, None], self._well_radius[:, None]
        if "casing_radius" not in params:
            if self.slug is not None:
                raise InputError("a slug test needs the parameter casing_radius")
            return k0(q * radius) / (2.0 * math.pi * transmissivity * p)
        x = q * well
        inflow = x * k1(x)
        skin = params.get("skin", torch.zeros((), dtype=torch.float64))
        # The skin resists at the wall of the well: what is observed within it differs from the aquifer beside it.
        at_point = k0(q * radius) + torch.where(radius <= well, skin * inflow, torch.zeros_like(inflow))
        stored = math.pi * params["casing_radius"] ** 2
        balance = stored * p * (k0(x) + skin * inflow) + 2.0 * math.pi * transmissivity * inflow
        if self.slug is not None:
            return self.slug * stored * at_point / balance
        return at_point / (p * balance)

    def _modes(self, params: Mapping[str, Tensor], p: Tensor, square: Tensor) -> Tensor:
        """sum over n (parts, terms) of the modes of a drawdown that varies over the height."""
        anisotropy = params.get("anisotropy", torch.ones((), dtype=torch.float64))
        number = torch.arange(MODES, dtype=torch.float64)
        roots = number * math.pi + torch.zeros_like(p)[..., None]
        if "specific_yield" in params:
            vertical = anisotropy * params["hydraulic_conductivity"]
            roots = _roots(params["specific_yield"] * p * self.thickness / vertical, number)
        q = (square[..., None] + anisotropy * (roots / self.thickness) ** 2).sqrt()
        norm = 0.5 * (1.0 + _sinc(2.0 * roots))
        weight = self._pumped.mean(roots) * self._observed.mean(roots) / norm
        terms = weight * k0(q * self._radius[:, None, None])
        total, last = terms.sum(-1), terms[..., -10:].sum(-1)
        if bool((plain(last).abs() > NEGLIGIBLE * plain(total).abs() + 1e-300).any()):
            raise BilevelError(
                "a reading is so near a partially penetrating well, or its aquifer so anisotropic, that the modes over the height "
                "do not end; leave out the reading, or use a mesh"
            )
        return total


class _Screens:
    """Mean of cos(e z / b) over screens; a screen of no length is a point."""

    def __init__(self, low: Tensor, high: Tensor) -> None:
        self.low, self.high = low[:, None, None], high[:, None, None]

    @staticmethod
    def of(screens: Sequence[Screen | None], thickness: float) -> _Screens:
        ends = torch.tensor([(0.0, 1.0) if s is None else (s[0] / thickness, s[1] / thickness) for s in screens])
        return _Screens(*ends.unbind(1))

    def mean(self, roots: Tensor) -> Tensor:
        middle, half = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)
        return (roots * middle).cos() * _sinc(roots * half)


def _sinc(x: Tensor) -> Tensor:
    """sin(x) / x, differentiable at zero."""
    return torch.sinc(x / math.pi)


def _roots(load: Tensor, number: Tensor) -> Tensor:
    """e tan(e) = load (...) in ((n, n + 1/2) pi) for numbers n: roots (..., modes), differentiable in the load."""
    load = load[..., None]
    fixed = load.detach()
    low, high = number * math.pi + torch.zeros_like(fixed), (number + 0.5) * math.pi + torch.zeros_like(fixed)
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        below = middle * middle.tan() < fixed
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    root = 0.5 * (low + high)
    for _ in range(2):  # each step of Newton's method doubles the order of derivatives that are right
        sine, cosine = root.sin(), root.cos()
        root = root - (root * sine - load * cosine) / (sine + root * cosine + load * sine)
    return root


def _parts(well: PumpedWell, time: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each reading and each change of the rate before it: the reading, the time since, the change."""
    rows, since, changes = [], [], []
    before = 0.0
    for start, rate in well.discharge:
        after = np.flatnonzero(time > start)
        rows.append(after)
        since.append(time[after] - start)
        changes.append(np.full(len(after), rate - before))
        before = rate
    return np.concatenate(rows), np.concatenate(since), np.concatenate(changes)
