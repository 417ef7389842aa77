"""result.json: everything that a program may want to know of a calibration."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np

from bilevel.calibrate.fit.start_outcomes import StartOutcome
from bilevel.calibrate.fit.strength import StrengthResult
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.statistics.ensemble import EnsembleResult
from bilevel.calibrate.statistics.forecast_worth import Forecast
from bilevel.calibrate.statistics.profile import Profile
from bilevel.calibrate.statistics.randomness import randomness
from bilevel.calibrate.study.study import Study


def as_json(study: Study, result: CalibrationResult) -> dict[str, Any]:
    """The content of result.json; null where a number is unknown."""
    parameters = {}
    for e in result.estimates:
        parameters[e.label] = {
            "value": _finite(e.value),
            "std": _finite(e.std),
            "units": e.units,
            "at_bound": e.at_bound or False,
            "interval95": [_finite(e.lower95), _finite(e.upper95)],
            "start": e.start,
            "lower": e.lower,
            "upper": e.upper,
            "transform": e.transform,
            "state": e.state,
            "std_correlated": _finite(e.std_correlated),
            "interval95_correlated": [_finite(e.lower95_correlated), _finite(e.upper95_correlated)],
        }
    statistics, identified = result.statistics, result.identifiability
    return {
        "title": study.title,
        "status": result.status,
        "converged": result.converged,
        "notes": result.notes,
        "parameters": parameters,
        "phi": result.phi,
        "phi_by_group": {g.label: g.phi for g in result.groups},
        "phi_prior": result.prior_phi,
        "rmse_by_group": {g.label: {"value": _finite(g.rmse), "units": g.units, "rows": g.rows} for g in result.groups},
        "rmse": _finite(result.rmse),
        "randomness_by_group": {
            g.label: {
                "runs": g.runs,
                "expected_runs": g.expected_runs,
                "autocorrelation": g.autocorrelation,
                "random": g.random,
            }
            for g in randomness(result.problem, result.evaluation)
        },
        "correlation": None
        if statistics is None or statistics.correlation is None
        else {"labels": statistics.free_labels, "matrix": _nested(statistics.correlation)},
        "noise": None
        if statistics is None
        else {
            "kind": result.noise.value,
            "variance": _finite(statistics.variance),
            "degrees_of_freedom": statistics.degrees_of_freedom,
            "reduced_chi_square": _finite(statistics.chi_square),
            "sentence": result.noise_sentence,
        },
        "correlated_errors": None
        if statistics is None or statistics.correlated is None
        else [asdict(group) for group in statistics.correlated.groups],
        "not_identifiable": {} if identified is None else identified.sentences,
        "singular_values": None if identified is None else [float(s) for s in identified.singular_values],
        "strength": None if result.strength is None else _strength(result.strength),
        "starts": [_start(outcome) for outcome in result.starts],
        "profiles": {profile.label: _profile(profile) for profile in result.profiles},
        "forecasts": {forecast.label: _forecast(forecast) for forecast in result.predicted},
        "ensemble": None if result.ensemble is None else _ensemble(result.ensemble),
        "findings": result.findings,
        "method": result.method,
        "iterations": len(result.iterations) - 1,
        "evaluations": result.evaluations,
        "inner_solves": result.inner_solves,
        "inner_iterations": result.inner_iterations,
        "counts": asdict(result.counts),
        "gradient_error_estimate": None if result.certificate is None else _finite(result.certificate.relative_error),
        "derivatives": {e.name: e.model.derivatives for e in result.problem.experiments},
        "jacobian_finite_difference_error": _finite(result.jacobian_error),
        "seconds": result.seconds,
    }


def _strength(choice: StrengthResult) -> dict[str, Any]:
    return {"strength": choice.strength, "rule": choice.rule.value, "fits": [asdict(fit) for fit in choice.fits]}


def _start(outcome: StartOutcome) -> dict[str, Any]:
    return {
        "number": outcome.number,
        "start": {label: value.tolist() for label, value in outcome.start.items()},
        "values": {label: value.tolist() for label, value in outcome.values.items()},
        "phi": _finite(outcome.phi),
        "converged": outcome.converged,
        "status": outcome.status,
    }


def _profile(profile: Profile) -> dict[str, Any]:
    return {
        "estimate": profile.estimate,
        "units": profile.units,
        "interval95": [_finite(profile.lower), _finite(profile.upper)],
        "interval95_linear": [_finite(end) for end in profile.linear],
        "bounded": list(profile.bounded),
        "sentence": profile.sentence,
        "threshold": profile.threshold,
        "values": profile.values.tolist(),
        "phi": profile.phi.tolist(),
        "parameters": {label: values.tolist() for label, values in profile.path.items()},
    }


def _forecast(forecast: Forecast) -> dict[str, Any]:
    return {
        "value": forecast.value,
        "units": forecast.units,
        "prior_std": _finite(forecast.prior_std),
        "std": _finite(forecast.std),
        "interval95": [_finite(forecast.lower95), _finite(forecast.upper95)],
        "variance_rises_without": {
            "groups": {worth.label: _finite(worth.share) for worth in forecast.groups},
            "readings": {worth.label: _finite(worth.share) for worth in forecast.readings},
        },
        "variance_falls_with": {worth.label: worth.share for worth in forecast.candidates},
        "plan": [{"reading": worth.label, "variance_gone": worth.share} for worth in forecast.plan],
        "sentence": forecast.sentence,
    }


def _ensemble(ensemble: EnsembleResult) -> dict[str, Any]:
    names = ("mean", "std", "lower95", "upper95")
    return {
        "method": ensemble.method.value,
        "members": len(ensemble.values),
        "failed": ensemble.failed,
        "evaluations": ensemble.evaluations,
        "r_hat": _finite(ensemble.r_hat),
        "effective_samples": _finite(ensemble.effective),
        "summary": {
            label: dict(zip(names, ensemble.summary(label))) for label in (*ensemble.labels, *ensemble.forecast_labels)
        },
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _nested(matrix: np.ndarray) -> list[list[float | None]]:
    return [[_finite(x) for x in row] for row in matrix]
