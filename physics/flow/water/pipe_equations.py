"""The equations of a pipe flow at given parameters: one for each link, one balance for each junction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.linalg.operator import Sparse, SparsePattern, Structure
from bilevel.problem import Params, Problem
from physics.flow.water.friction import FOOT
from physics.flow.water.link_losses import LinkLosses

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
class _Met:
    """What the equations of links are made of at a state."""

    flow: Tensor
    first: Tensor
    second: Tensor
    lost: Tensor
    shut: Tensor


class PipeEquations(Problem):
    """The equations at parameters that are the same in all calls: what depends on them alone is worked out once."""

    structure = Structure()

    def __init__(self, rows: Rows, losses: LinkLosses, params: Params) -> None:
        self.rows, self.losses = rows, losses
        self.demand, self.fixed, self.setting = params["demand"], params["heads"], params["setting"]
        self._latest: tuple[Tensor, _Met] | None = None

    def residual(self, u: Tensor, params: Params) -> Tensor:
        rows, met = self.rows, self._met(u)
        found = met.lost
        if rows.any_closed:
            found = torch.where(rows.closed, met.shut, found)
        if rows.any_one_way:
            # Nothing flows back, or the loss is what the heads say: one of the two is zero, the other is not negative.
            found = torch.where(rows.one_way, torch.minimum(met.lost, met.shut), found)
        if rows.any_holding:
            found = torch.where(rows.holding, self._held(met), found)
        nodes = met.flow.new_zeros(rows.nodes)
        nodes = nodes.index_add(0, rows.first, met.flow).index_add(0, rows.second, met.flow, alpha=-1)
        return torch.cat((found, rows.scale * (nodes[: rows.junctions] + self.demand)))

    @torch.no_grad()
    def tangent(self, u: Tensor, params: Params) -> Sparse:
        rows, met = self.rows, self._met(u)
        by_flow, by_second = self.losses.slope(met.flow), torch.ones_like(met.flow)
        if rows.any_closed or rows.any_one_way:
            closed = rows.closed | (rows.one_way & (met.shut < met.lost))
            by_flow, by_second = by_flow.where(~closed, rows.scale), by_second.where(~closed, rows.scale * LEAK)
        by_first = -by_second
        if rows.any_holding:
            own = (by_flow, by_first, by_second)
            by_flow, by_first, by_second = (torch.where(rows.holding, h, x) for h, x in zip(rows.held, own))
        values = torch.cat((by_flow, by_first, by_second, rows.balance, -rows.balance))[rows.kept]
        return Sparse(rows.pattern, rows.pattern.accumulate(rows.scatter, values), self.structure)

    def product(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        return self.tangent(u, params).matmul(x)

    def product_transposed(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        return self.tangent(u, params).matmul_transposed(x)

    def _met(self, u: Tensor) -> _Met:
        """Kept for the latest state: its residual and its tangent are asked for one after the other."""
        if self._latest is None or self._latest[0] is not u:
            rows, flow = self.rows, u[: self.rows.links]
            head = torch.cat((u[rows.links :], self.fixed))
            first, second = head[rows.first], head[rows.second]
            drop = first - second
            met = _Met(flow, first, second, self.losses.loss(flow) - drop, rows.scale * (flow - LEAK * drop))
            self._latest = u, met
        return self._latest[1]

    def _held(self, met: _Met) -> Tensor:
        """What an active valve keeps at zero; anything for other links."""
        by_flow, by_first, by_second, datum = self.rows.held
        setting = torch.cat((met.flow.new_zeros(self.rows.links - len(self.setting)), self.setting))
        kept = by_flow * met.flow + by_first * met.first + by_second * met.second
        return kept - datum - setting * torch.where(by_flow != 0, self.rows.scale, 1.0)
