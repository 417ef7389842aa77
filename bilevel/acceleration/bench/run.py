"""The benchmark: tune on small instances, drop what is hopeless, solve unseen ones of growing size, and compare."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bilevel.acceleration.bench.linear import quadratic_model
from bilevel.acceleration.bench.methods import BenchMethod, classical_methods
from bilevel.acceleration.bench.report import BenchSettings, Dropped, Report
from bilevel.acceleration.bench.statistics import Summary, Table, best_of, effort, summarise
from bilevel.acceleration.bench.table import table_text
from bilevel.acceleration.bench.trial import BenchTrial, attempt, warm_up
from bilevel.acceleration.family import Family, Instance

FIRST_TUNING_SEED, FIRST_TEST_SEED = 1_000_000, 2_000_000
"""Training draws its seeds below these: no instance serves two purposes."""

FIRST_MULTIPLE = 4
"""Sizes above this many times the training size are given more time, in proportion."""


def run(
    family: Family,
    learned: Sequence[BenchMethod],
    settings: BenchSettings | None = None,
    classical: Sequence[BenchMethod] | None = None,
    unseen: Family | None = None,
) -> Report:
    """Compare learned methods with the classical ones on a family; deterministic but for the times.

    unseen: what they are measured on, where that is not the family on which they are tuned.
    """
    settings = settings or BenchSettings()
    baselines, tuned, dropped, first = _tune(family, classical or classical_methods(), settings)
    tables = [first]
    for multiple in settings.multiples:
        sized = f"{multiple}x ({multiple * family.training_size} nodes)"
        title = sized if unseen is None else "a given graph"
        table, hopeless = _measure(unseen or family, [*baselines, *learned], multiple, title, settings)
        tables.append(table)
        dropped += hopeless
        lost = {item.method for item in hopeless}
        baselines = [m for m in baselines if m.name not in lost]
        settings.progress(table_text(table))
    if settings.linear:
        tables.append(_linear(family, [*baselines, *learned], settings))
    return Report(family.name, settings, torch.get_num_threads(), tuned, dropped, tables)


def _tune(
    family: Family, methods: Sequence[BenchMethod], settings: BenchSettings
) -> tuple[list[BenchMethod], dict[str, str], list[Dropped], Table]:
    """Each method with the setting that solves most training instances by least work; those that are hopeless there are dropped."""
    seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + settings.tuning)
    instances = [family.instance(family.training_size, seed) for seed in seeds]
    for instance in instances:
        warm_up(instance)
    kept: dict[str, BenchMethod] = {}
    trials: list[BenchTrial] = []
    tuned: dict[str, str] = {}
    for method in methods:
        if not all(method.applies(instance) for instance in instances):
            continue
        tried = {name: _solve_all(method.chosen(name), instances, seeds, settings) for name in method.variants}
        best = min(tried, key=lambda name: effort(tried[name]))
        kept[method.name], tuned[method.name] = method.chosen(best), best
        trials += tried[best]
        settings.progress(f"tuned {method.name}: {best}")
    summaries = {name: summarise(method, [t for t in trials if t.method == name]) for name, method in kept.items()}
    fastest = best_of(list(summaries.values()))
    dropped = _drop(list(summaries.values()), fastest, settings, "the training instances")
    for item in dropped:
        del kept[item.method]
    table = Table(f"tuning, {family.training_size} nodes", len(instances), list(summaries.values()), trials)
    return list(kept.values()), tuned, dropped, table


def _drop(summaries: Sequence[Summary], fastest: Summary | None, settings: BenchSettings, where: str) -> list[Dropped]:
    """The methods, learned ones aside, that solved nothing or take hopelessly longer than the fastest."""
    found = []
    for summary in summaries:
        if summary.learned:
            continue
        if summary.failures == 1.0:
            found.append(Dropped(summary.method, f"solved none of {where}"))
        elif fastest is not None and summary.median > settings.hopeless * fastest.median:
            times = summary.median / fastest.median
            found.append(Dropped(summary.method, f"{times:.0f} times slower than {fastest.method} on {where}"))
    return found


def _solve_all(
    method: BenchMethod, instances: Sequence[Instance], seeds: Sequence[int], settings: BenchSettings
) -> list[BenchTrial]:
    """All instances, or until more time has gone than a quarter of all budgets: the rest then counts as failed."""
    trials: list[BenchTrial] = []
    for instance, seed in zip(instances, seeds, strict=True):
        trials.append(attempt(method, instance, seed, settings.tolerance, settings.budget))
        if len(trials) == 2 and not any(trial.solved for trial in trials):
            break
    return trials


def _measure(
    family: Family, methods: Sequence[BenchMethod], multiple: int, title: str, settings: BenchSettings
) -> tuple[Table, list[Dropped]]:
    """Unseen instances at `multiple` times the training size, every method on each before the next."""
    budget = settings.budget * max(1.0, multiple / FIRST_MULTIPLE)
    trials: list[BenchTrial] = []
    dropped: list[Dropped] = []
    for k in range(settings.instances):
        variation = settings.variations[k % len(settings.variations)]
        seed = FIRST_TEST_SEED + k
        instance = family.instance(multiple * family.training_size, seed, variation)
        warm_up(instance)
        lost = {item.method for item in dropped}
        trials += [
            attempt(m, instance, seed, settings.tolerance, budget, settings.patience)
            for m in methods
            if m.applies(instance) and m.name not in lost
        ]
        settings.progress(f"{multiple}x, instance {k + 1} of {settings.instances}: {instance.description}")
        if k + 1 == settings.preview < settings.instances:
            seen = Table(title, k + 1, _summaries(methods, trials), trials)
            dropped = _drop(
                seen.summaries, seen.best_classical, settings, f"the first {k + 1} instances at {multiple}x"
            )
    return Table(title, settings.instances, _summaries(methods, trials), trials), dropped


def _summaries(methods: Sequence[BenchMethod], trials: Sequence[BenchTrial]) -> list[Summary]:
    return [summarise(method, [t for t in trials if t.method == method.name]) for method in methods]


def _linear(family: Family, methods: Sequence[BenchMethod], settings: BenchSettings) -> Table:
    """The instances' own quadratic models at the unloaded state: linear systems, where nothing can beat one linear solve."""
    multiple, trials = settings.multiples[0], []
    count = min(10, settings.instances)
    for k in range(count):
        instance = quadratic_model(family.instance(multiple * family.training_size, FIRST_TEST_SEED + k))
        for method in methods:
            if method.applies(instance) and method.start is BenchMethod.start:
                trials.append(attempt(method, instance, FIRST_TEST_SEED + k, settings.tolerance, settings.budget))
    named = {trial.method for trial in trials}
    summaries = [summarise(m, [t for t in trials if t.method == m.name]) for m in methods if m.name in named]
    return Table(f"linear systems, {multiple}x", count, summaries, trials)
