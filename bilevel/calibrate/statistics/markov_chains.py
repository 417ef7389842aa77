"""Markov chains of the posterior: Hamiltonian Monte Carlo with exact gradients, in coordinates in which it is nearly round.

Steps are those of mici's dynamic sampler (Hoffman & Gelman 2014; Betancourt 2017), whose metric is the covariance of linear
theory about the optimum. The density is that of t, uniform beside the priors and within the bounds. Whether chains agree is
told by split R-hat and the effective number of samples (Gelman et al. 2013, section 11.4; Geyer 1992).
"""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.fit.problem_source import ProblemSource
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.statistics.from_optimum import FromOptimum, measured
from bilevel.calibrate.statistics.information import Information
from bilevel.implicit.memory import Memory
from bilevel.report import BilevelError, InputError

CHAINS, WARM_UP = 4, 100
AGREED = 1.05
"""R-hat above which chains have not forgotten where they began."""
_APART = 1.5
"""Chains begin so many standard deviations from the optimum."""


@dataclass(frozen=True)
class ChainPlan:
    """What a chain needs: the optimum (p,), a root (p, p) of the covariance there, s^2, and how many samples it makes.

    states: those there, pickled, from which inner solves start; they stay the same, so that the density does not depend on the way.
    """

    t: np.ndarray
    root: np.ndarray
    variance: float
    prior_factor: float
    seed: int
    count: int
    states: bytes


def chain_plan(
    problem: CalibrationProblem, evaluation: Evaluation, informed: Information, seed: int, count: int, states: bytes
) -> ChainPlan:
    """InputError where mici is not installed, or where the readings leave a parameter open to infinity."""
    try:
        import mici  # noqa: F401
    except ImportError as error:
        raise InputError(f"ensemble: method mcmc needs mici ({error}): pip install 'bilevel[mcmc]'") from None
    covariance = informed.covariance(np.ones(len(evaluation.t), dtype=bool))
    if not np.isfinite(covariance).all():
        bad = problem.parameters.entry_labels[int(np.nonzero(~np.isfinite(np.diag(covariance)))[0][0])]
        raise InputError(
            f"ensemble: chains wander off along '{bad}', which the readings do not determine; fix it or give it a prior"
        )
    variance = informed.level.variance if math.isfinite(informed.level.variance) else 1.0
    each = math.ceil(count / CHAINS)
    return ChainPlan(evaluation.t, np.linalg.cholesky(covariance), variance, informed.level.scale, seed, each, states)


def chain(source: ProblemSource, plan: ChainPlan, number: int) -> dict[str, Any]:
    """In a worker: t (n, p) of a chain, how many gradients it took, and the mean acceptance."""
    from mici.integrators import LeapfrogIntegrator
    from mici.samplers import DynamicMultinomialHMC
    from mici.systems import EuclideanMetricSystem

    try:
        whole = source.problem()
        potential = _Potential(FromOptimum(whole, plan.t, plan.prior_factor, measured(whole)), plan)
        system = EuclideanMetricSystem(potential.value, grad_neg_log_dens=potential.gradient)
        generator = np.random.default_rng([plan.seed, number])
        sampler = DynamicMultinomialHMC(system, LeapfrogIntegrator(system), generator)
        start = potential.within(_APART * generator.normal(size=len(plan.t)))
        _, traces, statistics = sampler.sample_chains(WARM_UP, plan.count, [start], display_progress=False)
        points = [potential.point(z).tolist() for z in traces["pos"][0]]
        accepted = float(np.mean(statistics["accept_stat"][0]))
        return {"t": points, "evaluations": potential.evaluations, "accepted": accepted}
    except Exception as error:  # a user's own model may raise anything
        return {"reason": f"{type(error).__name__}: {error}", "evaluations": 0}


