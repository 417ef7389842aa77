"""Solvers made from trained weights: a learned first guess before Newton's method, or Newton's method with learned steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from torch import nn

from bilevel.acceleration.cellwise.problem import StateProblem
from bilevel.acceleration.family import NodeGraph
from bilevel.acceleration.learned_guess import LearnedStart
from bilevel.acceleration.learned_step import LearnedStep
from bilevel.acceleration.networks.cell_network import StateNetwork
from bilevel.problem import EnergyProblem, Params
from bilevel.solvers.evaluations import Tolerance
from bilevel.solvers.load_stepping import LoadStepping, Path
from bilevel.solvers.newton import Newton
from bilevel.solvers.steps.armijo import Armijo
from bilevel.solvers.steps.trust_region import TrustRegion

SYSTEMS = 16
"""At most so many linear systems in a guess; few problems take more than eight."""

MAX_ITERATIONS = 300

LOAD_STEP = 15
"""Iterations in which a load step should end; a shorter one is tried where it does not."""

FROM_GUESS = 60
"""Iterations from a guess that makes load steps needless; many short steps of a trust region still cost less than those."""


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
    follows from that start. Where a path of loads is given, load steps from the unloaded state take its place: first such
    as end soon or are cut back, then such as may take all iterations that a trust region needs.
    """
    asked = [cast("StateNetwork | None", network) for network in networks]
    follows = asked[0] if len(asked) == 1 else None
    asked += [follows] * (SYSTEMS - len(asked))
    if path is None:
        classical = _newton(tolerance, check_minimum)
        return LearnedStart(make, asked, _newton(tolerance, check_minimum), otherwise=(classical,))
    quick, patient = (
        LoadStepping(path, _trust_region(tolerance, check_minimum, iterations), predict=True, from_rest=True)
        for iterations in (LOAD_STEP, MAX_ITERATIONS)
    )
    return LearnedStart(make, asked, _trust_region(tolerance, check_minimum, FROM_GUESS), otherwise=(quick, patient))


def step_solver(
    network: nn.Module, graph: NodeGraph, tolerance: Tolerance, check_minimum: bool = True, safeguard: bool = True
) -> Newton:
    """Newton's method with learned steps on a problem's graph."""
    step = LearnedStep(network, graph, fallback=_armijo(), safeguard=safeguard)
    return replace(_newton(tolerance, check_minimum), step=step)


def _armijo() -> Armijo:
    return Armijo(decrease=0.3)


def _trust_region(tolerance: Tolerance, check_minimum: bool, iterations: int) -> Newton:
    return Newton(step=TrustRegion(), tolerance=tolerance, max_iterations=iterations, check_minimum=check_minimum)


def _newton(tolerance: Tolerance, check_minimum: bool) -> Newton:
    return Newton(step=_armijo(), tolerance=tolerance, max_iterations=MAX_ITERATIONS, check_minimum=check_minimum)
