"""Solvers made from trained weights: a learned first guess before Newton's method, or Newton's method with learned steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from torch import nn

from bilevel.problem import EnergyProblem, Params
from bilevel.solvers.load_stepping import LoadStepping, Path
from bilevel.solvers.newton import Newton
from bilevel.solvers.oracle import Tolerance
from bilevel.steps.armijo import Armijo
from bilevel.steps.family import NodeGraph
from bilevel.steps.learned.step import LearnedStep
from bilevel.steps.states.guess import LearnedStart
from bilevel.steps.states.network import StateNetwork
from bilevel.steps.states.problem import StateProblem
from bilevel.steps.trust_region import TrustRegion

SYSTEMS = 16
"""At most so many linear systems in a guess; few problems take more than eight."""

MAX_ITERATIONS = 300

LOAD_STEP = 15
"""Iterations in which a load step, or the solve from a guess that makes load steps needless, should end."""


def guess_solver(
    networks: Sequence[nn.Module | None],
    make: Callable[[EnergyProblem, Params], StateProblem],
    tolerance: Tolerance,
    check_minimum: bool = True,
    path: Path | None = None,
) -> LearnedStart:
    """Newton's method from a guess of up to SYSTEMS linear systems.

    One network serves them all; of several each serves one, and none those that follow.

    Where the guess has no lower energy than the user's start, or Newton's method fails from it, the classical solve
    follows from that start; where a path of loads is given, load steps from the unloaded state come before it.
    """
    asked = [cast("StateNetwork | None", network) for network in networks]
    follows = asked[0] if len(asked) == 1 else None
    asked += [follows] * (SYSTEMS - len(asked))
    if path is None:
        classical = _newton(tolerance, check_minimum)
        return LearnedStart(make, asked, _newton(tolerance, check_minimum), otherwise=(classical,))
    inner = Newton(step=TrustRegion(), tolerance=tolerance, max_iterations=LOAD_STEP, check_minimum=check_minimum)
    stepping = LoadStepping(path, inner, predict=True, from_rest=True)
    return LearnedStart(make, asked, inner, otherwise=(stepping, replace(inner, max_iterations=MAX_ITERATIONS)))


def step_solver(
    network: nn.Module, graph: NodeGraph, tolerance: Tolerance, check_minimum: bool = True, safeguard: bool = True
) -> Newton:
    """Newton's method with learned steps on a problem's graph."""
    step = LearnedStep(network, graph, fallback=_armijo(), safeguard=safeguard)
    return replace(_newton(tolerance, check_minimum), step=step)


def _armijo() -> Armijo:
    return Armijo(decrease=0.3)


def _newton(tolerance: Tolerance, check_minimum: bool) -> Newton:
    return Newton(step=_armijo(), tolerance=tolerance, max_iterations=MAX_ITERATIONS, check_minimum=check_minimum)
