"""One measured number: what it is, what it should be, whether it holds, and what it cost."""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass
class Record:
    """One row of a benchmark.

    holds: whether the value meets its target; None where nothing was promised (a printed number, an absent peer).
    seconds, peak_mb (of the whole process) and versions are filled in by the runner where the benchmark leaves them.
    """

    row: str
    value: float | None
    unit: str = ""
    target: str = ""
    holds: bool | None = None
    seconds: float | None = None
    peak_mb: float | None = None
    versions: dict[str, str] | None = None


def at_most(row: str, value: float, limit: float, unit: str = "", seconds: float | None = None) -> Record:
    """A value that must not exceed `limit`; NaN never holds."""
    return Record(row, value, unit, f"<= {limit:g}", bool(value <= limit), seconds)


def at_least(row: str, value: float, limit: float, unit: str = "", seconds: float | None = None) -> Record:
    """A value that must reach `limit`; NaN never holds."""
    return Record(row, value, unit, f">= {limit:g}", bool(value >= limit), seconds)


def near(row: str, value: float, target: float, tolerance: float, unit: str = "") -> Record:
    """A value that must lie within `tolerance` of `target`."""
    return Record(row, value, unit, f"{target:g} +- {tolerance:g}", bool(abs(value - target) <= tolerance))


def between(row: str, value: float, low: float, high: float, unit: str = "") -> Record:
    """A value that must lie in [low, high]."""
    return Record(row, value, unit, f"[{low:g}, {high:g}]", bool(low <= value <= high))


def stated(row: str, value: float | None, unit: str = "", target: str = "", seconds: float | None = None) -> Record:
    """A number that is printed without a promise; None for a peer that is not installed (say so in `target`)."""
    return Record(row, value, unit, target, None, seconds)


def median(values: Sequence[float]) -> float:
    """The median; NaN if any value is NaN."""
    ordered = sorted(values)
    if any(math.isnan(v) for v in ordered):
        return math.nan
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else 0.5 * (ordered[middle - 1] + ordered[middle])


def peak_megabytes() -> float:
    """The peak resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: getrusage also counts what the parent held when it started this process
        return next(float(line.split()[1]) for line in status.read_text().splitlines() if line[:6] == "VmHWM:") / 2**10
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def versions(packages: Iterable[str] = ("bilevel", "torch", "numpy", "scipy")) -> dict[str, str]:
    """Installed versions of `packages` (absent ones are left out) and of Python."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def table(records: Sequence[Record]) -> str:
    """The records as a plain-text table."""
    rows = [("row", "value", "unit", "target", "holds", "seconds")]
    for r in records:
        value = "absent" if r.value is None else f"{r.value:.6g}"
        holds = {True: "yes", False: "NO", None: ""}[r.holds]
        rows.append((r.row, value, r.unit, r.target, holds, "" if r.seconds is None else f"{r.seconds:.1f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def write_json(records: Sequence[Record], file: Path) -> None:
    """Write the records as a JSON list; NaN and infinite values become null."""
    rows = [asdict(record) for record in records]
    for row in rows:
        if row["value"] is not None and not math.isfinite(row["value"]):
            row["value"] = None
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
