"""Flows and heads of a water network: losses along links and balances at junctions, solved together.

Head losses are given as functions of the flow, not the other way round, so both are unknown (Todini and Pilati 1988): Newton's
method for the pair converges from flows of any size, where in terms of heads alone the slope at rest is infinite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from bilevel.implicit.solve import root
from bilevel.linalg.direct.superlu import SuperLU
from bilevel.linalg.operator import Sparse, SparsePattern, Structure
from bilevel.problem import Params, Problem
from bilevel.report import BilevelError, InputError, Solution
from bilevel.solvers.newton import Newton
from bilevel.torch_internals import is_transformed, plain
from physics.flow.water.friction import FOOT, GRAVITY
from physics.flow.water.network import Link, LinkStatus, Pipe, Pump, Valve, ValveKind, WaterNetwork

LEAK = 1e-8 * FOOT**2
"""What a closed link lets through, m3/s per metre of head, so that heads behind it are something; EPANET does the same."""

REST = 1e-7 / FOOT**2
"""Head per flow at rest, s/m2, where losses alone have no slope and flows around loops would be undetermined."""

VELOCITY = FOOT
"""Of the flow in pipes at the start, m/s."""

SLOWEST = 1e-6
"""A pump's curve goes on straight below this share of its typical flow: some curves are vertical at rest."""


