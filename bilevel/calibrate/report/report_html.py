"""report.html: one self-contained file that reads on a phone and prints on paper."""

from __future__ import annotations

import base64
import io
import math
import platform
from collections.abc import Sequence, Set
from datetime import datetime, timezone
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from matplotlib.figure import Figure

from bilevel.calibrate.report.outputs import REPORT
from bilevel.calibrate.report.plots import Picture, calibration_pictures, model_pictures
from bilevel.calibrate.report.summary import ROWS, number, remark
from bilevel.calibrate.result import CalibrationResult, ParameterEstimate
from bilevel.calibrate.study.files import write_atomically
from bilevel.calibrate.study.study import Study

_CSS = """
:root{--ink:#1d2733;--soft:#5b6875;--line:#dde3e9;--accent:#0b6e99;--good:#0f7b6c;--bad:#b3261e;--warn:#9a6700}
*{box-sizing:border-box}
body{margin:0;background:#f4f6f8;color:var(--ink)}
body{font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:62rem;margin:0 auto;padding:1rem}
header{padding:1.2rem 0 .4rem}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .3rem}
h2{font-size:1.15rem;margin:0 0 .6rem;color:var(--accent)}
section{background:#fff;border:1px solid var(--line);border-radius:10px}
section{padding:1rem 1.1rem;margin:0 0 1rem;break-inside:avoid}
.soft,figcaption{color:var(--soft);font-size:.9rem}
.verdict{padding:.5rem .8rem;margin:.4rem 0;border-left:4px solid var(--good)}
.verdict{background:#eef7f5;border-radius:0 6px 6px 0;overflow-wrap:anywhere}
.verdict.bad{border-color:var(--bad);background:#fdefee}
.verdict.warn{border-color:var(--warn);background:#fdf6e7}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:.93rem}
th{text-align:left;font-weight:600;color:var(--soft);font-size:.8rem;border-bottom:2px solid var(--line)}
th,td{padding:.4rem .6rem;white-space:nowrap}
td{border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}
.n{text-align:right}
.big{font-weight:650}
figure{margin:0}
img{display:block;width:100%;height:auto}
.narrow img{max-width:34rem;margin:auto}
.row{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:.6rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem;margin:0}
dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
pre{overflow-x:auto;background:#f4f6f8;padding:.7rem;border-radius:6px;font-size:.82rem}
@media(max-width:40rem){
main{padding:.6rem}
section{padding:.8rem .7rem}
th,td{padding:.35rem .4rem}
dl{grid-template-columns:1fr}
dd{margin-bottom:.4rem}
}
@media print{body{background:#fff}section{border:0;padding:0 0 1rem}}
"""


def write_report(study: Study, result: CalibrationResult, folder: Path) -> Path:
    """Write report.html into a folder and return its path."""
    path = folder / REPORT
    pictures = [*calibration_pictures(result, study.plot), *model_pictures(result)]
    write_atomically(path, report(study, result, pictures))
    return path


