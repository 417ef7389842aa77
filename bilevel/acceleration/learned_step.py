"""A learned step: a graph network says how far each node may move along any descent's direction; Armijo guards it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bilevel.acceleration.family import NodeGraph
from bilevel.acceleration.networks.node_network import Proposal, View
from bilevel.linalg.registry import Automatic
from bilevel.linalg.solver import LinearSolver
from bilevel.report import BilevelError
from bilevel.solvers.descent import Descent, Metric
from bilevel.solvers.evaluations import Evaluations, Point, Tolerance
from bilevel.solvers.newton import Newton
from bilevel.solvers.steps.armijo import Armijo
from bilevel.solvers.steps.step import Move, Step, enough_or_lost_in_noise

MAX_ITERATIONS = 300


@dataclass
class LearnedStep(Step):
    """u + damping * factors * d + momentum * (last move) if that decreases the merit enough, else the fallback's step.

    network, graph: a `NodeNetwork`, or what answers like one, and the graph of the problem that is solved; one problem at a time, no batches.
    fallback: the classical step taken along the same direction d where the proposal is not good enough; with it the solver
    converges wherever the fallback does. decrease: of Armijo's test, which is on the energy, or on half the squared
    residual of a root problem. safeguard=False takes every proposal that is finite: for measuring how often it diverges.
    Inferences and fallbacks are counted in the solve's report.
    """

    network: nn.Module
    graph: NodeGraph
    fallback: Step = field(default_factory=Armijo)
    decrease: float = 1e-4
    safeguard: bool = True
    _view: View | None = field(default=None, init=False, repr=False)
    _last: Tensor | None = field(default=None, init=False, repr=False)

    def advance(self, evaluations: Evaluations, descent: Descent, point: Point, active: Tensor) -> Move:
        if point.u.dim() != 1:
            raise BilevelError(f"a learned step moves one problem at a time, got a batch {tuple(point.u.shape[:-1])}")
        if evaluations.goal is None:
            raise BilevelError("an unrolled adjoint cannot repeat learned steps; use the exact adjoint")
        direction = descent.direction(evaluations, point)
        if not bool(torch.isfinite(direction).all()):
            return self._classical(evaluations, descent, point, direction, active)
        move = self._proposed(evaluations, point, direction)
        slope = evaluations.slope(point, move)
        if self.safeguard and not bool(slope < 0):
            return self._classical(evaluations, descent, point, direction, active)
        trial = evaluations.point(point.u + move)
        enough = trial.merit <= point.merit + self.decrease * slope
        enough = enough_or_lost_in_noise(enough, evaluations, trial, point, point.merit) | (not self.safeguard)
        if not bool(trial.finite & enough):
            return self._classical(evaluations, descent, point, direction, active)
        self._last = move
        return Move(trial, torch.ones_like(slope), torch.ones_like(active))

    def _proposed(self, evaluations: Evaluations, point: Point, direction: Tensor) -> Tensor:
        if self._view is None:
            self._view = View(self.graph)
        evaluations.counts.inferences += 1
        proposal = propose(self.network, self._view, point, direction, self._last)
        return displacement(proposal, self.graph, direction, self._last)

    def _classical(
        self, evaluations: Evaluations, descent: Descent, point: Point, direction: Tensor, active: Tensor
    ) -> Move:
        if not self.safeguard:
            return Move(point, torch.zeros_like(point.merit), torch.zeros_like(active))
        evaluations.counts.fallbacks += 1
        move = self.fallback.advance(evaluations, _Along(direction, descent), point, active)
        self._last = move.point.u - point.u
        return move


def propose(network: nn.Module, view: View, point: Point, direction: Tensor, last: Tensor | None) -> Proposal:
    """What the network says at a point; differentiable in its weights."""
    return network(*view.read(point.u, point.residual, direction, last), view.edge_index)


def displacement(proposal: Proposal, graph: NodeGraph, direction: Tensor, last: Tensor | None) -> Tensor:
    """The move (n,) that a proposal asks for."""
    move = proposal.damping * proposal.factors[graph.node_of_dof] * direction
    return move if last is None else move + proposal.momentum * last


class _Along(Descent):
    """A direction that is known already, so that the fallback need not make it again."""

    def __init__(self, direction: Tensor, descent: Descent) -> None:
        self._direction = direction
        self.natural_length, self.factor, self.safe = descent.natural_length, descent.factor, descent.safe

    def direction(self, evaluations: Evaluations, point: Point) -> Tensor:
        return self._direction

    def metric(self) -> Metric | None:
        return None


def step_solver(
    network: nn.Module,
    graph: NodeGraph,
    tolerance: Tolerance,
    check_minimum: bool = True,
    safeguard: bool = True,
    linear: LinearSolver | None = None,
) -> Newton:
    """Newton's method with learned steps on a problem's graph."""
    step = LearnedStep(network, graph, fallback=Armijo(decrease=0.3), safeguard=safeguard)
    return Newton(
        step=step,
        linear=linear or Automatic(),
        tolerance=tolerance,
        max_iterations=MAX_ITERATIONS,
        check_minimum=check_minimum,
    )
