"""The learned first guess as a solver: a few predicted linear systems, then a classical solver that has the last word."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bilevel.problem import EnergyProblem, Params, Problem
from bilevel.report import BilevelError, Counts
from bilevel.solvers.oracle import Tolerance
from bilevel.solvers.solver import Outcome, Solver
from bilevel.steps.states.network import StateNetwork
from bilevel.steps.states.problem import State, StateProblem

NOISE = 1e-12
"""Energies this close, relative to their size, count as equal: a warm start may be as good as the solution."""


@dataclass
class LearnedStart(Solver):
    """Solves one linear system for each network, then runs `inner` from the best field found.

    make: the problem as linear systems. inner: judges convergence, as it would without any guess. otherwise: take over one
    after the other, from the start that the user gave, where `inner` fails, so that nothing is lost but time.
    """

    make: Callable[[EnergyProblem, Params], StateProblem]
    networks: Sequence[StateNetwork | None]
    inner: Solver
    otherwise: Sequence[Solver] = ()

    @property
    def tolerance(self) -> Tolerance:  # type: ignore[override]
        return self.inner.tolerance

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        if not isinstance(problem, EnergyProblem):
            raise BilevelError("a learned start minimises energies; this problem has none")
        started = time.perf_counter()
        with torch.no_grad():
            u, counts = self._guess(problem, u0, params)
        outcome = self.inner.solve(problem, u, params, record)
        notes = list(outcome.report.notes)
        for classical in self.otherwise:
            if outcome.report.converged:
                break
            counts.add(outcome.report.counts)
            counts.fallbacks += 1
            notes.append(f"no solution yet; {type(classical).__name__} took over from the start")
            outcome = classical.solve(problem, u0, params, record)
        outcome.report.counts.add(counts)
        outcome.report.notes = notes
        outcome.report.seconds = time.perf_counter() - started
        return outcome

    def _guess(self, problem: EnergyProblem, u0: Tensor, params: Params) -> tuple[Tensor, Counts]:
        """The last field, or u0 where that has no higher energy."""
        states = self.make(problem, params)
        state = states.begin(u0)
        try:
            for network in self.networks:
                if states.settled(state):
                    break
                state = states.solve(state, predict(network, states, state))
                state.counts.inferences += network is not None
        except BilevelError:  # a linear system that cannot be solved ends the guess, not the solve
            state.counts.fallbacks += 1
            return u0, state.counts
        before, after = (problem.value(u, params) for u in (u0, state.u))
        state.counts.values += 2
        if bool(torch.isfinite(after)) and bool(after <= before + NOISE * before.abs()):
            return state.u, state.counts
        state.counts.fallbacks += 1
        return u0, state.counts


def predict(network: nn.Module | None, problem: StateProblem, state: State) -> Tensor:
    """The outputs (items, K) of a network, or zeros without one."""
    if network is None:
        return torch.zeros(problem.incidence.items, len(problem.outputs), dtype=state.u.dtype)
    outputs: Tensor = network(problem.features(state), problem.incidence)
    return outputs.to(state.u)
