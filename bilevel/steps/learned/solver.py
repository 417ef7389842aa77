"""Solvers made from trained weights: a learned first guess before Newton's method, or Newton's method with learned steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from bilevel.problem import EnergyProblem, Params
from bilevel.solvers.newton import Newton
from bilevel.solvers.oracle import Tolerance
from bilevel.solvers.solver import Solver
from bilevel.steps.armijo import Armijo
from bilevel.steps.family import Instance, NodeGraph
from bilevel.steps.learned.node_network import NodeNetwork
from bilevel.steps.learned.step import LearnedStep
from bilevel.steps.learned.weights import Weights
from bilevel.steps.states.guess import LearnedStart
from bilevel.steps.states.network import StateNetwork
from bilevel.steps.states.problem import StateProblem

SYSTEMS = 16
"""At most so many linear systems in a guess whose last network may be used again; few problems take more than eight."""

MAX_ITERATIONS = 300


def guess_solver(
    weights: Weights,
    make: Callable[[EnergyProblem, Params], StateProblem],
    tolerance: Tolerance,
    systems: int = SYSTEMS,
) -> LearnedStart:
    """Newton's method from a learned first guess, falling back to the user's own start where the guess is no better."""
    networks = [cast(StateNetwork, network) for network in weights.networks]
    networks += [networks[-1]] * (systems - len(networks))
    return LearnedStart(make, networks, _newton(tolerance), otherwise=_newton(tolerance))


def step_solver(weights: Weights, graph: NodeGraph, tolerance: Tolerance, safeguard: bool = True) -> Newton:
    """Newton's method with learned steps on a problem's graph."""
    network = cast(NodeNetwork, weights.networks[0])
    step = LearnedStep(network, graph, fallback=_armijo(), safeguard=safeguard)
    return Newton(step=step, tolerance=tolerance, max_iterations=MAX_ITERATIONS)


def learned_solver(guess: Weights, instance: Instance, tolerance: Tolerance) -> Solver:
    """The solver of an instance of the family that the weights were trained on."""
    states = instance.states
    assert states is not None
    return guess_solver(guess, lambda problem, params: states, tolerance)


def _armijo() -> Armijo:
    return Armijo(decrease=0.3)


def _newton(tolerance: Tolerance) -> Newton:
    return Newton(step=_armijo(), tolerance=tolerance, max_iterations=MAX_ITERATIONS)
