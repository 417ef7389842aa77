"""How an outer loop ended, and why, in a sentence that names the cause."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bilevel.calibrate.linearisation import Linearisation

CONSTANT = 3.0
"""Deviations from the linear model that differ by no more than this factor do not depend on the step."""


@dataclass(frozen=True)
class Ending:
    """converged, and the sentence that goes with it: how closely, or what prevented it."""

    converged: bool
    sentence: str


@dataclass
class Trials:
    """The steps tried in vain from one point: how far the linear model has them move, and how far it was off.

    What predictions move by whatever the step is noise; what grows with the step alone is a wrong derivative.
    """

    moved: list[float] = field(default_factory=list)
    missed: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, here: Linearisation, there: Linearisation) -> None:
        """Note a trial point."""
        predicted = here.predicted(there.t)
        self.moved.append(float(np.linalg.norm(predicted - here.residual)))
        self.missed.append(float(np.linalg.norm(there.residual - predicted)))

    @property
    def noise(self) -> float:
        """By how much the residuals move without cause, 0 if nothing says so."""
        if len(self.missed) < 2 or self.missed[-1] < self.moved[-1]:
            return 0.0
        steady = self.missed[-2] <= CONSTANT * self.missed[-1] and self.missed[-1] <= CONSTANT * self.missed[-2]
        return self.missed[-1] if steady else 0.0

    @property
    def contradicted(self) -> bool:
        """Whether the Jacobian is off by a good part of each step, small as it was."""
        pairs = [(a, b) for a, b in zip(self.moved, self.missed) if b > 10 * CONSTANT * self.noise]
        return len(pairs) >= 3 and all(b > 0.3 * a for a, b in pairs)


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
    share = trials.noise / here.size if here.size else 0.0
    if share > 0:
        cause = "that is single precision" if 1e-8 < share < 1e-5 else "that is what the inner solves leave"
        return (
            f"{begin}: the predictions carry noise of {share:.1g} of their size ({cause}); compute in double precision, "
            "tighten the inner solves, or raise the tolerance"
        )
    return (
        f"{begin}: the misfit is not smooth there (a kink or a jump of the model); start elsewhere, or bound what jumps"
    )