def write_pictures(study: Study, result: CalibrationResult, folder: Path) -> list[Path]:
    """Write each picture as a PNG file into a folder and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, picture in enumerate([*calibration_pictures(result, study.plot), *model_pictures(result)], 1):
        slug = "".join(c if c.isalnum() else "_" for c in picture.title.lower()).strip("_")
        for part, figure in zip("abc", picture.figures):
            name = f"{k:02d}{part if len(picture.figures) > 1 else ''}_{slug}.png"
            paths.append(folder / name)
            write_atomically(paths[-1], _rendered(figure, "png"))
    return paths


def report(study: Study, result: CalibrationResult, pictures: Sequence[Picture]) -> str:
    """The whole page."""
    title = escape(study.title)
    sections = [
        _section("Verdict", _verdicts(result)),
        _section("Parameters", _parameters(result)),
        _section("Misfit", _misfit(result)),
        *(_section(p.title, _picture(p)) for p in pictures),
        _section("Identifiability", _identifiability(result)),
        _section("Gradient certificate", _certificate(result)),
        _section("How to reproduce", _reproduce(study)),
    ]
    about = f"<p class=soft>{escape(study.description)}</p>" if study.description else ""
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return (
        "<!DOCTYPE html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_CSS}</style></head><body><main>"
        f"<header><h1>{title}</h1>{about}<p class=soft>Calibration report, {date}</p></header>\n"
        + "\n".join(s for s in sections if s)
        + "\n</main></body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _verdicts(result: CalibrationResult) -> str:
    main = "" if result.converged else " bad"
    lines = [f'<p class="verdict{main}">{escape(_capitalised(result.status))}.</p>']
    sentences = [] if result.identifiability is None else list(result.identifiability.sentences.values())[:ROWS]
    lines += [f'<p class="verdict warn">{escape(s)}.</p>' for s in [*sentences, *result.notes]]
    if result.statistics is not None and not sentences:
        lines.append("<p class=verdict>All free parameters are identifiable from these data.</p>")
    return "".join(lines)


def _parameters(result: CalibrationResult) -> str:
    estimates = result.estimates
    head = ["parameter", "value", "std", "std / value", "95 % interval", "units", "bounds", "start", "remark"]
    rows = [_parameter_row(e) for e in estimates[:ROWS]]
    cut = (
        f"<p class=soft>{len(estimates) - ROWS} more rows are in the .par.csv file.</p>"
        if len(estimates) > ROWS
        else ""
    )
    return _table(head, rows, numeric={1, 2, 3, 7}, bold={1}) + cut + _conventions(result)


def _parameter_row(e: ParameterEstimate) -> list[str]:
    relative = f"{100 * e.relative_std:.2g} %" if math.isfinite(e.relative_std) else "–"
    interval = f"{number(e.lower95, 4)} … {number(e.upper95, 4)}" if not math.isnan(e.lower95) else "–"
    bounds = "–" if e.lower is None and e.upper is None else f"{number(e.lower)} … {number(e.upper)}"
    remarks = ", ".join(filter(None, [remark(e), e.transform if e.transform != "none" else ""]))
    return [e.label, number(e.value), number(e.std, 3), relative, interval, e.units, bounds, number(e.start), remarks]


def _conventions(result: CalibrationResult) -> str:
    statistics = result.statistics
    if statistics is None:
        return "<p class=soft>No statistics: no Jacobian was asked for.</p>"
    source = (
        f"s² = φ/(m − p) = {number(statistics.variance, 4)}"
        if result.noise.value == "estimated"
        else "s² = 1: weights are 1/σ"
    )
    return (
        f"<p class=soft>Standard deviations from the final Jacobian by linear theory, {source}, "
        f"{statistics.degrees_of_freedom} degrees of freedom; 95 % intervals are those of the transformed parameter. "
        "A parameter held at its bound has none.</p>"
    )


def _misfit(result: CalibrationResult) -> str:
    def share(phi: float) -> str:
        return f"{100 * phi / result.phi:.1f} %" if result.phi else "–"

    rows = []
    for g in result.groups:
        rows.append([g.label, number(g.phi), share(g.phi), number(g.rmse, 4), g.units, f"{g.fitted} of {g.rows}"])
    if result.prior_phi:
        rows.append(["priors", number(result.prior_phi), share(result.prior_phi), "–", "", "–"])
    common = result.groups[0].units if not math.isnan(result.rmse) else ""
    rows.append(["total", number(result.phi), "", number(result.rmse, 4), common, f"{len(result.problem.fitted)}"])
    table = _table(["group", "φ", "share", "rmse", "units", "fitted rows"], rows, numeric={1, 2, 3, 5})
    return (
        table
        + "<p class=soft>φ = Σ (weight × residual)², weight = 1/σ. The rmse counts all rows of a group, unweighted.</p>"
    )


def _picture(picture: Picture) -> str:
    alt = escape(picture.title, quote=True)
    images = ""
    for figure in picture.figures:
        data = base64.b64encode(_rendered(figure, "svg")).decode()
        images += f'<img alt="{alt}" src="data:image/svg+xml;base64,{data}">'
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    kind = "row" if len(picture.figures) > 1 else "wide" if picture.figures[0].get_figwidth() >= 7 else "narrow"
    return f"<figure><div class={kind}>{images}</div>{caption}</figure>"


def _identifiability(result: CalibrationResult) -> str:
    found = result.identifiability
    if found is None:
        return ""
    sentences = "".join(f"<li>{escape(s)}</li>" for s in list(found.sentences.values())[:ROWS])
    sentences = (
        f"<ul>{sentences}</ul>"
        if sentences
        else "<p>Every free parameter has an interval narrower than its own scale.</p>"
    )
    labels = result.problem.parameters.entry_labels
    rows = []
    for value, direction in list(zip(found.singular_values, found.directions))[:ROWS]:
        largest = sorted(range(len(labels)), key=lambda i: -abs(direction[i]))[:4]
        rows.append(
            [
                number(value, 3),
                ", ".join(f"{direction[i]:+.2f} {labels[i]}" for i in largest if abs(direction[i]) > 0.1),
            ]
        )
    table = _table(
        ["singular value", "direction (transformed parameters, columns scaled to length one)"], rows, numeric={0}
    )
    note = (
        f"<p class=soft>Condition of the scaled Jacobian: {number(found.condition, 3)}. "
        "Small singular values are directions that the data hardly see.</p>"
    )
    return sentences + table + note


def _certificate(result: CalibrationResult) -> str:
    counts, error = result.counts, result.jacobian_error
    checked = "not checked" if math.isnan(error) else f"{number(error, 2)} relative, along one direction"
    steps = f"{len(result.iterations) - 1} iterations, {result.evaluations} evaluations, {result.seconds:.1f} s"
    work = f"{counts.factorisations} factorisations, {counts.back_substitutions} back-substitutions"
    entries = [
        ("Derivatives", "exact (algorithmic differentiation and the implicit function theorem)"),
        ("Jacobian against finite differences", checked),
        ("Certificate at the end", "not asked for" if result.certificate is None else str(result.certificate)),
        ("Outer loop", f"{result.method}, {steps}"),
        ("Inner solves", f"{result.inner_solves}, with {result.inner_iterations} iterations, {work}"),
    ]
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in entries) + "</dl>"


def _reproduce(study: Study) -> str:
    packages = ", ".join(f"{name} {_version(name)}" for name in ("bilevel", "torch", "numpy", "scipy"))
    text = study.path.read_text(encoding="utf-8")
    return (
        f"<pre>bilevel run {escape(study.path.name)}</pre>"
        f"<p class=soft>Python {escape(platform.python_version())}, {escape(packages)}, {escape(platform.machine())}. "
        f"Fingerprint of study and data: <code>{study.fingerprint[:16]}</code>.</p>"
        f"<details><summary>{escape(study.path.name)}</summary><pre>{escape(text)}</pre></details>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Set[int], bold: Set[int] = frozenset()) -> str:
    def cell(tag: str, k: int, text: str) -> str:
        kinds = " ".join((["n"] if k in numeric else []) + (["big"] if k in bold and tag == "td" else []))
        return f'<{tag} class="{kinds}">{escape(text)}</{tag}>' if kinds else f"<{tag}>{escape(text)}</{tag}>"

    lines = ["".join(cell("th", k, text) for k, text in enumerate(head))]
    lines += ["".join(cell("td", k, text) for k, text in enumerate(row)) for row in rows]
    return "<div class=scroll><table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table></div>"


def _rendered(figure: Figure, kind: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
    return buffer.getvalue()


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"
