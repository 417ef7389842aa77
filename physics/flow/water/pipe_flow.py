"""Flows and heads of a water network: losses along links and balances at junctions, solved together.

Head losses are given as functions of the flow, not the other way round, so both are unknown (Todini and Pilati 1988): Newton's
method for the pair converges from flows of any size, where in terms of heads alone the slope at rest is infinite.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from bilevel.implicit.solve import root
from bilevel.linalg.direct.superlu import SuperLU
from bilevel.linalg.operator import Sparse, Structure
from bilevel.problem import Params, Problem
from bilevel.report import BilevelError, InputError, Solution
from bilevel.solvers.newton import Newton
from bilevel.solvers.undamped_newton import UndampedNewton
from bilevel.torch_internals import is_transformed, plain
from physics.flow.water.arrays import in_numpy
from physics.flow.water.friction import FOOT
from physics.flow.water.link_losses import Links, column, is_throttled
from physics.flow.water.network import Link, LinkStatus, Pipe, Pump, Valve, ValveKind, WaterNetwork
from physics.flow.water.pipe_equations import Flowing, NumericPipeFlow, PipeEquations, Rows

VELOCITY = FOOT
"""Of the flow in pipes at the start, m/s."""


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
        self._junctions, self._links = len(network.junctions), len(network.links)
        self._rows = self._laid_out()
        self._laws = Links.of(network, [status for _, status in self.status])
        self._numeric = in_numpy(self._rows), self._laws.in_numpy()
        self._require_supply()

    def parameters(self, time: float = 0.0, levels: Mapping[str, float] | None = None) -> dict[str, Tensor]:
        """The network's own parameters at a time [s], with levels [m] of tanks by name in place of its own."""
        network = self.network
        return {
            "roughness": column(network.pipes, "roughness"),
            "minor": column(network.pipes, "minor"),
            "demand": network.demands(time),
            "heads": network.heads(time, levels),
            "speed": network.speeds(time),
            "setting": column(network.valves, "setting"),
        }

    def start(self) -> Tensor:
        """Pipes at a foot a second, pumps at their typical flow, heads at the highest one known."""
        flows = self._start_flows(self._rows.closed)
        return torch.cat((flows, self.network.heads(0.0).max().expand(self._junctions)))

    def _start_flows(self, closed: Tensor) -> Tensor:
        network = self.network
        wide = column((*network.pipes, *network.valves), "diameter") ** 2 * np.pi / 4.0 * VELOCITY
        pipes, valves = wide.split([len(network.pipes), len(network.valves)])
        return torch.where(closed, 0.0, torch.cat((pipes, column(network.pumps, "design"), valves)))

    def solve(self, params: Params, start: Tensor | None = None) -> Solution:
        """The state at parameters; differentiable in them. start: such as the state of the hour before.

        Raises ConvergenceError, and BilevelError where a valve cannot be in the state it is said to be in.
        """
        # These matrices have zeros on their diagonals, for which PARDISO's pivots within supernodes do not do.
        solver = UndampedNewton(Newton(linear=SuperLU()))
        solution = root(self, self.start() if start is None else start, params, solver=solver)
        self._require_valves(solution.u, params)
        return solution

    def flows(self, u: Tensor) -> Tensor:
        """The flows (L,) [m3/s] of the links, from their first node to their second."""
        return u[..., : self._links]

    def heads(self, u: Tensor, params: Params) -> Tensor:
        """The heads [m] of all nodes, junctions first."""
        return torch.cat((u[..., self._links :], params["heads"]), -1)

    def residual(self, u: Tensor, params: Params) -> Tensor:
        equations, at = self._met(u, params)
        return equations.residual(at)

    def prepared(self, params: Params) -> NumericPipeFlow:
        return NumericPipeFlow(*self._numeric, params)

    def probe(self, u: Tensor, params: Params) -> Tensor:
        return u  # a network is made of numbers: no tensor can have got in but by the parameters

    def loss(self, flow: Tensor, params: Params) -> Tensor:
        """The head (L,) [m] lost from first to second node of links that are open, at any flow."""
        return self._laws.losses(params).loss(flow)

    def loss_slope(self, flow: Tensor, params: Params) -> Tensor:
        """d loss / d flow (L,) [s/m2], as numbers."""
        return self._laws.losses(params).slope(flow)

    @torch.no_grad()
    def tangent(self, u: Tensor, params: Params) -> Sparse:
        equations, at = self._met(u, params)
        return Sparse(self._rows.pattern, equations.slopes(at), self.structure)

    def magnitude(self, u: Tensor, params: Params) -> Tensor:
        equations, at = self._met(u, params)
        return equations.sizes(at)

    def _met(self, u: Tensor, params: Params) -> tuple[PipeEquations, Flowing]:
        equations = PipeEquations(self._rows, self._laws, params)
        return equations, equations.at(u)

    def product(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        # Forward derivatives of `where` and `clamp` run through decompositions in Python, at the price of twenty residuals.
        if torch.is_grad_enabled() or any(map(is_transformed, (u, x, *params.values()))):
            return super().product(u, params, x)
        return self.tangent(u, params).matmul(x)

    def _require_valves(self, u: Tensor, params: Params) -> None:
        if not self._rows.any_holding:
            return
        flow, head = plain(self.flows(u)), plain(self.heads(u, params))
        drop = head[..., self._rows.first] - head[..., self._rows.second]
        for valve in self.network.valves:
            k = self.network.link_numbers[valve.name]
            backwards = valve.kind is not ValveKind.PBV and bool((flow[..., k] < -1e-9).any())
            if bool(self._rows.holding[k]) and (backwards or bool((drop[..., k] < -1e-6).any())):
                raise BilevelError(
                    f"{valve.kind.name} '{valve.name}' cannot hold its setting: it would have a flow of "
                    f"{float(flow[..., k].min()):.3g} m3/s and take {float(drop[..., k].min()):.3g} m of head; "
                    "say that it is open or closed"
                )

    def _laid_out(self) -> Rows:
        """Which equation each link has, and what active valves hold."""
        network = self.network
        ends = torch.tensor([[network.nodes[node] for node in link.ends] for link in network.links])
        first, second = ends.unbind(1)
        closed = torch.tensor([s is LinkStatus.CLOSED for _, s in self.status])
        one_way = torch.tensor([isinstance(x, Pump) or (isinstance(x, Pipe) and x.one_way) for x, _ in self.status])
        holding = [s is LinkStatus.ACTIVE and not is_throttled(x, s) for x, s in self.status]
        flows = self._start_flows(closed).abs()
        # Rows in metres of head and rows in m3/s are of one size with a metre for a typical flow.
        scale = 1.0 / float(flows[flows > 0].mean()) if bool((flows > 0).any()) else 1.0
        held = torch.zeros(4, len(first), dtype=torch.float64)
        for k, (link, _) in enumerate(self.status):
            if isinstance(link, Valve):
                weights = {
                    ValveKind.PRV: (0.0, 0.0, 1.0, network.elevations[second[k]]),
                    ValveKind.PSV: (0.0, 1.0, 0.0, network.elevations[first[k]]),
                    ValveKind.PBV: (0.0, 1.0, -1.0, 0.0),
                    ValveKind.FCV: (scale, 0.0, 0.0, 0.0),
                }
                held[:, k] = torch.tensor(weights.get(link.kind, (0.0,) * 4))
        nodes = len(network.nodes)
        return Rows(
            first, second, nodes, self._junctions, closed, one_way & ~closed, torch.tensor(holding), held, scale
        )

    def _require_supply(self) -> None:
        passing = ~self._rows.closed.numpy()
        ends = (self._rows.first.numpy()[passing], self._rows.second.numpy()[passing])
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
