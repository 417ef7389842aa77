"""What trials of one method add up to, and how it compares with the best classical one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from bilevel.acceleration.bench.methods import BenchMethod
from bilevel.acceleration.bench.trial import BenchTrial
from bilevel.report import Counts


@dataclass(frozen=True)
class Summary:
    """Times in seconds over all instances, failures at their budget; counts are medians over the instances solved.

    informed: whether it was given anything. failures, late, fallen_back: shares of the instances that were not solved, that were solved after their budget, and
    where a safeguard acted.
    """

    method: str
    learned: bool
    informed: bool
    training_seconds: float
    count: int
    failures: float
    late: float
    fallen_back: float
    mean: float
    lower: float
    median: float
    upper: float
    counts: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """A method against another on the same instances.

    speedup: its median time into that of the other. wins: the share of instances where it was faster. break_even: how
    many solves pay for the training, infinite where a solve saves nothing.
    """

    speedup: float
    wins: float
    break_even: float


@dataclass(frozen=True)
class Table:
    """One size of a family, or another set of instances."""

    title: str
    instances: int
    summaries: list[Summary]
    trials: list[BenchTrial]

    @property
    def best_classical(self) -> Summary | None:
        return best_of([summary for summary in self.summaries if not (summary.learned or summary.informed)])

    def against_best(self, summary: Summary) -> Comparison | None:
        """None if no classical method solved anything."""
        return None if self.best_classical is None else self.against(summary, self.best_classical)

    def against(self, summary: Summary, other: Summary) -> Comparison:
        theirs = {trial.seed: trial for trial in self.trials if trial.method == other.method}
        ours = {trial.seed: trial for trial in self.trials if trial.method == summary.method}
        shared = [seed for seed in ours if seed in theirs]
        in_time = [s for s in shared if ours[s].solved and not ours[s].late]
        won = sum(ours[s].seconds < theirs[s].seconds or not theirs[s].solved for s in in_time)
        saved = other.mean - summary.mean
        even = math.ceil(summary.training_seconds / saved) if saved > 0 else math.inf
        return Comparison(other.median / summary.median, won / max(1, len(shared)), even)


def summarise(method: BenchMethod, trials: Sequence[BenchTrial]) -> Summary:
    seconds = np.array([trial.seconds for trial in trials]) if trials else np.array([math.inf])
    solved = [trial for trial in trials if trial.solved]
    lower, median, upper = np.quantile(seconds, (0.25, 0.5, 0.75), method="nearest")
    counts = {
        item.name: float(np.median([getattr(trial.counts, item.name) for trial in solved])) if solved else math.nan
        for item in fields(Counts)
    }
    return Summary(
        method.name,
        method.learned,
        method.given is not None,
        method.training_seconds,
        len(trials),
        _share([not trial.solved for trial in trials]),
        _share([trial.late for trial in trials]),
        _share([trial.counts.fallbacks > 0 for trial in trials]),
        float(seconds.mean()),
        float(lower),
        float(median),
        float(upper),
        counts,
    )


def effort(trials: Sequence[BenchTrial]) -> tuple[int, float]:
    """What settings are compared by: failures, then factorisations (gradients, of methods without) in the mean."""
    solved = [trial.counts for trial in trials if trial.solved]
    work = [counts.factorisations or counts.residuals for counts in solved]
    return len(trials) - len(solved), float(np.mean(work)) if work else math.inf


def _share(marked: Sequence[bool]) -> float:
    return sum(marked) / max(1, len(marked))


def best_of(summaries: Sequence[Summary]) -> Summary | None:
    """The one with the lowest median time among those that solve at least half of the instances."""
    able = [summary for summary in summaries if summary.failures <= 0.5 and summary.count]
    return min(able, key=lambda summary: summary.median, default=None)