@dataclass(frozen=True, eq=False)
class _PumpCurves:
    """The curves of all pumps, piece by piece (pieces, pumps); missing pieces begin at infinite flow."""

    begin: Tensor
    rest: Tensor
    decrement: Tensor
    exponent: Tensor
    least: Tensor

    @staticmethod
    def of(pumps: tuple[Pump, ...]) -> _PumpCurves:
        most = max((len(pump.curve) for pump in pumps), default=1)
        pieces = torch.full((4, most, len(pumps)), torch.inf, dtype=torch.float64)
        for k, pump in enumerate(pumps):
            pieces[:, : len(pump.curve), k] = torch.tensor(pump.curve, dtype=torch.float64).mT
        least = torch.tensor([SLOWEST * pump.design for pump in pumps], dtype=torch.float64)
        begin, rest, decrement, exponent = pieces.unbind()
        return _PumpCurves(begin, rest, decrement, exponent, least)

    def loss(self, flow: Tensor, speed: Tensor) -> Tensor:
        """Minus the lift (pumps,) [m] at flows and relative speeds, by the laws of similarity."""
        here, rest, decrement, exponent = self._piece(flow, speed)
        lift = speed.square() * rest - decrement * speed ** (2.0 - exponent) * here**exponent
        slope = decrement * exponent * speed ** (2.0 - exponent) * self.least ** (exponent - 1.0)
        return torch.where(flow < self.least, slope * (flow - self.least), 0.0) - lift

    def slope(self, flow: Tensor, speed: Tensor) -> Tensor:
        """d loss / d flow (pumps,) [s/m2]."""
        here, _, decrement, exponent = self._piece(flow, speed)
        return decrement * exponent * speed ** (2.0 - exponent) * here ** (exponent - 1.0)

    def _piece(self, flow: Tensor, speed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The flow, or the least one that the curve is followed to, and the constants of the piece of the curve there."""
        here = torch.maximum(flow, self.least)
        piece = ((self.begin * speed <= here).sum(0, keepdim=True) - 1).clamp(min=0)
        return (
            here,
            self.rest.gather(0, piece)[0],
            self.decrement.gather(0, piece)[0],
            self.exponent.gather(0, piece)[0],
        )


class PipeFlow(Problem):
    """A network whose links stand as they do: the unknown is u = flows (L,) [m3/s] from first to second node, heads (J,) [m].

    params: "roughness", "minor" (pipes,); "demand" (J,) [m3/s]; "heads" (F,) [m]; "speed" (pumps,); "setting" (valves,);
    see `parameters`. status: of links by name, in place of the network's. Raises InputError for unknown links, statuses that
    a link cannot have, and junctions with a demand that closed links cut off.
    """

    structure = Structure()

    def __init__(self, network: WaterNetwork, status: Mapping[str, LinkStatus] | None = None) -> None:
        self.network = network
        self.status = _statuses(network, status or {})
        ends = torch.tensor([[network.nodes[node] for node in link.ends] for link in network.links])
        self._from, self._to = ends.unbind(1)
        self._junctions, self._links = len(network.junctions), len(network.links)
        pipes, valves = network.pipes, network.valves
        self._length, self._diameter = _column(pipes, "length"), _column(pipes, "diameter")
        self._minor = 8.0 / (GRAVITY * np.pi**2) / self._diameter**4  # of K: loss = K v^2 / 2g
        self._valve_minor = 8.0 / (GRAVITY * np.pi**2) / _column(valves, "diameter") ** 4
        self._curves = _PumpCurves.of(tuple(network.pumps))
        self._rows()
        self._lay_out()
        self._require_supply()

    def parameters(self, time: float = 0.0, levels: Mapping[str, float] | None = None) -> dict[str, Tensor]:
        """The network's own parameters at a time [s], with levels [m] of tanks by name in place of its own."""
        network = self.network
        return {
            "roughness": _column(network.pipes, "roughness"),
            "minor": _column(network.pipes, "minor"),
            "demand": network.demands(time),
            "heads": network.heads(time, levels),
            "speed": network.speeds(time),
            "setting": _column(network.valves, "setting"),
        }

    def start(self) -> Tensor:
        """Pipes at a foot a second, pumps at their typical flow, heads at the highest one known."""
        wide = _column((*self.network.pipes, *self.network.valves), "diameter") ** 2 * np.pi / 4.0 * VELOCITY
        pipes, valves = wide.split([len(self.network.pipes), len(self.network.valves)])
        flows = torch.cat((pipes, _column(self.network.pumps, "design"), valves))
        flows = torch.where(self._closed, 0.0, flows)
        return torch.cat((flows, self.network.heads(0.0).max().expand(self._junctions)))

    def solve(self, params: Params, start: Tensor | None = None) -> Solution:
        """The state at parameters; differentiable in them. start: such as the state of the hour before.

        Raises ConvergenceError, and BilevelError where a valve cannot be in the state it is said to be in.
        """
        # These matrices have zeros on their diagonals, for which PARDISO's pivots within supernodes do not do.
        solution = root(self, self.start() if start is None else start, params, solver=Newton(linear=SuperLU()))
        self._require_valves(solution.u, params)
        return solution

    def flows(self, u: Tensor) -> Tensor:
        """The flows (L,) [m3/s] of the links, from their first node to their second."""
        return u[..., : self._links]

    def heads(self, u: Tensor, params: Params) -> Tensor:
        """The heads [m] of all nodes, junctions first."""
        return torch.cat((u[..., self._links :], params["heads"]), -1)

    def residual(self, u: Tensor, params: Params) -> Tensor:
        flow, head = self.flows(u), self.heads(u, params)
        first, second = head[self._from], head[self._to]
        lost = self.loss(flow, params) - (first - second)
        shut = self.scale * (flow - LEAK * (first - second))
        rows = torch.where(self._closed, shut, lost)
        # Nothing flows back, or the loss is what the heads say: one of the two is zero, the other is not negative.
        rows = torch.where(self._one_way, torch.minimum(lost, shut), rows)
        rows = torch.where(self._holding, self._held(flow, first, second, params), rows)
        return torch.cat((rows, self.scale * self._imbalance(flow, params["demand"])))

    def loss(self, flow: Tensor, params: Params) -> Tensor:
        """The head (L,) [m] lost from first to second node of links that are open, at any flow."""
        pipe, pump, valve = flow.split([len(self.network.pipes), len(self.network.pumps), len(self.network.valves)])
        friction = self.network.friction.loss(pipe, self._length, self._diameter, params["roughness"])
        pipes = friction + params["minor"] * self._minor * pipe * pipe.abs()
        valves = self._valve_resistance(params) * valve * valve.abs()
        return torch.cat((pipes, self._curves.loss(pump, params["speed"]), valves)) + REST * flow

    def loss_slope(self, flow: Tensor, params: Params) -> Tensor:
        """d loss / d flow (L,) [s/m2], as numbers."""
        pipe, pump, valve = flow.split([len(self.network.pipes), len(self.network.pumps), len(self.network.valves)])
        friction = self.network.friction.slope(pipe, self._length, self._diameter, params["roughness"])
        pipes = friction + 2.0 * params["minor"] * self._minor * pipe.abs()
        valves = 2.0 * self._valve_resistance(params) * valve.abs()
        return torch.cat((pipes, self._curves.slope(pump, params["speed"]), valves)) + REST

    def _valve_resistance(self, params: Params) -> Tensor:
        return torch.where(self._throttled, params["setting"], self._open_minor) * self._valve_minor

    @torch.no_grad()
    def tangent(self, u: Tensor, params: Params) -> Sparse:
        flow, head = self.flows(u), self.heads(u, params)
        slope = self.loss_slope(flow, params)
        first, second = head[self._from], head[self._to]
        lost, shut = self.loss(flow, params) - (first - second), self.scale * (flow - LEAK * (first - second))
        closed = self._closed | (self._one_way & (shut < lost))
        by_flow = torch.where(closed, self.scale, slope)
        by_head = torch.where(closed, self.scale * LEAK, torch.ones_like(slope))
        by_flow = torch.where(self._holding, self._held_by_flow, by_flow)
        by_first = torch.where(self._holding, self._held_by_first, -by_head)
        by_second = torch.where(self._holding, self._held_by_second, by_head)
        balance = torch.full_like(flow, self.scale)
        values = torch.cat((by_flow, by_first, by_second, balance, -balance))[self._kept]
        return Sparse(self._pattern, self._pattern.accumulate(self._scatter, values), self.structure)

    def product(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        # Forward derivatives of `where` and `clamp` run through decompositions in Python, at the price of twenty residuals.
        if torch.is_grad_enabled() or any(map(is_transformed, (u, x, *params.values()))):
            return super().product(u, params, x)
        return self.tangent(u, params).matmul(x)

    def _require_valves(self, u: Tensor, params: Params) -> None:
        flow, head = plain(self.flows(u)), plain(self.heads(u, params))
        drop = head[..., self._from] - head[..., self._to]
        for valve in self.network.valves:
            k = self.network.link_numbers[valve.name]
            backwards = valve.kind is not ValveKind.PBV and bool((flow[..., k] < -1e-9).any())
            if bool(self._holding[k]) and (backwards or bool((drop[..., k] < -1e-6).any())):
                raise BilevelError(
                    f"{valve.kind.name} '{valve.name}' cannot hold its setting: it would have a flow of "
                    f"{float(flow[..., k].min()):.3g} m3/s and take {float(drop[..., k].min()):.3g} m of head; "
                    "say that it is open or closed"
                )

    def _imbalance(self, flow: Tensor, demand: Tensor) -> Tensor:
        nodes = flow.new_zeros(len(self.network.nodes))
        return nodes.index_add(0, self._from, flow).index_add(0, self._to, -flow)[: self._junctions] + demand

    def _rows(self) -> None:
        """Which equation each link has."""
        network = self.network
        throttled = [
            isinstance(x, Valve) and x.kind is ValveKind.TCV and s is LinkStatus.ACTIVE for x, s in self.status
        ]
        holding = [s is LinkStatus.ACTIVE and not t for (_, s), t in zip(self.status, throttled)]
        self._holding = torch.tensor(holding)
        self._closed = torch.tensor([s is LinkStatus.CLOSED for _, s in self.status])
        one_way = [isinstance(x, Pump) or (isinstance(x, Pipe) and x.one_way) for x, _ in self.status]
        self._one_way = torch.tensor(one_way) & ~self._closed
        self._throttled = torch.tensor(throttled[len(throttled) - len(network.valves) :], dtype=torch.bool)
        self._open_minor = _column(network.valves, "minor")
        flows = self.start()[: self._links].abs()
        # Rows in metres of head and rows in m3/s are of one size with a metre for a typical flow.
        self.scale = 1.0 / float(flows[flows > 0].mean()) if bool((flows > 0).any()) else 1.0

    def _held(self, flow: Tensor, first: Tensor, second: Tensor, params: Params) -> Tensor:
        """What an active valve keeps at zero; anything for other links."""
        setting = torch.cat((flow.new_zeros(self._links - len(self.network.valves)), params["setting"]))
        kept = self._held_by_flow * flow + self._held_by_first * first + self._held_by_second * second
        return kept - self._held_datum - setting * torch.where(self._held_by_flow != 0, self.scale, 1.0)

    def _lay_out(self) -> None:
        """The pattern of the tangent, and what active valves hold."""
        links, number = torch.arange(self._links), self._links
        held = torch.zeros(4, number, dtype=torch.float64)
        for k, (link, _) in enumerate(self.status):
            if isinstance(link, Valve):
                first, second = self.network.elevations[self._from[k]], self.network.elevations[self._to[k]]
                weights = {
                    ValveKind.PRV: (0.0, 0.0, 1.0, second),
                    ValveKind.PSV: (0.0, 1.0, 0.0, first),
                    ValveKind.PBV: (0.0, 1.0, -1.0, 0.0),
                    ValveKind.FCV: (self.scale, 0.0, 0.0, 0.0),
                }
                held[:, k] = torch.tensor(weights.get(link.kind, (0.0,) * 4))
        self._held_by_flow, self._held_by_first, self._held_by_second, self._held_datum = held
        rows = torch.cat((links, links, links, number + self._from, number + self._to))
        columns = torch.cat((links, number + self._from, number + self._to, links, links))
        n = number + self._junctions
        self._kept = (rows < n) & (columns < n)
        self._pattern, scatter = SparsePattern.from_pairs(rows[self._kept].numpy(), columns[self._kept].numpy(), n)
        self._scatter = torch.from_numpy(scatter)

    def _require_supply(self) -> None:
        passing = ~self._closed.numpy()
        ends = (self._from.numpy()[passing], self._to.numpy()[passing])
        nodes = len(self.network.nodes)
        part = connected_components(coo_matrix((np.ones(len(ends[0])), ends), (nodes, nodes)), directed=False)[1]
        supplied = np.isin(part[: self._junctions], part[self._junctions :])
        for junction, reached in zip(self.network.junctions, supplied):
            if not reached and any(demand.base != 0.0 for demand in junction.demands):
                raise InputError(
                    f"node '{junction.name}' has a demand, but closed links cut it off from every known head"
                )


def _statuses(network: WaterNetwork, given: Mapping[str, LinkStatus]) -> list[tuple[Link, LinkStatus]]:
    for name, status in given.items():
        if name not in network.link_numbers:
            raise InputError(f"there is no link '{name}' in the network whose status could be given")
        link = network.links[network.link_numbers[name]]
        if status is LinkStatus.ACTIVE and not isinstance(link, Valve):
            raise InputError(f"link '{name}' is no valve; it can be open or closed")
    return [(link, given.get(link.name, link.status)) for link in network.links]


def _column(rows: Any, name: str) -> Tensor:
    return torch.tensor([getattr(row, name) for row in rows], dtype=torch.float64)
