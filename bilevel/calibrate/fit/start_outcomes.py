"""What several starts say of the optimum: which minima they met, and whether another one may lie elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bilevel.calibrate.parameters import ParameterSet

SAME = 1e-3
"""Two ends are one minimum when no parameter differs by more than this share of its range."""
EQUAL = 1e-6
"""Minima whose phi differs by no more than this share are equally deep."""
UNSEEN = 0.1
"""An optimum looks global when the minima not met yet have less than this share of the starts, as expected."""


@dataclass(frozen=True)
class StartOutcome:
    """Where a start led: natural values (user's units) by label there and at its end, phi, and how it ended.

    number: 0 is the given start. values: {} where the model failed, with phi = inf and the reason as its status. drawn:
    whether the others are spread evenly, which a search's are not.
    """

    number: int
    start: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    phi: float
    converged: bool
    status: str
    drawn: bool = True


@dataclass(frozen=True)
class Minimum:
    """Starts that ended at one point, the best of them first."""

    outcomes: list[StartOutcome]

    @property
    def phi(self) -> float:
        return self.outcomes[0].phi


def minima(parameters: ParameterSet, outcomes: Sequence[StartOutcome]) -> list[Minimum]:
    """The distinct ends of converged starts, the deepest first."""
    low, high = parameters.bounds()
    found: list[tuple[np.ndarray, Minimum]] = []
    for outcome in sorted((o for o in outcomes if o.converged), key=lambda o: o.phi):
        t = parameters.with_start(outcome.values).start()
        for other, minimum in found:
            if (np.abs(t - other) <= SAME * (high - low)).all():
                minimum.outcomes.append(outcome)
                break
        else:
            found.append((t, Minimum([outcome])))
    return [minimum for _, minimum in found]


def starts_verdict(parameters: ParameterSet, outcomes: Sequence[StartOutcome]) -> str:
    """Whether the best optimum looks global: how often it was met, and how much of the starts' space is not met yet.

    With w minima met by n starts, the minima not met have an expected share of w (w + 1) / (n (n - 1)) of the space
    (Boender & Rinnooy Kan 1987, Math. Program. 37:59).
    """
    ends = minima(parameters, outcomes)
    n, failed = sum(len(m.outcomes) for m in ends), len(outcomes) - sum(o.converged for o in outcomes)
    without = f"; {failed} did not converge" if failed else ""
    if not ends:
        return f"none of {len(outcomes)} starts converged; the first said: {outcomes[0].status}"
    best, w = ends[0], len(ends)
    others = ", ".join(f"{m.phi:.4g}" for m in ends[1:4]) + (", ..." if w > 4 else "")
    beside = "no other minimum was met" if w == 1 else f"{w - 1} other minima were met (phi {others})"
    said = f"{len(best.outcomes)} of {len(outcomes)} starts ended at the least phi, {best.phi:.6g}; {beside}{without}"
    if equal := sum(m.phi <= (1 + EQUAL) * best.phi for m in ends[1:]):
        return f"{said}; {equal} of them fit as well with other parameters, which the data do not tell apart"
    if any(o.phi < (1 - SAME) * best.phi for o in outcomes if not o.converged):
        return f"{said}; a start that did not converge got lower, so raise noptmax"
    if len(best.outcomes) < 2 or n < 2:
        return f"{said}; it was met once only, so more starts are needed to call it global"
    if not all(o.drawn for o in outcomes):
        return f"{said}; starts that a search led to do not tell how much of the space has not been seen"
    share = min(w * (w + 1) / (n * (n - 1)), 1.0)
    looks = "the optimum looks global" if share < UNSEEN else "more starts are needed to call it global"
    return f"{said}; minima not met yet are expected in {100 * share:.2g} % of the space of starts: {looks}"
