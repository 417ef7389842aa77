"""The learned first guess as a solver: a few predicted linear systems, then a classical solver that has the last word."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bilevel.acceleration.cellwise.problem import State, StateProblem
from bilevel.acceleration.networks.cell_network import StateNetwork
from bilevel.problem import EnergyProblem, Params, Problem
from bilevel.report import BilevelError, Counts
from bilevel.solvers.evaluations import Tolerance
from bilevel.solvers.loop import Outcome, Solver

NOISE = 1e-12
"""Energies this close, relative to their size, count as equal: a warm start may be as good as the solution."""


@dataclass
class LearnedStart(Solver):
    """Solves one linear system for each network, then runs `solver` from the best field found.

    make: the problem as linear systems. solver: decides on convergence, as it would without any guess. otherwise: take over one
    after the other, from the start that the user gave, where `solver` fails, so that nothing is lost but time.
    """

    make: Callable[[EnergyProblem, Params], StateProblem]
    networks: Sequence[StateNetwork | None]
    solver: Solver
    otherwise: Sequence[Solver] = ()

    @property
    def tolerance(self) -> Tolerance:  # type: ignore[override]
        return self.solver.tolerance

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        if not isinstance(problem, EnergyProblem):
            raise BilevelError("a learned start minimises energies; this problem has none")
        started = time.perf_counter()
        with torch.no_grad():
            u, counts = self._guess(problem, u0, params)
        outcome = self.solver.solve(problem, u, params, record)
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
        """The last system's field; where that has more energy than u0, the field that has least."""
        fields, counts = self._fields(self.make(problem, params), u0)
        before, after = (problem.value(u, params) for u in (u0, fields[-1]))
        counts.values += 2
        if bool(torch.isfinite(after)) and bool(after <= before + NOISE * before.abs()):
            return fields[-1], counts
        energies = torch.stack([problem.value(u, params) for u in fields])
        counts.values += len(fields)
        counts.fallbacks += 1
        return fields[int(energies.nan_to_num(torch.inf).argmin())], counts

    def _fields(self, states: StateProblem, u0: Tensor) -> tuple[list[Tensor], Counts]:
        """u0 and the field of every system, until one settles or cannot be solved."""
        state, fields = states.begin(u0), [u0]
        counts = state.counts
        try:
            for network in self.networks:
                if states.near_solution(state):
                    break
                state = states.solve(state, predict(network, states, state))
                counts = state.counts
                counts.inferences += network is not None
                fields.append(state.u)
        except BilevelError:  # ends the guess, not the solve
            counts.fallbacks += 1
        return fields, counts


def predict(network: nn.Module | None, problem: StateProblem, state: State) -> Tensor:
    """The outputs (items, K) of a network, or zeros without one."""
    if network is None:
        return torch.zeros(problem.incidence.items, len(problem.outputs), dtype=state.u.dtype)
    outputs: Tensor = network(problem.features(state), problem.incidence)
    return outputs.to(state.u)
