"""What a run does, and all that it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bilevel.acceleration.bench.statistics import Table
from bilevel.acceleration.family import Variation


@dataclass(frozen=True)
class BenchSettings:
    """What is measured.

    instances: unseen instances of each size, shared out evenly among the variations. multiples: sizes in units of the
    family's training size. tolerance: relative to the imbalance of the load. budget: seconds for one solve of an instance
    of 4 times the training size or less, growing with the size; a solve that takes longer has failed. patience: how many
    budgets every method is given; what takes longer than one is called late. hopeless: methods
    this many times slower than the best classical one are dropped, when tuned and after the first `preview` instances of
    each size. tuning: training instances that settings are chosen on.
    """

    instances: int = 100
    multiples: tuple[int, ...] = (4, 16, 64)
    variations: tuple[Variation, ...] = tuple(Variation)
    tolerance: float = 1e-8
    budget: float = 10.0
    patience: float = 3.0
    hopeless: float = 20.0
    preview: int = 8
    tuning: int = 32
    linear: bool = True
    progress: Callable[[str], None] = field(default=lambda line: None)


@dataclass(frozen=True)
class Dropped:
    """A method that was not measured any further, where and why."""

    method: str
    reason: str


@dataclass(frozen=True)
class Report:
    """All that a run found; tables by title, in order."""

    family: str
    settings: BenchSettings
    threads: int
    tuned: dict[str, str]
    dropped: list[Dropped]
    tables: list[Table]
