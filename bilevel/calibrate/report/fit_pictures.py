"""Pictures of further fits: profiles of phi, and where several starts ended."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bilevel.calibrate.fit.start_outcomes import EQUAL, StartOutcome, minima
from bilevel.calibrate.report.axes import COLOURS, logarithmic, new_figure, plain, with_units
from bilevel.calibrate.report.picture import Picture
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.statistics.profile import Profile

if TYPE_CHECKING:  # it takes most of a second to load
    from matplotlib.figure import Figure

_PARAMETERS = 12
"""Parameters that the picture of starts shows."""


def profile_pictures(profile: Profile) -> list[Picture]:
    """phi along a profile, beside the parabola of linear theory."""
    figure, axis = new_figure(1, 1, 3.4, width=5.5)
    axis.plot(profile.values, profile.phi, "o-", ms=3, color=COLOURS[0], label="least φ")
    low, high = profile.linear
    if math.isfinite(high - low) and high > low:
        x = np.linspace(max(low, profile.values.min()), min(high, profile.values.max()), 80)
        axis.plot(x, profile.linear_phi(x), "--", lw=1, color=COLOURS[1], label="linear theory")
    axis.axhline(profile.threshold, color="#888888", lw=0.8)
    for end in (profile.lower, profile.upper):
        if math.isfinite(end):
            axis.axvline(end, color="#888888", lw=0.8, ls=":")
    axis.axvline(profile.estimate, color=COLOURS[2], lw=0.8)
    axis.set_ylim(top=profile.least + 1.6 * (profile.threshold - profile.least))
    axis.set(xlabel=with_units(profile.label, profile.units), ylabel="φ")
    if profile.values.min() > 0 and profile.values.max() / profile.values.min() > 50:
        logarithmic(axis, profile.values)
    axis.legend(fontsize=8, frameon=False)
    caption = f"{profile.sentence}. Below the grey line values agree with the data; each point is a fit of all other parameters."
    return [Picture(f"Profile of {profile.label}", (figure,), caption)]


def strength_pictures(result: CalibrationResult) -> list[Picture]:
    """The fits by which the strength of fields' priors was chosen, on the plane of the L-curve."""
    if result.strength is None:
        return []
    fits = result.strength.fits
    figure, axis = new_figure(1, 1, 3.4, width=5.5)
    x, y = (np.array([getattr(fit, name) for fit in fits]) for name in ("phi", "phi_fields"))
    axis.plot(x, y, "o-", ms=4, lw=0.8, color=COLOURS[0])
    for values, scale in ((x, axis.set_xscale), (y, axis.set_yscale)):
        if values.min() > 0 and values.max() / values.min() > 10:
            scale("log")
    axis.plot(fits[-1].phi, fits[-1].phi_fields, "o", ms=8, mfc="none", color=COLOURS[1])
    for fit in fits:
        axis.annotate(
            f"{fit.strength:.2g}", (fit.phi, fit.phi_fields), fontsize=7, xytext=(4, 4), textcoords="offset points"
        )
    axis.set(xlabel="φ of the readings", ylabel="φ of the fields, by their model")
    return [
        Picture(
            "Strength of smoothing",
            (figure,),
            f"{result.strength.sentence}. Numbers: λ of each fit; the circle is the choice.",
        )
    ]


def ensemble_pictures(result: CalibrationResult) -> list[Picture]:
    """Where the samples of each free entry and forecast lie, beside the normal distribution of linear theory."""
    samples = result.ensemble
    if samples is None:
        return []
    numbers = np.concatenate([samples.values, samples.forecasts], axis=1)
    linear = {e.label: (e.value, e.std, e.units) for e in result.estimates if e.state != "fixed"}
    linear |= {f.label: (f.value, f.std, f.units) for f in result.predicted}
    shown = [label for label in (*samples.labels, *samples.forecast_labels) if label in linear][:_PARAMETERS]
    rows = (len(shown) + 2) // 3
    figure, axes = new_figure(rows, min(len(shown), 3), 2.2 * rows + 0.4)
    for axis, label in zip(np.atleast_1d(axes).flat, shown):
        own = numbers[:, [*samples.labels, *samples.forecast_labels].index(label)]
        axis.hist(own, bins=int(np.clip(len(own) ** 0.5, 5, 40)), density=True, color=COLOURS[0], alpha=0.8)
        value, std, units = linear[label]
        if math.isfinite(std) and std > 0:
            x = np.linspace(value - 3 * std, value + 3 * std, 80)
            density = np.exp(-0.5 * ((x - value) / std) ** 2) / (std * math.sqrt(2 * math.pi))
            axis.plot(x, density, "--", lw=1, color=COLOURS[1])
        axis.set(xlabel=with_units(label, units), yticks=[])
    caption = f"{samples.sentence}. Bars: samples; dashed: linear theory."
    return [Picture("Samples", (figure,), caption)]


def start_pictures(result: CalibrationResult) -> list[Picture]:
    """phi of all starts in order, and each parameter at their ends."""
    ended = [outcome for outcome in result.starts if math.isfinite(outcome.phi)]
    if len(ended) < 2:
        return []
    caption = "Left: φ at the end of each start, in order; steps are minima. Right: where parameters ended within their bounds."
    return [Picture("Several starts", (_waterfall(result, ended), _ends(result, ended)), caption)]


def _waterfall(result: CalibrationResult, ended: list[StartOutcome]) -> Figure:
    figure, axis = new_figure(1, 1, 3.4, width=4.0)
    colour = {
        outcome.number: COLOURS[k % len(COLOURS)]
        for k, minimum in enumerate(minima(result.problem.parameters, result.starts))
        for outcome in minimum.outcomes
    }
    for k, outcome in enumerate(ended, 1):
        axis.plot(k, outcome.phi, "o" if outcome.converged else "x", ms=4, color=colour.get(outcome.number, "#888888"))
    phi = np.array([outcome.phi for outcome in ended])
    if phi.min() > 0 and phi.max() / phi.min() > 20:
        axis.set_yscale("log")
    elif np.ptp(phi) <= EQUAL * phi.max():
        axis.set_ylim(0, 1.2 * phi.max() or 1.0)
    axis.set(xlabel="start, in order of φ (x: not converged)", ylabel="φ")
    return figure


def _ends(result: CalibrationResult, ended: list[StartOutcome]) -> Figure:
    parameters = result.problem.parameters
    (low, high), labels = parameters.bounds(), parameters.entry_labels[:_PARAMETERS]
    figure, axis = new_figure(1, 1, 3.4, width=4.0)
    for rank, outcome in enumerate(reversed(ended)):
        t = parameters.with_start(outcome.values).start()
        share = ((t - low) / (high - low))[: len(labels)]
        best = rank == len(ended) - 1
        axis.plot(range(len(labels)), share, "o-", ms=3, lw=2 if best else 0.7, color=COLOURS[0] if best else "#bbbbbb")
    axis.set_xticks(range(len(labels)), [plain(label) for label in labels], rotation=30, ha="right", fontsize=8)
    axis.set(ylabel="place between the bounds", ylim=(-0.05, 1.05))
    return figure
