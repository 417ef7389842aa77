"""The stages of all time steps of K h + C dh/dt = f, forwards and backwards, in numbers and for many directions at once."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from bilevel.report import BilevelError
from physics.flow.condensed import Array, Condensed, NodalMatrix, Places
from physics.flow.stage_matrices import BandedStages, StageMatrices
from physics.flow.time_stepping import SDIRK2, Scheme
from physics.flow.time_steps import TimeSteps

Stages = StageMatrices | BandedStages


class StageMarch:
    """The march over time steps of fields h = T v + g, where g is held and v is free, and its transpose; in numbers.

    stiffness, capacity: places of the symmetric matrices' entries between nodes. extend: T (nodes, n).
    """

    def __init__(
        self, stiffness: Places, capacity: Places, extend: sp.csr_matrix, steps: TimeSteps, scheme: Scheme = SDIRK2
    ) -> None:
        self.extend = sp.csr_matrix(extend)
        self.stiffness, self.capacity = (NodalMatrix(places, extend.shape[0]) for places in (stiffness, capacity))
        self.condensed = Condensed(self.extend, self.stiffness, self.capacity)
        self.ratios = [np.array(row) / scheme.diagonal for row in scheme.rows]
        taus = steps.stage_lengths(scheme.diagonal, scheme.nodes)
        # Equal steps have equal matrices, whatever rounding made of their lengths.
        self.taus = np.array([float(f"{tau:.11e}") for tau in taus.ravel()]).reshape(taus.shape)
        self.lengths = np.unique(self.taus)
        self._latest: tuple[Array, Array, Stages] | None = None

    def stages(self, k: Array, c: Array) -> Stages:
        """The stages' matrices for these entries; those of the last call are kept, for its derivatives."""
        latest = self._latest
        if latest is None or not (np.array_equal(latest[0], k) and np.array_equal(latest[1], c)):
            latest = self._latest = k.copy(), c.copy(), StageMatrices.of(self.condensed, k, c, self.lengths)
        return latest[2]

    def run(self, k: Array, c: Array, load: Array, held: Array, start: Array) -> tuple[Array, Array]:
        """Heads and anchors (m, steps, stages, nodes) for m loads, held values and starts."""
        stages = self.stages(k, c)
        fixed, anchored = held[..., 1:, :], self._anchored(held)
        right = load
        if held.any():
            moved = self.capacity.product(c, (anchored - fixed) / self.taus[..., None])
            right = load - self.stiffness.product(k, fixed) + moved
        right = self._reduced(right)
        found, anchors = np.empty_like(right), np.empty_like(right)
        free = start
        for t, taus in enumerate(self.taus.tolist()):
            before = free
            changes: list[Array] = []
            for s, tau in enumerate(taus):
                anchor = before
                for ratio, change in zip(self.ratios[s], changes):
                    anchor = anchor + ratio * change
                free = stages.solve(tau, right[t, s] + stages.stored(tau, anchor))
                changes.append(free - anchor)
                found[t, s], anchors[t, s] = free, anchor
        if not np.isfinite(found).all():
            raise BilevelError("a time step has no finite solution; check storage, conductivities and loads")
        return self._extended(found) + fixed, self._extended(anchors) + anchored

    def reverse(self, k: Array, c: Array, of_heads: Array, of_anchors: Array) -> tuple[Array, Array, Array]:
        """The cotangents of load, held and start for m cotangents (m, steps, stages, nodes) of heads and anchors."""
        stages = self.stages(k, c)
        free_heads, free_anchors = self._reduced(of_heads), self._reduced(of_anchors)
        forces = np.empty_like(free_heads)
        later = np.zeros_like(free_heads[0, 0])
        for t in reversed(range(len(self.taus))):
            of_changes = [np.zeros_like(later) for _ in self.ratios]
            of_before = np.zeros_like(later)
            for s in reversed(range(len(self.ratios))):
                tau = float(self.taus[t, s])
                of_free = free_heads[t, s] + of_changes[s] + (later if s == len(self.ratios) - 1 else 0.0)
                forces[t, s] = stages.solve(tau, of_free)
                of_anchor = free_anchors[t, s] - of_changes[s] + stages.stored(tau, forces[t, s])
                of_before = of_before + of_anchor
                for i, ratio in enumerate(self.ratios[s]):
                    of_changes[i] = of_changes[i] + ratio * of_anchor
            later = of_before
        of_load = self._extended(forces)
        stored = self.capacity.product(c, of_load / self.taus[..., None])
        of_held = self._of_held(of_heads - stored - self.stiffness.product(k, of_load), of_anchors + stored)
        return of_load, of_held, later

    def _anchored(self, held: Array) -> Array:
        """The held part of the anchors (m, steps, stages, nodes)."""
        anchors: list[Array] = []
        for s, ratios in enumerate(self.ratios):
            anchor = held[..., 0, :]
            for i, ratio in enumerate(ratios[:s]):
                anchor = anchor + ratio * (held[..., 1 + i, :] - anchors[i])
            anchors.append(anchor)
        return np.stack(anchors, -2)

    def _of_held(self, of_fixed: Array, of_anchored: Array) -> Array:
        """The transpose of `_anchored`, with what the held values at the stages' ends get besides."""
        fixed, anchored = list(np.moveaxis(of_fixed, -2, 0)), list(np.moveaxis(of_anchored, -2, 0))
        before = np.zeros_like(fixed[0])
        for s in reversed(range(len(self.ratios))):
            before = before + anchored[s]
            for i, ratio in enumerate(self.ratios[s][:s]):
                fixed[i] = fixed[i] + ratio * anchored[s]
                anchored[i] = anchored[i] - ratio * anchored[s]
        return np.stack([before, *fixed], -2)

    def _reduced(self, fields: Array) -> Array:
        """T^T f as (steps, stages, m, n), of fields (m, steps, stages, nodes)."""
        reduced = (self.extend.T @ fields.reshape(-1, fields.shape[-1]).T).T.reshape(*fields.shape[:-1], -1)
        return np.ascontiguousarray(reduced.transpose(1, 2, 0, 3))

    def _extended(self, free: Array) -> Array:
        """T v as (m, steps, stages, nodes), of values (steps, stages, m, n)."""
        rows = free.transpose(2, 0, 1, 3)
        return (self.extend @ rows.reshape(-1, free.shape[-1]).T).T.reshape(*rows.shape[:-1], -1)
