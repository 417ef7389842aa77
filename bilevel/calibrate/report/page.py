"""report.html: one self-contained file that reads on a phone and prints on paper."""

from __future__ import annotations

import base64
import math
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from bilevel.calibrate.report.drawing_process import Draw
from bilevel.calibrate.report.pictures import Picture, Pictures
from bilevel.calibrate.report.rendering import Image
from bilevel.calibrate.report.summary import (
    CORRELATED_HEADER,
    ROWS,
    correlated_rows,
    correlated_sentences,
    number,
    remark,
)
from bilevel.calibrate.result import CalibrationResult, ParameterEstimate
from bilevel.calibrate.settings import Noise
from bilevel.calibrate.statistics.forecast_worth import Forecast
from bilevel.calibrate.study.files import REPORT, write_atomically
from bilevel.calibrate.study.study import Study

_HERE = Path(__file__).parent


def write_report(study: Study, result: CalibrationResult, folder: Path, draw: Draw) -> list[str]:
    """Write report.html into a folder; returns a sentence for each picture that could not be drawn."""
    drawn, failed = _drawn(Pictures(result, study.plot), "svg", draw)
    page = report(study, result, drawn, failed)
    write_atomically(folder / REPORT, page)
    return failed


def write_pictures(study: Study, result: CalibrationResult, folder: Path, draw: Draw) -> tuple[list[Path], list[str]]:
    """Write each picture as a PNG file into a folder; returns their paths, and what could not be drawn."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn, failed = _drawn(Pictures(result, study.plot), "png", draw)
    paths = []
    for k, (picture, images) in enumerate(drawn, 1):
        slug = "".join(c if c.isalnum() else "_" for c in picture.title.lower()).strip("_")[:60]
        for part, image in zip("abc", images):
            paths.append(folder / f"{k:02d}{part if len(images) > 1 else ''}_{slug}.png")
            write_atomically(paths[-1], image.content)
    return paths, failed


def report(
    study: Study, result: CalibrationResult, drawn: Sequence[tuple[Picture, list[Image]]], failed: Sequence[str] = ()
) -> str:
    """The whole page."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    found = result.identifiability
    sentences = [] if found is None else list(found.sentences.values())[:ROWS]
    return environment.get_template("report.html.j2").render(
        css=Markup((_HERE / "report.css").read_text(encoding="utf-8")),
        study=study,
        result=result,
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        capitalised=lambda text: text[:1].upper() + text[1:],
        sentences=sentences,
        warnings=[*sentences, *result.notes[:ROWS], *failed[:ROWS], *filter(None, [result.noise_sentence])],
        parameters=[_parameter_row(e) for e in result.estimates[:ROWS]],
        more=max(len(result.estimates) - ROWS, 0),
        correlated=correlated_rows(result)[:ROWS],
        correlated_header=CORRELATED_HEADER,
        correlated_sentences=correlated_sentences(result),
        forecasts=[_forecast_row(forecast) for forecast in result.predicted[:ROWS]],
        variance=_variance(result),
        misfit=_misfit(result),
        pictures=[_placed(picture, images) for picture, images in drawn],
        directions=_directions(result),
        condition="" if found is None else number(found.condition, 3),
        certificate=_certificate(result),
        versions=_versions(study),
    )


def _drawn(pictures: Pictures, kind: str, draw: Draw) -> tuple[list[tuple[Picture, list[Image]]], list[str]]:
    """The pictures as files; one that fails, a model's own or one of ours, costs a note and nothing else."""
    made: list[tuple[str, Picture]] = []
    drawn, failed = [], []
    for name, make in pictures.all():
        try:
            made += [(name, picture) for picture in make()]
        except Exception as error:
            failed.append(_not_drawn(name, error))
    images = iter(draw([each for _, picture in made for each in picture.drawings], kind))
    for name, picture in made:
        own = list(islice(images, len(picture.drawings)))
        errors = [image for image in own if isinstance(image, Exception)]
        if errors:
            failed.append(_not_drawn(name, errors[0]))
        else:
            drawn.append((picture, [image for image in own if isinstance(image, Image)]))
    return drawn, failed


def _not_drawn(name: str, error: Exception) -> str:
    return f"{name} could not be drawn: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _placed(picture: Picture, images: Sequence[Image]) -> dict[str, Any]:
    return {
        "title": picture.title,
        "caption": picture.caption,
        "kind": "row" if len(images) > 1 else "wide" if images[0].width >= 7 else "narrow",
        "images": [base64.b64encode(image.content).decode() for image in images],
    }


