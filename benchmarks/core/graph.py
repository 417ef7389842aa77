"""Power-law flow on an irregular graph: forward and gradient against a plain hand-written Newton, and how they grow."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial import Delaunay
from torch import Tensor

import bilevel
from benchmarks.core.darcy import Cost
from benchmarks.record import Record, at_most, stated
from benchmarks.references.plain_darcy import Pardiso
from benchmarks.references.plain_graph import PlainNetwork
from physics.discretisation.constraints import Dirichlet
from physics.discretisation.graph import Graph
from physics.flow import FlowNetwork, PowerLaw

LINE = "power-law flow on irregular graphs of 1e5 and 1e6 edges: forward and gradient against a plain Newton"
DURATION = "6 minutes"

TOLERANCE = 1e-8
EXPONENT = 1.0 + 1.0 / 1.852
"""Hazen and Williams: drop = R flux^1.852."""


class Network:
    """A Delaunay graph of random points with log-normal conductances; heads 1 and 0 near two sides, no inflow."""

    def __init__(self, edges: int) -> None:
        rng = np.random.default_rng(0)
        points = rng.random((edges // 3, 2))
        triangles = np.sort(Delaunay(points).simplices, axis=1)
        self.edges = np.unique(
            np.concatenate([triangles[:, [0, 1]], triangles[:, [0, 2]], triangles[:, [1, 2]]]), axis=0
        )
        spacing = len(points) ** -0.5
        held = np.flatnonzero((points[:, 0] < spacing) | (points[:, 0] > 1.0 - spacing))
        heads = torch.from_numpy((points[held, 0] < 0.5).astype(float))
        self.law = PowerLaw(EXPONENT, threshold=0.01 * spacing)
        graph = Graph(len(points), torch.from_numpy(self.edges))
        self.flow = FlowNetwork(graph, self.law, [Dirichlet("sides", torch.from_numpy(held), value=heads[:, None])])
        self.start = torch.from_numpy(1.0 - points[:, 0])[self.flow.constraints.free]
        self.log_c = torch.from_numpy(rng.normal(size=len(self.edges))).requires_grad_()

    def ours(self) -> Cost:
        started = time.perf_counter()
        solver = bilevel.Newton(tolerance=bilevel.Tolerance(TOLERANCE))
        solution = bilevel.argmin(self.flow, self.start, {"flow": {"conductance": self.log_c.exp()}}, solver=solver)
        solved = time.perf_counter()
        (by_edge,) = torch.autograd.grad((solution.u - 0.5).square().sum(), self.log_c)
        ended = time.perf_counter()
        assert solution.gradient is not None
        return Cost(solved - started, ended - solved, by_edge.numpy(), solution.gradient.relative_error)

    def plain(self) -> Callable[[], Cost]:
        """The plain reference, made ready: it keeps pattern and symbolic analysis from one run to the next, as we do."""
        free = self.flow.constraints.free.numpy()
        nodes = self.flow.graph.nodes
        reference = PlainNetwork(nodes, self.edges, free, self.law.exponent, self.law.threshold)
        linear = Pardiso(mtype=2)
        full = self._full(self.start).numpy()

        def run() -> Cost:
            started = time.perf_counter()
            c = self.log_c.detach().exp().numpy()
            heads, _ = reference.solve(full, c, np.zeros(nodes), linear, TOLERANCE)
            solved = time.perf_counter()
            by_edge = reference.gradient(heads, c, 2.0 * (heads[free] - 0.5), linear)
            return Cost(solved - started, time.perf_counter() - solved, by_edge)

        return run

    def _full(self, u: Tensor) -> Tensor:
        return self.flow.expand(u)[:, 0]


def size_records(edges: int, repeat: int) -> tuple[list[Record], float, dict[str, float]]:
    """The rows of one size, its edges, and the seconds of its phases."""
    network = Network(edges)
    plain = network.plain()
    network.ours(), plain()  # patterns, symbolic analysis, first calls
    pairs = [(network.ours(), plain()) for _ in range(repeat)]
    forward, gradient = min(m.forward for m, _ in pairs), min(m.gradient for m, _ in pairs)
    plain_forward, plain_gradient = min(p.forward for _, p in pairs), min(p.gradient for _, p in pairs)
    mine, theirs = pairs[0]
    difference = np.linalg.norm(mine.by_cell - theirs.by_cell) / np.linalg.norm(theirs.by_cell)
    size = f"{len(network.edges) / 1000:.0f}k edges"
    rows = [
        stated(f"forward, {size}", forward, "s"),
        stated(f"gradient with certificate, {size}", gradient, "s"),
        stated(f"plain forward, {size}", plain_forward, "s"),
        stated(f"plain gradient, {size}", plain_gradient, "s"),
        at_most(f"forward / plain, {size}", forward / plain_forward, 1.0),
        at_most(f"gradient / plain, {size}", gradient / plain_gradient, 1.0),
        at_most(f"certificate: relative error of the gradient, {size}", mine.certificate, 1e-8),
        at_most(f"gradient against the plain one, relative difference, {size}", float(difference), 1e-6),
    ]
    return rows, float(len(network.edges)), {"forward": forward, "gradient": gradient}


def run(quick: bool) -> list[Record]:
    records: list[Record] = []
    sizes, phases = [], []
    for edges in (3_000, 10_000) if quick else (100_000, 1_000_000):
        rows, count, seconds = size_records(edges, repeat=3 if edges < 500_000 else 1)
        records += rows
        sizes.append(count)
        phases.append(seconds)
    for name in phases[0]:
        slope = float(np.polyfit(np.log(sizes), np.log([phase[name] for phase in phases]), 1)[0])
        records.append(stated(f"slope of {name} against the number of edges", slope))
    return records
