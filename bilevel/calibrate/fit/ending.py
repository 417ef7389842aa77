"""How an outer loop ended, and why, in a sentence that names the cause."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bilevel.calibrate.linearisation import Linearisation

SMALL = 1e-6
"""Steps that move the predictions by no more than this share of their size may drown in what precision they have."""
OFF = 0.3
"""The linear model is off by a good part of a step when it misses this share of it."""


@dataclass(frozen=True)
class Ending:
    """converged, and the sentence that goes with it: how closely, or what prevented it. stopped: somebody asked for it."""

    converged: bool
    sentence: str
    stopped: bool = False


@dataclass
class Trials:
    """The steps tried in vain from one point: how far the linear model has them move, and how far it was off.

    A linear model that is off by a good part of a step which hardly moves anything meets noise; one that is off by as
    much of steps that move a lot has wrong derivatives.
    """

    moved: list[float] = field(default_factory=list)
    missed: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, here: Linearisation, there: Linearisation) -> None:
        """Note a trial point."""
        predicted = here.predicted(there.t)
        scale = max(here.size, 1e-300)
        self.moved.append(float(np.linalg.norm(predicted - here.residual)) / scale)
        self.missed.append(float(np.linalg.norm(there.residual - predicted)) / scale)

    def noise(self, here: Linearisation) -> float:
        """By what share of their size the predictions move without cause, 0 unless that explains why no step helps."""
        off = [(a, b) for a, b in zip(self.moved, self.missed) if b > OFF * a]
        found = max((b for _, b in off), default=0.0)
        explains = len(off) > 1 and all(a <= SMALL for a, _ in off) and here.inside <= 10 * found * here.size
        return found if explains else 0.0

    @property
    def contradicted(self) -> bool:
        """Whether derivatives are wrong: the linear model is off by a good part of steps that are short but no noise."""
        short = [b > OFF * a for a, b in zip(self.moved, self.missed) if SMALL < a <= 1e2 * SMALL]
        return len(short) > 1 and all(short)


def ran_away(labels: list[str], values: list[str]) -> str:
    """The reason when parameters left for where nothing depends on them."""
    named = ", ".join(f"{label} (to {value})" for label, value in zip(labels, values))
    return f"ran away: {named}; phi falls on without a minimum there, so give bounds, fix it, or start closer"


def limit(noptmax: int, offset: float, tolerance: float, falling: float) -> str:
    """The reason when iterations ran out; falling: the share of phi that the last one took away."""
    still = f" and phi fell by {100 * falling:.2g} % in the last one" if falling > 1e-3 else ""
    return (
        f"the limit of {noptmax} iterations, relative offset {offset:.2g} is above {tolerance:.2g}{still}; "
        "raise noptmax and resume, or start closer"
    )


def stalled(here: Linearisation, trials: Trials, tolerance: float) -> str:
    """The reason when no step reduces phi."""
    begin = f"no step reduced phi further, relative offset {here.offset:.2g} is above {tolerance:.2g}"
    if trials.failures and not trials.moved:
        return f"{begin}: the model failed at all {len(trials.failures)} points tried, the last said: {trials.failures[-1]}"
    if trials.contradicted:
        return f"{begin}: the predictions do not change as their derivatives say; check the model with bilevel check"
    if noise := trials.noise(here):
        return (
            f"{begin}: the predictions carry noise of {noise:.1g} of their size, as single precision or loosely "
            "converged inner solves leave it; compute in double precision, tighten the inner solves, or raise the tolerance"
        )
    return (
        f"{begin}: the misfit is not smooth there (a kink or a jump of the model); start elsewhere, or bound what jumps"
    )
