"""Pictures of further fits: profiles of phi, and where several starts ended."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from bilevel.calibrate.fit.start_outcomes import EQUAL, StartOutcome, minima
from bilevel.calibrate.report.axes import with_units
from bilevel.calibrate.report.fit_plots import (
    Samples,
    ends_figure,
    profile_figure,
    samples_figure,
    strength_figure,
    waterfall_figure,
)
from bilevel.calibrate.report.picture import Drawing, Picture
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.statistics.profile import Profile

_PARAMETERS = 12
"""Parameters that the picture of starts shows."""


def profile_pictures(profile: Profile) -> list[Picture]:
    """phi along a profile, beside the parabola of linear theory."""
    parabola, (low, high) = None, profile.linear
    if math.isfinite(high - low) and high > low:
        x = np.linspace(max(low, profile.values.min()), min(high, profile.values.max()), 80)
        parabola = x, profile.linear_phi(x)
    drawing = partial(
        profile_figure,
        profile.values,
        profile.phi,
        parabola,
        (profile.lower, profile.upper),
        profile.estimate,
        profile.least,
        profile.threshold,
        with_units(profile.label, profile.units),
    )
    caption = f"{profile.sentence}. Below the grey line values agree with the data; each point is a fit of all other parameters."
    return [Picture(f"Profile of {profile.label}", (drawing,), caption)]


def strength_pictures(result: CalibrationResult) -> list[Picture]:
    """The fits by which the strength of fields' priors was chosen, on the plane of the L-curve."""
    if result.strength is None:
        return []
    fits = result.strength.fits
    phi, phi_fields = (np.array([getattr(fit, name) for fit in fits]) for name in ("phi", "phi_fields"))
    drawing = partial(strength_figure, [fit.strength for fit in fits], phi, phi_fields)
    caption = f"{result.strength.sentence}. Numbers: λ of each fit; the circle is the choice."
    return [Picture("Strength of smoothing", (drawing,), caption)]


def ensemble_pictures(result: CalibrationResult) -> list[Picture]:
    """Where the samples of each free entry and forecast lie, beside the normal distribution of linear theory."""
    samples = result.ensemble
    if samples is None:
        return []
    numbers = np.concatenate([samples.values, samples.forecasts], axis=1)
    linear = {e.label: (e.value, e.std, e.units) for e in result.estimates if e.state != "fixed"}
    linear |= {f.label: (f.value, f.std, f.units) for f in result.predicted}
    labels = [*samples.labels, *samples.forecast_labels]
    shown = []
    for label in [label for label in labels if label in linear][:_PARAMETERS]:
        value, std, units = linear[label]
        shown.append(Samples(label, units, numbers[:, labels.index(label)], value, std))
    caption = f"{samples.sentence}. Bars: samples; dashed: linear theory."
    return [Picture("Samples", (partial(samples_figure, shown),), caption)]


def start_pictures(result: CalibrationResult) -> list[Picture]:
    """phi of all starts in order, and each parameter at their ends."""
    ended = [outcome for outcome in result.starts if math.isfinite(outcome.phi)]
    if len(ended) < 2:
        return []
    caption = "Left: φ at the end of each start, in order; steps are minima. Right: where parameters ended within their bounds."
    return [Picture("Several starts", (_waterfall(result, ended), _ends(result, ended)), caption)]


def _waterfall(result: CalibrationResult, ended: list[StartOutcome]) -> Drawing:
    found = minima(result.problem.parameters, result.starts)
    minimum = {outcome.number: k for k, each in enumerate(found) for outcome in each.outcomes}
    ends = [(outcome.phi, outcome.converged, minimum.get(outcome.number)) for outcome in ended]
    return partial(waterfall_figure, ends, EQUAL)


def _ends(result: CalibrationResult, ended: list[StartOutcome]) -> Drawing:
    parameters = result.problem.parameters
    (low, high), labels = parameters.bounds(), parameters.entry_labels[:_PARAMETERS]
    ends = [parameters.with_start(outcome.values).start() for outcome in reversed(ended)]
    return partial(ends_figure, labels, [((t - low) / (high - low))[: len(labels)] for t in ends])
