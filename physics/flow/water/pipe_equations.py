"""The equations of a pipe flow at given parameters: one for each link, one balance for each junction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bilevel.linalg.operator import Sparse, SparsePattern, Structure
from bilevel.problem import Params, Problem
from bilevel.torch_internals import plain
from physics.flow.water.arrays import Array, functions_of, summed
from physics.flow.water.friction import FOOT
from physics.flow.water.link_losses import Links

LEAK = 1e-8 * FOOT**2
"""What a closed link lets through, m3/s per metre of head, so that heads behind it are something; EPANET does the same."""


class Rows:
    """Which equation each link has, and where its derivatives stand.

    first, second (L,): the nodes of links. closed, one_way, holding (L,): the links that are closed, let nothing back, or
    are valves that hold what `held` (4, L) says: coefficients of flow and both heads, and a datum. scale [s/m2]: of the
    rows that are flows.
    """

    def __init__(
        self,
        first: Tensor,
        second: Tensor,
        nodes: int,
        junctions: int,
        closed: Tensor,
        one_way: Tensor,
        holding: Tensor,
        held: Tensor,
        scale: float,
    ) -> None:
        self.first, self.second, self.nodes, self.junctions = first, second, nodes, junctions
        self.closed, self.one_way, self.holding, self.held, self.scale = closed, one_way, holding, held, scale
        self.any_closed, self.any_one_way, self.any_holding = (bool(x.any()) for x in (closed, one_way, holding))
        self.links = number = len(first)
        self.balance = torch.full((number,), scale, dtype=torch.float64)
        numbers = torch.arange(number)
        rows = torch.cat((numbers, numbers, numbers, number + first, number + second))
        columns = torch.cat((numbers, number + first, number + second, numbers, numbers))
        n = number + junctions
        self.kept = ((rows < n) & (columns < n)).nonzero().squeeze(-1)
        every = torch.arange(n)  # linear solvers want all diagonal entries, zero or not
        at_rows, at_columns = (torch.cat((x[self.kept], every)).numpy() for x in (rows, columns))
        self.pattern, scatter = SparsePattern.from_pairs(at_rows, at_columns, n)
        self.scatter = torch.from_numpy(scatter[:-n])


@dataclass(frozen=True, eq=False)
class Flowing:
    """What the equations are made of at a state: flows, heads at both ends, losses, and what a closed link keeps at zero."""

    flow: Array
    first: Array
    second: Array
    loss: Array
    shut: Array

    @property
    def drop(self) -> Array:
        return self.first - self.second

    @property
    def lost(self) -> Array:
        """What an open link keeps at zero."""
        return self.loss - self.drop


class PipeEquations:
    """The equations at given parameters, in tensors or in NumPy arrays; what depends on parameters alone is worked out once."""

    def __init__(self, rows: Rows, links: Links, params: Params) -> None:
        self.rows, self.losses = rows, links.losses(params)
        self.demand, self.fixed, self.setting = params["demand"], params["heads"], params["setting"]

    def at(self, u: Array) -> Flowing:
        """The state u = flows, heads (n,)."""
        rows, flow = self.rows, u[: self.rows.links]
        head = functions_of(u).concatenate((u[rows.links :], self.fixed))
        first, second = head[rows.first], head[rows.second]
        shut = rows.scale * (flow - LEAK * (first - second))
        return Flowing(flow, first, second, self.losses.loss(flow), shut)

    def residual(self, at: Flowing) -> Array:
        """What each link and each junction keeps at zero (n,)."""
        rows, fn = self.rows, functions_of(at.flow)
        found = lost = at.lost
        if rows.any_closed:
            found = fn.where(rows.closed, at.shut, found)
        if rows.any_one_way:
            # Nothing flows back, or the loss is what the heads say: one of the two is zero, the other is not negative.
            found = fn.where(rows.one_way, fn.minimum(lost, at.shut), found)
        if rows.any_holding:
            found = fn.where(rows.holding, self._held(at), found)
        into = summed(at.flow, rows.second, rows.nodes) - summed(at.flow, rows.first, rows.nodes)
        return fn.concatenate((found, rows.scale * (self.demand - into[: rows.junctions])))

    def slopes(self, at: Flowing) -> Array:
        """The residual's derivatives in u, on the pattern of `rows`."""
        rows, fn = self.rows, functions_of(at.flow)
        by_flow, by_second = self.losses.slope(at.flow), fn.ones_like(at.flow)
        if rows.any_closed or rows.any_one_way:
            closed = rows.closed | (rows.one_way & (at.shut < at.lost))
            by_flow, by_second = fn.where(closed, rows.scale, by_flow), fn.where(closed, rows.scale * LEAK, by_second)
        by_first = -by_second
        if rows.any_holding:
            own = (by_flow, by_first, by_second)
            by_flow, by_first, by_second = (fn.where(rows.holding, h, x) for h, x in zip(rows.held, own))
        values = fn.concatenate((by_flow, by_first, by_second, rows.balance, -rows.balance))[rows.kept]
        return summed(values, rows.scatter, rows.pattern.nnz)

    def sizes(self, at: Flowing) -> Array:
        """The sizes (n,) of the terms that cancel in the residual: losses and differences of heads, whatever their datum, and flows."""
        rows, fn, flow = self.rows, functions_of(at.flow), abs(at.flow)
        links = fn.where(rows.closed | rows.holding, rows.scale * flow, abs(at.loss) + abs(at.drop))
        through = summed(flow, rows.first, rows.nodes) + summed(flow, rows.second, rows.nodes)
        return fn.concatenate((links, rows.scale * (through[: rows.junctions] + abs(self.demand))))

    def _held(self, at: Flowing) -> Array:
        """What an active valve keeps at zero; anything for other links."""
        fn, (by_flow, by_first, by_second, datum) = functions_of(at.flow), self.rows.held
        setting = fn.concatenate((fn.zeros_like(at.flow[: self.rows.links - len(self.setting)]), self.setting))
        kept = by_flow * at.flow + by_first * at.first + by_second * at.second
        return kept - datum - setting * fn.where(by_flow != 0, self.rows.scale, 1.0)


class NumericPipeFlow(Problem):
    """The equations at parameters that are the same in all calls, in NumPy: Newton's method needs no more than numbers."""

    structure = Structure()

    def __init__(self, rows: Rows, links: Links, params: Params) -> None:
        self._equations = PipeEquations(rows, links, {name: plain(x).numpy() for name, x in params.items()})
        self._pattern = rows.pattern
        self._latest: tuple[Tensor, Flowing] | None = None

    def residual(self, u: Tensor, params: Params) -> Tensor:
        with np.errstate(all="ignore"):  # a step that leads nowhere is shortened
            return torch.from_numpy(self._equations.residual(self._at(u)))

    def tangent(self, u: Tensor, params: Params) -> Sparse:
        with np.errstate(all="ignore"):
            return Sparse(self._pattern, torch.from_numpy(self._equations.slopes(self._at(u))), self.structure)

    def magnitude(self, u: Tensor, params: Params) -> Tensor:
        return torch.from_numpy(self._equations.sizes(self._at(u)))

    def product(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        return self.tangent(u, params).matmul(x)

    def product_transposed(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        return self.tangent(u, params).matmul_transposed(x)

    def _at(self, u: Tensor) -> Flowing:
        """Kept for the latest state: its residual and its tangent are asked for one after the other."""
        if self._latest is None or self._latest[0] is not u:
            self._latest = u, self._equations.at(u.numpy())
        return self._latest[1]
