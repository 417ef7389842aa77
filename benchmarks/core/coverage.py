"""How often 95 % intervals hold the values that made the data: synthetic sets of data, fitted like any others."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import Record, between, stated
from bilevel.calibrate import (
    CalibrationProblem,
    FieldPrior,
    GroupNoise,
    Loss,
    Method,
    Noise,
    ObservationTable,
    Parameter,
    Settings,
    calibrate,
    load_study,
)
from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.function_problem import FunctionModel
from bilevel.calibrate.matrix_free.prior import SparsePrior
from bilevel.calibrate.result import CalibrationResult

LINE = "coverage of 95 % intervals in 500 synthetic sets each: line, aquifer, field, AR(1) noise, outliers"
DURATION = "20 minutes"
SEEDS = (1, 2, 3, 4, 5)
CELLS = 80
AQUIFER = Path(__file__).resolve().parents[2] / "examples" / "oude_korendijk" / "study.yml"
TRUTH = np.array([2.0, 3.0])


def plain(result: CalibrationResult) -> tuple[np.ndarray, np.ndarray]:
    """The intervals of independent errors."""
    assert result.statistics is not None
    return result.statistics.lower95, result.statistics.upper95


def best(result: CalibrationResult) -> tuple[np.ndarray, np.ndarray]:
    """Those that the report recommends: of correlated errors, where there are any."""
    assert result.statistics is not None
    other = result.statistics.correlated
    return plain(result) if other is None else (other.lower95, other.upper95)


@dataclass(frozen=True)
class Promise:
    """Intervals of a result, and the share of sets [low, high] (%) that they should cover."""

    name: str
    pick: Callable[[CalibrationResult], tuple[np.ndarray, np.ndarray]]
    low: float = 90
    high: float = 98


@dataclass(frozen=True)
class Case:
    """sets(generator) gives the problem of a set and its true values (natural)."""

    sets: Callable[[np.random.Generator], tuple[CalibrationProblem, np.ndarray]]
    settings: Settings
    promises: tuple[Promise, ...]


def line(count: int, errors: Callable[[np.random.Generator], np.ndarray], noise: GroupNoise | None = None):  # type: ignore[no-untyped-def]
    """Sets of readings of 2 + 3 x with errors of 0.1."""
    x = torch.linspace(0, 1, count, dtype=torch.float64)

    def sets(generator: np.random.Generator) -> tuple[CalibrationProblem, np.ndarray]:
        value = 2 + 3 * x + 0.1 * torch.as_tensor(errors(generator))
        weight = torch.full((count,), 10.0, dtype=torch.float64)
        table = ObservationTable(value, weight, ("data",) * count, noise={"data": noise or GroupNoise()})
        model = FunctionModel(table, lambda p: p["a"] + p["b"] * x)
        return CalibrationProblem([Parameter("a", 1.0), Parameter("b", 1.0)], [Experiment("data", model, table)]), TRUTH

    return sets


def markov(generator: np.random.Generator, count: int = 200, rho: float = 0.9) -> np.ndarray:
    """Errors of variance one, each correlated with the one before."""
    errors = generator.normal(size=count)
    for k in range(1, count):
        errors[k] = rho * errors[k - 1] + math.sqrt(1 - rho**2) * errors[k]
    return errors


def outliers(generator: np.random.Generator, count: int = 100) -> np.ndarray:
    """A tenth of the errors ten times as large as the others."""
    return generator.normal(size=count) * np.where(generator.random(count) < 0.1, 10.0, 1.0)


def read_again(problem: CalibrationProblem, t: np.ndarray, generator: np.random.Generator, std: float):  # type: ignore[no-untyped-def]
    """The same problem with readings that parameters t make, and errors."""
    with torch.no_grad():
        clean = problem.predict(torch.as_tensor(t))
    values = (clean + std * torch.as_tensor(generator.normal(size=len(clean)))).split(
        [len(e.observations) for e in problem.experiments]
    )
    experiments = [
        replace(e, observations=replace(e.observations, value=value)) for e, value in zip(problem.experiments, values)
    ]
    return problem.changed(experiments=experiments)


class AquiferSets:
    """Oude Korendijk's wells, in an aquifer like theirs."""

    truth = np.array([66.0, 2.5e-5])

    def __init__(self) -> None:
        self.problem = load_study(AQUIFER).problem
        names = ("hydraulic_conductivity", "specific_storage")
        self.t = self.problem.parameters.with_start(dict(zip(names, self.truth))).start()

    def __call__(self, generator: np.random.Generator) -> tuple[CalibrationProblem, np.ndarray]:
        return read_again(self.problem, self.t, generator, 0.03), self.truth


class Column(FunctionModel):
    """A field whose logarithm has Matern's covariance along a line."""

    def field_priors(self) -> list[FieldPrior]:
        return [FieldPrior.of("conductivity", line_whitening(CELLS, std=0.7, length=0.3), logarithmic=True)]


