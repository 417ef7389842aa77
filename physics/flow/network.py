"""Flow in networks of pipes, fractures or cells: an energy of the head drops along the edges of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from bilevel.solvers.cellwise.problem import SplitEnergy
from physics.constitutive.flow.law import FlowLaw
from physics.discretisation.constraints import Constraint
from physics.discretisation.graph import Graph
from physics.discretisation.rigid_body_modes import constant_modes
from physics.flow.cellwise import FlowCells, flow_cells
from physics.flow.darcy import VALUE, Leakage, Source, Storage
from physics.local.density import Measure
from physics.local.energy import LocalEnergy
from physics.local.term import Term


class FlowNetwork(LocalEnergy, SplitEnergy):
    """Heads h [m] at the nodes of a graph that balance the fluxes of its edges with the inflows.

    The drop of an edge is the head at its first node less that at its second, and drives the flow from first to second: a
    law that is not even in it, such as that of a pump, acts from the first node to the second.
    params: "flow": those of the law, shared () or per edge (E,); "inflow": (nodes,) [m3/d], a demand is negative;
    "boundary": heads by the constraint's name; with leaky=True "leakage": {"resistance" [d/m2], "head" [m]}; with
    transient=True "storage": {"storage": what a node holds per metre of head [m2]}.
    floating: parts of the network without a fixed head are meant to be so: their mean head is zero and their inflows
    must balance. Raises InputError for a node without edges, and for a part without a fixed head if floating is False.
    """

    def __init__(
        self,
        graph: Graph,
        law: FlowLaw,
        constraints: Sequence[Constraint] = (),
        *,
        leaky: bool = False,
        transient: bool = False,
        floating: bool = False,
    ) -> None:
        self.graph, self.law = graph, law
        _require_edges_at_every_node(graph)
        terms = [
            Term("flow", graph.drop(), law, Measure((1,))),
            Term("inflow", graph.values(), Source(), VALUE),
        ]
        if leaky:
            terms.append(Term("leakage", graph.values(), Leakage(), VALUE))
        if transient:
            terms.append(Term("storage", graph.values(), Storage("storage"), VALUE))
        level_is_known = leaky or transient
        if not (floating or level_is_known):
            _require_fixed_heads(graph, constraints)
        kernel = None if level_is_known else constant_modes(graph.nodes)
        super().__init__(terms, graph.nodes, 1, constraints, kernel=kernel, floating=floating)

    def flux(self, u: Tensor, params: Mapping[str, Any]) -> Tensor:
        """The flux (E,) [m3/d] of each edge from its first node to its second; differentiable."""
        heads = self.expand(u, params)[:, 0]
        drop = heads[self.graph.edges[:, 0]] - heads[self.graph.edges[:, 1]]
        return self.law.flux(drop, params["flow"])

    def cellwise(self, params: Params) -> FlowCells | None:
        return flow_cells(self, params)

    def stage(self, params: Mapping[str, Any], anchor: Tensor, tau: Tensor) -> Params:
        """The parameters of one implicit step of length tau from the heads `anchor` (nodes, 1); see `time_stepping.march`."""
        return {**params, "storage": {**params["storage"], "anchor": anchor, "tau": tau}}


def _require_edges_at_every_node(graph: Graph) -> None:
    degree = torch.bincount(graph.edges.reshape(-1), minlength=graph.nodes)
    alone = torch.nonzero(degree == 0).reshape(-1)
    if len(alone):
        raise InputError(
            f"network: node {int(alone[0])} has no edge ({len(alone)} such nodes); remove it or connect it"
        )


def _require_fixed_heads(graph: Graph, constraints: Sequence[Constraint]) -> None:
    links = [graph.edges.numpy()]
    held: list[np.ndarray] = []
    for constraint in constraints:
        equations = constraint.equations(1)
        links.append(np.stack((equations.slaves[equations.rows], equations.masters), 1))
        held.append(np.setdiff1d(equations.slaves, equations.slaves[equations.rows]))
    tail, head = np.concatenate(links).T
    part = connected_components(coo_matrix((np.ones(len(tail)), (tail, head)), (graph.nodes,) * 2), directed=False)[1]
    loose = ~np.isin(part, part[np.concatenate([np.empty(0, dtype=np.int64), *held])])
    if loose.any():
        node = int(np.flatnonzero(loose)[0])
        raise InputError(
            f"network: node {node} is connected to no fixed head ({int(loose.sum())} such nodes); fix a head in its "
            "part of the network, or declare with floating=True that the level is free"
        )
