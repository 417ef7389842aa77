"""The text of an EPANET input file: sections of lines of words, each line with its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bilevel.report import InputError

HYDRAULIC = (
    "JUNCTIONS", "RESERVOIRS", "TANKS", "PIPES", "PUMPS", "VALVES", "DEMANDS", "STATUS", "PATTERNS", "CURVES", "CONTROLS",
    "RULES", "EMITTERS", "LEAKAGE", "TIMES", "OPTIONS", "COORDINATES",
)  # fmt: skip
WITHOUT_INFLUENCE = (
    "TITLE", "TAGS", "ENERGY", "QUALITY", "SOURCES", "REACTIONS", "MIXING", "REPORT", "VERTICES", "LABELS", "BACKDROP", "END",
)  # fmt: skip
"""Sections of water quality, costs and drawings: no head or flow depends on them."""


@dataclass(frozen=True)
class Line:
    """The words of a line, and where it stands."""

    file: Path
    number: int
    words: tuple[str, ...]

    def error(self, message: str) -> InputError:
        return InputError(f"{self.file}, line {self.number}: {message}")

    def word(self, place: int, what: str) -> str:
        """The word at a place; InputError, saying what is missing, if the line is too short."""
        if place >= len(self.words):
            raise self.error(f"{what} is missing")
        return self.words[place]

    def number_at(self, place: int, what: str, default: float | None = None) -> float:
        """The number at a place, or the default where the line ends before it."""
        if place >= len(self.words) and default is not None:
            return default
        return self.number_of(self.word(place, what), what)

    def number_of(self, word: str, what: str) -> float:
        try:
            value = float(word)
        except ValueError:
            value = float("nan")
        if not abs(value) < float("inf"):
            raise self.error(f"expected a number for {what}, got '{word}'")
        return value


@dataclass(frozen=True)
class Sections:
    """The lines of each section by its name."""

    file: Path
    lines: dict[str, list[Line]]

    def __getitem__(self, name: str) -> Sequence[Line]:
        return self.lines.get(name, [])


def read_sections(file: Path) -> Sections:
    """The sections of a file; InputError for a file that cannot be read, and for sections that EPANET 2.2 does not have."""
    try:
        text = file.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from None
    lines: dict[str, list[Line]] = {}
    section: str | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        words = raw.split(";", 1)[0].split()
        if not words:
            continue
        line = Line(file, number, tuple(words))
        if words[0].startswith("["):
            section = _section(line)
        elif section is None:
            raise line.error("expected a section such as [JUNCTIONS]; is this an EPANET input file?")
        else:
            lines.setdefault(section, []).append(line)
    return Sections(file, lines)


def _section(line: Line) -> str:
    """The section that a heading means; four letters are enough for EPANET."""
    given = line.words[0].strip("[]").upper()
    found = [name for name in (*HYDRAULIC, *WITHOUT_INFLUENCE) if given and name.startswith(given[:4])]
    if not found:
        raise line.error(f"section [{given}] is not known, and what it says would be ignored")
    return found[0]