class _Potential:
    """Half of phi over s^2, and its gradient, at z: t = optimum + root z; infinite where the model fails.

    At bounds the density is continued as in a mirror: no chain is stopped there, and folded back it is the one within.
    """

    def __init__(self, problem: CalibrationProblem, plan: ChainPlan) -> None:
        self.problem, self.plan, self.evaluations = problem, plan, 0
        self.memory = Memory(points=0, seed=pickle.loads(plan.states))
        self.low, self.high = problem.parameters.bounds()
        self.last: tuple[bytes, float, np.ndarray] = (b"", 0.0, np.zeros(0))

    def __deepcopy__(self, memo: dict[int, Any]) -> _Potential:
        """Itself: samplers copy what they sample from, and copies of models would be warm and counted apart."""
        return self

    def point(self, z: np.ndarray) -> np.ndarray:
        return self._folded(z)[0]

    def _folded(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """t within the bounds, and for each entry whether it runs with z (1) or mirrored (-1)."""
        t = self.plan.t + self.plan.root @ z
        folded, sign = t.copy(), np.ones(len(t))
        for i, (x, low, high) in enumerate(zip(t, self.low, self.high)):
            if math.isfinite(high - low):
                x = (x - low) % (2 * (high - low))
                folded[i], sign[i] = (low + x, 1.0) if x <= high - low else (2 * high - low - x, -1.0)
            elif x < low or x > high:
                folded[i], sign[i] = 2 * (low if x < low else high) - x, -1.0
        return folded, sign

    def within(self, z: np.ndarray) -> np.ndarray:
        """z, or the part of the way to it where the model works."""
        for _ in range(20):
            if math.isfinite(self.value(z)):
                return z
            z = z / 2
        raise BilevelError("the model fails everywhere about its optimum")

    def value(self, z: np.ndarray) -> float:
        return self._at(z)[0]

    def gradient(self, z: np.ndarray) -> np.ndarray:
        return self._at(z)[1]

    def _at(self, z: np.ndarray) -> tuple[float, np.ndarray]:
        key = z.tobytes()
        if self.last[0] != key:
            t, sign = self._folded(z)
            value, gradient = self._evaluated(t)
            self.last = (key, value, self.plan.root.T @ (sign * gradient))
        return self.last[1:]

    def _evaluated(self, t: np.ndarray) -> tuple[float, np.ndarray]:
        self.evaluations += 1
        try:
            with self.memory.consulted():
                found = self.problem.evaluate(t, with_jacobian=False)
        except BilevelError:
            return math.inf, np.zeros(len(t))
        return found.phi / (2 * self.plan.variance), found.gradient / (2 * self.plan.variance)


def split_r_hat(chains: np.ndarray) -> np.ndarray:
    """Of chains (c, n, p), each cut in two: (p,), 1 where they agree."""
    halves = np.concatenate(np.split(chains[:, : chains.shape[1] // 2 * 2], 2, axis=1))
    n = halves.shape[1]
    within = halves.var(axis=1, ddof=1).mean(axis=0)
    between = n * halves.mean(axis=1).var(axis=0, ddof=1)
    return np.sqrt((n - 1) / n + between / (n * np.where(within == 0, 1.0, within)))


def effective_samples(chains: np.ndarray) -> np.ndarray:
    """How many independent samples chains (c, n, p) are worth, (p,): autocorrelations summed while their pairs are positive."""
    c, n, p = chains.shape
    deviation = chains - chains.mean(axis=1, keepdims=True)
    spectrum = np.abs(np.fft.rfft(deviation, 2 * n, axis=1)) ** 2
    covariance = np.fft.irfft(spectrum, axis=1)[:, :n].mean(axis=0) / n
    within = covariance[0] * n / (n - 1)
    total = within * (n - 1) / n + (chains.mean(axis=1).var(axis=0, ddof=1) if c > 1 else 0.0)
    found = np.empty(p)
    for k in range(p):
        correlation = 1 - (within[k] - covariance[:, k] * n / (n - 1)) / total[k]
        pairs = correlation[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
        last = int(np.argmax(pairs < 0)) if (pairs < 0).any() else len(pairs)
        found[k] = c * n / max(-1 + 2 * float(np.minimum.accumulate(pairs[:last]).sum()), 1 / math.log10(c * n))
    return found


def chain_members(
    problem: CalibrationProblem, found: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], float, float]:
    """The samples of all chains as members, the largest R-hat, the least effective number; BilevelError where a chain failed."""
    for each in found:
        if "t" not in each:
            raise BilevelError(f"a chain failed: {each['reason']}")
    chains = np.array([each["t"] for each in found])
    members = [
        {"t": t, "evaluations": 0, "predicted": scenario_predictions(problem, np.array(t))}
        for each in found
        for t in each["t"]
    ]
    members[0]["evaluations"] = sum(each["evaluations"] for each in found)
    return members, float(split_r_hat(chains).max(initial=1.0)), float(effective_samples(chains).min(initial=math.inf))


def scenario_predictions(problem: CalibrationProblem, t: np.ndarray) -> list[float]:
    """Predictions of the rows of scenarios, in the model's units."""
    count = sum(len(e.observations) for e in measured(problem))
    if count == len(problem.value):
        return []
    with torch.no_grad():
        return problem.predict(torch.as_tensor(t))[count:].tolist()
