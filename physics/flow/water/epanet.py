"""Networks from EPANET's input files (Rossman et al. 2020, EPANET 2.2 user manual, appendix C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bilevel.report import InputError
from physics.flow.water.file_units import (
    FLOW_UNITS,
    HORSEPOWER,
    KILOWATT,
    PSI,
    US_UNITS,
    WATER_VISCOSITY,
    FileUnits,
    seconds,
)
from physics.flow.water.friction import FOOT, ChezyManning, DarcyWeisbach, Friction, HazenWilliams
from physics.flow.water.network import (
    Demand,
    FixedHead,
    Junction,
    LinkStatus,
    Pipe,
    Pump,
    Valve,
    ValveKind,
    WaterNetwork,
)
from physics.flow.water.pump_curves import Piece, power_pump, pump_curve
from physics.flow.water.sections import Line, Sections, read_sections


def read_epanet(file: Path | str) -> WaterNetwork:
    """The network of a file, in SI units; InputError, with the line, for what is wrong with it or not supported.

    Not supported: emitters, leakage, pressure-driven demands, general-purpose valves. Controls and rules are kept as texts:
    whoever solves for a state says how their links stand.
    """
    return _Reader(read_sections(Path(file))).network()


class _Reader:
    def __init__(self, sections: Sections) -> None:
        self.sections = sections
        self.options = _keyed(sections["OPTIONS"])
        self.times = _keyed(sections["TIMES"])
        self.friction = self._friction()
        self.units = self._units()
        self.curves = _points(sections["CURVES"])
        self.patterns = {
            name: [line.number_of(word, "a multiplier") for line in lines for word in line.words[1:]]
            for name, lines in _named(sections["PATTERNS"]).items()
        }
        default = self._option("PATTERN", "1").words[-1]
        self.pattern = default if default in self.patterns else None

    def network(self) -> WaterNetwork:
        self._refuse()
        sections, statuses = self.sections, _named(self.sections["STATUS"])
        return WaterNetwork(
            junctions=self._junctions(),
            fixed_heads=[*map(self._reservoir, sections["RESERVOIRS"]), *map(self._tank, sections["TANKS"])],
            pipes=[self._pipe(line, statuses) for line in sections["PIPES"]],
            pumps=[self._pump(line, statuses) for line in sections["PUMPS"]],
            valves=[self._valve(line, statuses) for line in sections["VALVES"]],
            friction=self.friction,
            patterns=self.patterns,
            pattern_step=self._time("PATTERN TIMESTEP", 3600.0),
            pattern_start=self._time("PATTERN START", 0.0),
            specific_gravity=self._number("SPECIFIC GRAVITY", 1.0),
            controls=self._controls(),
            positions={
                line.word(0, "a node"): (line.number_at(1, "x"), line.number_at(2, "y"))
                for line in sections["COORDINATES"]
            },
        )

    def _refuse(self) -> None:
        for section in ("EMITTERS", "LEAKAGE"):
            for line in self.sections[section][:1]:
                raise line.error(f"[{section}] is not supported: outflow that depends on the pressure; remove it")
        model = self._option("DEMAND MODEL", "DDA")
        if model.words[-1].upper() != "DDA":
            raise model.error("demands that depend on the pressure (DEMAND MODEL PDA) are not supported")

    def _option(self, name: str, default: str) -> Line:
        return self.options.get(name, Line(self.sections.file, 0, (*name.split(), default)))

    def _number(self, name: str, default: float) -> float:
        line = self._option(name, str(default))
        return line.number_of(line.words[-1], name.lower())

    def _time(self, name: str, default: float) -> float:
        line = self.times.get(name)
        return default if line is None else seconds(line, line.words[len(name.split()) :])

    def _friction(self) -> Friction:
        line = self._option("HEADLOSS", "H-W")
        viscosity = self._number("VISCOSITY", 1.0)
        if viscosity > 1e-3:  # EPANET takes it relative to water's, unless it is as small as a viscosity
            viscosity *= WATER_VISCOSITY
        elif self._flow_unit() in US_UNITS:
            viscosity *= FOOT**2
        formulas = {"H-W": HazenWilliams(), "D-W": DarcyWeisbach(viscosity), "C-M": ChezyManning()}
        name = line.words[-1].upper()
        if name not in formulas:
            raise line.error(f"expected the head-loss formula H-W, D-W or C-M, got '{name}'")
        return formulas[name]

    def _flow_unit(self) -> str:
        line = self._option("UNITS", "GPM")
        name = line.words[-1].upper()
        if name not in FLOW_UNITS:
            raise line.error(f"expected flow units, one of {', '.join(FLOW_UNITS)}, got '{name}'")
        return name

    def _units(self) -> FileUnits:
        flow = self._flow_unit()
        us = flow in US_UNITS
        length = FOOT if us else 1.0
        wall = (1e-3 * length) if isinstance(self.friction, DarcyWeisbach) else 1.0
        pressure = self._option("PRESSURE", "PSI" if us else "METERS").words[-1].upper()
        heads = {"PSI": 1.0 / PSI, "KPA": 1.0 / PSI / 6.895, "METERS": 1.0, "M": 1.0, "FEET": FOOT}
        if pressure not in heads:
            raise self._option("PRESSURE", "").error(f"expected the pressure in PSI, KPA or METERS, got '{pressure}'")
        # In US units EPANET takes settings in psi, whatever the report is in.
        head = (heads["PSI"] if us else heads[pressure]) / self._number("SPECIFIC GRAVITY", 1.0)
        diameter, power = (0.0254, HORSEPOWER) if us else (1e-3, KILOWATT)
        return FileUnits(FLOW_UNITS[flow], length, diameter, wall, head, power, WATER_VISCOSITY)

    def _junctions(self) -> list[Junction]:
        factor = self.units.flow * self._number("DEMAND MULTIPLIER", 1.0)
        more = _named(self.sections["DEMANDS"])
        made = []
        for line in self.sections["JUNCTIONS"]:
            name = line.word(0, "the junction's name")
            # A demand at the junction is what [DEMANDS] replaces.
            rows = [(row, 1) for row in more.pop(name, [])] or [(line, 2)]
            demands = [
                Demand(factor * row.number_at(k, "a demand", 0.0), self._pattern(row, k + 1) or self.pattern)
                for row, k in rows
            ]
            made.append(Junction(name, line.number_at(1, "the elevation", 0.0) * self.units.length, tuple(demands)))
        for name, unknown in more.items():
            raise unknown[0].error(f"there is no junction '{name}'")
        return made

    def _pattern(self, line: Line, place: int) -> str | None:
        name = line.words[place] if place < len(line.words) else None
        if name is not None and name not in self.patterns:
            raise line.error(f"there is no pattern '{name}'")
        return name

    def _reservoir(self, line: Line) -> FixedHead:
        head = line.number_at(1, "the head") * self.units.length
        return FixedHead(line.word(0, "the reservoir's name"), head, pattern=self._pattern(line, 2))

    def _tank(self, line: Line) -> FixedHead:
        bottom, level = line.number_at(1, "the elevation"), line.number_at(2, "the level", 0.0)
        length = self.units.length
        return FixedHead(line.word(0, "the tank's name"), bottom * length, level * length, tank=True)

    def _pipe(self, line: Line, statuses: Mapping[str, Sequence[Line]]) -> Pipe:
        name, units = line.word(0, "the pipe's name"), self.units
        rest = list(line.words[6:8])
        word = rest.pop().upper() if rest and rest[-1].upper() in ("OPEN", "CLOSED", "CV") else "OPEN"
        numbers = [line.number_at(k, what) for k, what in ((3, "length"), (4, "diameter"), (5, "roughness"))]
        if min(numbers) <= 0.0:
            raise line.error("length, diameter and roughness of a pipe must be positive")
        length, diameter, roughness = (a * b for a, b in zip(numbers, (units.length, units.diameter, units.roughness)))
        minor = line.number_of(rest[0], "the minor loss") if rest else 0.0
        status = _status(name, statuses, LinkStatus.CLOSED if word == "CLOSED" else LinkStatus.OPEN)
        return Pipe(name, _ends(line), length, diameter, roughness, minor, word == "CV", status)

    def _pump(self, line: Line, statuses: Mapping[str, Sequence[Line]]) -> Pump:
        name, words = line.word(0, "the pump's name"), line.words[3:]
        if len(words) % 2 or not words:
            raise line.error("expected pairs such as HEAD curve, POWER number, SPEED number, PATTERN name")
        keys = {key.upper(): value for key, value in zip(words[::2], words[1::2])}
        if unknown := set(keys) - {"HEAD", "POWER", "SPEED", "PATTERN"}:
            raise line.error(f"'{unknown.pop()}' is no property of a pump")
        pieces, design = self._lift(line, keys)
        speed = line.number_of(keys.get("SPEED", "1"), "the speed")
        status = LinkStatus.OPEN
        for row in statuses.get(name, ()):
            word = row.word(1, "a status").upper()
            if word in ("OPEN", "CLOSED"):
                status = LinkStatus[word]
            else:
                speed, status = row.number_of(word, "a speed"), LinkStatus.OPEN
        if speed <= 0.0:
            speed, status = 1.0, LinkStatus.CLOSED
        if (pattern := keys.get("PATTERN")) is not None and pattern not in self.patterns:
            raise line.error(f"there is no pattern '{pattern}'")
        return Pump(name, _ends(line), pieces, design, speed, pattern, status)

    def _lift(self, line: Line, keys: Mapping[str, str]) -> tuple[tuple[Piece, ...], float]:
        if "POWER" in keys:
            return power_pump(line.number_of(keys["POWER"], "the power") * self.units.power)
        if "HEAD" not in keys:
            raise line.error("a pump needs HEAD and a curve, or POWER")
        points = self.curves.get(keys["HEAD"])
        if points is None:
            raise line.error(f"there is no curve '{keys['HEAD']}'")
        try:
            return pump_curve([(q * self.units.flow, h * self.units.length) for q, h in points])
        except InputError as error:
            raise line.error(f"curve '{keys['HEAD']}': {error}") from None

    def _valve(self, line: Line, statuses: Mapping[str, Sequence[Line]]) -> Valve:
        name, kind = line.word(0, "the valve's name"), line.word(4, "the valve's type").upper()
        if kind not in ValveKind.__members__:
            raise line.error(f"valves of type {kind} are not supported; only {', '.join(ValveKind.__members__)} are")
        diameter, setting = (
            line.number_at(3, "the diameter") * self.units.diameter,
            line.number_at(5, "the setting", 0.0),
        )
        if diameter <= 0.0:
            raise line.error("the diameter of a valve must be positive")
        status = LinkStatus.ACTIVE
        for row in statuses.get(name, ()):
            word = row.word(1, "a status").upper()
            if word in ("OPEN", "CLOSED", "ACTIVE"):
                status = LinkStatus[word]
            else:
                setting, status = row.number_of(word, "a setting"), LinkStatus.ACTIVE
        unit = {"FCV": self.units.flow, "TCV": 1.0}.get(kind, self.units.pressure)
        minor = line.number_at(6, "the minor loss", 0.0)
        return Valve(name, _ends(line), ValveKind[kind], diameter, setting * unit, minor, status)

    def _controls(self) -> dict[str, str]:
        """Each controlled link, and the line that controls it."""
        found: dict[str, str] = {}
        for line in (*self.sections["CONTROLS"], *self.sections["RULES"]):
            words = [word.upper() for word in line.words]
            for k, word in enumerate(words[:-1]):
                if word in ("LINK", "PIPE", "PUMP", "VALVE"):
                    found.setdefault(line.words[k + 1], f"{line.file}, line {line.number}: {' '.join(line.words)}")
        return found


def _keyed(lines: Sequence[Line]) -> dict[str, Line]:
    """Lines by their words but the last, or but the last two where a clock time takes two."""
    return {" ".join(_key(line)).upper(): line for line in lines}


def _key(line: Line) -> tuple[str, ...]:
    words = line.words
    return (
        words[:2]
        if words[0].upper() in ("PATTERN", "HYDRAULIC", "SPECIFIC", "DEMAND") and len(words) > 2
        else words[:1]
    )


def _named(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Lines by their first word."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.words[0], []).append(line)
    return found


def _points(lines: Sequence[Line]) -> dict[str, list[tuple[float, float]]]:
    return {
        name: [(line.number_at(1, "x"), line.number_at(2, "y")) for line in rows]
        for name, rows in _named(lines).items()
    }


def _ends(line: Line) -> tuple[str, str]:
    return line.word(1, "the first node"), line.word(2, "the second node")


def _status(name: str, statuses: Mapping[str, Sequence[Line]], own: LinkStatus) -> LinkStatus:
    for row in statuses.get(name, ()):
        word = row.word(1, "a status").upper()
        if word not in ("OPEN", "CLOSED"):
            raise row.error(f"a pipe can be OPEN or CLOSED, not '{word}'")
        own = LinkStatus[word]
    return own
