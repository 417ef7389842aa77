"""Least squares in a trust region with bounds, to the last digit that the predictions have.

More (1978, Lecture Notes in Mathematics 630:105): the step minimises the linearised phi within a radius, in the norm of
what a step does to the predictions, so that neither units nor weights matter; the first radius lets every parameter
move by its own size. Ends when the relative offset is below the tolerance: nothing else is called converged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.fit.curvature import Curvature
from bilevel.calibrate.fit.ending import OFF, Ending, Trials, limit, ran_away, stalled
from bilevel.calibrate.fit.evaluator import Evaluator, IterationLimit
from bilevel.calibrate.linearisation import Linearisation, estimated_noise
from bilevel.calibrate.settings import Noise, Settings

_TRIES = 15
_FAR, _FADED = 1e3, 1e-6
_PROBE = 0.1
"""Share of a step after which its curvature is looked at."""
_ACCELERATION = 0.75
"""Longest acceleration, relative to the step; a longer one says that the step itself is too long."""
_NEARLY = 1e-3
"""Relative offset below which phi hardly changes any more."""
_FLIGHTS = 8
"""So many steps to where a parameter has no effect any more, and it is held where it is."""


class LeastSquaresLoop:
    """The loop from a start; what it needs to go on (radius, metric, what it holds) goes into the journal."""

    def __init__(self, evaluator: Evaluator, settings: Settings) -> None:
        self.evaluator, self.tolerance = evaluator, settings.tolerance
        self.parameters = evaluator.problem.parameters
        self.estimate_noise = settings.noise is Noise.ESTIMATED
        self.radius, self.noise = 0.0, 1.0
        self.metric, self.strongest = np.zeros(self.parameters.size), np.zeros(self.parameters.size)
        self.flights = np.zeros(self.parameters.size, dtype=int)
        self.curvature = Curvature(self.parameters.size)
        self.finished = False
        self.trials = Trials()

    def minimise(self, start: np.ndarray) -> Ending:
        """Iterate from `start`, or from where the journal ends."""
        try:
            here = self._advanced(self._resumed() or self._started(start))
            # Updated derivatives lead the way; what ends it, and what statistics are made of, are derivatives taken anew.
            while (anew := self.evaluator.renewed(here.evaluation)) is not None:
                here = self._advanced(self._taken(anew))
            if self._done(here) and not self.finished and here.offset > 1e-3 * self.tolerance:
                self.finished = True  # one step more, for the digits that it gives
                following = self._better(here, 1)
                here = here if following is None or following.stale else self._taken(following)
        except IterationLimit:
            best = self.evaluator(self.evaluator.best, True)
            here = self._linear(self.evaluator.renewed(best) or best)
        return self._ending(here)

    def _advanced(self, here: Linearisation) -> Linearisation:
        """Iterate until it is done, or no step helps."""
        while not self._done(here) and len(self.evaluator.iterations) <= self.evaluator.noptmax:
            following = self._better(here, _TRIES)
            if following is not None:
                here = self._taken(following)
            elif (faded := self._faded(here)).any():  # what is left of it moves nothing: go on without it
                self.flights[faded] = _FLIGHTS + 1
                here = self._at(here.evaluation)
            else:
                break
        return here

    def _started(self, start: np.ndarray) -> Linearisation:
        first = self.evaluator(start, True)
        here = self._linear(first)
        reach = self.parameters.reach(start)
        own = np.where(np.isfinite(reach), here.norms * np.where(np.isfinite(reach), reach, 0.0), np.sqrt(here.phi))
        self.radius = float(np.linalg.norm(own[here.free]))
        return self._taken(first)

    def _resumed(self) -> Linearisation | None:
        done = self.evaluator.journal.accepted()
        if not done:
            return None
        loop = done[-1][1]
        self.radius, self.noise, self.finished = loop["radius"], loop["noise"], loop["finished"]
        self.metric, self.strongest = np.array(loop["metric"]), np.array(loop["strongest"])
        self.flights = np.array(loop["flights"], dtype=int)
        self.curvature.restore(loop["curvature"])
        for point, _ in done:
            self.evaluator.accept(point.evaluation)
        return self._linear(self.evaluator(done[-1][0].evaluation.t, True), estimate=False)

    def _taken(self, evaluation: Evaluation) -> Linearisation:
        here = self._linear(evaluation)
        self._scale(here)
        self.evaluator.journal.accept(here.t, self._loop())
        self.evaluator.accept(evaluation)
        return here

    def _loop(self) -> dict[str, Any]:
        return {
            "radius": self.radius,
            "noise": self.noise,
            "metric": self.metric.tolist(),
            "strongest": self.strongest.tolist(),
            "flights": self.flights.tolist(),
            "finished": self.finished,
            "curvature": self.curvature.state(),
        }

    def _linear(self, evaluation: Evaluation, estimate: bool = True) -> Linearisation:
        """The linear model there; priors are absolute, so the weight of the observations beside them is estimated."""
        if estimate and self.estimate_noise and evaluation.priors:
            noise = estimated_noise(evaluation, self.parameters)[0]
            self.radius, self.metric = self.radius * self.noise / noise, self.metric * self.noise / noise
            self.strongest = self.strongest * self.noise / noise
            self.noise = noise
        return self._at(evaluation)

    def _at(self, evaluation: Evaluation) -> Linearisation:
        return Linearisation(evaluation, self.parameters, self.noise, self.flights > _FLIGHTS)

    def _scale(self, here: Linearisation) -> None:
        """Columns weigh what they weighed lately: one that fades at once does not invite a long step."""
        self.metric = np.maximum(self.metric / 4, here.norms)
        self.strongest = np.maximum(self.strongest, here.norms)

    def _done(self, here: Linearisation) -> bool:
        return here.offset <= self.tolerance or here.at_round_off

    def _better(self, here: Linearisation, tries: int) -> Evaluation | None:
        self.trials = Trials()
        for _ in range(tries):
            curved = self.curvature.target(here, self.radius, self.metric)
            t = here.target(self.radius, self.metric) if curved is None else curved
            if np.array_equal(t, here.t):
                return None
            t = self._along_the_curve(here, t) if curved is None else t
            length = float(np.linalg.norm(self.metric * (t - here.t)))
            trial = self.evaluator(t, True)
            if trial.sentence:
                self.trials.failures.append(trial.sentence)
                self.radius = length / 4
                continue
            there = self._at(trial)
            promised = here.phi - self.curvature.phi(here, t)
            gained = here.phi - there.phi
            flat = gained >= -self._digits_of_phi(here, there) and there.offset < 0.5 * here.offset
            if not (gained > max(1e-4 * promised, 1e-12 * here.phi) or flat) and self._bent(here, there):
                # Along a curved valley a step leaves it and the next one leads back: both together may be a good one.
                trial = self.evaluator(there.target(self.radius, self.metric), True)
                there = self._at(trial) if not trial.sentence else there
                gained = here.phi - there.phi
            if not (gained > max(1e-4 * promised, 1e-12 * here.phi) or flat):
                if trial.failing:  # what a penalty does says nothing of noise or derivatives
                    self.trials.failures.append(trial.retried)
                else:
                    self.trials.add(here, there)
                if self.trials.noise(here):
                    return None
            elif (lost := here.free & there.unseen).any():  # there no derivative leads back
                self.flights += lost
                here = self._at(here.evaluation)
            else:
                self._resize(gained / promised if promised > 0 else 1.0, length)
                self.curvature.follow(here, there)
                return trial
            self.radius = length / 4
        return None

    def _digits_of_phi(self, here: Linearisation, there: Linearisation) -> float:
        """By how much phi may differ without meaning: near the minimum, where the offset still tells points apart.

        What the linear model misses of a step that short is noise of the predictions as much as anything, and as long as
        it is small beside the step, the noise hides no slope.
        """
        predicted = here.predicted(there.t)
        missed = float(np.linalg.norm(there.residual - predicted))
        told = here.offset < _NEARLY and missed < OFF * np.linalg.norm(predicted - here.residual)
        return max(1e-10 * here.phi, 2.0 * np.sqrt(here.phi) * missed if told else 0.0)

    def _along_the_curve(self, here: Linearisation, t: np.ndarray) -> np.ndarray:
        """The target moved by half the acceleration of the geodesic that starts towards it, where the radius holds steps back.

        In a narrow curved valley straight steps must be short; one more evaluation, a tenth of the way, shows how it bends
        (Transtrum & Sethna 2012, arXiv:1201.5885, eq. 12 to 15).
        """
        step = t - here.t
        length = float(np.linalg.norm(self.metric * step))
        if length < 0.8 * self.radius:
            return t
        probe = self.evaluator(here.t + _PROBE * step, False)
        if probe.sentence:
            return t
        bend = 2.0 * (here.scaled(probe.residual) - here.predicted(probe.t)) / _PROBE**2
        return here.accelerated(t, bend, _ACCELERATION * length, self.metric)

    def _bent(self, here: Linearisation, there: Linearisation) -> bool:
        """Whether a short second step, from a trial point that is worse, promises to be better than where both began.

        One much longer would be no correction of the first but a leap to elsewhere (Transtrum & Sethna 2012,
        arXiv:1201.5885, eq. 15).
        """
        second = there.target(self.radius, self.metric)
        first_length, length = (np.linalg.norm(self.metric * s) for s in (there.t - here.t, second - there.t))
        return bool(length <= 0.75 * first_length and np.sum(there.predicted(second) ** 2) < 0.9 * here.phi)

    def _faded(self, here: Linearisation) -> np.ndarray:
        """Entries that went far and have next to no effect left there."""
        moved = np.abs(here.t - self.parameters.start())
        far = moved > np.log(_FAR) * self.parameters.reach(self.parameters.start())
        return here.free & far & (here.norms <= _FADED * self.strongest)

    def _resize(self, quality: float, length: float) -> None:
        if quality > 0.75:
            self.radius = max(self.radius, 2 * length)
        elif quality < 0.25:
            self.radius = length / 4

    def _ending(self, here: Linearisation) -> Ending:
        if away := self._away(here):
            return Ending(False, away)
        if here.offset <= self.tolerance:
            return Ending(True, f"relative offset {here.offset:.1e}")
        if here.at_round_off or np.sqrt(here.phi) <= 10 * self.trials.noise(here) * here.size:
            share = np.sqrt(here.phi) / here.size if here.size else 0.0
            return Ending(True, f"what is left to explain is round-off, misfit {share:.1e} of the predictions")
        iterations = self.evaluator.iterations
        if len(iterations) > self.evaluator.noptmax:
            before = iterations[-2].evaluation.phi if len(iterations) > 1 else here.phi
            falling = 1 - iterations[-1].evaluation.phi / before if before else 0.0
            return Ending(False, limit(self.evaluator.noptmax, here.offset, self.tolerance, falling))
        return Ending(False, stalled(here, self.trials, self.tolerance))

    def _away(self, here: Linearisation) -> str:
        """The parameters that left for good: held after their flights, or at a limit that is no bound of the user's."""
        low, high = self.parameters.bounds()
        beyond = here.held & ((here.t <= here.low) & np.isinf(low) | (here.t >= here.high) & np.isinf(high))
        gone = beyond | (self.flights > _FLIGHTS)
        if not gone.any():
            return ""
        natural = self.parameters.natural(torch.as_tensor(here.t))
        values = [f"{float(v):.3g}" for p in self.parameters.free for v in natural[p.label].reshape(-1)]
        chosen = np.nonzero(gone)[0][:5]
        return ran_away([self.parameters.entry_labels[i] for i in chosen], [values[i] for i in chosen])