def line_whitening(cells: int, std: float, length: float) -> np.ndarray:
    """(kappa^2 - d^2 / dx^2) on cells of a line, smoothness 3/2 (Lindgren, Rue & Lindstrom 2011)."""
    kappa, h = math.sqrt(12) / length, 1 / cells
    second = 2 * np.eye(cells) - np.eye(cells, k=1) - np.eye(cells, k=-1)
    return (kappa**2 * h * np.eye(cells) + second / h) / math.sqrt(h) / (2 * std * kappa**1.5)


def heads(parameters: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Heads along a column of sand between 10 m and 0 m, at every fourth cell."""
    resistance = torch.cumsum(1 / parameters["conductivity"], 0)
    return 10 * (1 - resistance / resistance[-1])[1:-1:4]


class FieldSets:
    """Conductivities drawn from their prior, seen through heads."""

    def __init__(self) -> None:
        count = len(heads({"conductivity": torch.ones(CELLS)}))
        table = ObservationTable(torch.zeros(count), torch.full((count,), 10.0), ("heads",) * count)
        parameters = [Parameter("conductivity", np.ones(CELLS), transform="log")]
        self.problem = CalibrationProblem(parameters, [Experiment("heads", Column(table, heads), table)])
        self.prior = SparsePrior.of(self.problem, np.zeros(CELLS))

    def __call__(self, generator: np.random.Generator) -> tuple[CalibrationProblem, np.ndarray]:
        truth = self.prior.samples(1, generator)[0]
        return read_again(self.problem, truth, generator, 0.1), np.exp(truth)


def covered(case: Case, count: int) -> list[Record]:
    """What each promise's intervals cover, by parameter over all sets and by seed over all parameters."""
    shares: dict[str, list[np.ndarray]] = {promise.name: [] for promise in case.promises}
    failed = 0
    for seed in SEEDS:
        generator = np.random.default_rng(seed)
        inside: dict[str, list[np.ndarray]] = {promise.name: [] for promise in case.promises}
        for _ in range(count // len(SEEDS)):
            problem, truth = case.sets(generator)
            result = calibrate(problem, settings=case.settings, on_fail="ignore")
            failed += not result.converged
            for promise in case.promises:
                low, high = promise.pick(result)
                inside[promise.name].append((low <= truth) & (truth <= high))
        for name, found in inside.items():
            shares[name].append(100 * np.mean(found, axis=0))
    records = [record for promise in case.promises for record in promised(promise, shares[promise.name])]
    if failed:
        records.append(stated(f"{case.promises[0].name}: fits that did not converge", float(failed)))
    return records


def promised(promise: Promise, shares: list[np.ndarray]) -> list[Record]:
    """Of few parameters the one farthest from 95 %, of a field all entries together."""
    mean = np.mean(shares, axis=0)
    field = len(mean) > 2
    value = float(np.mean(mean)) if field else float(mean[np.argmax(np.abs(mean - 95))])
    what = "all entries" if field else "the parameter farthest from 95 %"
    seeds = [float(np.mean(share)) for share in shares]
    rows = [between(f"{promise.name}: {what}", value, promise.low, promise.high, "%")]
    if field:
        rows.append(stated(f"{promise.name}: the entry covered least", float(mean.min()), "%"))
    rows.append(stated(f"{promise.name}: seed with the least", min(seeds), "%"))
    rows.append(stated(f"{promise.name}: seed with the most", max(seeds), "%"))
    return rows


def cases() -> list[Case]:
    quiet = Settings(verify=False)
    known = replace(quiet, noise=Noise.KNOWN, tolerance=1e-4)
    field = FieldSets()
    correlated = line(200, markov, GroupNoise(correlated=""))
    return [
        Case(line(30, lambda generator: generator.normal(size=30)), quiet, (Promise("line", plain, 93, 97),)),
        Case(AquiferSets(), quiet, (Promise("aquifer", best),)),
        Case(field, known, (Promise("field", plain),)),
        Case(field, replace(known, method=Method.KRYLOV), (Promise("field without a Jacobian", plain),)),
        Case(
            correlated,
            quiet,
            (
                Promise("AR(1) noise, rho 0.9", best),
                Promise("AR(1) noise, rho 0.9, by the plain formula", plain, 0, 60),
            ),
        ),
        Case(line(100, outliers, GroupNoise(Loss.HUBER)), quiet, (Promise("10 % outliers, Huber's loss", plain),)),
        Case(line(100, outliers, GroupNoise(Loss.SOFT_L1)), quiet, (Promise("10 % outliers, soft l1", plain),)),
        Case(line(100, outliers, GroupNoise(Loss.STUDENT_T)), quiet, (Promise("10 % outliers, Student's t", plain),)),
    ]


def run(quick: bool) -> list[Record]:
    torch.set_num_threads(1)
    records = []
    for case in cases():
        records += covered(case, 25 if quick else 500)
        print(f"{case.promises[0].name} done", file=sys.stderr, flush=True)
    return records