def _parameter_row(e: ParameterEstimate) -> list[str]:
    relative = f"{100 * e.relative_std:.2g} %" if math.isfinite(e.relative_std) else "–"
    interval = f"{number(e.lower95, 4)} … {number(e.upper95, 4)}" if not math.isnan(e.lower95) else "–"
    bounds = "–" if e.lower is None and e.upper is None else f"{number(e.lower)} … {number(e.upper)}"
    remarks = ", ".join(filter(None, [remark(e), e.transform if e.transform != "none" else ""]))
    return [e.label, number(e.value), number(e.std, 3), relative, interval, e.units, bounds, number(e.start), remarks]


def _forecast_row(f: Forecast) -> list[str]:
    rests = [f"{worth.label} (x {number(1 + worth.share, 3)})" for worth in (*f.groups[:2], *f.readings[:2])]
    plan = [f"{worth.label} ({100 * worth.share:.2g} %)" for worth in f.plan[:3]]
    interval = f"{number(f.lower95, 4)} … {number(f.upper95, 4)}"
    numbers = [number(f.value), number(f.prior_std, 3), number(f.std, 3)]
    return [f.label, *numbers, interval, f.units, ", ".join(rests), ", ".join(plan)]


def _variance(result: CalibrationResult) -> str:
    if result.statistics is None:
        return ""
    if result.noise is Noise.ESTIMATED:
        return f"s² = φ/(m − p) = {number(result.statistics.variance, 4)}"
    return "s² = 1: weights are 1/σ"


def _misfit(result: CalibrationResult) -> list[list[str]]:
    def share(phi: float) -> str:
        return f"{100 * phi / result.phi:.1f} %" if result.phi else "–"

    rows = []
    for g in result.groups:
        rows.append([g.label, number(g.phi), share(g.phi), number(g.rmse, 4), g.units, f"{g.fitted} of {g.rows}"])
    if result.prior_phi:
        rows.append(["priors", number(result.prior_phi), share(result.prior_phi), "–", "", "–"])
    common = result.groups[0].units if not math.isnan(result.rmse) else ""
    rows.append(["total", number(result.phi), "", number(result.rmse, 4), common, f"{len(result.problem.fitted)}"])
    return rows


def _directions(result: CalibrationResult) -> list[list[str]]:
    found, labels = result.identifiability, result.problem.parameters.entry_labels
    if found is None:
        return []
    rows = []
    for value, direction in list(zip(found.singular_values, found.directions))[:ROWS]:
        largest = [
            i for i in sorted(range(len(labels)), key=lambda i: -abs(direction[i]))[:4] if abs(direction[i]) > 0.1
        ]
        rows.append([number(value, 3), ", ".join(f"{direction[i]:+.2f} {labels[i]}" for i in largest)])
    return rows


def _certificate(result: CalibrationResult) -> list[tuple[str, str]]:
    counts, error = result.counts, result.jacobian_error
    checked = "not checked" if math.isnan(error) else f"{number(error, 2)} relative, along one direction"
    steps = f"{len(result.iterations) - 1} iterations, {result.evaluations} evaluations, {result.seconds:.1f} s"
    work = f"{counts.factorisations} factorisations, {counts.back_substitutions} back-substitutions"
    return [
        *_derivatives(result),
        ("Jacobian against finite differences", checked),
        ("Certificate at the end", "not asked for" if result.certificate is None else str(result.certificate)),
        ("Outer loop", f"{result.method}, {steps}"),
        ("Inner solves", f"{result.inner_solves}, with {result.inner_iterations} iterations, {work}"),
    ]


def _derivatives(result: CalibrationResult) -> list[tuple[str, str]]:
    """What each experiment's derivatives are, once where they are all alike."""
    found = {e.name: e.model.derivatives for e in result.problem.experiments}
    if len(set(found.values())) == 1:
        return [("Derivatives", next(iter(found.values())))]
    return [(f"Derivatives of {name}", text) for name, text in found.items()]


def _versions(study: Study) -> str:
    known = ", ".join(f"{name} {study.contents[name]}" for name in ("python", "bilevel", "torch", "numpy", "scipy"))
    return f"{known}, {platform.machine()}"
