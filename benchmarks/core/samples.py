"""Three ways to sample what readings leave open, on one aquifer: means, spreads and what they cost."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np

from benchmarks.core.coverage import AquiferSets
from benchmarks.record import Record, at_most, stated
from bilevel.calibrate import CalibrationProblem, Parameter, Settings, calibrate
from bilevel.calibrate.settings import Ensemble, EnsembleMethod
from bilevel.calibrate.statistics.ensemble import EnsembleResult, ensemble

LINE = (
    "randomised maximum likelihood, ensemble smoother and Markov chains on an aquifer: the same posterior, side by side"
)
DURATION = "15 minutes"
COUNT = {EnsembleMethod.RML: 400, EnsembleMethod.SMOOTHER: 1000, EnsembleMethod.MCMC: 1200}
SETTINGS = Settings(verify=False)
_MICI = find_spec("mici") is not None
PRIORS = {"hydraulic_conductivity": (50.0, 0.5), "specific_storage": (4e-5, 0.7)}
"""Prior means, and standard deviations relative to them."""


@dataclass(frozen=True)
class Sampled:
    """The logarithms (n, p) of one way's samples, and how many independent ones they are worth."""

    values: np.ndarray
    worth: float
    evaluations: int
    seconds: float

    def off(self, other: Sampled) -> float:
        """The largest distance of the means, in standard errors of both."""
        errors = np.hypot(self.std / math.sqrt(self.worth), other.std / math.sqrt(other.worth))
        return float(np.max(np.abs(self.values.mean(0) - other.values.mean(0)) / errors))

    @property
    def std(self) -> np.ndarray:
        return self.values.std(0, ddof=1)


def problem() -> CalibrationProblem:
    """Readings of a synthetic Oude Korendijk with errors of 3 cm, and priors in which its truth is likely."""
    made, _truth = AquiferSets()(np.random.default_rng(0))
    names = [p.label for p in made.parameters.free]
    assert set(names) == set(PRIORS)
    parameters = [_with_prior(p) for p in made.parameters.parameters]
    return made.changed(parameters=parameters)


def _with_prior(parameter: Parameter) -> Parameter:
    mean, spread = PRIORS[parameter.name]
    return replace(parameter, prior_mean=mean, prior_std=spread * mean)


def sample(method: EnsembleMethod, count: int) -> Sampled:
    made = problem()
    result = calibrate(made, settings=SETTINGS)
    began = time.perf_counter()
    found: EnsembleResult = ensemble(made, result.evaluation, Ensemble(count, method), settings=SETTINGS)
    worth = found.effective if method is EnsembleMethod.MCMC else float(len(found.values))
    return Sampled(np.log(found.values), worth, found.evaluations, time.perf_counter() - began)


def run(quick: bool) -> list[Record]:
    counts = {method: count // 10 if quick else count for method, count in COUNT.items()}
    ways = {method: sample(method, n) for method, n in counts.items() if method is not EnsembleMethod.MCMC or _MICI}
    first = ways[EnsembleMethod.RML]
    records = []
    for method, found in ways.items():
        name = method.value
        if found is not first:
            records.append(at_most(f"{name}: mean from that of rml", found.off(first), 2.0, "standard errors"))
            ratio = float(np.max(np.abs(np.log(found.std / first.std))))
            records.append(at_most(f"{name}: std from that of rml", 100 * math.expm1(ratio), 10.0, "%"))
        records.append(stated(f"{name}: samples, by what they are worth", found.worth))
        records.append(stated(f"{name}: evaluations", float(found.evaluations)))
        records.append(stated(f"{name}: seconds", found.seconds, "s"))
    if not _MICI:
        records.append(stated("mcmc", None, "s", "mici is not installed"))
    return records
